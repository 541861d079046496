"""Tensors in blocks of rows: the next block is read while this one is computed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod

from .tensors import Rows, Tensor

BLOCK_BYTES = 8 * 2**20
"""Of values; what is held in memory at a time is a few of these. Larger ones are slower: each is mapped anew."""


def row_bytes(tensor: Tensor) -> int:
    """Bytes of a row of values, in which progress is counted."""
    return prod(tensor.shape[1:]) * tensor.dtype.size


def row_blocks(tensor: Tensor) -> list[tuple[int, int]]:
    """(start, stop) of each block of rows."""
    count = tensor.shape[0]
    rows = max(1, BLOCK_BYTES // max(1, prod(tensor.shape[1:]) * tensor.dtype.size))
    return [(start, min(start + rows, count)) for start in range(0, count, rows)]


def fetched(jobs: list[tuple[Tensor, int, int]]) -> Iterator[Rows]:
    """The rows of each job, in order; one is read ahead, in a thread that knows nothing of MLX."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        ahead = None
        for tensor, start, stop in jobs:
            job = reader.submit(tensor.fetch, start, stop)
            if ahead is not None:
                yield ahead.result()
            ahead = job
        if ahead is not None:
            yield ahead.result()
