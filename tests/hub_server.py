"""A stand-in for the Hugging Face Hub on loopback: what its own client asks for, to send a repo and to fetch one.

Large files travel as Git LFS objects, in one part or in several; everything else in the commit. It keeps a log of what
was asked and of the bytes of every object, and it can refuse a path or cut a connection off half-way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

NOWHERE = "http://127.0.0.1:9"
TOKEN = "hf_valid"
"""The token that the stand-in accepts."""
BLOCK = 4096


@dataclass
class Repo:
    """A repo: its files, and the commits that led to them."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    commits: list[str] = field(default_factory=lambda: ["0123456789abcdef0123456789abcdef01234567"])
    announced: dict[str, int] = field(default_factory=dict)
    """Sizes that the listing claims, where they are not those of the files."""

    @property
    def commit(self) -> str:
        return self.commits[-1]


@dataclass(frozen=True)
class Refusal:
    """An answer that refuses a path."""

    status: int
    code: str | None = None
    message: str | None = None


@dataclass
class Cut:
    """Bytes of a path after which the connection breaks, counted from the object's start."""

    after: int
    times: int | None = None
    """How often; None always."""


class Hub(ThreadingHTTPServer):
    """The stand-in's state, which tests read and turn."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.user: dict[str, Any] = {
            "type": "user",
            "name": "owner",
            "orgs": [{"name": "team", "roleInOrg": "write"}, {"name": "readers", "roleInOrg": "read"}],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}},
        }
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        """The LFS store: complete objects by their sha256."""
        self.parts: dict[str, dict[int, bytes]] = {}
        self.part_size: int | None = None
        """Objects larger than this are asked for in parts."""
        self.refusals: dict[str, Refusal] = {}
        """By path."""
        self.cuts: dict[str, Cut] = {}
        """By path; an object's is ``/lfs/SHA256``, with ``/PART`` where it comes in parts."""
        self.asked: list[str] = []
        """Every request: method and path."""
        self.ranges: dict[str, list[str]] = {}
        """By path, what stretches of it were asked for."""
        self.received: Counter[str] = Counter()
        """Bytes by object."""
        self.sent: Counter[str] = Counter()
        """Bytes by path."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may go at any time
            super().handle_error(request, client_address)


class CutOff(ConnectionError):
    """The connection is to break here."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except CutOff:
            self.close_connection = True

    def serve(self) -> None:
        path, _, _ = unquote(self.path).partition("?")
        self.server.asked.append(f"{self.command} {path}")
        refusal = self.server.refusals.get(path)
        if refusal is not None:
            self.body()
            return self.refuse(refusal)
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return answer(self, **match.groupdict())
        self.body()
        return self.refuse(Refusal(404, "EntryNotFound"))

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def log_message(self, *_: object) -> None:
        pass

    # what all answers share

    def pieces(self, path: str) -> Iterator[bytes]:
        """The request's body, up to where the connection is to break."""
        length = int(self.headers.get("Content-Length") or 0)
        allowed = self.allowance(path, length)
        done = 0
        while done < min(length, allowed):
            piece = self.rfile.read(min(BLOCK, min(length, allowed) - done))
            if not piece:
                raise ConnectionAbortedError
            done += len(piece)
            yield piece
        if allowed < length:
            raise CutOff

    def body(self) -> bytes:
        return b"".join(self.pieces(""))

    def allowance(self, path: str, length: int) -> int:
        cut = self.server.cuts.get(path)
        if cut is None or cut.times == 0 or cut.after >= length:
            return length
        if cut.times is not None:
            cut.times -= 1
        return cut.after

    def json(self, value: object, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status=status, headers={"Content-Type": "application/json"})

    def answer(self, body: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, refusal: Refusal) -> None:
        headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
        self.answer(status=refusal.status, headers={name: value for name, value in headers.items() if value})

    @property
    def known(self) -> bool:
        """Whether the request carries the token."""
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def repo(self, name: str, revision: str = "main", *, write: bool = False) -> Repo | None:
        """A repo that the client may use; otherwise the request is refused."""
        repo = self.server.repos.get(name)
        if repo is None or ((write or repo.private) and not self.known):
            self.body()
            self.refuse(Refusal(404 if self.known or not write else 401, "RepoNotFound", "Repository not found"))
            return None
        if revision not in ("main", repo.commit):
            self.body()
            self.refuse(Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}"))
            return None
        return repo

    # accounts and repos

    def whoami(self) -> None:
        if not self.known:
            return self.refuse(Refusal(401, message="Invalid username or password."))
        return self.json(self.server.user)

    def create(self) -> None:
        wanted = json.loads(self.body())
        if not self.known:
            return self.refuse(Refusal(401, message="Invalid username or password."))
        owner = wanted.get("organization") or self.server.user["name"]
        name = f"{owner}/{wanted['name']}"
        if owner not in (self.server.user["name"], *(team["name"] for team in self.server.user["orgs"])):
            message = f'You don\'t have the rights to create a model under the namespace "{owner}"'
            return self.refuse(Refusal(403, message=message))
        if name in self.server.repos:
            return self.json({"error": "You already created this model repo", "url": self.url(name)}, status=409)
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.server.repos[name] = Repo(private=private)
        return self.json({"url": self.url(name), "name": name, "id": "0"})

    def url(self, name: str) -> str:
        return f"{self.server.address}/{name}"

    def info(self, name: str, revision: str | None = None) -> None:
        repo = self.repo(name, revision or "main")
        if repo is not None:
            siblings = [
                {"rfilename": path, **about(content), "size": repo.announced.get(path, len(content))}
                for path, content in repo.files.items()
            ]
            self.json({"id": name, "sha": repo.commit, "private": repo.private, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        repo = self.repo(name, revision)
        if repo is not None:
            self.json([{"type": "file", "path": path, **about(content)} for path, content in repo.files.items()])

    # files to the client

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.repo(name, revision)
        if repo is None:
            return None
        content = repo.files.get(path)
        if content is None:
            return self.refuse(Refusal(404, "EntryNotFound"))
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if is_large(path, content):
            size = str(len(content))
            headers |= {"X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": size}
        headers["ETag"] = f'"{git_oid(content)}"'
        return self.stretch(content, headers)

    def stretch(self, content: bytes, headers: dict[str, str]) -> None:
        path = unquote(self.path)
        asked = self.headers.get("Range")
        start, stop, status = 0, len(content), 200
        if asked is not None:
            self.server.ranges.setdefault(path, []).append(asked)
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), int(last) + 1 if last else len(content), 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        headers["Content-Length"] = str(stop - start)
        if self.command == "HEAD":
            return self.answer(status=status, headers=headers)
        end = min(stop, self.allowance(path, stop))
        self.server.sent[path] += max(end - start, 0)
        self.answer(content[start:end], status=status, headers=headers)
        if end < stop:
            raise CutOff
        return None

    # files from the client

    def validate(self) -> None:
        card = json.loads(self.body())["content"]
        if not card.startswith("---\n") or "\n---\n" not in card:
            return self.json({"errors": [{"message": "no front matter"}], "warnings": []}, status=400)
        return self.json({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        repo = self.repo(name, revision, write=True)
        if repo is None:
            return
        files = []
        for file in json.loads(self.body())["files"]:
            large = is_large(file["path"], base64.b64decode(file["sample"]))
            mode = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            content = repo.files.get(file["path"])
            if content is not None:
                mode["oid"] = hashlib.sha256(content).hexdigest() if large else git_oid(content)
            files.append(mode)
        self.json({"files": files})

    def batch(self, name: str) -> None:
        if self.repo(name, write=True) is not None:
            wanted = json.loads(self.body())["objects"]
            self.json({"transfer": "basic", "objects": [self.instruction(item) for item in wanted]})

    def instruction(self, item: dict[str, Any]) -> dict[str, Any]:
        """How an object is to be sent; an object that is there needs nothing."""
        oid, size = item["oid"], item["size"]
        if oid in self.server.objects:
            return {"oid": oid, "size": size}
        target = f"{self.server.address}/lfs/{oid}"
        upload: dict[str, Any] = {"href": target}
        part_size = self.server.part_size
        if part_size is not None and size > part_size:
            count = -(-size // part_size)
            upload["header"] = {"chunk_size": str(part_size), **{str(n): f"{target}/{n}" for n in range(1, count + 1)}}
            upload["href"] = f"{target}/complete"
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{target}/verify"}}}

    def receive(self, oid: str, part: str | None = None) -> None:
        path = f"/lfs/{oid}" if part is None else f"/lfs/{oid}/{part}"
        content = b""
        for piece in self.pieces(path):
            content += piece
            self.server.received[oid] += len(piece)
        if part is None:
            return self.store(oid, content)
        self.server.parts.setdefault(oid, {})[int(part)] = content
        return self.answer(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    def complete(self, oid: str) -> None:
        parts = self.server.parts.pop(oid, {})
        promised = {part["partNumber"]: part["etag"].strip('"') for part in json.loads(self.body())["parts"]}
        if promised != {number: hashlib.md5(content).hexdigest() for number, content in parts.items()}:
            return self.refuse(Refusal(400, message="Parts do not match"))
        return self.store(oid, b"".join(parts[number] for number in sorted(parts)))

    def store(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            return self.refuse(Refusal(400, message="The content does not have this sha256"))
        self.server.objects[oid] = content
        return self.answer()

    def verify(self, oid: str) -> None:
        size = json.loads(self.body())["size"]
        stored = self.server.objects.get(oid)
        self.answer(status=200 if stored is not None and len(stored) == size else 404)

    def commit(self, name: str, revision: str) -> None:
        """All lines of a commit, or none."""
        repo = self.repo(name, revision, write=True)
        if repo is None:
            return None
        body = self.body()
        files = dict(repo.files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    return self.refuse(Refusal(400, message=f"LFS object {value['oid']} was not uploaded"))
                files[value["path"]] = self.server.objects[value["oid"]]
        repo.files = files
        repo.commits.append(hashlib.sha1(body + repo.commit.encode()).hexdigest())
        url = f"{self.server.address}/{name}/commit/{repo.commit}"
        return self.json({"success": True, "commitOid": repo.commit, "commitUrl": url, "hookOutput": ""})


NAME, REVISION, OID = r"(?P<name>[^/ ]+/[^/ ]+)", r"(?P<revision>[^/]+)", r"(?P<oid>[0-9a-f]{64})"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"GET /api/whoami-v2", Handler.whoami),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"GET /api/models/{NAME}", Handler.info),
    (rf"GET /api/models/{NAME}/revision/{REVISION}", Handler.info),
    (rf"GET /api/models/{NAME}/tree/{REVISION}", Handler.tree),
    (rf"POST /api/models/{NAME}/preupload/{REVISION}", Handler.preupload),
    (rf"POST /api/models/{NAME}/commit/{REVISION}", Handler.commit),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    (rf"PUT /lfs/{OID}", Handler.receive),
    (rf"PUT /lfs/{OID}/(?P<part>\d+)", Handler.receive),
    (rf"POST /lfs/{OID}/complete", Handler.complete),
    (rf"POST /lfs/{OID}/verify", Handler.verify),
    (rf"(?:GET|HEAD) /{NAME}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
]


def is_large(path: str, sample: bytes) -> bool:
    """Whether a file travels as an LFS object."""
    return path.endswith(".safetensors") or b"\0" in sample


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def about(content: bytes) -> dict[str, Any]:
    return {"oid": git_oid(content), "blobId": git_oid(content), "size": len(content)}


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


NO_WAITING = "import time; time.sleep = lambda _: None\n"
"""The client waits longer and longer between its attempts."""


def _environment(endpoint: str, home: Path, token: str | None) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_HOME": str(home / "home"),
        "HF_HUB_CACHE": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_VERBOSITY": "error",
        **({"HF_TOKEN": token} if token else {}),
    }


def ask(endpoint: str, home: Path, program: str, *arguments: str, token: str | None = None) -> tuple[str, str]:
    """Run a program against a Hub, in a process of its own, since the endpoint is read at import; stdout and stderr.

    Args:
        home: Where the client keeps its cache.
    """
    command = [sys.executable, "-c", NO_WAITING + program, *arguments]
    environment = _environment(endpoint, home, token)
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return ran.stdout.rstrip("\n"), ran.stderr


@contextmanager
def asking(endpoint: str, home: Path, program: str, *arguments: str, token: str) -> Iterator[Callable[[], str]]:
    """As ``ask``, for a program that reads lines and answers each of them with one: it is started once."""
    command = [sys.executable, "-c", NO_WAITING + program, *arguments]
    environment = _environment(endpoint, home, token)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        write, read = process.stdin.write, process.stdout.readline

        def answer() -> str:
            write("\n")
            return read().rstrip("\n")

        yield answer


FETCH = """
import sys
from mlx_gemma4.checkpoint.hub import checkpoint_folder
try: print(checkpoint_folder(sys.argv[1], revision=sys.argv[2] or None))
except ValueError as error: print(error)
"""


def fetch(cache: Path, endpoint: str, name: str, revision: str | None = None) -> tuple[str, str]:
    """What ``checkpoint_folder`` returns or raises, and what it says on the way."""
    return ask(endpoint, cache, FETCH, name, revision or "")


def contents(folder: Path | str) -> dict[str, bytes]:
    """A folder's files."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
