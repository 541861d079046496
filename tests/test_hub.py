"""Names to folders; the Hub is a server on this machine, and no request leaves it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hub_server import FETCH, NOWHERE, Cut, Hub, Refusal, Repo, ask, contents, running
from hub_server import fetch as fetch_repo

from mlx_gemma4 import demo_folder
from mlx_gemma4.checkpoint.hub import DEFAULT_MODEL, DEFAULT_REVISION, checkpoint_folder, default_model

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
ANNOUNCED = {"model.safetensors": 7_100_000, "original.bin": 30_000_000_000}
WANTED = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as hub:
        hub.repos[REPO] = Repo(dict(FILES), commits=[COMMIT], announced=ANNOUNCED)
        yield hub


fetch = partial(fetch_repo, name=REPO)
"""The folder's path or the error, and stderr."""


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


def test_demo_is_in_the_package() -> None:
    """The name "demo" is the embedded checkpoint."""
    assert checkpoint_folder("demo") == demo_folder() / "checkpoint"
    assert (checkpoint_folder("demo") / "model.safetensors").is_file()


def test_a_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is there is taken, even if it could be a repo's name; "demo" is the embedded one all the same."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "owner/tiny"):
        (tmp_path / name).mkdir(parents=True)
    assert checkpoint_folder("owner/tiny") == Path("owner/tiny")
    assert checkpoint_folder(tmp_path) == tmp_path
    assert checkpoint_folder("demo") == demo_folder() / "checkpoint"
    assert checkpoint_folder("./demo") == Path("demo")


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


def test_download(hub: Hub, tmp_path: Path) -> None:
    """A repo's checkpoint lands in the cache, with its size told first; what else the repo holds does not."""
    folder, told = fetch(tmp_path, hub.address)
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    assert Path(folder).is_relative_to(tmp_path)
    assert told == f"Downloading owner/tiny (7.1 MB) to the Hugging Face cache at {tmp_path}\n"


def test_download_of_a_checkpoint_alone(hub: Hub, tmp_path: Path) -> None:
    """Sidecars, files of other programs, other checkpoints in folders, and hidden files stay where they are."""
    others = ("adapters.safetensors", "._model.safetensors", "onnx/model.safetensors", "eval/results.json", "a.json")
    hub.repos[REPO].files |= dict.fromkeys(others, b"other")
    hub.repos[REPO].files |= {"additional_chat_templates/tool_use.jinja": b"tools", "conversion.json": b"{}"}
    folder, _ = fetch(tmp_path, hub.address)
    assert contents(folder).keys() == {*WANTED, "additional_chat_templates/tool_use.jinja", "conversion.json"}
    assert fetch(tmp_path, NOWHERE) == (folder, "")


@pytest.mark.parametrize(
    ("missing", "added", "message"),
    [
        ("config.json", {}, "There is no checkpoint in the repo owner/tiny: it has no config.json"),
        (
            "model.safetensors",
            {"model.gguf": b""},
            "There are no weights (model*.safetensors) in the repo owner/tiny",
        ),
        ("README.md", {"model-1-of-1.safetensors": b""}, "There are two sets of weights in the repo owner/tiny: model"),
    ],
)
def test_repo_without_a_checkpoint(
    hub: Hub, tmp_path: Path, missing: str, added: dict[str, bytes], message: str
) -> None:
    """It is refused before anything is downloaded."""
    del hub.repos[REPO].files[missing]
    hub.repos[REPO].files |= added
    error, told = fetch(tmp_path, hub.address)
    assert message in error and told == "" and not hub.sent


def test_downloaded_once(hub: Hub, tmp_path: Path) -> None:
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


def test_cached_in_part_is_completed(hub: Hub, tmp_path: Path) -> None:
    """The rest is downloaded to where the first part is."""
    folder = snapshot(tmp_path, {"config.json": FILES["config.json"]})
    assert fetch(tmp_path, hub.address)[0] == str(folder)
    assert contents(str(folder)) == {name: FILES[name] for name in WANTED}


