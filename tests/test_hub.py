"""Names to folders; the Hub is a server on this machine, and no request leaves it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mlx_gemma4 import demo_folder
from mlx_gemma4.hub import checkpoint_folder, default_model

REPO = "owner/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ bos_token }}",
    "model.safetensors": b"weights",
    "README.md": b"not for us",
    "original.bin": b"nor this",
}
ANNOUNCED = {"model.safetensors": 7_100_000_000, "original.bin": 30_000_000_000}
WANTED = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}
NOWHERE = "http://127.0.0.1:9"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: a repo's files, their sizes, and what can go wrong."""

    server: HubServer

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        code = self.server.refusals.get(self.path.partition("?")[0])
        if code is not None:
            status = 403 if code == "GatedRepo" else 404
            return self.answer(b"", status=status, headers={"X-Error-Code": code})
        path = self.path.partition("?")[0].removeprefix("/")
        if path.startswith(f"api/models/{REPO}/tree/"):
            tree = [{"type": "file", "path": name, **self.about(name)} for name in FILES]
            return self.answer(json.dumps(tree).encode())
        if path.startswith(f"api/models/{REPO}"):
            siblings = [{"rfilename": name, **self.about(name), "size": self.announced(name)} for name in FILES]
            return self.answer(json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode())
        name = path.removeprefix(f"{REPO}/resolve/{COMMIT}/")
        headers = {"ETag": f'"{self.about(name)["oid"]}"', "X-Repo-Commit": COMMIT}
        return self.answer(FILES[name], headers=headers)

    do_HEAD = do_GET

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def about(self, name: str) -> dict[str, str | int]:
        return {"oid": hashlib.sha1(FILES[name]).hexdigest(), "size": len(FILES[name])}

    def announced(self, name: str) -> int:
        return ANNOUNCED.get(name, len(FILES[name]))

    def log_message(self, *_: object) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.asked: list[str] = []
        self.refusals: dict[str, str] = {}
        """Error codes by path."""
        self.address = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(cache: Path, endpoint: str, name: str = REPO, revision: str | None = None) -> tuple[str, str]:
    """In a process of its own, since the endpoint is read at import: the folder's path or the error, and stderr."""
    program = (
        "import sys; from mlx_gemma4.hub import checkpoint_folder\n"
        "try: print(checkpoint_folder(sys.argv[1], revision=sys.argv[2] or None))\n"
        "except ValueError as error: print(error)"
    )
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_HOME": str(cache / "home"),
        "HF_HUB_CACHE": str(cache),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-c", program, name, revision or ""]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return ran.stdout.rstrip("\n"), ran.stderr


def snapshot(cache: Path, files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """A repo in the cache, as other programs leave it there."""
    repo = cache / "models--owner--tiny"
    folder = repo / "snapshots" / commit
    folder.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_demo_is_in_the_package() -> None:
    """The name "demo" is the embedded checkpoint."""
    assert checkpoint_folder("demo") == demo_folder() / "checkpoint"
    assert (checkpoint_folder("demo") / "model.safetensors").is_file()


def test_a_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is there is taken, whatever it is called."""
    for name in ("demo", "owner/tiny"):
        (tmp_path / name).mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert checkpoint_folder(name) == Path(name)
    assert checkpoint_folder(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["nonsense", "a/b/c", "./a/b", "../a", "~/models", "/nowhere/a", "/a", "a/", ""])
def test_nonsense_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be neither is refused without asking the Hub, with all that could be named."""
    monkeypatch.chdir(tmp_path)
    message = (
        rf"Expected a checkpoint folder, a Hugging Face repo id \(owner/name\) or 'demo', got '{name}': there is no"
    )
    with pytest.raises(ValueError, match=message):
        checkpoint_folder(name)


def test_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """$MLX_GEMMA4_MODEL names the model where nothing else does; empty, it says nothing."""
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "demo")
    assert default_model() == "demo"
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "")
    assert default_model() == "mlx-community/gemma-4-12B-it-4bit"
    monkeypatch.delenv("MLX_GEMMA4_MODEL")
    assert default_model() == "mlx-community/gemma-4-12B-it-4bit"


def test_download(hub: HubServer, tmp_path: Path) -> None:
    """A repo's checkpoint lands in the cache, with its size told first; what else the repo holds does not."""
    folder, told = fetch(tmp_path, hub.address)
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    assert Path(folder).is_relative_to(tmp_path)
    assert told == "Downloading owner/tiny (7.1 GB), once, to the Hugging Face cache\n"


