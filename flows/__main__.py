"""``python -m flows COMMAND ...`` runs a command (``prefect worker start``) under the project's settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flows.environment import LOCAL_API, SERVER_MARK


def main() -> None:
    """Replace this process by the command that follows on the command line."""
    command = sys.argv[1:]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if command[:3] == ["prefect", "server", "start"]:  # so that workers and flows of this checkout find it
        SERVER_MARK.parent.mkdir(parents=True, exist_ok=True)
        SERVER_MARK.write_text(LOCAL_API, encoding="utf-8")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
