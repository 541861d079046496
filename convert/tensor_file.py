"""Safetensors files, read and written a stretch of rows at a time, so that no tensor has to fit in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType

import mlx.core as mx
import numpy as np

from mlx_gemma4.checkpoint.tensor_header import read_header, written_header
from mlx_gemma4.decoder.types import STORED_TYPES, TYPE_NAMES

# numpy has no bfloat16: its bits travel as whole numbers
_BITS = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}
_BITS |= {"U32": np.uint32, "U8": np.uint8, "I32": np.int32, "I64": np.int64}


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: where its bytes begin, and what they are."""

    path: Path
    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.size

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.size

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [stop − start, …] as numpy; bfloat16 as its bits (uint16)."""
        shape = (stop - start, *self.shape[1:])
        rows = np.empty(shape, dtype=_BITS[TYPE_NAMES[self.dtype]])
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + start * self.row_bytes)
            view = rows.reshape(-1).view(np.uint8).data
            filled = 0
            while filled < len(view):
                count = file.readinto(view[filled:])
                if not count:
                    raise ValueError(
                        f"{self.name} in {self.path} ends before its {self.nbytes} bytes: the file was cut meanwhile"
                    )
                filled += count
        return rows

    def to_mlx(self, rows: np.ndarray) -> mx.array:
        """What ``read`` returned, as an array of the tensor's type."""
        return mx.array(rows).view(self.dtype) if self.dtype == mx.bfloat16 else mx.array(rows)


def read_entries(path: Path) -> list[Entry]:
    """The tensors of a file, in the order in which they lie there.

    Raises:
        ValueError: The file is cut short, is no safetensors file, or holds a type that is not known here.
    """
    entries = []
    for name, tensor in read_header(path).items():
        if tensor.dtype not in STORED_TYPES:
            raise ValueError(f"Expected a type of {', '.join(STORED_TYPES)} for {name} in {path}, got {tensor.dtype}")
        entries.append(Entry(path, name, STORED_TYPES[tensor.dtype], tensor.shape, tensor.start))
    return entries


@dataclass(frozen=True)
class Output:
    """A tensor that will be written."""

    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.size


class TensorWriter:
    """A file whose tensors are known before they are computed: the header first, then rows wherever they belong.

    Resumes an existing file of the same length. The caller knows which rows it already holds.
    """

    def __init__(self, path: Path, outputs: Sequence[Output]) -> None:
        tensors = {output.name: (TYPE_NAMES[output.dtype], output.shape, output.nbytes) for output in outputs}
        header = written_header(tensors, {"format": "mlx"})
        self._offsets: dict[str, int] = {}
        end = len(header)
        for output in outputs:
            self._offsets[output.name] = end
            end += output.nbytes
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(self._file, header, 0)
        os.truncate(self._file, end)

    def write(self, output: Output, row: int, rows: mx.array) -> None:
        """Put evaluated rows in their place."""
        bits = np.array(rows.view(mx.uint16) if rows.dtype == mx.bfloat16 else rows, copy=False)
        view = np.ascontiguousarray(bits).reshape(-1).view(np.uint8).data
        row_bytes = output.nbytes // output.shape[0]
        at = self._offsets[output.name] + row * row_bytes
        while view:
            count = os.pwrite(self._file, view, at)
            view, at = view[count:], at + count

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        os.fsync(self._file)

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
