"""From the Hub to the Hub: downloaded, converted, uploaded, and run from there. The Hub is a server on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_sizes import FOUR_BITS
from golden import clearest, said
from hub_server import NOWHERE, TOKEN, Cut, Hub, Refusal, Repo, ask, contents, running
from reference_cases import media_file

from mlx_gemma4 import demo_folder
from mlx_gemma4.convert import convert
from mlx_gemma4.convert.card import card
from mlx_gemma4.convert.record import Record

SOURCE, REPO = "maker/tiny-it", "owner/tiny-it-4bit"
CARD = b"---\nlicense: apache-2.0\nlanguage: en\n---\n\n# Tiny\n"
DEMO = contents(demo_folder() / "checkpoint")
SPEECH, SAID = str(media_file(clearest())), said(clearest())
COMMAND = "import sys; from mlx_gemma4.cli import main; print(main(sys.argv[1:]))"
"""A command in a process of its own; its exit code is the last line on stdout."""
NO_TOKEN = (
    "mlx_gemma4: error: Uploading needs a Hugging Face token; run `hf auth login`, or set HF_TOKEN "
    "(huggingface.co/settings/tokens)\n"
)


def downloading(cache: Path, repo: str = SOURCE, size: str = "10.2 MB") -> str:
    return f"Downloading {repo} ({size}) to the Hugging Face cache at {cache}\n"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub that holds the demo in another's name, its card, and a file that is no part of the checkpoint."""
    with running() as hub:
        hub.repos[SOURCE] = Repo({**dict(sorted(DEMO.items())), "README.md": CARD, "original.bin": b"not for us"})
        yield hub


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a conversion of the demo makes, without its record and card."""
    folder = tmp_path_factory.mktemp("expected") / "made"
    convert("demo", folder, recipe="4bit")
    return checkpoint(contents(folder))


def checkpoint(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in ("conversion.json", "README.md")}


def test_there_and_back(hub: Hub, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """One command downloads, converts and uploads; another machine runs what it finds by the new name."""
    target = tmp_path / "made"
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(target), "-q", "--upload-repo", REPO]
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, *command, token=TOKEN)
    assert out.splitlines() == [
        f"{target}: 4bit, {FOUR_BITS}",
        f"{hub.address}/{REPO}/commit/{hub.repos[REPO].commit}",
        "0",
    ]
    told = downloading(tmp_path / "cache") + f"Files for {REPO}:\n"
    assert err.startswith(told)
    sizes = {line.split()[2] for line in err.removeprefix(told).splitlines()}
    assert sizes == hub.repos[REPO].files.keys()
    assert not any("original.bin" in line for line in hub.asked)

    uploaded = hub.repos[REPO].files
    assert uploaded == contents(target)
    assert checkpoint(uploaded) == expected
    record = Record.read(target)
    assert (record.source, record.base_model, record.license) == (SOURCE, SOURCE, "apache-2.0")
    assert uploaded["README.md"].decode() == card(record, REPO)
    assert uploaded["README.md"].decode().split("---\n")[1].splitlines() == [
        "library_name: mlx",
        "pipeline_tag: any-to-any",
        'license: "apache-2.0"',
        f'base_model: "{SOURCE}"',
        "base_model_relation: quantized",
        "tags:",
        "- mlx",
        "- gemma4",
    ]
    assert f"mlx_gemma4 chat --model {REPO}\n" in uploaded["README.md"].decode()

    elsewhere = tmp_path / "elsewhere"
    transcribe = ["transcribe", SPEECH, "--model", REPO, "--dtype", "float32"]
    out, err = ask(hub.address, elsewhere, COMMAND, *transcribe)
    assert out.splitlines() == [SAID, "0"]
    (snapshot,) = (elsewhere / f"models--{REPO.replace('/', '--')}" / "snapshots").iterdir()
    assert err == downloading(elsewhere, REPO, f"{sum(map(len, contents(snapshot).values())) / 1e6:.1f} MB")
    assert contents(snapshot) == {name: content for name, content in uploaded.items() if name != "README.md"}
    assert ask(NOWHERE, elsewhere, COMMAND, *transcribe) == (f"{SAID}\n0", "")


def test_converted_from_a_conversion(hub: Hub, tmp_path: Path) -> None:
    """What is converted again still names the weights that were trained, and what it came by."""
    made, again = tmp_path / "made", tmp_path / "again"
    cache = tmp_path / "cache"
    first = ["convert", "--hf-path", SOURCE, "--mlx-path", str(made), "--upload-repo", "owner/tiny-bf16"]
    assert ask(hub.address, cache, COMMAND, *first, token=TOKEN)[0].endswith("\n0")
    second = ["convert", "--hf-path", "owner/tiny-bf16", "--mlx-path", str(again), "-q"]
    assert ask(hub.address, cache, COMMAND, *second)[0].endswith("\n0")
    record = Record.read(again)
    assert (record.source, record.base_model, record.license) == ("owner/tiny-bf16", SOURCE, "apache-2.0")
    told = (again / "README.md").read_text()
    assert f"[{SOURCE}](https://huggingface.co/{SOURCE}) (through owner/tiny-bf16) in MLX" in told


@pytest.mark.parametrize("card", [None, b"---\nlanguage: en\n---\n"])
def test_no_licence(hub: Hub, tmp_path: Path, card: bytes | None) -> None:
    """A source that has no card, or one that names no licence."""
    del hub.repos[SOURCE].files["README.md"]
    if card is not None:
        hub.repos[SOURCE].files["README.md"] = card
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(tmp_path / "made"), "-q"]
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, *command)
    assert out.endswith("\n0")
    assert err == downloading(tmp_path / "cache")
    assert Record.read(tmp_path / "made").license is None
    assert "license" not in (tmp_path / "made" / "README.md").read_text()


@pytest.mark.parametrize("token", [None, "hf_expired"])
def test_tokens_are_checked_first(hub: Hub, tmp_path: Path, token: str | None) -> None:
    """Before anything is downloaded or converted."""
    target = tmp_path / "place" / "made"
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(target), "-q", "--upload-repo", REPO]
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, *command, token=token)
    assert out == "2"
    if token is None:
        assert err == NO_TOKEN
        assert hub.asked == []
    else:
        assert err.startswith("mlx_gemma4: error: The Hugging Face token is wrong or has")
        assert hub.asked == ["GET /api/whoami-v2"]
    assert not target.parent.exists()
    assert not (tmp_path / "cache").exists()


def test_uploaded_later(hub: Hub, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """A folder that was converted can be uploaded at any time; its card is written for the repo then."""
    target = tmp_path / "made"
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(target), "-q"]
    assert ask(hub.address, tmp_path / "cache", COMMAND, *command)[0].endswith("\n0")
    assert "path/to/this/folder" in (target / "README.md").read_text()
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, "upload", str(target), REPO, token=TOKEN)
    assert out == f"{hub.address}/{REPO}/commit/{hub.repos[REPO].commit}\n0"
    assert sorted(line.split()[-1] for line in err.splitlines()[1:]) == sorted(contents(target))
    assert hub.repos[REPO].files == contents(target)
    assert checkpoint(hub.repos[REPO].files) == expected
    assert (target / "README.md").read_text() == card(Record.read(target), REPO)


def test_upload_that_breaks_off(hub: Hub, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """The conversion is kept, and the message names the command that sends the rest."""
    target = tmp_path / "made"
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(target), "-q", "--upload-repo", REPO]
    hub.refusals[f"/api/models/{REPO}/commit/main"] = Refusal(503)
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, *command, token=TOKEN)
    assert out.splitlines() == [f"{target}: 4bit, {FOUR_BITS}", "2"]
    again = f"What was sent is kept: run `mlx_gemma4 upload {target} {REPO}` again, it goes on from there\n"
    first = re.escape(downloading(tmp_path / "cache"))
    files = rf"Files for {re.escape(REPO)}:\n( +[\d.]+ MB  \S+\n)+"
    message = rf"mlx_gemma4: error: The upload of .+ broke off: HTTP 503\. {re.escape(again)}"
    assert re.fullmatch(first + files + message, err)
    assert checkpoint(contents(target)) == expected
    assert hub.repos[REPO].files == {}
    assert set(hub.received.values()) == {len(expected["model.safetensors"])}
    hub.received.clear()
    hub.refusals.clear()
    out, _ = ask(hub.address, tmp_path / "cache", COMMAND, "upload", str(target), REPO, token=TOKEN)
    assert out == f"{hub.address}/{REPO}/commit/{hub.repos[REPO].commit}\n0"
    assert hub.repos[REPO].files == contents(target)
    assert not hub.received


def test_download_that_breaks_off(hub: Hub, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """Nothing is converted then; the same command downloads what is missing, and converts."""
    target = tmp_path / "place" / "made"
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(target), "-q"]
    path = f"/{SOURCE}/resolve/{hub.repos[SOURCE].commit}/model.safetensors"
    hub.cuts[path] = Cut(len(DEMO["model.safetensors"]) // 2)
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, *command)
    assert out == "2"
    assert err.startswith(f"{downloading(tmp_path / 'cache')}mlx_gemma4: error: The download of {SOURCE} broke off: ")
    assert err.endswith(". Run this again, files that are complete are kept\n")
    assert not target.parent.exists()
    hub.cuts.clear()
    hub.sent.clear()
    out, _ = ask(hub.address, tmp_path / "cache", COMMAND, *command)
    assert out.endswith("\n0")
    assert checkpoint(contents(target)) == expected
    assert hub.sent.pop(path) == len(DEMO["model.safetensors"])
    others = {path.rsplit("/", 1)[1] for path in hub.sent}
    assert not others & {name for name in DEMO if name < "model.safetensors"}


def test_a_revision(hub: Hub, tmp_path: Path) -> None:
    """--revision names what is converted; one that there is not is told."""
    target = tmp_path / "made"
    command = ["convert", "--hf-path", SOURCE, "--mlx-path", str(target), "-q", "--revision"]
    out, err = ask(hub.address, tmp_path / "cache", COMMAND, *command, "v9")
    assert (out, err) == (
        "2",
        f"mlx_gemma4: error: The repo {SOURCE} has no revision called 'v9'\n",
    )
    assert list(tmp_path.glob("made*")) == []
    out, _ = ask(hub.address, tmp_path / "cache", COMMAND, *command, hub.repos[SOURCE].commit)
    assert out.endswith("\n0")
    assert json.loads((target / "conversion.json").read_text())["source"] == SOURCE
