"""A model that computes NaN says so. Without a check the likeliest token of NaN logits is 0: an empty answer."""

from __future__ import annotations

import mlx.core as mx


def are_finite(logits: mx.array) -> mx.array:
    """Whether logits of any shape hold numbers only: a bool [], not evaluated, to be computed along with a token."""
    return mx.isfinite(mx.sum(logits.astype(mx.float32)))


def check_finite(finite: mx.array, dtype: mx.Dtype) -> None:
    """Evaluate what ``are_finite`` gave.

    Args:
        dtype: The logits' type, in which the model computes.

    Raises:
        ValueError: Some were NaN or infinite.
    """
    if finite.item():
        return
    name = str(dtype).rpartition(".")[2]
    if dtype == mx.float16:
        raise ValueError(
            "The model computed NaN in float16, whose range is too small for it: use --dtype bfloat16; "
            "if that computes NaN too, the weights are damaged"
        )
    raise ValueError(
        f"The model computed NaN in {name}: the checkpoint's weights are damaged; download or convert it again"
    )
