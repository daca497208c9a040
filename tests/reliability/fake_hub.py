"""A Hugging Face hub on the loopback interface: as much of its interface as downloads use."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit


def commit_of(repository: str) -> str:
    """The commit that every revision of a repository stands for."""
    return hashlib.sha1(repository.encode()).hexdigest()


class FakeHub:
    """Serves `<folder>/models/<id>/` and `<folder>/datasets/<id>/`.

    Attributes:
        gated: ids that answer as a gated model does to a user without access.
        token: of a user who has access to them.
        commits: of a repository, where it is to be a certain one; see `commit_of`.
        log: (method, path, Range header) of every request.
        cut: names of files whose first download ends halfway with a broken connection.
        stall: names of files whose first download hangs halfway, for good.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gated: set[str] = set()
        self.token: str | None = None
        self.commits: dict[str, str] = {}
        self.log: list[tuple[str, str, str | None]] = []
        self.cut: set[str] = set()
        self.stall: set[str] = set()
        self.stalled, self._over = threading.Event(), threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_POST = do_GET  # noqa: N815 - http.server calls these names

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path  # a revision may hold a quoted slash
        self.log.append((request.command, unquote(path), request.headers.get("Range")))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0)).decode()
        described = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?",
            path,
        )
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if described:
            recursive = "recursive=false" not in request.path.lower()
            parts = (part and unquote(part) for part in described.groups())
            self._describe(request, *parts, recursive, body)
        elif file:
            kind, name, _, filename = file.groups()
            self._file(request, name, self._folder(kind or "models", name) / unquote(filename))
        else:
            self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound"})

    def _commit(self, name: str) -> str:
        return self.commits.get(name) or commit_of(name)

    def _folder(self, kind: str, name: str) -> Path:
        return self.folder / kind.strip("/") / name

    def _describe(self, request, kind, name, question, revision, part, recursive, body) -> None:
        folder = self._folder(kind, name)
        if not folder.is_dir():
            self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in (None, "main", "refs/convert/parquet", self._commit(name)):
            self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        if question == "tree" and (folder / part).is_dir():
            below = (folder / part).rglob("*") if recursive else (folder / part).iterdir()
            self._send_json(request, [_entry(folder, path) for path in sorted(below)])
            return
        if question == "paths-info":
            asked = [folder / name for name in parse_qs(body).get("paths", [])]
            self._send_json(request, [_entry(folder, path) for path in asked if path.exists()])
            return
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        siblings = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
        facts = {"id": name, "sha": self._commit(name), "siblings": siblings, "tags": []}
        self._send_json(request, {**facts, "private": False, "downloads": 0, "likes": 0})

    def _file(self, request, name: str, file: Path) -> None:
        headers = {"X-Repo-Commit": self._commit(name), "Accept-Ranges": "bytes"}
        given = request.headers.get("Authorization")
        if name in self.gated and (self.token is None or given != f"Bearer {self.token}"):
            status = 403 if given else 401
            self._send(request, status, b"", {"X-Error-Code": "GatedRepo"})
            return
        if not file.is_file():
            self._send(request, 404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
            return
        content, status, start = file.read_bytes(), 200, 0
        headers["ETag"] = f'"{_etag(file)}"'
        if request.headers.get("Range"):
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers["Range"]).groups()
            start, end = int(first), int(last) + 1 if last else len(content)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            content, status = content[start:end], 206
        if request.command == "GET" and file.name in self.cut | self.stall:
            self._head(request, status, len(content), headers)
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            if file.name in self.stall:
                self.stalled.set()
                self._over.wait()
            self.cut.discard(file.name)
            request.close_connection = True
            return
        self._send(request, status, content, headers)

    def _send_json(self, request, values: object) -> None:
        headers = {"Content-Type": "application/json"}
        self._send(request, 200, json.dumps(values).encode(), headers)

    def _send(self, request, status: int, content: bytes, headers: dict[str, str]) -> None:
        self._head(request, status, len(content), headers)
        if request.command != "HEAD":
            request.wfile.write(content)

    def _head(self, request, status: int, length: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            request.send_header(key, value)
        request.end_headers()


def _entry(folder: Path, path: Path) -> dict[str, object]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": _etag_of(name.encode()), "size": 0}
    return {"type": "file", "path": name, "oid": _etag(path), "size": path.stat().st_size}


def _etag(file: Path) -> str:
    return _etag_of(file.read_bytes())


def _etag_of(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
