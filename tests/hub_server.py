"""A local Hugging Face hub with one model at one commit, for tests of fetching."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

NAME, COMMIT = "studio/tiny", "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What is served, and what was asked for; *.safetensors are large files (LFS)."""

    files: dict[str, bytes]
    damaged: set[str] = field(default_factory=set)  # sent with another byte
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def entry(self, name: str) -> dict:
        """A row of the hub's answer to `tree`."""
        content = self.files[name]
        row = {"type": "file", "path": name, "size": len(content), "oid": git_sha1(content)}
        if name.endswith(".safetensors"):
            row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
            row["lfs"]["pointerSize"] = 134
        return row

    def etag(self, name: str) -> str:
        entry = self.entry(name)
        return entry.get("lfs", entry)["oid"]


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serve_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub, "protocol_version": "HTTP/1.1"})
    )
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlparse(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        resolved = f"/{NAME}/resolve/{COMMIT}/"
        if path == f"/api/models/{NAME}/tree/{COMMIT}":
            rows = [self.hub.entry(name) for name in sorted(self.hub.files)]
            self._send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
        elif path.startswith(resolved) and path.removeprefix(resolved) in self.hub.files:
            self._send_file(path.removeprefix(resolved))
        else:
            code = "RevisionNotFound" if NAME in path else "RepoNotFound"
            self._send(404, b"", {"X-Error-Code": code})

    def _send_file(self, name: str) -> None:
        content = self.hub.files[name]
        if name in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(200, content, {"ETag": f'"{self.hub.etag(name)}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
