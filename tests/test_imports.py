"""Who may import whom: the contracts in pyproject.toml hold, and they would notice."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"prefect", "dvc", "mlflow", "great_expectations", "torch", "pandas", "matplotlib"}


def contracts(folder):
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--no-cache",
        "--config",
        str(ROOT / "pyproject.toml"),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_layers_hold():
    done = contracts(ROOT)
    assert done.returncode == 0, done.stdout


def test_an_orchestrator_in_the_core_is_noticed(tmp_path):
    for package in ("flows", "tasks", "minima_core"):
        (tmp_path / package).mkdir()
        for module in (ROOT / package).rglob("*.py"):
            target = tmp_path / module.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(module.read_bytes())
    (tmp_path / "minima_core" / "errors.py").write_text("import prefect\n")
    done = contracts(tmp_path)
    assert done.returncode == 1 and "minima_core.errors -> prefect" in done.stdout


def test_the_command_line_starts_without_anything_heavy():
    code = f"import sys, minima_core.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
