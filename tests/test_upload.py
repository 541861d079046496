"""Conversions to the Hub, by its own client; the Hub is a server on this machine, and no request leaves it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import indent

import mlx.core as mx
import pytest
from hub_server import NOWHERE, TOKEN, Cut, Hub, Refusal, Repo, ask, asking, contents, fetch, running

from mlx_gemma4.convert.card import card
from mlx_gemma4.convert.publish import check_folder, check_token, sent_text
from mlx_gemma4.convert.record import Record

REPO = "owner/tiny-4bit"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
SENT = {"README.md", "config.json", "tokenizer.json", "chat_template.jinja", "conversion.json", INDEX, *SHARDS}
RECORD = Record("tiny", None, "gemma4_unified", None, "4bit", "all at 4 bits", 100, 50, {"4 bits": 2}, "0.1.0")
UPLOAD = """
import argparse, sys
from mlx_gemma4.convert import upload_command
parser = argparse.ArgumentParser()
upload_command.add_arguments(parser)
try: upload_command.run(parser.parse_args())
except ValueError as error: print(error)
"""
UPLOADS = f"""
import sys
for _ in sys.stdin:
{indent(UPLOAD.strip(), "    ")}
    sys.stdout.flush()
"""
CHECK = """
import sys
from mlx_gemma4.convert.publish import check_token
try: print(check_token(sys.argv[1]))
except ValueError as error: print(error)
"""
Send = Callable[..., str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a conversion leaves: two shards and the rest."""
    folder = tmp_path / "made"
    folder.mkdir()
    for number, name in enumerate(SHARDS):
        mx.save_safetensors(str(folder / name), {f"w{number}": mx.random.normal((40_000,), key=mx.random.key(number))})
    weight_map = {f"w{number}": name for number, name in enumerate(SHARDS)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (folder / name).write_text(f'{{"of": "{name}"}}')
    RECORD.write(folder)
    return folder


@pytest.fixture
def send(hub: Hub, folder: Path, tmp_path: Path) -> Send:
    """Upload; the URL or the error."""

    def send(*options: str, repo: str = REPO, token: str | None = TOKEN) -> str:
        return ask(hub.address, tmp_path, UPLOAD, str(folder), repo, *options, token=token)[0]

    return send


def oid(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def broken_off(folder: Path, *options: str) -> str:
    again = shlex.join(["mlx_gemma4", "upload", str(folder), REPO, *options])
    head = f"The upload of {folder} to {REPO} broke off: "
    return rf"{re.escape(head)}.+\. What was sent is kept: run `{re.escape(again)}` again, it goes on from there"


def test_there_and_back(hub: Hub, folder: Path, send: Send, tmp_path: Path) -> None:
    """Every byte of the checkpoint arrives and comes back; leftovers and hidden files stay here."""
    for name in ("notes.txt", ".hidden.json", "left-over.safetensors", "secrets.json", ".env", "._config.json"):
        (folder / name).write_text("not for others")
    (folder / "passwd.json").symlink_to("/etc/passwd")
    assert send() == f"{hub.address}/{REPO}/commit/{hub.repos[REPO].commit}"
    told = contents(folder)
    assert hub.repos[REPO].files == {name: told[name] for name in SENT}
    assert hub.repos[REPO].files["README.md"].decode() == card(RECORD, REPO)
    assert len(hub.repos[REPO].commits) == 2
    assert not hub.repos[REPO].private
    assert hub.received == {oid(folder / name): (folder / name).stat().st_size for name in SHARDS}
    back, _ = fetch(tmp_path / "cache", hub.address, REPO)
    assert contents(back) == {name: told[name] for name in SENT if name != "README.md"}


def test_files_are_listed(folder: Path) -> None:
    """With their sizes, and no others than those that will be sent."""
    (folder / "secrets.json").write_text("not for others")
    (folder / "README.md").write_text("card")
    head, *lines = sent_text(folder, REPO).splitlines()
    assert head == f"Files for {REPO}:"
    assert {line.split()[2] for line in lines} == SENT
    assert f"   0.16 MB  {SHARDS[0]}" in lines


def test_a_link_is_not_sent(folder: Path) -> None:
    """A tokenizer that is a link out of the folder: no list, no upload."""
    (folder / "README.md").write_text("card")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="is a link to a file outside its folder"):
        sent_text(folder, REPO)


def test_in_parts(hub: Hub, folder: Path, send: Send) -> None:
    """Large shards are sent in the parts that the Hub asks for."""
    hub.part_size = 50_000
    assert send().startswith(f"{hub.address}/{REPO}/commit/")
    assert {name: hub.repos[REPO].files[name] for name in SHARDS} == {
        name: (folder / name).read_bytes() for name in SHARDS
    }
    assert f"PUT /lfs/{oid(folder / SHARDS[0])}/4" in hub.asked


@pytest.mark.parametrize("part_size", [None, 50_000])
def test_cut_off_and_sent_again(hub: Hub, folder: Path, send: Send, part_size: int | None) -> None:
    """An upload that is cut off leaves the repo as it was; the next one sends what is missing, and nothing twice."""
    hub.part_size = part_size
    first, second = (folder / name for name in SHARDS)
    hub.cuts[f"/lfs/{oid(second)}" + ("/2" if part_size else "")] = Cut(10_000)
    assert re.fullmatch(broken_off(folder), send())
    assert hub.repos[REPO].files == {}
    assert hub.received[oid(first)] == first.stat().st_size
    assert oid(second) not in hub.objects
    hub.cuts.clear()
    hub.received.clear()
    assert send().startswith(f"{hub.address}/{REPO}/commit/")
    assert hub.received == {oid(second): second.stat().st_size}
    assert hub.repos[REPO].files.keys() == SENT


def test_short_break(hub: Hub, folder: Path, send: Send) -> None:
    """The client tries a shard again by itself."""
    second = folder / SHARDS[1]
    hub.cuts[f"/lfs/{oid(second)}"] = Cut(10_000, times=2)
    assert send().startswith(f"{hub.address}/{REPO}/commit/")
    assert hub.received[oid(second)] == 2 * 10_000 + second.stat().st_size


def test_sent_twice(hub: Hub, send: Send) -> None:
    """What is there already is not sent, and makes no commit."""
    url = send()
    hub.received.clear()
    assert send() == url
    assert not hub.received
    assert len(hub.repos[REPO].commits) == 2


def test_replaced(hub: Hub, folder: Path, send: Send) -> None:
    """Another conversion replaces the weights of the first; what is no part of a checkpoint stays."""
    old = dict.fromkeys(("model.safetensors", INDEX, "notes.md", "media/a.safetensors", "config.json"), b"old")
    hub.repos[REPO] = Repo(old)
    send()
    assert hub.repos[REPO].files.keys() == SENT | {"notes.md", "media/a.safetensors"}
    for name in SHARDS:
        (folder / name).unlink()
    (folder / INDEX).unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), {"w": mx.zeros((10,))})
    RECORD.write(folder)
    send()
    left = SENT - {INDEX, *SHARDS} | {"model.safetensors", "notes.md", "media/a.safetensors"}
    assert hub.repos[REPO].files.keys() == left


