"""Where Prefect, DVC and MLflow keep their state, and that none of them calls home."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from tasks.tracking import OFFLINE

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state" / "prefect"
LOCAL_API = "http://127.0.0.1:4200/api"  # where `make server` listens
SERVER_MARK = STATE / "server-of-this-checkout"  # holds the address while `make server` runs

SETTINGS = OFFLINE | {
    "PREFECT_HOME": str(STATE),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its 20 are too few on two cores
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    # Waiting threads give their core back after microseconds. Measured on two cores, a training-like loop: alone 3.3 s
    # either way; two side by side 7 s each, instead of 27 s when both spin (libgomp's default) for each other's core.
    "GOMP_SPINCOUNT": "3000",
    "MINIMA_ROOT": str(ROOT),  # prefect.yaml's working directory
}


def prepare() -> None:
    """Set what the environment leaves open; a running `make server` becomes the API, else Prefect starts its own."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect itself makes only the last folder
    logging.getLogger("flows").setLevel(logging.INFO)  # Prefect takes over the handlers, not the level
    if "PREFECT_API_URL" not in os.environ and (api := running_server()):
        os.environ["PREFECT_API_URL"] = api


def running_server(given: str = "") -> str | None:
    """Return the address of a server that answers: ``given``, else the one that `make server` started here."""
    try:
        api = given or SERVER_MARK.read_text(encoding="utf-8").strip()
        with urllib.request.urlopen(f"{api}/health", timeout=2) as answer:
            return api if answer.status == 200 else None
    except urllib.error.HTTPError:  # of a server that asks who we are
        return given or None
    except (OSError, ValueError):
        return None
