"""A model's name to a folder: the embedded demo, a folder on disk, or a repo on the Hugging Face Hub."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path

from mlx_gemma4.checkpoint.files import SMALL_FILES
from mlx_gemma4.checkpoint.template_files import ADDITIONAL
from mlx_gemma4.checkpoint.weight_files import downloaded_names, weight_files

DEMO = "demo"
DEFAULT_MODEL = "mlx-community/gemma-4-12B-it-4bit"
"""The model that is used if none is named."""
DEFAULT_REVISION = "73bcf09092aa277861d5a191b989b666f7f32e8f"
"""The commit of DEFAULT_MODEL that is used unless a revision is named; earlier ones had 11 GB."""
DEFAULT_WEIGHTS = 6_740_000_000
"""Bytes of the weights of DEFAULT_MODEL."""
DEFAULT_BYTES = 6_740_000_000
"""Size of DEFAULT_REVISION."""
MODEL_VARIABLE = "MLX_GEMMA4_MODEL"

ELSEWHERE = "set HF_HOME to a folder on another disk"

TEMPLATES = f"{ADDITIONAL}/*.jinja"
RECORD = "conversion.json"
"""The converter's record."""
SMALL = (*SMALL_FILES, "config.json", RECORD, TEMPLATES)
"""The files of a checkpoint besides its weights. A repo's other files are not downloaded."""


def demo_folder() -> Path:
    """The folder of the embedded demo: ``checkpoint/`` and ``media/``."""
    return Path(__file__).resolve().parents[1] / "demo"  # installers may make each file a link


def default_model() -> str:
    """The model to use if none is named: ``$MLX_GEMMA4_MODEL``, or DEFAULT_MODEL."""
    return os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL


def checkpoint_folder(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    has_tokenizer: bool = True,
    most_weights: int | None = None,
) -> Path:
    """The folder of a checkpoint, downloaded if necessary.

    Args:
        name: ``"demo"``, a folder, or a Hub repo id (``owner/name``). ``"demo"`` is always the embedded one: a folder
            of that name is ``"./demo"``.
        revision: Branch, tag or commit of the repo; None takes DEFAULT_REVISION of DEFAULT_MODEL, and ``main`` of any
            other repo.
        has_tokenizer: Whether a checkpoint without a tokenizer is incomplete. A drafter needs none.
        most_weights: Bytes of weights that the memory has room for. A repo with more is not downloaded.

    Raises:
        ValueError: There is no such folder or repo, it cannot be reached, or its weights are too large.
    """
    if str(name) == DEMO:
        return demo_folder() / "checkpoint"
    folder = Path(name)
    if str(name) and folder.is_dir():
        return folder
    parts = str(name).split("/")
    if len(parts) != 2 or not all(parts) or str(name).startswith((".", "~")):
        raise ValueError(
            f"Expected a checkpoint folder, a Hugging Face repo id (owner/name) or 'demo', got {str(name)!r}: "
            "there is no such folder"
        )
    if str(name) == DEFAULT_MODEL and revision is None:
        revision = DEFAULT_REVISION
    return _download(str(name), revision, has_tokenizer=has_tokenizer, most_weights=most_weights)


