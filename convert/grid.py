"""The grid of Q4_0, on which quantization-aware training leaves weights: found in the weights, and kept exactly.

A group of 32 weights along the input lies on it when its values are d · (q − 8), q in 0…15, where −8 · d is the
element of largest magnitude. ``mx.quantize`` derives a grid of its own from a group's minimum and maximum, which
throws that away; here the codes q, the scale d and the bias −8 · d are stored as they were trained.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_gemma4.checkpoint.recipes import Q4_0

_ROUNDINGS = 2.0**-7
"""A weight and its d were each rounded to bfloat16 (2⁻⁸ of the value at most): so far a weight may lie from d · k."""


def on_grid(rows: mx.array) -> bool:
    """Whether every group of [R, C] weights lies on a Q4_0 grid; zeros lie on every grid.

    That weights which were not trained for it pass is out of the question: each of a group's 31 other elements would
    have to come within 2⁻⁷ of a multiple of d, in every group.
    """
    if rows.shape[1] % Q4_0.group_size:
        return False
    groups, d, steps = _steps(rows)
    return bool(mx.all(mx.abs(groups - d * steps) <= _ROUNDINGS * mx.abs(groups)).item())


def quantize(rows: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Weights [R, C] on the grid → packed codes [R, C / 8], scales and biases [R, C / 32], as MLX's affine mode."""
    _, d, steps = _steps(rows)
    codes = (steps + 8).astype(mx.uint32).reshape(rows.shape[0], -1, 8)
    packed = mx.sum(codes << (4 * mx.arange(8, dtype=mx.uint32)), axis=-1)
    scales = d[..., 0].astype(rows.dtype)
    return packed, scales, -8 * scales


def _steps(rows: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Groups [R, C / 32, 32] in float32, their d [R, C / 32, 1], and each weight's number of steps, −8…7."""
    groups = rows.astype(mx.float32).reshape(rows.shape[0], -1, Q4_0.group_size)
    farthest = mx.argmax(mx.abs(groups), axis=-1, keepdims=True)
    d = mx.take_along_axis(groups, farthest, axis=-1) / -8
    steps = mx.clip(mx.round(groups / mx.where(d == 0, 1, d)), -8, 7)
    return groups, d, steps
