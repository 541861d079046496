"""The JSON files of a checkpoint: read within bounds, each value by its type. Every message names the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

from mlx_gemma4.checkpoint.files import read_bytes

MOST_BYTES = 8 * 2**20
"""Bytes of a JSON file. The largest besides ``tokenizer.json`` is an index, of less than 1 MB."""
MOST_VALUES = 4_000_000
"""Values in a JSON file, of up to 150 bytes of memory each. ``tokenizer.json`` of Gemma has 1.5 million."""
MOST_INT = 2**31 - 1
"""MLX uses 32-bit sizes."""
MOST_IDS = 4096
"""Token ids in one list."""
LONGEST_SHOWN = 180
"""Characters of a value in a message."""

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlist = _REPR.maxdict = 8


def shown(value: object) -> str:
    """A value from a file for a message: ``repr``, in one line and cut to a bounded length."""
    written = _REPR.repr(value)  # bounds each part, not all of them together
    return written if len(written) <= LONGEST_SHOWN else f"{written[: LONGEST_SHOWN - 3]}..."


@contextmanager
def typed(path: Path) -> Iterator[None]:
    """A block in which a value of the wrong type is reported with the name of the file."""
    try:
        yield
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(f"Some values have the wrong type in {path}: {error}") from error


def read_json(path: Path, *, most: int = MOST_BYTES) -> dict[str, Any]:
    """Read a JSON object from a checkpoint file.

    Raises:
        ValueError: The file is larger than ``most`` bytes, is not a JSON object, or must not be read.
    """
    return parse_object(read_bytes(path, most), path)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object; anything else is a ValueError that names the file."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError(f"{path} holds too many values: at most {MOST_VALUES:,} are read")
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON: objects nested too deeply") from error
    except ValueError as error:  # a UnicodeDecodeError and a number of 5,000 digits, too
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ValueError(f"Expected a JSON object in {path}, got {type(raw).__name__}")
    return raw


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse equal keys: readers differ in which one they take, so one could check what another does not use."""
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} twice in one object")
    return table


def whole(value: object, name: str, *, least: int = 1, most: int = MOST_INT) -> int:
    """A whole number from ``least`` to ``most``; ``name`` says in a message which one it is."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    kind = "a positive whole number" if least == 1 else f"a whole number of {least} or more"
    limit = f", at most {most}" if isinstance(value, int) and value > most else ""
    raise ValueError(f"Expected {kind}{limit} for {name}, got {shown(value)}")


def real(value: object, name: str, *, least: float = 0.0, most: float = math.inf) -> float:
    """A finite number from ``least`` to ``most``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number) and least <= number <= most:
            return number
    limit = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
    raise ValueError(f"Expected a number {limit} for {name}, got {shown(value)}")


def flag(value: object, name: str) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"Expected true or false for {name}, got {shown(value)}")


def text(value: object, name: str) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise ValueError(f"Expected a string for {name}, got {shown(value)}")


def table(value: object, name: str) -> Mapping[str, Any]:
    """An object."""
    if isinstance(value, dict):
        return value
    raise ValueError(f"Expected an object for {name}, got {shown(value)}")


def array(value: object, name: str) -> Sequence[Any]:
    """A list."""
    if isinstance(value, list):
        return value
    raise ValueError(f"Expected a list for {name}, got {shown(value)}")


def token_id(value: object, name: str) -> int:
    """A token id. Whether the vocabulary has it is checked elsewhere."""
    return whole(value, name, least=0)


def token_ids(value: object, name: str) -> tuple[int, ...]:
    """One token id, several, or none."""
    if value is None:
        return ()
    if not isinstance(value, list):
        return (token_id(value, name),)
    if len(value) > MOST_IDS:
        raise ValueError(f"Expected at most {MOST_IDS} token ids for {name}, got {len(value)}")
    return tuple(token_id(each, name) for each in value)
