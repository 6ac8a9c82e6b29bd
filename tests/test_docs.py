"""Commands that the documentation shows exist, with these options, of these stages, at these paths; so do its links."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from skimage import data

from minima_core.cli import app
from minima_core.data.importers.base import IMPORTERS
from minima_core.io.images import write_image
from tasks.stage import Args

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
LINKED = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
STARTS = r"(?:minima |dvc repro|python -m tasks\.|python -m benchmarks\.|python scripts/|python benchmarks/)"


def commands(text: str) -> list[list[str]]:
    """Return the words of each command in indented blocks and between backticks."""
    text = re.sub(r"\\\n\s*", " ", text)  # continued on the next line
    inline = [part.replace("\n", " ") for part in re.findall(rf"`({STARTS}[^`]*)`", text)]
    blocks = re.findall(rf"^ {{4,}}({STARTS}.*)$", text, re.MULTILINE)
    return [shlex.split(line.split("  #")[0].replace("…", "")) for line in (*inline, *blocks)]


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}


def test_every_kind_of_command_is_found():
    found = [words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]
    starts = {" ".join(words[:2]) for words in found}
    assert {"minima match", "minima evaluate", "minima index", "dvc repro", "python -m"} <= starts
    assert len(found) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for words in commands(page.read_text(encoding="utf-8")):
        shown = " ".join(words)
        if words[0] == "minima":
            command, rest = typer.main.get_command(app), words[1:]
            while rest and hasattr(command, "commands") and rest[0] in command.commands:
                command, rest = command.commands[rest[0]], rest[1:]
            assert not hasattr(command, "commands") or not rest, shown
            known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
            assert options(rest) <= known, shown
        elif words[0] == "dvc":
            targets = [word.partition("@")[0] for word in words[2:] if word[0] != "-"]
            assert {t for t in targets if not t.isupper()} <= stages.keys(), shown
        elif words[1] == "-m" and words[2].startswith("tasks."):
            module = importlib.import_module(words[2])
            (arguments,) = (
                kind
                for kind in vars(module).values()
                if isinstance(kind, type) and issubclass(kind, Args) and kind.__module__ == words[2]
            )
            known = {f"--{name.replace('_', '-')}" for name in arguments.model_fields} | {"--help", "--report"}
            assert options(words) <= known, shown
        else:
            file = words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1]
            assert (ROOT / file).is_file(), shown


def anchors(page: Path) -> set[str]:
    """Return what GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_setting_of_an_imported_form_is_documented():
    page = (ROOT / "docs" / "bring-your-own-data.md").read_text(encoding="utf-8")
    table = page.partition("### Settings")[2].partition("\n## ")[0]
    rows = {form: row for row in re.findall(r"^\| `.*$", table, re.MULTILINE) for form in words_of(row.split("|")[1])}
    for form in IMPORTERS.names():
        fields = IMPORTERS.get(form).Params.model_fields
        known = words_of(rows[form.replace("_", "-")]) | {"licence", "validation_share"}
        if "the same" in rows[form.replace("_", "-")]:
            known |= words_of(rows["loftr"])
        assert fields.keys() <= known, form
        if form != "megadepth":
            default = fields["validation_share"].default
            assert f"| {default} |" in rows[form.replace("_", "-")], form


def words_of(text: str) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", text))


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name}" not in readme]


def test_the_python_of_the_readme_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photograph = data.chelsea()
    write_image(Path("street.jpg"), photograph[:-10, :-20])
    write_image(Path("thermal.png"), photograph[10:, 20:])
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    shown: dict[str, Any] = {}
    for block in blocks:
        if "mlflow" not in block:  # which needs a store
            exec(block, shown)
    assert np.abs(shown["H_0to1"] - [[1, 0, -20], [0, 1, -10], [0, 0, 1]]).max() < 1
    overlap = np.abs(shown["street"].astype(int) - shown["thermal"])[:-20, :-40]
    assert np.median(overlap) < 5
