"""What a model is: whether keys and values that were computed by one model are those of another.

Every weight counts. They are summed where they lie, in about the time that a token takes: no file is read again, and
names, places and times of files say nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.types import type_name

_WORDS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32}
"""By bytes."""


@dataclass(frozen=True)
class Identity:
    """A model, as far as its keys and values depend on it."""

    dtype: str
    """The type that it computes in: "bfloat16"."""
    config: str
    """A hash of its sizes and settings."""
    weights: str
    """A hash of the names, types, shapes and checksums of its weights."""


def identity(model: Model) -> Identity:
    """The identity of a model. Reads every weight once."""
    config, parameters = model.config, dict[str, mx.array](tree_flatten(model.parameters()))
    settings = asdict(config)
    for name in ("token_ids", "eos_token_ids", "bos_token_id"):  # what tokens mean changes no key
        del settings[name]
    sums = checksums(parameters)
    weights = [(name, str(tensor.dtype), list(tensor.shape), sums[name]) for name, tensor in sorted(parameters.items())]
    return Identity(type_name(model.dtype), _hash(settings), _hash(weights))


def checksums(arrays: dict[str, mx.array]) -> dict[str, int]:
    """A checksum of 32 bits of each array: any changed value, and rows in another order, change it.

    Computed on the device, in memory that does not depend on the size of the arrays.
    """
    sums = {name: _checksum(array) for name, array in arrays.items()}
    mx.eval(sums)
    return {name: int(np.array(total)) for name, total in sums.items()}


def _checksum(array: mx.array) -> mx.array:
    """[] uint32: the sum of each row, times an odd number that counts the rows, modulo 2**32."""
    if not array.size:
        return mx.array(0, dtype=mx.uint32)
    words = array.view(_WORDS[array.dtype.size])  # of the same size, so that parts of larger arrays are not copied
    sums = words.sum(axis=-1).astype(mx.uint32).reshape(-1)
    return (sums * (2 * mx.arange(sums.size, dtype=mx.uint32) + 1)).sum()


def _hash(value: object) -> str:
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(written.encode()).hexdigest()