def test_downloaded_once(hub: HubServer, tmp_path: Path) -> None:
    """What was downloaded is used from then on without any request, and without a word."""
    folder, _ = fetch(tmp_path, hub.address)
    asked = len(hub.asked)
    assert fetch(tmp_path, hub.address) == (folder, "")
    assert len(hub.asked) == asked
    assert fetch(tmp_path, NOWHERE) == (folder, "")


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "tokenizer.model"])
def test_cached_by_others(tmp_path: Path, tokenizer: str) -> None:
    """A checkpoint that another program downloaded is used without any request."""
    folder = snapshot(tmp_path, {"config.json": b"{}", "model.safetensors": b"", tokenizer: b""})
    assert fetch(tmp_path, NOWHERE) == (str(folder), "")
    assert fetch(tmp_path, NOWHERE, revision=COMMIT) == (str(folder), "")


SHARDED = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b"{}"},
        {"config.json": b"{}", "tokenizer.json": b"{}"},
        {"config.json": b"{}", "model.safetensors": b""},
        {"tokenizer.json": b"{}", "model.safetensors": b""},
        {
            "config.json": b"{}",
            "tokenizer.json": b"{}",
            "model.safetensors.index.json": SHARDED,
            "model-1.safetensors": b"",
        },
    ],
    ids=lambda files: "+".join(files),
)
def test_cached_in_part(tmp_path: Path, files: dict[str, bytes]) -> None:
    """Where the cache holds only some of a checkpoint, the Hub is asked for the rest."""
    snapshot(tmp_path, files)
    assert "The Hugging Face Hub cannot be reached for owner/tiny" in fetch(tmp_path, NOWHERE)[0]


def test_cached_in_part_is_completed(hub: HubServer, tmp_path: Path) -> None:
    """The rest is downloaded to where the first part is."""
    folder = snapshot(tmp_path, {"config.json": FILES["config.json"]})
    assert fetch(tmp_path, hub.address)[0] == str(folder)
    assert contents(str(folder)) == {name: FILES[name] for name in WANTED}


def test_download_that_breaks_off(hub: HubServer, tmp_path: Path) -> None:
    """A download that fails half-way says so, and the next one completes it."""
    hub.refusals[f"/{REPO}/resolve/{COMMIT}/model.safetensors"] = "EntryNotFound"
    said, _ = fetch(tmp_path, hub.address)
    assert said.startswith("The download of owner/tiny broke off: ")
    assert said.endswith(" Run this again, it goes on from there")
    hub.refusals.clear()
    assert contents(fetch(tmp_path, hub.address)[0]) == {name: FILES[name] for name in WANTED}


def test_gated_files(hub: HubServer, tmp_path: Path) -> None:
    """A repo whose terms are not accepted shows its listing, and refuses the files."""
    hub.refusals = {f"/{REPO}/resolve/{COMMIT}/{name}": "GatedRepo" for name in FILES}
    said, _ = fetch(tmp_path, hub.address)
    assert said == "The repo owner/tiny asks for its terms to be accepted: huggingface.co/owner/tiny"


def test_unreachable(tmp_path: Path) -> None:
    """Without a network, the error names what runs without one."""
    said, _ = fetch(tmp_path, NOWHERE)
    assert said.startswith("The Hugging Face Hub cannot be reached for owner/tiny, and it is not in the cache: ")
    assert said.endswith("Without a network, --model demo runs the embedded checkpoint, --model FOLDER one on disk")


@pytest.mark.parametrize(
    ("code", "revision", "message"),
    [
        (
            "RepoNotFound",
            None,
            "Expected a Hugging Face repo, there is none called 'owner/tiny' (or it is private: hf auth login)",
        ),
        ("GatedRepo", None, "The repo owner/tiny asks for its terms to be accepted: huggingface.co/owner/tiny"),
        ("RevisionNotFound", "v9", "Expected a revision of owner/tiny, it has none called 'v9'"),
    ],
)
def test_refused(hub: HubServer, tmp_path: Path, code: str, revision: str | None, message: str) -> None:
    """No such repo, one with terms to accept, no such revision: each says what to do."""
    hub.refusals[f"/api/models/{REPO}" + (f"/revision/{revision}" if revision else "")] = code
    assert fetch(tmp_path, hub.address, revision=revision) == (message, "")
