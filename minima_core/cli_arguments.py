"""What commands share: their arguments are read and checked here, before any work is done, and their mistakes told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from minima_core.errors import ConfigError, DataError, MinimaError, of_the_system

PICTURE = (".png", ".jpg", ".jpeg")


def run_command(app: typer.Typer, argv: list[str], name: str) -> NoReturn:
    """Run a command line and end the process; a mistake is one line on stderr and exit code 1.

    Args:
        app: its commands.
        argv: the words after the program's name.
        name: of the program, for messages.
    """
    try:
        sys.exit(typer.main.get_command(app).main(args=argv, prog_name=name, standalone_mode=False))
    except MinimaError as error:
        _fail(str(error))
    except OSError as error:
        if not (line := of_the_system(error)):
            raise
        _fail(line)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        message = getattr(error, "format_message", None)  # typer's own errors; where they are defined varies with it
        if message is None:
            raise
        context = getattr(error, "ctx", None)  # of the command that was meant
        _fail(f"{message()} See `{context.command_path if context else name} --help`.")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(1)


def check_output(path: Path, option: str, suffixes: tuple[str, ...], taken: tuple[Path, ...]) -> None:
    """Refuse an output that could not be written in the end, before any work is done.

    Args:
        path: the file.
        option: by which it was given, for messages.
        suffixes: that its name may end in.
        taken: files that are read or written as something else.

    Raises:
        ConfigError: if it ends otherwise, is a folder or taken.
        DataError: as ``check_folder``.
    """
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{option} must end in {' or '.join(suffixes)}, not {path.name!r}")
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; give a file")
    if any(path.resolve() == other.resolve() for other in taken):
        raise ConfigError(f"{option} {path} is also read or written as something else; give another name")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to.

    Raises:
        DataError: naming it.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise DataError(
            f"cannot write into {folder}: {existing} is no folder with write permission; choose another one"
        )


def assignments(given: list[str]) -> dict[str, Any]:
    """Return name=value words of --set as a mapping; values are read as YAML.

    Raises:
        ConfigError: naming the word that is something else.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if bad := [word for word in given if "=" not in word]:
        raise ConfigError(f"--set {bad[0]} is not name=value; for example --set weights=published")
    try:
        return {
            name: OmegaConf.to_container(OmegaConf.create(f"value: {value}"))["value"]  # type: ignore[index, call-overload]
            for name, _, value in (word.partition("=") for word in given)
        }
    except (YAMLError, OmegaConfBaseException):
        raise ConfigError(f"--set {' '.join(given)} is not YAML; for example --set radii=[2,6]") from None


def device_of(name: str) -> str:
    """Return the torch device that --device names.

    Raises:
        ConfigError: if it is none of the three, or there is no GPU.
    """
    import torch

    from minima_core.parallel import torch_device

    if name not in {"auto", "cpu", "cuda"}:
        raise ConfigError(f"--device must be cpu, cuda or auto, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no CUDA device here; use cpu")
    return torch_device(name)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