def test_download_that_breaks_off(hub: Hub, tmp_path: Path) -> None:
    """A download that fails half-way says so in a line; the next one completes it, with what is not there yet."""
    missing = f"/{REPO}/resolve/{COMMIT}/model.safetensors"
    hub.refusals[missing] = Refusal(404, "EntryNotFound")
    said, _ = fetch(tmp_path, hub.address)
    assert said.startswith("The download of owner/tiny broke off: 404 Client Error. ")
    assert said.endswith(". Run this again, files that are complete are kept")
    assert "\n" not in said
    hub.refusals.clear()
    hub.sent.clear()
    assert contents(fetch(tmp_path, hub.address)[0]) == {name: FILES[name] for name in WANTED}
    assert hub.sent == {missing: len(FILES["model.safetensors"])}


SHARDS = {"model-1.safetensors": bytes(12 << 20), "model-2.safetensors": b"\1" * (12 << 20)}
PATHS = [f"/{REPO}/resolve/{COMMIT}/{name}" for name in SHARDS]


@pytest.fixture
def shards(hub: Hub) -> Hub:
    """A repo with two shards, longer than what the client writes at a time (10 MiB)."""
    index = {"model.safetensors.index.json": SHARDED}
    hub.repos[REPO].files = {"config.json": b"{}", "tokenizer.json": b"{}", **index, **SHARDS}
    return hub


def test_connection_that_breaks_once(shards: Hub, tmp_path: Path) -> None:
    """After a short break, only the rest of a shard is asked for."""
    shards.cuts[PATHS[1]] = Cut(11 << 20, times=1)
    folder, _ = fetch(tmp_path, shards.address)
    assert contents(folder) == shards.repos[REPO].files
    assert shards.ranges == {PATHS[1]: [f"bytes={10 << 20}-"]}
    assert [shards.sent[path] for path in PATHS] == [12 << 20, (11 << 20) + (2 << 20)]


def test_connection_that_is_gone(shards: Hub, tmp_path: Path) -> None:
    """A download that is cut off in its second shard keeps the first one, which the next run does not ask for."""
    shards.cuts[PATHS[1]] = Cut(6 << 20)
    said, _ = fetch(tmp_path, shards.address)
    assert said.startswith("The download of owner/tiny broke off: ")
    assert said.endswith(". Run this again, files that are complete are kept")
    shards.cuts.clear()
    shards.sent.clear()
    folder, _ = fetch(tmp_path, shards.address)
    assert contents(folder) == shards.repos[REPO].files
    assert shards.sent == {PATHS[1]: 12 << 20}


def test_one_file_after_the_other(shards: Hub, tmp_path: Path) -> None:
    """No two shards are under way at a time: a break costs a part of one, since the client keeps no part of a file."""
    shards.cuts[PATHS[0]] = Cut(6 << 20, times=2)
    fetch(tmp_path, shards.address)
    asked = [path for line in shards.asked for path in PATHS if path in line]
    assert set(asked) == set(PATHS)
    assert asked == sorted(asked)


def full(cache: Path, size: str) -> str:
    return (
        f"The disk is full: owner/tiny needs {size} in the Hugging Face cache at {cache}. Free some space "
        "or set HF_HOME to a folder on another disk, then run this again: complete files are kept"
    )


def test_more_than_the_disk_has_room_for(hub: Hub, tmp_path: Path) -> None:
    """A download that cannot fit is refused before its first byte; what is in the cache already is not counted."""
    hub.repos[REPO].announced = {"model.safetensors": 10**18}
    said, told = fetch(tmp_path / "new" / "cache", hub.address)
    assert re.fullmatch(
        r"owner/tiny needs 1000000000\.0 GB, and the disk of the Hugging Face cache at .*/new/cache has [0-9.]+ [GM]B "
        r"free\. Free some space or set HF_HOME to a folder on another disk",
        said,
    )
    assert told == "" and not hub.sent
    snapshot(tmp_path, {"model.safetensors": FILES["model.safetensors"]})
    assert contents(fetch(tmp_path, hub.address)[0]) == {name: FILES[name] for name in WANTED}


