"""Bytes: how fast this machine copies them, and how many a decode step reads.

A step reads every weight once, and the keys and values before it, so memory bounds its speed:

    tokens per second ≤ bandwidth / bytes a step reads
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_gemma4.decoder.model import Model

COPIED = 1 << 28
"""Bytes that are copied at a time: more than the caches of a chip hold."""
COPIES = 7


def copy_bandwidth(
    nbytes: int = COPIED, *, copies: int = COPIES, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Bytes per second, read and written together, of a copy on MLX's device: the median of several.

    An operation of MLX copies, so on a CPU this is the bandwidth of MLX's one thread.
    """
    source = mx.arange(nbytes // 4, dtype=mx.float32)
    mx.eval(source)
    seconds = []
    for _ in range(1 + copies):
        began = clock()
        mx.eval(mx.abs(source))
        seconds.append(clock() - began)
    mx.clear_cache()
    return 2 * source.nbytes / median(seconds[1:])  # the first one compiles, and maps the memory that it writes to


def bytes_read_per_token(model: Model, position: int = 0) -> int:
    """Bytes that one decode step reads: the decoder's weights, the head, and keys and values of the positions before.

    Args:
        position: Length of the sequence. A sliding layer reads no more than its window of it.
    """
    text = model.config.text_config
    weights = sum(tensor.nbytes for tensor in dict(tree_flatten(model.language_model.parameters())).values())
    seen = 0
    for layer in text.layers:
        length = min(position, text.sliding_window - 1) if layer.is_sliding else position
        seen += 2 * length * layer.num_key_value_heads * layer.head_dim * model.dtype.size
    return weights + seen
