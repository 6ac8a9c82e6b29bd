"""Stages as processes: what they say when they fail, and that an edit while they run is not recorded as theirs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from minima_core.errors import ConfigError
from minima_core.parallel import Cluster
from tasks.process import LAUNCHER, is_dead, process_name, process_start
from tasks.stage import INPUT, OUTPUT, Args, Input, Output, execution, parse

ROOT = Path(__file__).resolve().parents[2]
STAGE = '''
"""A stage that does what its --what says."""
import errno, time
from pathlib import Path
from minima_core.config import read_value
from minima_core.errors import DataError
from tasks.reports import IndexReport
from tasks.stage import Args, Output, remove_when_done, run

class ToyArgs(Args):
    what: str
    out: Output

def edit(name):
    path = Path(name)
    path.write_text(path.read_text() + "# edited\\n")

def main(args: ToyArgs) -> IndexReport:
    """Make a file."""
    read_value("seed")
    args.out.write_text("made")
    Path("scratch").mkdir(exist_ok=True)
    remove_when_done(Path("scratch"))
    if args.what.startswith("edit "):
        edit(args.what.removeprefix("edit "))
    elif args.what.startswith("late "):
        edit("tasks/late.py")
        from tasks import late
    elif args.what == "reseed":
        Path("params.yaml").write_text("seed: 1\\n")
    elif args.what == "set another":
        Path("params.yaml").write_text("seed: 0\\npromotion: {min_gain: 1}\\n")
    elif args.what == "refuse":
        raise DataError("images/a.jpg is cut off;\\n fetch it again")
    elif args.what == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "out/a")
    elif args.what == "gone":
        Path("data/index").stat()
    elif args.what == "bug":
        raise ValueError("ours")
    elif args.what == "hang":
        Path("hanging").touch()
        time.sleep(600)
    return IndexReport(dataset="toy", scenes={}, images=0, pairs=0, digest="")

if __name__ == "__main__":
    run(main)
'''


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkout") / "with a space"
    for package in ("tasks", "minima_core"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tasks" / "toy.py").write_text(STAGE)
    (root / "tasks" / "late.py").write_text("")
    (root / "params.yaml").write_text("seed: 0\n")
    time.sleep(0.02)  # files written within the clock's tick of a start count as edited
    return root


@pytest.fixture
def checkout(template, tmp_path, monkeypatch):
    root = tmp_path / "a checkout"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    time.sleep(0.02)
    return root


def toy(what):
    command = [sys.executable, "-m", "tasks.toy", "--what", what, "--out", "made", "--report", "report.json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_stage_reports_what_it_did(checkout):
    done = toy("work")
    assert done.returncode == 0, done.stderr
    assert json.loads((checkout / "report.json").read_text())["dataset"] == "toy"
    assert not (checkout / "scratch").exists()


def test_work_outlives_a_report_that_cannot_be_written(checkout):
    (checkout / "report.json").mkdir()
    assert toy("work").returncode == 1
    assert (checkout / "scratch").exists()


@pytest.mark.parametrize("what", ["edit tasks/toy.py", "edit minima_core/config.py", "late import"])
def test_an_edit_of_what_the_run_used_discards_it(checkout, what):
    done = toy(what)
    assert done.returncode == 1
    name = "late.py" if what.startswith("late") else what.split("/")[-1].split()[-1]
    assert done.stderr.strip().startswith("error: ") and f"{name} was edited while this stage ran" in done.stderr
    assert not (checkout / "report.json").exists()
    assert (checkout / "scratch").exists()  # its work is not lost


def test_code_from_the_future_can_be_run(checkout):
    """A checkout that a clock ahead of ours wrote; "run it again" would not help until ours is there."""
    tomorrow = time.time() + 86400
    os.utime("tasks/toy.py", (tomorrow, tomorrow))
    done = toy("work")
    assert done.returncode == 0, done.stderr
    done = toy("edit tasks/toy.py")
    assert done.returncode == 1 and "toy.py was edited while this stage ran" in done.stderr


def test_an_edit_of_a_value_that_the_run_read_discards_it(checkout):
    done = toy("reseed")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: seed in params.yaml was edited while this stage ran")
    assert not (checkout / "report.json").exists() and (checkout / "scratch").exists()


@pytest.mark.parametrize("what", ["edit minima_core/cli.py", "edit tasks/late.py", "edit params.yaml", "set another"])
def test_an_edit_of_other_code_or_values_is_no_matter(checkout, what):
    done = toy(what)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("refuse", "error: images/a.jpg is cut off; fetch it again"),
        ("full", "error: cannot write out/a: No space left on device; free some space or choose another folder"),
        ("gone", "error: cannot use data/index: No such file or directory; see that it is there, and run again"),
    ],
)
def test_a_users_mistake_is_one_line(checkout, what, line):
    done = toy(what)
    assert (done.returncode, done.stderr.strip()) == (1, line)


def test_our_mistake_is_a_traceback(checkout):
    assert "Traceback" in toy("bug").stderr


def test_two_processes_do_not_make_one_output_at_a_time(checkout):
    command = [sys.executable, "-m", "tasks.toy", "--out", "made", "--what"]
    first = subprocess.Popen([*command, "hang", "--report", "first.json"])
    while not (checkout / "hanging").exists():
        assert first.poll() is None
        time.sleep(0.05)
    second = subprocess.Popen([*command, "work", "--report", "second.json"], stderr=subprocess.PIPE, text=True)
    assert f"another process makes {checkout}/made; waiting for it" in second.stderr.readline()
    time.sleep(0.5)
    assert second.poll() is None and not (checkout / "second.json").exists()
    first.kill()
    assert (first.wait(), second.wait(60)) == (-signal.SIGKILL, 0)
    second.stderr.close()


def test_a_stage_dies_with_the_process_that_started_it(checkout):
    code = (
        "import subprocess, sys;"
        "subprocess.run([sys.executable, '-m', 'tasks.toy', '--what', 'hang', '--out', 'o', '--report', 'r'])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    while not (checkout / "hanging").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 10
    while any(_here(process, checkout) for process in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < end
        time.sleep(0.05)


def _here(process, folder):
    try:
        return (process / "cwd").readlink() == folder and int(process.name) != os.getpid()
    except OSError:
        return False


class ExampleArgs(Args):
    model: Literal["pretrained", "finetuned"]
    long_side: int = 640
    raw: Input
    out: Output


def test_flags_are_the_fields():
    line = ["--model", "finetuned", "--raw", "a", "--out", "b", "--report", "c", "--long-side", "3"]
    args = ExampleArgs.parse(line)
    assert (args.model, args.long_side, args.raw) == ("finetuned", 3, Path("a"))
    assert ExampleArgs.paths(INPUT) == ["raw"] and set(ExampleArgs.paths(OUTPUT)) == {"out", "report"}
    with pytest.raises(ConfigError, match=r"--model: .*'pretrained' or 'finetuned'.*got 'other'"):
        parse(ExampleArgs, ["--model", "other", *line[2:]], "")


def test_execution_comes_from_the_file_and_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "execution.yaml"
    path.write_text("workers: 3\ndevice: cpu\n")
    monkeypatch.delenv("MINIMA_WORKERS", raising=False)
    assert execution(path).processes == 3
    monkeypatch.setenv("MINIMA_WORKERS", "5")
    assert execution(path).processes == 5 and execution(path).torch_device == "cpu"


def test_synthesis_runs_on_ray_where_the_file_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("MINIMA_WORKERS", raising=False)
    path = tmp_path / "execution.yaml"
    path.write_text("workers: 3\nexecutor: ray\nray_address: head:6379\n")
    assert execution(path).cluster == Cluster("head:6379", 3)
    assert execution(tmp_path / "absent.yaml").cluster is None


@pytest.mark.parametrize("value", ["abc", "0", "-1", "", "1.5", "99999"])
def test_a_number_of_workers_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, value):
    monkeypatch.setenv("MINIMA_WORKERS", value)
    with pytest.raises(ConfigError, match=r"MINIMA_WORKERS.*give a number from 1 to 4096, or auto") as error:
        execution(tmp_path / "absent.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers: [1", "is not valid YAML"),
        ("- 1", "holds no mapping"),
        ("workers: " + "[" * 9999, "brackets lie within brackets too many times"),
        ("workers: 0", "workers: .*give a number from 1 to 4096, or auto"),
        ("wokers: 3", "did you mean 'workers'"),
        ("device: gpu", "device"),
        ("executor: dask", "executor"),
    ],
)
def test_a_malformed_execution_yaml_is_one_line(tmp_path, monkeypatch, text, words):
    monkeypatch.delenv("MINIMA_WORKERS", raising=False)
    path = tmp_path / "execution.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"execution\.yaml.*{words}") as error:
        execution(path)
    assert "\n" not in str(error.value)


def test_a_process_that_ended_is_dead_and_its_number_may_come_again():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(child.pid)
    host, pid, tick = name.rsplit(":", 2)
    assert not is_dead(name) and not is_dead(process_name())
    assert is_dead(f"{host}:{pid}:{int(tick) + 1}")  # another process of this number
    assert not is_dead(f"elsewhere:{pid}:1") and not is_dead("")  # nobody here can know
    child.communicate(b"\n")
    assert is_dead(name)


def test_a_process_knows_when_it_began():
    code = "import time; t = time.time(); from tasks.process import process_start; print(t - process_start())"
    gap = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert -0.05 < float(gap) < 5
    assert process_start() < time.time()


def test_a_process_whose_launcher_died_before_it_could_ask_ends_at_once():
    launcher = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_name(launcher.pid)
    code = "from tasks.process import die_with_parent; die_with_parent(); print('alive')"

    def child():
        env = os.environ | {LAUNCHER: name}
        return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)

    assert child().stdout == "alive\n"
    launcher.kill()
    launcher.wait()
    assert (child().returncode, child().stdout) == (1, "")
