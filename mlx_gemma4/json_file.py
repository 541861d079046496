"""The JSON files of a checkpoint: read, with every complaint naming the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def typed(path: Path) -> Iterator[None]:
    """Say which file holds a value of another type than its key stands for."""
    try:
        yield
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(f"Expected values of the usual types in {path}, got something else: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else is a ValueError that names the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected JSON in {path}, got: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"Expected a JSON object in {path}, got {type(raw).__name__}")
    return raw
