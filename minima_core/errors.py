"""The errors that users meet; entry points print each as one line and leave with exit code 1.

MinimaError
├── ConfigError       a setting, a name or a command-line value that cannot be used
├── DataError         a file or a record that cannot be used; names it and the remedy
│   └── Unavailable   something that this input cannot give (depth of a photograph); recorded, not fatal
├── WeightsError      published weights that cannot be had or do not match their digest
└── TrainingError     a training run that must not go on
"""

from __future__ import annotations

import errno

_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG}
_GONE = {errno.ENOENT, errno.EIO, errno.ESTALE}


def redo(stage: str) -> str:
    """Return the command that runs one stage again, for the end of a message; without ``-s``, all before it run too."""
    return f"`dvc repro -f -s {stage}`"


def of_the_system(error: OSError) -> str:
    """Return the line that tells of a disk or a folder in a bad way; "" for an error that is ours."""
    if error.errno in _WRITING:
        return (
            f"cannot write {error.filename or 'an output'}: {error.strerror}; free some space or choose another folder"
        )
    if error.errno in _GONE and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; see that it is there, and run again"
    return ""


class MinimaError(Exception):
    """Base of everything that is the input's fault rather than ours; the message is one line with its remedy."""


class ConfigError(MinimaError):
    """A setting, a name or a command-line value that cannot be used."""


class DataError(MinimaError):
    """A file or a record that cannot be used; the message names it."""


class Unavailable(DataError):
    """What was asked for cannot be made from this input; the caller records the reason and goes on."""


class WeightsError(MinimaError):
    """Published weights that cannot be fetched or whose sha256 differs."""


class TrainingError(MinimaError):
    """A training run that must not go on (no certificate, too many non-finite steps)."""