def test_private(hub: Hub, folder: Path, send: Send) -> None:
    """A private repo is made so, and stays so when a command is run again as the error says."""
    hub.cuts[f"/lfs/{oid(folder / SHARDS[1])}"] = Cut(10_000)
    assert re.fullmatch(broken_off(folder, "--private"), send("--private"))
    assert hub.repos[REPO].private
    hub.cuts.clear()
    assert send("--private").startswith(f"{hub.address}/{REPO}/commit/")


def test_private_and_there(hub: Hub, send: Send) -> None:
    """What is to be private does not go to a repo that everyone sees."""
    hub.repos[REPO] = Repo()
    said = send("--private")
    assert said == f"--private was passed, but {REPO} is public; make it private, or name another"
    assert not hub.received


def test_to_a_team(hub: Hub, send: Send) -> None:
    """An organization that the user may write to is an owner like any other."""
    assert send(repo="team/tiny").startswith(f"{hub.address}/team/tiny/commit/")


def test_no_token(hub: Hub, send: Send) -> None:
    """Without a token, the Hub is not even asked."""
    assert send(token=None) == (
        "Uploading needs a Hugging Face token; run `hf auth login`, or set HF_TOKEN (huggingface.co/settings/tokens)"
    )
    assert hub.asked == []


def test_wrong_token(hub: Hub, send: Send) -> None:
    """A token that the Hub does not know."""
    assert send(token="hf_expired") == (
        "The Hugging Face token is wrong or has expired "
        "(HTTP 401: Invalid username or password.); run `hf auth login`, or set HF_TOKEN"
    )
    assert hub.asked == ["GET /api/whoami-v2"]


def test_checked_before(hub: Hub, tmp_path: Path) -> None:
    """A token can be asked about before there is anything to send."""
    assert ask(hub.address, tmp_path, CHECK, REPO, token=TOKEN)[0] == "None"
    assert hub.asked == ["GET /api/whoami-v2"]


def test_read_only_token(hub: Hub, send: Send) -> None:
    """A token that may only read is found out before a repo is made."""
    hub.user["auth"]["accessToken"]["role"] = "read"
    assert send() == ("The Hugging Face token may only read; make one that may write at huggingface.co/settings/tokens")
    assert hub.repos == {}


@pytest.mark.parametrize("repo", ["stranger/tiny", "readers/tiny"])
def test_owner_of_others(hub: Hub, send: Send, repo: str) -> None:
    """Others' names, and those of organizations where the user only reads, are told from those that would do."""
    assert send(repo=repo) == (
        f"Expected an owner that owner may write to (owner, team), got {repo!r}; "
        "name one of them, or use another's token"
    )
    assert hub.asked == ["GET /api/whoami-v2"]


