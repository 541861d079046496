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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import mlx.core as mx

from mlx_gemma4.decoder.memory import AHEAD_BYTES

_LOCK = Lock()
_bounds: list[int] = []
"""The limits of the evaluations that go on now: threads may have several."""
_program = 0
"""MLX's limit outside of them."""


@contextmanager
def bounded_ahead(kept: int = 0) -> Iterator[None]:
    """While this lasts, an evaluation takes about AHEAD_BYTES more than what is in use now, if one layer needs no more.

    Args:
        kept: Bytes of what it makes to stay: they come on top. Fewer than 0 count as none.
    """
    limit = mx.get_active_memory() + max(kept, 0) + AHEAD_BYTES
    _change(_bounds.append, limit)
    try:
        yield
    finally:
        _change(_bounds.remove, limit)


def _change(change: Callable[[int], None], limit: int) -> None:
    """Change the limits that hold, and set MLX's to the largest of them; a program's own stays if it is lower."""
    global _program
    with _LOCK:
        if not _bounds:
            _program = mx.set_memory_limit(limit)
        change(limit)
        mx.set_memory_limit(min(_program, max(_bounds, default=_program)))
