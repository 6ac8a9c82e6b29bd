"""Commands that are followed, stopped and overdue."""

import sys
import threading
import time

import pytest

from flows.subprocesses import CommandFailed, Commands, last_error


def python(code):
    return [sys.executable, "-c", code]


def test_lines_arrive_one_by_one():
    seen = []
    lines = Commands().follow(python("print('a'); print(); print('b')"), lambda line: seen.append(line))
    assert lines == seen == ["a", "b"]


def test_a_failure_says_its_last_error_line():
    code = "import sys; print('error: first'); print('error: no depth; fetch it'); print('ERROR: failed'); sys.exit(3)"
    with pytest.raises(CommandFailed, match=r"^no depth; fetch it$"):
        Commands().follow(python(code), lambda line: None)


def test_the_end_of_a_traceback_says_more_than_dvc():
    assert last_error(["Traceback", "ValueError: too small", "ERROR: failed to reproduce"]) == "ValueError: too small"
    assert last_error(["working", "ERROR: failed to reproduce"]) == "failed to reproduce"
    assert last_error([]) == ""


def test_an_overdue_command_goes_with_its_children():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    begin = time.monotonic()
    with pytest.raises(CommandFailed, match="took longer than 1 s"):
        Commands().follow(python(code), lambda line: None, timeout=1)
    assert time.monotonic() - begin < 30  # the pipe closes only when the grandchild is gone


def test_stopping_ends_what_runs_and_lets_nothing_start():
    commands = Commands()
    threading.Timer(0.5, commands.stop).start()
    with pytest.raises(CommandFailed, match="stopped with its flow"):
        commands.follow(python("import time; time.sleep(600)"), lambda line: None)
    with pytest.raises(CommandFailed, match="not started"):
        commands.follow(python("pass"), lambda line: None)
