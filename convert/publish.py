"""A converted checkpoint to the Hugging Face Hub: one commit, so that a repo is complete or as it was before."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.checkpoint.weight_files import INDEX

from .card import NAME as CARD
from .card import write_card
from .config_files import copied_files
from .record import NAME as RECORD
from .record import Record, record_file, size_text

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

WEIGHTS = "*.safetensors"
TOKENS = "huggingface.co/settings/tokens"
_REPO = re.compile(r"(?!.*(--|\.\.))\w[\w.-]*/\w[\w.-]*(?<![.-])", re.ASCII)
LOGIN = "run `hf auth login`, or set HF_TOKEN"


def upload(folder: Path, repo: str, *, private: bool = False, note: Callable[[str], None] = print) -> str:
    """Write the folder's card and send the checkpoint, with what the Hub does not hold of it; the commit's URL.

    Args:
        repo: ``owner/name``; made if there is none.
        private: Make it a private one.
        note: Called with the files that will be sent, before any is sent.

    Raises:
        ValueError: The folder is no complete conversion, the token may not write to the repo, or the connection is
            lost; the message says what to do.
    """
    check_folder(folder)
    check_token(repo)
    write_card(folder, repo)
    note(sent_text(folder, repo))
    there = _made(repo, private)
    return _send(folder, repo, there, private)


def sent_text(folder: Path, repo: str) -> str:
    """The files that an upload sends, with their sizes."""
    sizes = ((name, (folder / name).stat().st_size) for name in _names(folder))
    return "\n".join([f"Files for {repo}:", *(f"{size_text(size):>10}  {name}" for name, size in sizes)])


def _made(repo: str, private: bool) -> list[str]:
    """Make the repo if need be; the files that it holds."""
    from huggingface_hub import HfApi

    with _mended(repo, f"The Hugging Face Hub did not make {repo}", "Nothing was sent: try again later"):
        # without a word, an organization's own default applies
        HfApi().create_repo(repo, private=True if private else None, exist_ok=True)
        info = HfApi().model_info(repo)
    if private and info.private is False:
        raise ValueError(f"--private was passed, but {repo} is public; make it private, or name another")
    return [file.rfilename for file in info.siblings or []]


def _send(folder: Path, repo: str, there: list[str], private: bool) -> str:
    from huggingface_hub import HfApi

    again = shlex.join(["mlx_gemma4", "upload", os.fspath(folder), repo, *(["--private"] if private else [])])
    way_out = f"What was sent is kept: run `{again}` again, it goes on from there"
    with _mended(repo, f"The upload of {folder} to {repo} broke off", way_out):
        # upload_folder may make several commits, and a repo would hold a part of the files between them
        commit = HfApi().create_commit(
            repo,
            [*_additions(folder), *_deletions(folder, there)],
            commit_message=f"Upload {folder.resolve().name}",
            num_threads=1,  # one file after the other: what is complete is kept when the connection is lost
        )
    return str(commit.commit_url)


def check_folder(folder: Path) -> None:
    """Raise a ValueError unless the folder holds a complete conversion."""
    from mlx_gemma4.decoder.weights import check_complete

    if not folder.is_dir():
        raise ValueError(f"There is no folder of a converted checkpoint at {folder}")
    record_file(folder)
    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no config.json in {folder}; convert it again")
    try:
        for path in _weights(folder):
            check_complete(path)
    except ValueError as error:
        raise ValueError(f"The conversion is incomplete in {folder}; convert it again: {error}") from error
    Record.read(folder)


def check_token(repo: str) -> None:
    """Ask the Hub whether the token is valid and may write to the repo's owner; nothing is sent.

    Raises:
        ValueError: It is not or may not, there is none, the repo is not named ``owner/name``, or the Hub cannot be
            reached.
    """
    from huggingface_hub import HfApi, get_token

    if not _REPO.fullmatch(repo):
        raise ValueError(
            f"Expected a repo as owner/name, of letters, digits, '-', '_' and '.', got {repo!r}; "
            "name one such as alice/gemma-4-12B-it-4bit"
        )
    if get_token() is None:
        raise ValueError(f"Uploading needs a Hugging Face token; {LOGIN} ({TOKENS})")
    with _mended(repo, f"The Hugging Face Hub cannot be asked about {repo}", "Nothing was sent: try again later"):
        user = HfApi().whoami()
    _check_rights(user, repo)


def _check_rights(user: dict[str, Any], repo: str) -> None:
    """What the Hub tells of a token's rights; where it tells nothing, it refuses later what may not be."""
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise ValueError(f"The Hugging Face token may only read; make one that may write at {TOKENS}")
    teams = {team["name"] for team in user.get("orgs", []) if team.get("roleInOrg") != "read"}
    owners = [user["name"], *sorted(teams)]
    if repo.split("/")[0] not in owners:
        raise ValueError(
            f"Expected an owner that {user['name']} may write to ({', '.join(owners)}), got {repo!r}; name one of "
            "them, or use another's token"
        )


def _weights(folder: Path) -> list[Path]:
    from mlx_gemma4.checkpoint.weight_files import weight_files

    return weight_files(folder)


def _names(folder: Path) -> Iterator[str]:
    """The files of the checkpoint and its card; weights only as far as they belong to it."""
    yield CARD
    for name in ("config.json", RECORD, INDEX):
        if has_file(folder / name):
            yield name
    for path in (*copied_files(folder), *_weights(folder)):
        yield path.relative_to(folder).as_posix()


def _additions(folder: Path) -> Iterator[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    for name in _names(folder):
        yield CommitOperationAdd(name, folder / name)


def _deletions(folder: Path, there: list[str]) -> Iterator[CommitOperationDelete]:
    """Weights of an earlier upload that are not replaced: with them, the repo would be two checkpoints in one."""
    from huggingface_hub import CommitOperationDelete

    kept = set(_names(folder))
    for name in there:
        if name not in kept and "/" not in name and (name == INDEX or fnmatch(name, WEIGHTS)):
            yield CommitOperationDelete(name)


@contextmanager
def _mended(repo: str, what: str, way_out: str) -> Iterator[None]:
    """Errors of the Hub, or of the way to it, as what the user can do about them."""
    try:
        yield
    except Exception as error:  # whatever the HTTP client of the installed version raises
        status, reason = _status(error), _reason(error)
        if status == 401:
            message = f"The Hugging Face token is wrong or has expired ({reason}); {LOGIN}"
        elif status == 403:
            message = f"The Hugging Face token may not write to {repo} ({reason}); see {TOKENS}"
        elif status == 404:
            owner = repo.split("/")[0]
            message = (
                f"Cannot find or create {repo!r} ({reason}): there is no owner {owner!r}, "
                f"or the token may not see it; check the name, or {LOGIN}"
            )
        else:
            message = f"{what}: {reason}. {way_out}"
        raise ValueError(message) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer that an error is about."""
    for each in _chain(error):
        status = getattr(getattr(each, "response", None), "status_code", None)
        if status is not None:
            return int(status)
    return None


def _reason(error: Exception) -> str:
    """What happened, in a line: the answer's status and words, or else what the connection died of."""
    status = _status(error)
    if status is None:
        last = list(_chain(error))[-1]
        return " ".join(str(last).split()) or type(last).__name__
    words = next((said for each in _chain(error) if (said := getattr(each, "server_message", None))), None)
    return f"HTTP {status}" + (f": {' '.join(words.split())}" if words else "")
