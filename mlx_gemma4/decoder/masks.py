"""Which keys a query may see: causal, sliding window, same image. Pure functions of positions.

    keys          t t i i i t t         t text or sound, i an image
    full layer    x                     causal and nothing else: also inside an image
                  x x
                  x x x
                  x x x x
                  x x x x x
    sliding       x                     window 4: less than 4 positions back
                  x x
                  x x x x x             an image sees all of itself that lies ahead, however far,
                  x x x x x             and what lies behind as far as the window reaches
                  . x x x x
                  . . x x x x
                  . . . x x x x

The rule is that of transformers' masks for the Gemma 4 family: a sliding layer sees what is (causal OR in the same
image) AND NOT a window or more behind. Sound is causal. This file knows nothing of caches or layers.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

Mask = mx.array | str | None
"""For ``mx.fast.scaled_dot_product_attention``: an array (True: visible), ``"causal"``, or None (all visible)."""


def number_images(is_image: np.ndarray) -> np.ndarray:
    """Number the images, each a run of consecutive placeholders: [L] bool → [L] int32, -1 outside images."""
    starts = is_image & ~np.concatenate([[False], is_image[:-1]])
    return np.where(is_image, np.cumsum(starts) - 1, -1).astype(np.int32)


def full_mask(queries: int) -> Mask:
    """Mask of a full-attention layer: the last ``queries`` positions see themselves and everything before."""
    return "causal" if queries > 1 else None


def mask_from(mask: Mask, row: int, queries: int) -> Mask:
    """The mask of the queries from ``row`` on, of ``queries`` that ``mask`` is for."""
    if isinstance(mask, mx.array):
        return mask[..., row:, :]
    return None if mask is None else full_mask(queries - row)


def sliding_mask(queries: int, keys: int, window: int, image_ids: np.ndarray | None = None) -> Mask:
    """Mask of a sliding layer for the last ``queries`` of ``keys`` consecutive positions.

    A query sees itself, the ``window - 1`` positions before it, and its own image also where that lies ahead.

    Args:
        image_ids: [queries], the image that each query belongs to, -1 for none. Keys before the queries belong to other
            images, because an image enters in one piece.
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
