"""A hub on this machine that answers as the Hugging Face Hub's endpoints do, for the hub's own client.

Written after the requests that ``huggingface_hub`` makes and the answers that it reads: models, trees and files of a
revision; new repositories; uploads by git LFS and commits as lines of JSON. Its newer storage, Xet, is left out.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"


class Hub:
    """The repositories, what was asked, and how the hub misbehaves.

    Attributes:
        repositories: the files of each repository, {name: {path: content}}.
        private: the names of repositories that only ``TOKEN`` may see.
        asked: the method and path of each request.
        unknown: those that this hub does not understand.
        cut: how often more a download of weights ends in its middle.
        full: whether uploads are refused.
    """

    full = False

    def __init__(self):
        self.repositories, self.private, self.blobs = {}, set(), {}
        self.asked, self.unknown = [], []
        self.cut = 0
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name):
        """The hash of what a repository holds."""
        files = self.repositories[name]
        lines = [f"{path} {hashlib.sha1(files[path]).hexdigest()}" for path in sorted(files)]
        return hashlib.sha1("\n".join(lines).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *given):
        pass

    def _answer(self, code, content=b"", **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code, error):
        self._answer(code, {"error": error}, X_Error_Code=error, X_Error_Message=f"{error} says the hub.")

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while length := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _is_known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _visible(self, name):
        """Whether a repository is there and may be seen; else the answer that the hub gives."""
        if name in self.hub.repositories and (name not in self.hub.private or self._is_known()):
            return True
        self._refuse(404 if self._is_known() else 401, "RepoNotFound")
        return False

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._model(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[3])
        else:
            if not re.match(
                r"/api/(?!models/|repos/)", path
            ):  # the client asks for things of its own as well
                self.hub.unknown.append((self.command, path))
            self._refuse(404, "EntryNotFound")

    def _model(self, name, revision):
        if not self._visible(name):
            return
        if revision not in ("main", self.hub.commit(name)):
            self._refuse(404, "RevisionNotFound")
            return
        siblings = [{"rfilename": path} for path in self.hub.repositories[name]]
        about = {"private": name in self.hub.private, "tags": [], "downloads": 0, "likes": 0}
        self._answer(
            200, {"id": name, "modelId": name, "sha": self.hub.commit(name), "siblings": siblings, **about}
        )

    def _tree(self, name):
        if not self._visible(name):
            return
        entries = []
        for path, content in self.hub.repositories[name].items():
            entry = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            if path.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._answer(200, entries)

    def _file(self, name, path):
        if not self._visible(name):
            return
        content = self.hub.repositories[name].get(path)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commit(name), "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        begin = int(asked[1]) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        rest = content[begin:]
        if self.command == "GET" and path.endswith("/best.safetensors") and self.hub.cut:
            self.hub.cut -= 1
            self.send_response(206 if asked else 200)
            for title, value in {"Content-Length": str(len(rest)), **headers}.items():
                self.send_header(title, value)
            self.end_headers()
            self.wfile.write(rest[: len(rest) // 2])
            self.close_connection = True
            return
        self._answer(206 if asked else 200, rest, **headers)

    def do_PUT(self):
        path = urlsplit(self.path).path
        self.hub.asked.append(("PUT", path))
        content = self._body()
        if self.hub.full:
            self._refuse(507, "Full")
            return
        if hashlib.sha256(content).hexdigest() != path.removeprefix("/lfs/"):
            self._refuse(400, "BadHash")
            return
        self.hub.blobs[path.removeprefix("/lfs/")] = content
        self._answer(200)

    def do_POST(self):
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.hub.asked.append(("POST", path))
        if not self._is_known():
            self._refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", path):
            if match[2] == "main":
                self._choose_ways(json.loads(body))
            else:
                self._refuse(404, "RevisionNotFound")
        elif re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            self._offer_uploads(json.loads(body))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", path):
            self._commit(match[1], body)
        else:
            self.hub.unknown.append(("POST", path))
            self._refuse(404, "EntryNotFound")

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            self._answer(409, {"error": "Conflict", "url": f"{self.hub.endpoint}/{name}"})
            return
        self.hub.repositories[name] = {}
        if asked.get("visibility") == "private":
            self.hub.private.add(name)
        self._answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": "1"})

    def _choose_ways(self, asked):
        ways = []
        for file in asked["files"]:
            way = "lfs" if file["path"].endswith(".safetensors") else "regular"
            ways.append({"path": file["path"], "uploadMode": way, "shouldIgnore": False})
        self._answer(200, {"files": ways})

    def _offer_uploads(self, asked):
        objects = [
            {
                **thing,
                "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{thing['oid']}", "header": {}}},
            }
            for thing in asked["objects"]
        ]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name, body):
        files = {}
        for line in body.decode().splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        self.hub.repositories[name].update(files)
        oid = self.hub.commit(name)
        about = {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid}
        self._answer(200, {"success": True, **about})
