"""A file that is replaced in one step: readers find the old file or the new one, also after a power failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A new file, written in the block. At the end it takes the place of ``path``; links are followed.

    If the block fails or is interrupted, the old file stays as it was, and nothing is left beside it.

    Raises:
        ValueError: It cannot be written: the disk is full, for example.
    """
    place = path.resolve()
    written = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        try:
            with written.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            written.replace(place)
        except BaseException:
            with suppress(OSError):
                written.unlink(missing_ok=True)
            raise
        with suppress(OSError):  # it is in its place, whatever happens
            sync(place.parent)
    except OSError as error:
        raise ValueError(f"Cannot write {path}: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
