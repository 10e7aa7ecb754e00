"""The few endpoints of the Hugging Face hub that data sets are read through, on this machine.

Files of 1000 bytes and more lie behind a redirect to another host, as they do on the hub.
"""

import hashlib
import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 1000


class Hub:
    """Data sets as {id: {path: bytes}}, and what was asked for."""

    def __init__(self):
        self.datasets = {}
        self.gated = set()
        self.cut_after = {}
        """path: bytes after which the connection breaks off, for each of the next requests."""
        self.hold_after = {}
        """path: bytes after which the server says nothing more, until `released`."""
        self.released = threading.Event()
        self.held = threading.Event()
        self.status = {}
        """path: list of answers to give instead of the content."""
        self.sent = Counter()
        """Bytes sent of each path."""
        self.ranges = []
        """(path, first byte) of each request for content."""
        self.requests = 0
        self.url = ""

    def add(self, name, files):
        self.datasets[name] = files

    def sha(self, name):
        content = [
            (path, hashlib.sha256(data).hexdigest())
            for path, data in sorted(self.datasets[name].items())
        ]
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()

    @contextmanager
    def running(self):
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()


def _blob_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path, data):
    entry = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
    if len(data) >= LARGE:
        oid = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def _json(self, value, status=200, **headers):
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status, code):
        self._json({"error": code}, status, X_Error_Code=code)

    def do_POST(self):
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        name, _, _ = self._api()
        files = self.hub.datasets[name]
        self._json([_entry(path, files[path]) for path in body["paths"] if path in files])

    def _api(self):
        parts = unquote(urlsplit(self.path).path).split("/")
        return "/".join(parts[3:5]), parts[5] if len(parts) > 5 else "", "/".join(parts[7:])

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.requests += 1
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/datasets/"):
            self._describe()
        elif path.startswith("/datasets/"):
            owner, name, _, revision, file = path.removeprefix("/datasets/").split("/", 4)
            self._resolve(f"{owner}/{name}", revision, file)
        elif path.startswith("/cdn/"):
            owner, name, file = path.removeprefix("/cdn/").split("/", 2)
            self._content(file, self.hub.datasets[f"{owner}/{name}"][file], {})
        else:
            self._error(404, "NotFound")

    def _describe(self):
        name, kind, folder = self._api()
        if name not in self.hub.datasets:
            self._error(404, "RepoNotFound")
            return
        files = self.hub.datasets[name]
        if kind == "tree":
            recursive = "recursive=true" in urlsplit(self.path).query.lower()
            prefix = f"{folder}/" if folder else ""
            entries, folders = [], set()
            for path, data in files.items():
                if not path.startswith(prefix):
                    continue
                parts = path.removeprefix(prefix).split("/")
                folders |= {prefix + "/".join(parts[:depth]) for depth in range(1, len(parts))}
                if recursive or len(parts) == 1:
                    entries.append(_entry(path, data))
            shown = [one for one in folders if recursive or "/" not in one.removeprefix(prefix)]
            entries += [{"type": "directory", "path": one, "oid": "0" * 40} for one in shown]
            self._json(sorted(entries, key=lambda entry: entry["path"]))
        else:
            info = {"id": name, "sha": self.hub.sha(name), "private": False, "tags": []}
            self._json(info | {"siblings": [{"rfilename": path} for path in files]})

    def _resolve(self, name, revision, file):
        if name not in self.hub.datasets:
            self._error(404, "RepoNotFound")
        elif name in self.hub.gated:
            self._error(403, "GatedRepo")
        elif revision not in {"main", self.hub.sha(name)}:
            self._error(404, "RevisionNotFound")
        elif file not in self.hub.datasets[name]:
            self._json({}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=self.hub.sha(name))
        else:
            data = self.hub.datasets[name][file]
            headers = {"X-Repo-Commit": self.hub.sha(name), "ETag": f'"{_blob_id(data)}"'}
            if len(data) < LARGE:
                self._content(file, data, headers)
                return
            self.send_response(302)
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(data))
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            headers["Location"] = f"{elsewhere}/cdn/{name}/{file}"
            for key, value in (headers | {"Content-Length": "0"}).items():
                self.send_header(key, value)
            self.end_headers()

    def _content(self, file, data, headers):
        if self.command == "GET" and self.hub.status.get(file):
            self._json({}, self.hub.status[file].pop(0))
            return
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if wanted else 200)
        for key, value in (headers | {"Content-Length": str(len(data) - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.ranges.append((file, start))
        cuts = self.hub.cut_after.get(file)
        part = data[start:][: cuts.pop(0)] if cuts else data[start:]
        if file in self.hub.hold_after:
            early = self.hub.hold_after.pop(file)
            self.wfile.write(part[:early])
            self.hub.held.set()
            self.hub.released.wait()
            part = part[early:]
        self.wfile.write(part)
        self.hub.sent[file] += len(part)
        if len(part) < len(data) - start:
            self.close_connection = True
