"""Whether weights are the same as before: a hash of every tensor's header and of some of its bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlx_gemma4.checkpoint.tensor_header import read_header
from mlx_gemma4.checkpoint.weight_files import weight_files

_SAMPLE = 64
"""Bytes from the middle of each tensor. Training changes nearly all of them, and names and shapes stay."""


def weights_hash(folder: Path) -> str:
    """A text that other weights do not have; files, and the order of tensors in them, make no difference.

    Raises:
        ValueError: The folder holds no weights, or broken ones.
    """
    found = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            for name, tensor in read_header(path).items():
                file.seek(max(tensor.start, (tensor.start + tensor.stop - _SAMPLE) // 2))
                sample = file.read(min(_SAMPLE, tensor.stop - tensor.start))
                found[name] = f"{tensor.dtype} {list(tensor.shape)} {sample.hex()}"
    return hashlib.sha256("\n".join(f"{name} {found[name]}" for name in sorted(found)).encode()).hexdigest()
