"""``minima doctor``: what is installed, what is missing for which feature, and what the machine offers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from minima_core.licences import Licence

PATIENCE = 2.0  # seconds a host has to answer
# feature -> (module, distribution) pairs that it needs
FEATURES: dict[str, tuple[tuple[str, str], ...]] = {
    "matching": (("torch", "torch"), ("kornia", "kornia"), ("cv2", "opencv-python-headless")),
    "evaluation": (("poselib", "poselib"), ("scipy", "scipy"), ("h5py", "h5py")),
    "synthesis": (("cv2", "opencv-python-headless"),),
    "synthetic scenes": (("skimage", "scikit-image"), ("sklearn", "scikit-learn")),  # photographs that they ship
    "published engines": (("diffusers", "diffusers"), ("transformers", "transformers"), ("peft", "peft")),
    "synthesis on Ray": (("ray", "ray"),),
    "COLMAP models": (("pycolmap", "pycolmap"),),
    "models:/NAME@ALIAS": (("mlflow", "mlflow"),),
    "pipeline: graph": (("dvc", "dvc"),),
    "pipeline: flows": (("prefect", "prefect"),),
    "pipeline: validation": (("great_expectations", "great-expectations"), ("pandas", "pandas")),
}
EXTRA = "pip install 'minima-pipeline[pipeline]'"


def examine() -> None:
    """Print what there is; nothing that is missing is an error, because each feature needs something else."""
    console = Console()
    for table in (_machine(), _features(), _weights(), _names()):
        console.print(table)


def _table(title: str, *columns: str, note: str = "") -> Table:
    table = Table(title=title, title_justify="left", caption=note, caption_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _machine() -> Table:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (everything runs on the CPU)"
    table = _table("Machine", "what", "here")
    for row in (
        ("minima", _version("minima-pipeline") or "not installed (run from its folder)"),
        ("Python", platform.python_version()),
        ("cores", str(cores)),
        ("memory", f"{memory:.1f} GiB"),
        ("GPU", gpu),
    ):
        table.add_row(*row)
    return table


def _features() -> Table:
    table = _table("Features", "feature", "needs", "remedy")
    for feature, needs in FEATURES.items():
        missing = [package for module, package in needs if find_spec(module) is None]
        have = ", ".join(f"{package} {_version(package) or 'missing'}" for _, package in needs)
        remedy = "" if not missing else EXTRA if ":" in feature else f"pip install {' '.join(missing)}"
        table.add_row(feature, have, remedy)
    return table


def _version(package: str) -> str | None:
    """Return the installed version; opencv is known by several names."""
    names = ("opencv-python-headless", "opencv-python") if package.startswith("opencv") else (package,)
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _weights() -> Table:
    from minima_core.published import PUBLISHED, REPOSITORIES
    from minima_core.weights import cache_folder, reachable

    folders = [Path(given)] if (given := os.environ.get("MINIMA_WEIGHTS")) else []
    kept = [*folders, cache_folder()]
    absent = {name: entry for name, entry in PUBLISHED.items() if not any((f / name).is_file() for f in kept)}
    asked = {urlsplit(url).netloc for entry in absent.values() for url in entry.urls} | {"huggingface.co"}
    answering = reachable(tuple(sorted(asked)), PATIENCE)
    note = (
        "What is not here is fetched from where the last column says, when it is first used. Where nothing answers, "
        "put the file into a folder and name that folder in MINIMA_WEIGHTS."
    )
    table = _table(f"Published weights (cache: {cache_folder()})", "file", "licence", "where", note=note)
    licences = [*(file.licence for file in PUBLISHED.values()), *(model.licence for model in REPOSITORIES.values())]
    table.columns[1].min_width = max(len(licence.name) for licence in licences)  # a broken name cannot be searched for

    def row(name: str, licence: Licence, *, here: bool, sources: list[str]) -> None:
        where = sources[0] if sources else "no answer"
        terms = licence.name + ("" if licence.commercial else " (non-commercial)")
        table.add_row(name, terms, "here" if here else where)

    for name, entry in PUBLISHED.items():
        hosts = [host for url in entry.urls if (host := urlsplit(url).netloc) in answering]
        sources = hosts + (["package index"] if entry.wheel else [])
        row(name, entry.licence, here=name not in absent, sources=sources)
    for name, model in REPOSITORIES.items():
        cached = cache_folder() / "hub" / f"models--{model.repo.replace('/', '--')}"
        here = cached.is_dir() or any((folder / name).is_dir() for folder in folders)
        row(name, model.licence, here=here, sources=sorted(answering & {"huggingface.co"}))
    return table


def _names() -> Table:
    from minima_core.data.datasets.base import DATASETS
    from minima_core.evaluation.benchmarks.base import BENCHMARKS
    from minima_core.matchers.base import MATCHERS
    from minima_core.models import NETWORKS, PUBLISHED_MODELS, RELEASED, SEMIDENSE
    from minima_core.synthesis.base import MODALITIES

    table = _table("Names", "of", "names")
    files = NETWORKS | {"eloftr": "efficientloftr"}  # of the hub; the other is what a file of the user's is like
    published = (f"{name} ({files[name]})" if name in files else name for name in sorted(PUBLISHED_MODELS))
    engines = (f"{name} ({', '.join(MODALITIES.engines(name).names())})" for name in MODALITIES.names())
    for kind, names in (
        ("models that the package ships", [*RELEASED, *SEMIDENSE]),
        ("published models (weights)", published),
        ("modalities (engines)", engines),
        ("matcher plugins", MATCHERS.names()),
        ("benchmarks", BENCHMARKS.names()),
        ("data sets", DATASETS.names()),
    ):
        table.add_row(kind, ", ".join(names))
    return table