def cached_folder(repo: str, revision: str | None, *, has_tokenizer: bool = True) -> Path | None:
    """The folder of a repo that is complete in the Hugging Face cache, or None. No request is made."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(repo, revision=revision, allow_patterns=list(SMALL), local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return cached if is_complete(cached, has_tokenizer=has_tokenizer) else None


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    disk = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(disk).free


def _download(repo: str, revision: str | None, *, has_tokenizer: bool, most_weights: int | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError

    cached = cached_folder(repo, revision, has_tokenizer=has_tokenizer)  # starting does not wait for the network
    if cached is not None:
        return cached
    names, size, weights = _missing(repo, revision)
    if most_weights is not None and weights > most_weights:
        raise _too_large(repo, weights, most_weights)
    _check_room(repo, size, Path(HF_HUB_CACHE))
    print(f"Downloading {repo} ({_size_text(size)}) to the Hugging Face cache at {HF_HUB_CACHE}", file=sys.stderr)
    try:
        # the client keeps no partial files: one at a time, an interruption costs a part of one file only
        return Path(snapshot_download(repo, revision=revision, allow_patterns=names, max_workers=1))
    except GatedRepoError as error:  # the file list of a gated repo is public, its files are not
        raise _gated(repo) from error
    except Exception as error:  # anything that the installed HTTP client, or the disk, may raise
        raise _broken_off(repo, size, error) from error


def _too_large(repo: str, weights: int, most: int) -> ValueError:
    """Why a repo is not downloaded."""
    smaller = repo != DEFAULT_MODEL and most >= DEFAULT_WEIGHTS
    other = f"use a smaller one, such as {DEFAULT_MODEL} ({_size_text(DEFAULT_WEIGHTS)})"
    return ValueError(
        f"{repo} has {_size_text(weights)} of weights, and there is memory for {_size_text(max(most, 0))}: it was not "
        f"downloaded; {other if smaller else 'use more memory'}"
    )


def _broken_off(repo: str, size: int, error: Exception) -> ValueError:
    """Why a download stopped, and what to do about it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):  # hf_xet has no errno
        return ValueError(
            f"The disk is full: {repo} needs {_size_text(size)} in the Hugging Face cache at {HF_HUB_CACHE}. Free some "
            f"space or {ELSEWHERE}, then run this again: complete files are kept"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return ValueError(
            f"The Hugging Face cache at {HF_HUB_CACHE} cannot be written to: {_line(error)}. Please {ELSEWHERE}"
        )
    return ValueError(
        f"The download of {repo} broke off: {_line(error)}. Run this again, files that are complete are kept"
    )


def _line(error: Exception) -> str:
    """An error of the Hub's client in one line."""
    return " ".join(str(error).split())


def _gated(repo: str) -> ValueError:
    return ValueError(f"The repo {repo} asks for its terms to be accepted: huggingface.co/{repo}")


def is_complete(folder: Path, *, has_tokenizer: bool = True) -> bool:
    """Whether a folder holds a whole checkpoint: a download may have been interrupted."""
    try:
        weight_files(folder)
    except ValueError:
        return False
    tokenizers = ("tokenizer.json", "tokenizer.model") if has_tokenizer else ("config.json",)
    return any((folder / name).is_file() for name in tokenizers) and (folder / "config.json").is_file()


def _wanted(names: list[str], repo: str) -> list[str]:
    """The files of a repo that belong to its checkpoint."""
    small = [name for name in names if any(fnmatch(name, pattern) for pattern in SMALL)]
    if "config.json" not in small:
        raise ValueError(f"There is no checkpoint in the repo {repo}: it has no config.json")
    return [*small, *downloaded_names([name for name in names if "/" not in name], f"the repo {repo}")]


def _check_room(repo: str, size: int, cache: Path) -> None:
    """Raise a ValueError if a download does not fit on the cache's disk, before it starts."""
    free = free_space(cache)
    if size > free:
        raise ValueError(
            f"{repo} needs {_size_text(size)}, and the disk of the Hugging Face cache at {cache} has "
            f"{_size_text(free)} free. Free some space or {ELSEWHERE}"
        )


def _size_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _missing(repo: str, revision: str | None) -> tuple[list[str], int, int]:
    """The files of a checkpoint, how many of their bytes are missing in the cache, and the bytes of its weights.

    This is the first request, so it also reports repos that do not exist or cannot be reached.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise _gated(repo) from error
    except RepositoryNotFoundError as error:
        raise ValueError(f"There is no Hugging Face repo called {repo!r} (or it is private: hf auth login)") from error
    except RevisionNotFoundError as error:
        raise ValueError(f"The repo {repo} has no revision called {revision!r}") from error
    except Exception as error:  # anything that the installed HTTP client may raise
        raise ValueError(
            f"The Hugging Face Hub cannot be reached for {repo}, and it is not in the cache: {_line(error)}. "
            "Without a network, --model demo runs the embedded checkpoint, --model FOLDER one on disk"
            f"{_older(revision)}"
        ) from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    names = _wanted(list(sizes), repo)
    missing = (name for name in names if not isinstance(try_to_load_from_cache(repo, name, revision=info.sha), str))
    weights = sum(sizes[name] for name in names if name.endswith(".safetensors"))
    return names, sum(sizes[name] for name in missing), weights


def _older(revision: str | None) -> str:
    """Notes an older revision of the default model in the cache, which now only takes space."""
    return ", --revision main an older download" if revision == DEFAULT_REVISION else ""
