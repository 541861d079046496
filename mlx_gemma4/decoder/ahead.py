"""How much memory a forward takes, on a device that is handed work faster than it computes.

MLX allocates what an operation makes when it hands the operation to the device, and frees it when the device is done.
A device that is many layers behind holds the arrays of all of them at once: of a chunk of 512 rows of the 12B 3.2 GB,
and 0.5 GB more for each tile of scores and layer. But MLX waits for the device while more than its memory limit is in
use, so that is set for the time of a forward:

    in use   ──▶ weights, keys and values ──┬── AHEAD_BYTES ──▶ limit: MLX hands out no more
                                            │
                 layer 7 done   layer 8 computing   layers 9 – 12 handed out   layers 13 – 48 not yet

Nothing waits where the device keeps up. It does not run dry either: what is handed out takes it longer than the host
needs to hand out more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlx_gemma4.decoder.memory import AHEAD_BYTES


@contextmanager
def bounded_ahead(kept: int = 0) -> Iterator[None]:
    """While this lasts, an evaluation takes about AHEAD_BYTES more than what is in use now, if one layer needs no more.

    Args:
        kept: Bytes of what it makes to stay: they come on top.
    """
    limit = mx.get_active_memory() + kept + AHEAD_BYTES
    before = mx.set_memory_limit(limit)
    try:
        if before < limit:  # a program's own limit stays
            mx.set_memory_limit(before)
        yield
    finally:
        mx.set_memory_limit(before)
