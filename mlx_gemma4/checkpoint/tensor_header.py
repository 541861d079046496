"""The header of a safetensors file: its tensors and where they lie. Checked here when it is read, and made here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import check_file
from mlx_gemma4.checkpoint.json_file import array, parse_object, shown, table, whole

MOST_HEADER = 16 * 2**20
"""Bytes of a header. The 12B's has 0.1 MB; a parsed header takes ten times its size in memory."""
MOST_DIMENSIONS, MOST_NAME = 8, 256

BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bytes of a value, by type."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its bytes are ``[start, stop)`` of the file."""

    dtype: str
    """Its name in safetensors: ``BF16``."""
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, in the order of their bytes.

    They follow each other without gaps, their sizes are those of their shapes and types, and the file is complete.

    Raises:
        ValueError: The file is cut short, is not a safetensors file, or must not be read (``check_file``).
    """
    header, begin = _read(path)
    try:
        tensors = _tensors(header)
    except ValueError as error:
        raise ValueError(f"{path} is not a safetensors file: its header cannot be read: {error}") from error
    size = path.stat().st_size
    expected = begin + max((tensor.stop for tensor in tensors.values()), default=0)
    if size < expected:
        raise ValueError(f"Expected {expected} bytes in {path}, got {size}: the file is cut short; download it again")
    return {
        name: StoredTensor(tensor.dtype, tensor.shape, begin + tensor.start, begin + tensor.stop)
        for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop))
    }


def read_metadata(path: Path) -> Mapping[str, Any]:
    """What a safetensors file says of itself besides its tensors, unchecked.

    Raises:
        ValueError: As for ``read_header``.
    """
    return _metadata(_read(path)[0])


def written_header(tensors: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str]) -> bytes:
    """The beginning of a safetensors file: its header, padded to eight bytes, and the length of that before it.

    Args:
        tensors: The type, the shape and the bytes of each tensor by name, in the order in which they follow.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read(path: Path) -> tuple[dict[str, Any], int]:
    """The parsed header of a file, and where the tensors begin."""
    check_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path} is not a safetensors file: its {size} bytes end inside the header")
        if length > MOST_HEADER:
            raise ValueError(
                f"{path} is not a safetensors file: its header has {length:,} bytes, at most {MOST_HEADER:,} are read"
            )
        data = file.read(length)
    try:
        return parse_object(data, path), 8 + length
    except ValueError as error:
        raise ValueError(f"{path} is not a safetensors file: its header cannot be read: {error}") from error


def _metadata(header: Mapping[str, Any]) -> Mapping[str, Any]:
    return table(header.get("__metadata__") or {}, "__metadata__")  # MLX writes null


def _tensors(header: dict[str, Any]) -> dict[str, StoredTensor]:
    """The entries of a header. Offsets count from the end of the header."""
    _metadata(header)
    header.pop("__metadata__", None)
    for name in header:
        if len(name) > MOST_NAME or not name.isprintable():
            raise ValueError(
                f"The tensor name {shown(name)} is too long or has unprintable characters: at most {MOST_NAME} are read"
            )
    tensors = {name: _tensor(entry, shown(name)) for name, entry in header.items()}
    order = sorted(tensors, key=lambda name: (tensors[name].start, tensors[name].stop))
    for before, after in pairwise(order):
        if tensors[before].stop != tensors[after].start:
            what = "overlap" if tensors[before].stop > tensors[after].start else "leave a gap"
            raise ValueError(f"the bytes of {shown(before)} and {shown(after)} {what}")
    if order and tensors[order[0]].start != 0:
        raise ValueError(f"the bytes of {shown(order[0])} do not begin behind it")
    return tensors


def _tensor(entry: object, name: str) -> StoredTensor:
    told = table(entry, name)
    dtype = told.get("dtype")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"unknown type {shown(dtype)} of {name}")
    sizes = array(told.get("shape"), f"the shape of {name}")
    if len(sizes) > MOST_DIMENSIONS:
        raise ValueError(f"{name} has {len(sizes)} dimensions, at most {MOST_DIMENSIONS} are read")
    shape = tuple(whole(size, f"the shape of {name}", least=0) for size in sizes)
    offsets = array(told.get("data_offsets"), f"the data_offsets of {name}")
    if len(offsets) != 2:
        raise ValueError(f"Expected two data_offsets of {name}, got {shown(offsets)}")
    start, stop = (whole(offset, f"the data_offsets of {name}", least=0, most=2**63) for offset in offsets)
    bits = prod(shape) * BITS[dtype]
    if bits != 8 * (stop - start):
        raise ValueError(
            f"{name} is {dtype} of {list(shape)}, {(bits + 7) // 8} bytes, its data_offsets hold {stop - start}"
        )
    return StoredTensor(dtype, shape, start, stop)
