"""Commands that are followed line by line and never outlive the flow that started them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from minima_core.errors import MinimaError
from tasks.process import LAUNCHER, process_name


class CommandFailed(MinimaError):
    """A command ended badly; the message is its last ``error:`` line."""


class Commands:
    """The commands of one flow run, at most ``limit`` at a time; ``stop`` ends all and lets none start any more."""

    def __init__(self, limit: int = 1) -> None:
        self._slots = threading.BoundedSemaphore(limit)
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def follow(self, command: list[str], log: Callable[[str], object], *, timeout: float | None = None) -> list[str]:
        """Run ``command`` in a session of its own, pass each line it prints to ``log`` and return all of them.

        Raises:
            CommandFailed: if it ends with another code than 0, takes longer than ``timeout`` seconds or is stopped.
        """
        with self._slots:
            return self._follow(command, log, timeout)

    def _follow(self, command: list[str], log: Callable[[str], object], timeout: float | None) -> list[str]:
        process = self._start(command)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(timeout or 0, expire)
        if timeout is not None:
            timer.start()
        lines: list[str] = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if text := line.rstrip():
                    lines.append(text)
                    log(text)
            code = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            self._running.discard(process)
        if expired.is_set():
            raise CommandFailed(f"took longer than {timeout:g} s and was stopped")
        if code:
            raise CommandFailed("stopped with its flow" if self._stopped else last_error(lines) or f"code {code}")
        return lines

    def stop(self) -> None:
        """End every command that is running, with all its children."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                _kill(process)

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # stages say `python`
        with self._lock:
            if self._stopped:
                raise CommandFailed("not started, its flow was stopped")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", LAUNCHER: process_name()},
            )
            self._running.add(process)
        return process


def last_error(lines: list[str]) -> str:
    """Return what the last ``error:`` line says; else the end of a traceback; else DVC's own, in capitals."""
    for mark in (r"error: ", r"(?=[\w.]+(Error|Exception|Warning)\b)", r"ERROR: "):
        for line in reversed(lines):
            if found := re.match(mark, line):
                return line[found.end() :]
    return lines[-1] if lines else ""


def _kill(process: subprocess.Popen[str]) -> None:
    """End the session that ``process`` leads, whose members may outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
