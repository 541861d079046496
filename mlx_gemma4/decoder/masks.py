"""Which keys a query may see: causal, sliding window, same image. Pure functions of positions.

The rule (transformers' masks for the Gemma 4 family): full-attention layers are causal and nothing else; sliding
layers see (causal OR same image) AND NOT what lies a window or more behind. Audio is causal. This file knows
nothing of caches or layers.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

Mask = mx.array | str | None
"""What ``mx.fast.scaled_dot_product_attention`` takes: an array (True = visible), ``"causal"`` or None (all)."""


def number_images(is_image: np.ndarray) -> np.ndarray:
    """Number the runs of consecutive image placeholders: [L] bool → [L] int32, -1 outside images."""
    starts = is_image & ~np.concatenate([[False], is_image[:-1]])
    return np.where(is_image, np.cumsum(starts) - 1, -1).astype(np.int32)


def full_mask(queries: int) -> Mask:
    """Mask of a full-attention layer: the last ``queries`` positions see all that is before them."""
    return "causal" if queries > 1 else None


def sliding_mask(queries: int, keys: int, window: int, image_ids: np.ndarray | None = None) -> Mask:
    """Mask of a sliding layer for the last ``queries`` of ``keys`` consecutive positions.

    A query sees itself and the ``window - 1`` positions before it; inside its own image it sees also all that
    comes later: the window bounds what is behind, and only that.

    Args:
        image_ids: [queries], the image each query belongs to, -1 for none. Keys before the queries belong to other
            images: an image enters in one piece.
    """
    if image_ids is None and keys <= window:
        return full_mask(queries)
    key = mx.arange(keys)
    query = mx.arange(keys - queries, keys)[:, None]
    distance = query - key
    visible = distance >= 0
    if image_ids is not None:
        query_image = mx.array(image_ids)
        key_image = mx.concatenate([mx.full((keys - queries,), -1, dtype=query_image.dtype), query_image])
        visible = visible | ((query_image[:, None] == key_image) & (key_image >= 0))
    return visible & (distance < window)