def test_the_default_model_has_a_revision(tmp_path: Path) -> None:
    """Who has an older default in the cache gets the one that is meant, or is told how to run the older one."""
    name, older = DEFAULT_MODEL, tmp_path / "models--mlx-community--gemma-4-12B-it-4bit"
    assert fetch_repo(tmp_path, NOWHERE, name)[0].endswith(", --revision main an older download")
    for commit in (COMMIT, DEFAULT_REVISION):
        (older / "snapshots" / commit).mkdir(parents=True)
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (older / "snapshots" / commit / file).write_bytes(b"{}")
    (older / "refs").mkdir()
    (older / "refs" / "main").write_text(COMMIT)
    assert fetch_repo(tmp_path, NOWHERE, name)[0] == str(older / "snapshots" / DEFAULT_REVISION)
    assert fetch_repo(tmp_path, NOWHERE, name, "main")[0] == str(older / "snapshots" / COMMIT)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if shutil.which("mount") is None or not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_disk_that_fills_up(shards: Hub, small_disk: Path) -> None:
    """Where the disk is full, the error says so, and where the cache lies."""
    shards.repos[REPO].announced = dict.fromkeys(SHARDS, 0)  # less than there is: the disk fills up half-way
    assert fetch(small_disk, shards.address)[0] == full(small_disk, "0.0 MB")


def test_disk_that_fills_up_in_words(hub: Hub, tmp_path: Path) -> None:
    """A client that has no number for it says it in words."""
    program = f"""
import huggingface_hub.file_download as client
def http_get(*_, **__):
    raise RuntimeError("Data processing error: No space left on device (os error 28)")
client.http_get = http_get
{FETCH}"""
    assert ask(hub.address, tmp_path, program, REPO, "")[0] == full(tmp_path, "7.1 MB")


def test_cache_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    """A cache that cannot be written to is named; here a file is in the way."""
    (tmp_path / "models--owner--tiny").touch()
    said, _ = fetch(tmp_path, hub.address)
    assert said.startswith(f"The Hugging Face cache at {tmp_path} cannot be written to: [Errno ")
    assert said.endswith(". Please set HF_HOME to a folder on another disk")


def test_gated_files(hub: Hub, tmp_path: Path) -> None:
    """A repo whose terms are not accepted shows its listing, and refuses the files."""
    hub.refusals = {f"/{REPO}/resolve/{COMMIT}/{name}": Refusal(403, "GatedRepo") for name in FILES}
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
            "There is no Hugging Face repo called 'owner/tiny' (or it is private: hf auth login)",
        ),
        ("GatedRepo", None, "The repo owner/tiny asks for its terms to be accepted: huggingface.co/owner/tiny"),
        ("RevisionNotFound", "v9", "The repo owner/tiny has no revision called 'v9'"),
    ],
)
def test_refused(hub: Hub, tmp_path: Path, code: str, revision: str | None, message: str) -> None:
    """No such repo, one with terms to accept, no such revision: each says what to do."""
    hub.refusals[f"/api/models/{REPO}" + (f"/revision/{revision}" if revision else "")] = Refusal(
        403 if code == "GatedRepo" else 404, code
    )
    assert fetch(tmp_path, hub.address, revision=revision) == (message, "")


@pytest.mark.parametrize(
    ("most", "way"),
    [
        (7_000_000_000, "use a smaller one, such as mlx-community/gemma-4-12B-it-4bit (6.7 GB)"),
        (6_000_000_000, "use more memory"),
    ],
)
def test_weights_that_do_not_fit_into_memory_are_not_downloaded(hub: Hub, tmp_path: Path, most: int, way: str) -> None:
    hub.repos[REPO].announced = {"model.safetensors": 23_900_000_000}
    code = (
        "from mlx_gemma4.checkpoint.hub import checkpoint_folder\n"
        f"try: print(checkpoint_folder({REPO!r}, most_weights={most}))\n"
        "except ValueError as error: print(error)"
    )
    said, noted = ask(hub.address, tmp_path, code)
    assert noted == ""
    assert said == (
        f"owner/tiny has 23.9 GB of weights, and there is memory for {most / 1e9:.1f} GB: it was not downloaded; {way}"
    )
