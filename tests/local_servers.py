"""Servers on this machine that speak the protocols that data come by, with the faults that real ones have."""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, content, headers."""


@dataclass
class Place:
    """What one path answers with, and how it misbehaves."""

    content: bytes = b""
    etag: str | None = '"one"'
    ranges: bool = True
    """Whether it answers a range request with a range."""
    longest_part: int | None = None
    """How many bytes of a range it sends at most, as it may."""
    drops: list[int] = field(default_factory=list)
    """After how many bytes each of the next answers breaks off."""
    announced: int | None = None
    """A length that is not the content's."""
    chunked: bool = False
    """No length at all."""
    statuses: list[int] = field(default_factory=list)
    """What the next answers are instead."""
    retry_after: str | None = None
    redirect: str | None = None
    stall_seconds: float = 0.0
    """How long the first answer pauses half way."""
    bytes_per_second: float | None = None
    headers: dict[str, str] = field(default_factory=dict)
    before: Callable[["Place"], None] | None = None
    """Called before each answer."""


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    query: dict[str, list[str]] = field(default_factory=dict)
    sent: int = 0


@dataclass
class Server:
    """A running server: `url`, what its paths answer, and what it was asked."""

    url: str
    places: dict[str, Place] = field(default_factory=dict)
    answer: Callable[[str, dict[str, list[str]]], Answer | None] | None = None
    """Answers in JSON, for what is no file, or None."""
    requests: list[Request] = field(default_factory=list)

    def asked(self, path: str) -> list[Request]:
        """Requests for a path."""
        return [request for request in self.requests if request.path == path]


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine, until the block ends."""
    httpd = _HTTPServer(("127.0.0.1", 0), _Handler)
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}")
    httpd.server = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is nothing to tell of."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """As real servers do; else each answer on a connection that is used again waits 40 ms for its body."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._respond(body=False)

    def do_GET(self) -> None:
        self._respond(body=True)

    def _respond(self, *, body: bool) -> None:
        server: Server = self.server.server  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, headers, parse_qs(parts.query))
        server.requests.append(request)
        if server.answer and (answer := server.answer(path, request.query)):
            return self._json(*answer)
        place = server.places.get(path)
        if place is None:
            return self._json(404, {"error": "no such file"})
        if place.before:
            place.before(place)
        if place.statuses:
            extra = {"Retry-After": place.retry_after} if place.retry_after else {}
            return self._json(place.statuses.pop(0), {}, extra)
        if place.redirect:
            return self._json(302, {}, {"Location": place.redirect})
        return self._file(place, request, body=body)

    def _file(self, place: Place, request: Request, *, body: bool) -> None:
        start = self._start(place)
        if start >= len(place.content) > 0:
            return self._json(416, {}, {"Content-Range": f"bytes */{len(place.content)}"})
        content = place.content[start:][: place.longest_part if start else None]
        self.send_response(206 if start else 200)
        if place.etag:
            self.send_header("ETag", place.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{len(place.content)}")
        for name, value in place.headers.items():
            self.send_header(name, value)
        if place.chunked:
            self.close_connection = True
            self.send_header("Connection", "close")
        else:
            self.send_header(
                "Content-Length", str(len(content) if place.announced is None else place.announced - start)
            )
        self.end_headers()
        if not body:
            return None
        if place.drops:
            content = content[: place.drops.pop(0)]
            self.close_connection = True
        if place.announced is not None:
            self.close_connection = True
        try:
            self._send(place, request, content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        return None

    def _send(self, place: Place, request: Request, content: bytes) -> None:
        half = len(content) // 2 if place.stall_seconds else len(content)
        piece = len(content) if place.bytes_per_second is None else max(1, int(place.bytes_per_second / 50))
        for first in range(0, half, max(1, piece)):
            self.wfile.write(content[first : min(first + piece, half)])
            request.sent += min(piece, half - first)
            if place.bytes_per_second:
                time.sleep(0.02)
        if place.stall_seconds:
            self.wfile.flush()
            pause, place.stall_seconds = place.stall_seconds, 0.0
            time.sleep(pause)
            self.wfile.write(content[half:])
            request.sent += len(content) - half

    def _start(self, place: Place) -> int:
        asked = self.headers.get("Range", "")
        proof = place.etag or place.headers.get("Last-Modified")
        if not asked or not place.ranges or self.headers.get("If-Range") != proof:
            return 0
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def serve_hub(server: Server, repository: str, commits: dict[str, dict[str, bytes]], main: str) -> None:
    """Make a server a Hugging Face hub with one dataset repository: files by commit, `main` naming one of them.

    Large files (here: hdf5) are kept by their SHA-256, as with Git LFS, behind a redirect; small ones as git blobs.
    """
    heads = {"main": main}

    def answer(path: str, _: dict[str, list[str]]) -> Answer | None:
        base = f"/api/datasets/{repository}"
        if path == base or path.startswith(f"{base}/revision/"):
            revision = path.removeprefix(base).removeprefix("/revision/") or "main"
            commit = heads.get(revision, revision)
            if commit not in commits:
                return 404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"}
            return 200, {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in commits[commit]]}
        if path.startswith(f"{base}/tree/"):
            commit, _, folder = path.removeprefix(f"{base}/tree/").partition("/")
            files = commits.get(heads.get(commit, commit), {})
            return 200, [_hub_file(name, data) for name, data in files.items() if name.startswith(f"{folder}/")]
        return None

    server.answer = answer
    for commit, files in commits.items():
        for name, data in files.items():
            source = f"/datasets/{repository}/resolve/{commit}/{name}"
            if name.endswith(".hdf5"):
                store = f"/lfs/{hashlib.sha256(data).hexdigest()}"
                server.places[source] = Place(redirect=f"{server.url}{store}")
                server.places[store] = Place(data)
            else:
                server.places[source] = Place(data)


def _hub_file(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    entry = {"type": "file", "path": name, "size": len(data), "oid": blob}
    if name.endswith(".hdf5"):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def serve_bucket(server: Server, bucket: str, objects: dict[str, bytes], page: int = 2) -> None:
    """Make a server Google Cloud Storage's JSON interface with one bucket, so many objects a page."""
    import base64

    def answer(path: str, query: dict[str, list[str]]) -> Answer | None:
        if path != f"/storage/v1/b/{bucket}/o":
            return None
        names = sorted(name for name in objects if name.startswith(query["prefix"][0]))
        first = int(query.get("pageToken", ["0"])[0])
        items = [
            {
                "name": name,
                "size": str(len(objects[name])),
                "generation": str(17 + names.index(name)),
                "md5Hash": base64.b64encode(hashlib.md5(objects[name]).digest()).decode(),
            }
            for name in names[first : first + page]
        ]
        more = {"nextPageToken": str(first + page)} if first + page < len(names) else {}
        return 200, {"items": items} | more

    server.answer = answer
    for name, data in objects.items():
        server.places[f"/storage/v1/b/{bucket}/o/{name}"] = Place(data)
