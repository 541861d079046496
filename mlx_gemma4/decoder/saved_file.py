"""Files that keep what was computed: safetensors, bound to the model that computed it.

    __metadata__    kind      "session": what the file is
                    format    the version of its layout
                    header    JSON: the model's identity, a checksum of each tensor, and what the kind needs
                    digest    of the header
    tensors         keys and values, token ids, media

A file is checked before any tensor is read: whose it is, whether it is complete, and whether this model computed it.
Sizes come from its own header and are compared with the file's length. Whoever reads it compares shapes with what is
expected of them, while the tensors are still lazy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_gemma4.checkpoint.json_file import parse_object, table
from mlx_gemma4.checkpoint.replace import replaced
from mlx_gemma4.checkpoint.tensor_header import read_header, read_metadata, written_header
from mlx_gemma4.decoder.buffers import raw_bytes
from mlx_gemma4.decoder.identity import Identity, checksums
from mlx_gemma4.decoder.types import DTYPES, TYPE_NAMES
from mlx_gemma4.printable import printable

OURS = "mlx_gemma4"
FORMAT = 1
"""The version of the layout. Another one is refused."""


@dataclass(frozen=True)
class Saved:
    """A file that was opened: its tensors are lazy until ``take``."""

    path: Path
    header: Mapping[str, Any]
    arrays: dict[str, mx.array]

    @property
    def dtype(self) -> mx.Dtype:
        """The type of keys and values."""
        return DTYPES[self.header["model"]["dtype"]]

    def damaged(self, what: str) -> ValueError:
        """The error of a file whose parts do not fit together."""
        return ValueError(f"{self.path} is damaged: {what}; remove it, or name another file")

    def array(self, name: str, dtype: mx.Dtype, *shape: int | None) -> mx.array:
        """A tensor of a type and a shape, in which None is any size. It may still be lazy.

        Raises:
            ValueError: It is missing, or has another type or shape.
        """
        array = self.arrays.get(name)
        if array is None:
            raise self.damaged(f"it has no {name}")
        fits = len(array.shape) == len(shape) and all(
            wanted is None or size == wanted for size, wanted in zip(array.shape, shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            wanted = [size if size is not None else "any" for size in shape]
            got = f"{TYPE_NAMES.get(array.dtype)} {list(array.shape)}"
            raise self.damaged(f"expected {name} of {TYPE_NAMES[dtype]} {wanted}, got {got}")
        return array

    def take(self, name: str) -> mx.array:
        """Read a tensor. The file forgets it, so that it is in memory once.

        Raises:
            ValueError: It is not what was written.
        """
        array = self.arrays.pop(name)
        if checksums({name: array})[name] != self.header["checksums"].get(name):
            raise self.damaged(f"the bytes of {printable(name)} are not those that were written")
        return array


def write(
    path: Path, kind: str, model: Identity, header: Mapping[str, Any], arrays: Mapping[str, mx.array | np.ndarray]
) -> None:
    """Write a file, or replace one of ours. It appears complete or not at all.

    Args:
        header: What JSON can express.
        arrays: They are copied to the disk one after the other.

    Raises:
        ValueError: ``check_target``, or the disk is full.
    """
    check_target(path)
    tensors = {name: mx.array(array) if isinstance(array, np.ndarray) else array for name, array in arrays.items()}
    text = json.dumps({**header, "model": asdict(model), "checksums": checksums(tensors)}, sort_keys=True)
    metadata = {"kind": f"{OURS} {kind}", "format": str(FORMAT), "header": text, "digest": _digest(text)}
    entries = {name: (TYPE_NAMES[array.dtype], array.shape, array.nbytes) for name, array in tensors.items()}
    begin = written_header(entries, metadata)
    with replaced(path) as file:
        file.write(begin)
        for array in tensors.values():
            file.write(raw_bytes(array))


def read(path: Path, kind: str, model: Identity) -> Saved:
    """Read a file, its tensors lazily.

    Raises:
        ValueError: There is none, it is damaged, it is something else, or another model or version wrote it. The
            message says what to do.
    """
    if not path.exists():
        raise ValueError(f"There is no {kind} at {path}; save one first, or name another file")
    place = path.resolve()
    metadata = _metadata(path, kind)
    if metadata.get("format") != str(FORMAT):
        raise ValueError(
            f"{path} has format {printable(str(metadata.get('format')))}, and this version of mlx_gemma4 reads format "
            f"{FORMAT}: use the version that wrote it, or name another file"
        )
    try:
        read_header(place)
    except ValueError as error:
        raise ValueError(f"{path} is cut short or damaged; remove it, or name another file") from error
    text = metadata.get("header")
    if not isinstance(text, str) or metadata.get("digest") != _digest(text):
        raise ValueError(f"{path} is cut short or damaged; remove it, or name another file")
    header = parse_object(text.encode(), path)
    _check_model(path, table(header.get("model"), f"model in {path}"), model)
    table(header.get("checksums"), f"checksums in {path}")
    try:
        arrays = mx.load(str(place), format="safetensors")
    except RuntimeError as error:
        raise ValueError(f"MLX cannot read {path}: {error}") from error
    assert isinstance(arrays, dict)
    return Saved(path, header, arrays)


def check_target(path: Path) -> None:
    """Check, before anything is computed, that a file can be written, and that only one of ours is replaced.

    Raises:
        ValueError: It is something else, or there is no such folder, or it must not be written.
    """
    place = path.resolve()
    if place.is_dir():
        raise ValueError(f"{path} is a folder; name a file")
    if not place.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} for {path.name}; create it first")
    if place.exists():
        _metadata(path, "file")
    if not os.access(place.parent, os.W_OK | os.X_OK) or (place.exists() and not os.access(place, os.W_OK)):
        raise ValueError(f"Cannot write {path}: Permission denied")


def check_kind(path: Path, kind: str) -> None:
    """Check, before a model is loaded, that a file is one of ours and of this kind.

    Raises:
        ValueError: It is not.
    """
    _metadata(path, kind)


def _metadata(path: Path, kind: str) -> Mapping[str, Any]:
    """The metadata of a file of ours; ``kind`` is what it should be, or "file" for any."""
    place = path.resolve()
    if not place.is_file():
        raise ValueError(f"{path} is not a regular file; name another one")
    try:
        metadata = read_metadata(place)
    except ValueError as error:
        raise ValueError(f"{path} is not a {kind} that mlx_gemma4 saved; name another file") from error
    ours, _, found = str(metadata.get("kind")).partition(" ")
    if ours != OURS:
        raise ValueError(f"{path} is not a {kind} that mlx_gemma4 saved; name another file")
    if kind not in ("file", found):
        raise ValueError(f"{path} is a {printable(found)} that mlx_gemma4 saved, not a {kind}; name another file")
    return metadata


def _check_model(path: Path, written: Mapping[str, Any], model: Identity) -> None:
    if written.get("config") != model.config:
        raise ValueError(
            f"{path} was written with a checkpoint of other sizes or settings; load that one, or name another file"
        )
    if written.get("dtype") != model.dtype:
        raise ValueError(
            f"{path} was computed in {printable(str(written.get('dtype')))}, and the model computes in {model.dtype}: "
            "load the model with that dtype, or name another file"
        )
    if written.get("weights") != model.weights:
        raise ValueError(
            f"{path} was written with other weights of the same sizes; load that one, or name another file"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
