"""``mx.quantize`` on all cores: on a CPU, MLX runs an operation on one of them."""

from __future__ import annotations

import os
import threading

import mlx.core as mx

from mlx_gemma4.checkpoint.setting import Setting


def quantize(values: mx.array, setting: Setting) -> tuple[mx.array, ...]:
    """[R, C] values → packed codes, scales and, in affine mode, biases; a stretch of rows on each core."""
    streams = _streams()
    rows = -(-values.shape[0] // len(streams))
    pieces = [
        mx.quantize(
            values[number * rows : (number + 1) * rows],
            group_size=setting.group_size,
            bits=setting.bits,
            mode=setting.mode,
            stream=stream,
        )
        for number, stream in enumerate(streams)
        if number * rows < values.shape[0]
    ]
    if len(pieces) == 1:
        return tuple(pieces[0])
    return tuple(mx.concatenate(list(parts)) for parts in zip(*pieces, strict=True))


_own = threading.local()
"""Streams belong to the thread that has made them."""


def _streams() -> list[mx.Stream]:
    if not hasattr(_own, "streams"):
        if mx.metal.is_available():
            _own.streams = [mx.default_stream(mx.default_device())]
        else:
            _own.streams = [mx.new_stream(mx.cpu) for _ in range(os.cpu_count() or 1)]
    streams: list[mx.Stream] = _own.streams
    return streams
