"""What is freed stays with the process, unless the user has said otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from minima_core.memory import environment

FAULTS = """
import resource, sys
import numpy as np
from minima_core.memory import keep_freed

if "keep" in sys.argv:
    keep_freed()
work = lambda: [np.ones(3 << 20, np.uint8) for _ in range(8)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")


def faults(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    command = [sys.executable, "-c", FAULTS, *arguments]
    return int(subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout)


@glibc
def test_work_of_the_same_size_needs_no_new_pages():
    assert faults("keep") < 0.05 * faults()


def test_a_new_process_is_asked_by_its_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    assert set(environment()) == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert environment() == {}


@glibc
def test_a_user_who_has_set_malloc_is_obeyed():
    handed_back = {"MALLOC_TRIM_THRESHOLD_": "100000", "MALLOC_MMAP_THRESHOLD_": "100000"}
    assert faults("keep", **handed_back) > 0.5 * faults(**handed_back)