STEPS = {
    "whoami": "/api/whoami-v2",
    "create": "/api/repos/create",
    "preupload": f"/api/models/{REPO}/preupload/main",
    "batch": f"/{REPO}.git/info/lfs/objects/batch",
    "commit": f"/api/models/{REPO}/commit/main",
}


REFUSALS = [
    (
        Refusal(401, message="Invalid credentials in Authorization header"),
        "The Hugging Face token is wrong or has expired "
        "(HTTP 401: Invalid credentials in Authorization header); run `hf auth login`, or set HF_TOKEN",
    ),
    (
        Refusal(403, message="you must use a write token"),
        f"The Hugging Face token may not write to {REPO} "
        "(HTTP 403: you must use a write token); see huggingface.co/settings/tokens",
    ),
    (
        Refusal(404, "RepoNotFound", "Repository not found"),
        f"Cannot find or create {REPO!r} (HTTP 404: Repository not found): there is "
        "no owner 'owner', or the token may not see it; check the name, or run `hf auth login`, or set HF_TOKEN",
    ),
    (Refusal(500), "HTTP 500"),
    (Refusal(503, message="Down for repair"), "HTTP 503: Down for repair"),
]
"""And what is said of them."""


@pytest.mark.parametrize("step", STEPS)
def test_refused(hub: Hub, folder: Path, tmp_path: Path, step: str) -> None:
    """Whatever is refused, and when: the error says what can be done, and the repo is not changed."""
    what, way_out = {
        "whoami": (f"The Hugging Face Hub cannot be asked about {REPO}", "Nothing was sent: try again later"),
        "create": (f"The Hugging Face Hub did not make {REPO}", "Nothing was sent: try again later"),
    }.get(
        step,
        (
            f"The upload of {folder} to {REPO} broke off",
            f"What was sent is kept: run `mlx_gemma4 upload {folder} {REPO}` again, it goes on from there",
        ),
    )
    with asking(hub.address, tmp_path, UPLOADS, str(folder), REPO, token=TOKEN) as send:
        for refusal, message in REFUSALS:
            hub.refusals[STEPS[step]] = refusal
            is_complete = message.startswith(("The Hugging Face token", "Cannot find"))
            assert send() == (message if is_complete else f"{what}: {message}. {way_out}")
            assert REPO not in hub.repos or hub.repos[REPO].files == {}


def test_unreachable(folder: Path, tmp_path: Path) -> None:
    """Without a network, nothing is sent."""
    said, _ = ask(NOWHERE, tmp_path, UPLOAD, str(folder), REPO, token=TOKEN)
    assert re.fullmatch(
        rf"The Hugging Face Hub cannot be asked about {REPO}: .+\. Nothing was sent: try again later", said
    )


@pytest.mark.parametrize("repo", ["tiny", "a/b/c", "/tiny", "owner/", "", "owner/a b", "owner/a--b", "owner/.a", "~/a"])
def test_bad_repo(repo: str) -> None:
    """What is no repo's name is told without asking the Hub."""
    message = (
        f"Expected a repo as owner/name, of letters, digits, '-', '_' and '.', got {repo!r}; "
        "name one such as alice/gemma-4-12B-it-4bit"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_token(repo)


def complaint(folder: Path) -> str:
    with pytest.raises(ValueError) as raised:
        check_folder(folder)
    return str(raised.value)


def test_whole(folder: Path) -> None:
    """A complete conversion is nothing to complain of."""
    check_folder(folder)


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there."""
    path = tmp_path / "nowhere"
    assert complaint(path) == f"There is no folder of a converted checkpoint at {path}"


def test_no_conversion(folder: Path) -> None:
    """A checkpoint that was not converted here."""
    (folder / "conversion.json").unlink()
    assert (
        complaint(folder) == f"This folder was not made by mlx_gemma4 convert: there is no conversion.json in {folder}"
    )


def test_no_config(folder: Path) -> None:
    """A conversion that lost its config."""
    (folder / "config.json").unlink()
    assert complaint(folder) == f"There is no config.json in {folder}; convert it again"


def test_missing_shard(folder: Path) -> None:
    """A conversion that lost a shard."""
    (folder / SHARDS[1]).unlink()
    assert complaint(folder) == (
        f"The conversion is incomplete in {folder}; convert it again: Some shards that {folder / INDEX} "
        f"names are missing: {SHARDS[1]}"
    )


def test_truncated_shard(folder: Path) -> None:
    """A shard that was cut."""
    path = folder / SHARDS[1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert complaint(folder) == (
        f"The conversion is incomplete in {folder}; convert it again: Expected {len(whole)} bytes in {path}, got "
        f"{len(whole) - 1}: the file is cut short; download it again"
    )


def test_truncated_shard_is_not_sent(hub: Hub, folder: Path, send: Send) -> None:
    """The Hub is not asked about a folder that is not complete."""
    (folder / SHARDS[1]).write_bytes(b"")
    assert send().startswith(f"The conversion is incomplete in {folder}; convert it again: ")
    assert hub.asked == []
