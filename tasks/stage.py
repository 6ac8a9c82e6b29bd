"""What every stage has in common: typed arguments, one-line errors, a report, a guard against edits during the run."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import inspect
import logging
import os
import sys
import time
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from minima_core.config import PARAMS, Section, checked, edited_values, read_yaml
from minima_core.errors import ConfigError, MinimaError, of_the_system
from minima_core.io.atomic import remove_folder, write_text
from minima_core.memory import keep_freed
from minima_core.parallel import Cluster, torch_device
from tasks.process import die_with_parent, process_start

ROOT = Path(__file__).resolve().parent.parent
LOCKS = Path(".scratch/locks")
MOST_WORKERS = 4096  # processes of one machine; more is a slip of the hand that would fill its memory
logger = logging.getLogger(__name__)
TICK = 10_000_000  # nanoseconds; how well the start of a process is known
_unneeded: list[Path] = []  # scratch folders that may go when the stage is done


class _Role:
    """Marks what a path argument is, so that a test can compare it with dvc.yaml."""

    def __init__(self, name: str) -> None:
        self.name = name


INPUT, OUTPUT = _Role("input"), _Role("output")
Input = Annotated[Path, INPUT]
Output = Annotated[Path, OUTPUT]


class Args(BaseModel):
    """The command line of a stage: ``--out PATH`` for a field ``out``. Fields are Input, Output, str or int."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    report: Output

    @classmethod
    def paths(cls, role: _Role) -> list[str]:
        """Return the names of the fields with this role."""
        return [name for name, f in cls.model_fields.items() if role in f.metadata]

    @classmethod
    def parser(cls, doc: str) -> argparse.ArgumentParser:
        """Return the parser whose flags are this class's fields."""
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        for name, f in cls.model_fields.items():
            role = next((m.name for m in f.metadata if isinstance(m, _Role)), "")
            parser.add_argument(
                f"--{name.replace('_', '-')}", required=f.is_required(), default=argparse.SUPPRESS, help=role
            )
        return parser

    @classmethod
    def parse(cls, argv: list[str], doc: str = "") -> typing.Self:
        """Parse a command line (without the program's name)."""
        return cls.model_validate(vars(cls.parser(doc).parse_args(argv)))


A = TypeVar("A", bound=Args)


class Execution(Section):
    """What changes how fast a stage runs but not its result: execution.yaml, or MINIMA_WORKERS and MINIMA_DEVICE."""

    workers: int | Literal["auto"] = "auto"
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    executor: Literal["processes", "ray"] = "processes"
    ray_address: str = ""

    @field_validator("workers", mode="before")
    @classmethod
    def _usable(cls, value: Any) -> Any:
        if value == "auto" or (str(value).isdecimal() and 0 < int(value) <= MOST_WORKERS):
            return value
        raise ValueError(f"give a number from 1 to {MOST_WORKERS}, or auto")

    @property
    def processes(self) -> int:
        """How many worker processes a stage may start."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @property
    def cluster(self) -> Cluster | None:
        """The Ray cluster that shares the work of synthesis; None for processes of this machine."""
        return Cluster(self.ray_address, self.processes) if self.executor == "ray" else None

    @property
    def torch_device(self) -> str:
        """The device that networks run on."""
        return torch_device(self.device)


def execution(path: Path = ROOT / "execution.yaml") -> Execution:
    """Return how stages run on this machine.

    Raises:
        ConfigError: if the file is not YAML, has an unknown key, or a value there or in the environment cannot be used.
    """
    values = read_yaml(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} holds no mapping; give it lines such as `workers: auto`")
    checked(values, Execution, path.name)
    for key in Execution.model_fields:
        variable = f"MINIMA_{key.upper()}"
        if variable in os.environ:
            values[key] = os.environ[variable]
            checked({key: values[key]}, Execution, f"environment variable {variable}")
    return checked(values, Execution, path.name)


class Guard:
    """Refuses a run whose parameters or code changed while it ran: DVC would record the new ones with the old result.

    Only modules that the run has loaded and values that it has read count, so that other work may go on beside it.
    """

    def __init__(self) -> None:
        self.before = self._snapshot()
        start = process_start() * 1e9
        for path in self._used():
            written = self.before[path][1] if path in self.before else 0
            if start + TICK < written < time.time_ns():  # imported before or after the edit? nobody knows
                raise MinimaError(f"{path} was edited while this stage started; run it again")

    def check(self) -> None:
        """Raise MinimaError naming the file, if one that this run used was written since."""
        if names := edited_values():
            raise MinimaError(
                f"{names[0]} in {PARAMS} was edited while this stage ran; the result was discarded, run it again"
            )
        now = self._snapshot()
        for path in sorted(self._used()):
            if self.before.get(path) != now.get(path):
                raise MinimaError(f"{path} was edited while this stage ran; the result was discarded, run it again")

    @staticmethod
    def _snapshot() -> dict[Path, tuple[str, int]]:
        """Return digest and time of writing of all that a stage may use (an edit taken back shows in the time)."""
        files = [*(ROOT / "minima_core").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]
        return {
            path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in files
            if path.is_file()
        }

    @staticmethod
    def _used() -> set[Path]:
        modules = [m for m in list(sys.modules.values()) if isinstance(m, types.ModuleType)]
        files = [file for m in modules if (file := getattr(m, "__file__", None))]
        return {Path(file).resolve() for file in files}


@contextmanager
def alone(args: Args) -> Iterator[None]:
    """Wait until no other process makes one of the stage's outputs, and keep others from it.

    Two would fill the same folder of unfinished work, of which one takes away what the other counts on.
    """
    writes = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts only the first does
    outputs = [str(getattr(args, name).resolve()) for name in args.paths(OUTPUT) if writes]
    with ExitStack() as held:
        for path in sorted(outputs):
            LOCKS.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((LOCKS / hashlib.sha256(path.encode()).hexdigest()[:16]).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process makes %s; waiting for it", path)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_when_done(folder: Path) -> None:
    """Have ``run`` remove a folder of unfinished work after the report is written; whatever fails before, it stays."""
    _unneeded.append(folder)


def run(main: Callable[[A], BaseModel]) -> NoReturn:
    """Run a stage from the command line and write its report; a user's mistake is one line and exit 1.

    ``main`` takes one Args; its docstring is the ``--help``.
    """
    die_with_parent()
    keep_freed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    schema = next(iter(typing.get_type_hints(main).values()))
    try:
        guard = Guard()
        args = parse(schema, sys.argv[1:], inspect.getdoc(main) or "")
        with alone(args):
            report = main(args)
            guard.check()
            write_text(args.report, report.model_dump_json(indent=1) + "\n")
            for folder in _unneeded:
                remove_folder(folder)
    except MinimaError as error:
        fail(str(error))
    except OSError as error:
        if not (line := of_the_system(error)):
            raise
        fail(line)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(0)


def parse(schema: type[A], argv: list[str], doc: str) -> A:
    """Parse a stage's command line; raises ConfigError naming the flag whose value cannot be used."""
    try:
        return schema.parse(argv, doc)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{flag}: {first['msg']} (got {first['input']!r})") from None


def fail(message: str) -> NoReturn:
    """End the process with one line and exit code 1."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(1)
