"""Bytes for readers of files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def bytes_file(data: bytes, name: str) -> Iterator[Path]:
    """A file with this content, while the block runs.

    Args:
        name: What a ValueError that the block raises calls it.
    """
    with tempfile.TemporaryDirectory(prefix="mlx_gemma4-") as folder:
        path = Path(folder) / "medium"
        path.write_bytes(data)
        try:
            yield path
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error
