"""A local web server for archives, with ETag, Range, redirects and faults on demand."""

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Fault:
    """A fault of one response.

    Attributes:
        status: respond with this code instead.
        cut_after, stall_after: bytes of the body after which to close the connection, or to stop
            sending.
        trickle_s: pause between single bytes.
        claim: Content-Length to send instead of the real one.
    """

    status: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    trickle_s: float | None = None
    claim: int | None = None


@dataclass
class ArchiveServer:
    """Files to serve, requests received, and faults to come; `/moved/X` redirects to `/X`."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)  # one per GET
    etags: bool = True
    ranges: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    address: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def etag(self, path: str) -> str:
        return f'"{hashlib.md5(self.files[path]).hexdigest()}"'

    @property
    def gets(self) -> list[str | None]:
        """The Range of every GET that was not redirected."""
        return [r for method, path, r in self.requests if method == "GET" and "/moved/" not in path]


@contextmanager
def serve() -> Iterator[ArchiveServer]:
    archives = ArchiveServer()
    handler = type("Handler", (_Handler,), {"archives": archives})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    archives.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield archives
    finally:
        archives.closing.set()
        server.shutdown()
        server.server_close()


def zip_of(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():  # ZipInfo: the same bytes at any time of day
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


class _Handler(BaseHTTPRequestHandler):
    archives: ArchiveServer

    def do_HEAD(self) -> None:
        self._answer(Fault())

    def do_GET(self) -> None:
        moved = "/moved/" in self.path
        faults = self.archives.faults
        self._answer(faults.pop(0) if faults and not moved else Fault())

    def _answer(self, fault: Fault) -> None:
        here, path = self.archives, self.path.lstrip("/")
        here.requests.append((self.command, self.path, self.headers.get("Range")))
        if path.startswith("moved/"):
            self._head(302, {"Location": "/" + path.removeprefix("moved/"), "Content-Length": "0"})
        elif fault.status or path not in here.files:
            self._head(fault.status or 404, {"Content-Length": "0"})
        else:
            self._send(here.files[path], path, fault)

    def _send(self, content: bytes, path: str, fault: Fault) -> None:
        start, headers = self._start(path), {}
        if self.archives.etags:
            headers["ETag"] = self.archives.etag(path)
        if start == len(content) > 0:
            self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        body = content[start:]
        headers["Content-Length"] = str(fault.claim or len(body))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if start else 200, headers)
        if self.command == "GET":
            self._write(body, fault)

    def _start(self, path: str) -> int:
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, self.archives.etag(path))
        return int(requested[1]) if requested and same and self.archives.ranges else 0

    def _write(self, body: bytes, fault: Fault) -> None:
        if fault.trickle_s is not None:
            for i in range(len(body)):
                if self.archives.closing.wait(fault.trickle_s):
                    return
                self.wfile.write(body[i : i + 1])
        for stop in (fault.cut_after, fault.stall_after):
            if stop is not None:
                self.wfile.write(body[:stop])
        if fault.stall_after is not None:
            self.archives.closing.wait()
        elif fault.cut_after is None and fault.trickle_s is None:
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
