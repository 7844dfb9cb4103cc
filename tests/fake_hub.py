"""A hub on loopback: the few answers of the Hugging Face Hub that a download needs, and plain files under /files/."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


@dataclass
class FakeHub:
    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files of every repository
    files: dict[str, bytes] = field(default_factory=dict)  # under /files/
    cut: set[str] = field(default_factory=set)  # files that break off in the middle
    changed: set[str] = field(default_factory=set)  # files of which other bytes are sent than were promised
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, folder: Path, **more: bytes) -> None:
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.repos[name] = found | {key.replace("__", "."): value for key, value in more.items()}

    def fetched(self) -> set[str]:
        return {path.rpartition("/")[2] for path in self.asked if "/resolve/" in path}


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.command == "GET":
            self.hub.asked.append(path)
        if path.startswith("/files/"):
            content = self.hub.files.get(path.removeprefix("/files/"))
            return self._send(content, path) if content is not None else self._refuse("EntryNotFound")
        if found := re.fullmatch(r"/api/models/(\w+/[\w.-]+)(?:/revision/(.+))?", path):
            return self._describe(found[1], found[2] or "main")
        if found := re.fullmatch(r"/(\w+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            content = self.hub.repos.get(found[1], {}).get(found[3])
            return self._send(content, path) if content is not None else self._refuse("EntryNotFound")
        return self._refuse("EntryNotFound")

    def _describe(self, name: str, revision: str) -> None:
        if name not in self.hub.repos:
            return self._refuse("RepoNotFound")
        if revision not in REVISIONS:
            return self._refuse("RevisionNotFound")
        rows = []
        for file, content in self.hub.repos[name].items():
            row: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": "0" * 40}
            if file.endswith((".safetensors", ".bin")):
                digest = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            rows.append(row)
        return self._send(json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": rows}).encode(), "")

    def _send(self, content: bytes, path: str) -> None:
        file = path.rpartition("/")[2]
        sent = content[: len(content) // 2] if file in self.hub.cut else content
        sent = bytes(len(sent)) if file in self.hub.changed else sent
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
