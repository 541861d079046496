"""The files of a checkpoint folder: regular files of bounded size, inside the folder.

A downloaded folder may contain a link to ``/etc/passwd``, or a pipe that nobody writes to. Each file is checked here
before it is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

SMALL_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
"""The files of a checkpoint besides its config, its weights and their index. All other files are the user's own."""


def has_file(path: Path, folder: Path | None = None) -> bool:
    """Whether a checkpoint folder has this file.

    Args:
        folder: The checkpoint folder, if the file lies in a folder inside it.

    Raises:
        ValueError: The file exists but must not be read (``check_file``).
    """
    if not os.path.lexists(path):
        return False
    check_file(path, folder)
    return True


def check_file(path: Path, folder: Path | None = None) -> None:
    """Check that a path is a regular file, and that no link leads out of the folder.

    Links into the ``blobs`` of the same repo are followed: the Hugging Face cache stores checkpoints that way.

    Raises:
        ValueError: It is something else, or a link that cannot be followed.
    """
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:  # older Pythons raise RuntimeError for a loop of links
        reason = getattr(error, "strerror", None) or "the link is part of a loop"
        raise ValueError(f"Cannot read {path}: {reason}") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a regular file; replace it with one")
    if not any(target.is_relative_to(root) for root in _roots(folder or path.parent)):
        raise ValueError(f"{path} is a link to a file outside its folder; copy the file into the folder")


def _roots(folder: Path) -> Iterator[Path]:
    place = folder.resolve()
    yield place
    for snapshot in (place, place.parent):  # the checkpoint folder, or one inside it
        if snapshot.parent.name == "snapshots":
            yield snapshot.parent.parent / "blobs"


def read_bytes(path: Path, most: int, folder: Path | None = None) -> bytes:
    """The content of a checkpoint file of at most ``most`` bytes.

    Raises:
        ValueError: It is larger, or must not be read (``check_file``).
    """
    check_file(path, folder)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path} is too large: {path.stat().st_size:,} bytes, at most {most:,} are read")
    return data


def is_plain_name(name: str) -> bool:
    """Whether a name that a file contains can only mean a file in the same folder."""
    return name not in ("", ".", "..") and not any(part in name for part in ("/", "\\", "\0"))
