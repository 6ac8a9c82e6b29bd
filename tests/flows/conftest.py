"""A repository with a small graph whose stages take a moment, fail or hang on demand."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRAPH = """\
stages:
  index:
    cmd: exec python toy.py index --out out/index --report out/index.json
    deps: [toy.py]
    params: [seed]
    outs: [out/index]
    metrics: [{out/index.json: {cache: false}}]
  make:
    matrix: {kind: [left, right]}
    cmd: exec python toy.py ${item.kind} --dep out/index --out out/${item.kind} --report out/${item.kind}.json
    deps: [out/index, toy.py]
    params: ["${item.kind}"]
    outs: ["out/${item.kind}"]
    metrics: [{"out/${item.kind}.json": {cache: false}}]
    meta: {tags: [gpu], timeout: 60}
  join:
    cmd: exec python toy.py join --dep out/left --dep out/right --out out/join --report out/join.json
    deps: [out/left, out/right, toy.py]
    outs: [out/join]
    metrics: [{out/join.json: {cache: false}}]
"""
# `behave/<stage>` says what a stage does beside its work: a number of seconds to take, or "fail".
STAGE = """
import argparse, json, pathlib, sys, time
from tasks.process import die_with_parent
die_with_parent()
parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("--dep", action="append", default=[])
parser.add_argument("--out")
parser.add_argument("--report")
args = parser.parse_args()
behave = pathlib.Path("behave", args.name)
behaviour = behave.read_text() if behave.exists() else "0"
began = time.time()
pathlib.Path("log").open("a").write(f"{args.name} begins\\\\n")
if behaviour == "fail":
    sys.stderr.write("working\\\\nerror: no ground to stand on; find some\\\\n")
    sys.exit(1)
print("working", flush=True)
time.sleep(float(behaviour))
params = pathlib.Path("params.yaml").read_text()
pathlib.Path(args.out).write_text(args.name + params + "".join(pathlib.Path(d).read_text() for d in args.dep))
report = {"stage": "index", "dataset": args.name, "scenes": {}, "images": 0, "pairs": 0, "digest": ""}
pathlib.Path(args.report).write_text(json.dumps(report))
pathlib.Path("log").open("a").write(f"{args.name} ends\\\\n")
""".replace("\\\\n", "\\n")


@dataclass
class Toy:
    """The repository and what is asked of it."""

    root: Path

    def dvc(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=self.root, capture_output=True, text=True, check=False
        )

    def behave(self, stage: str, how: str) -> None:
        folder = self.root / "behave"
        folder.mkdir(exist_ok=True)
        (folder / stage).write_text(how)

    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def forget(self) -> None:
        (self.root / "log").unlink(missing_ok=True)

    def params(self, **values: int | str) -> None:
        (self.root / "params.yaml").write_text("".join(f"{k}: {v}\n" for k, v in values.items()))


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Toy:
    root = tmp_path / "a toy"
    (root / "out").mkdir(parents=True)
    (root / "dvc.yaml").write_text(GRAPH)
    (root / "toy.py").write_text(STAGE)
    (root / ".gitignore").write_text("/out/\n/log\n/behave/\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    toy = Toy(root)
    toy.params(seed=0, left=0, right=0)
    subprocess.run(["git", "init", "-q"], check=True)
    toy.dvc("init", "-q")
    toy.dvc("config", "core.analytics", "false")
    return toy
