"""A local web server that does to a file what servers do: cut, lie, pause, send something else."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

DATA = bytes(range(256)) * 20_000  # 5 MB


@dataclass
class Host:
    """What was asked of the server, and what it does: ``behave(handler, number of the request)``."""

    url: str
    behave: Callable[[Handler, int], None]
    ranges: list[str] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the host behaves; ``file`` serves as a good server would, except for what its arguments say."""

    host: Host

    def do_GET(self) -> None:
        """Answer one request."""
        self.host.ranges.append(self.headers.get("Range", ""))
        with suppress(BrokenPipeError, ConnectionResetError):  # the other side had enough
            self.host.behave(self, len(self.host.ranges))

    def file(
        self,
        data: bytes = DATA,
        *,
        send: int | None = None,
        says: int | None = None,
        etag: str = '"v1"',
        ranges: bool = True,
        kind: str = "application/octet-stream",
    ) -> None:
        """Send ``data`` from the range asked for on: only ``send`` bytes of it, saying that it has ``says`` in all."""
        start = 0
        if ranges and (asked := self.headers.get("Range")) and self.headers.get("If-Range", etag) == etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        total = len(data) if says is None else says
        if start >= total:
            self.status(416, {"Content-Range": f"bytes */{total}"})
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.send_header("Content-Type", kind)
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        body = data[start:]
        self.wfile.write(body if send is None else body[:send])

    def status(self, code: int, headers: dict[str, str] | None = None) -> None:
        """Answer without a body."""
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(behave: Callable[[Handler, int], None]) -> Iterator[Host]:
    """Run a server until the block ends."""
    host = Host("", behave)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"host": host}))
    host.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
