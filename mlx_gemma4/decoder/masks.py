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

from typing import NamedTuple

import mlx.core as mx
import numpy as np

SLIDING_ROWS = 512
"""Queries of a tile of a sliding layer, at most."""


class Tile(NamedTuple):
    """Some of the queries of a forward, and the keys that they see."""

    rows: slice
    keys: slice
    mask: mx.array | str | None
    """Which of these keys each of them sees, as below."""


Mask = mx.array | str | tuple[Tile, ...] | None
"""For ``attend``: an array (True: visible), ``"causal"``, None (all visible), or tiles with a mask each."""


def number_images(is_image: np.ndarray) -> np.ndarray:
    """Number the images, each a run of consecutive placeholders: [L] bool → [L] int32, -1 outside images."""
    starts = is_image & ~np.concatenate([[False], is_image[:-1]])
    return np.where(is_image, np.cumsum(starts) - 1, -1).astype(np.int32)


def full_mask(queries: int) -> str | None:
    """Mask of a full-attention layer: the last ``queries`` positions see themselves and everything before."""
    return "causal" if queries > 1 else None


def mask_from(mask: Mask, row: int, queries: int) -> Mask:
    """The mask of the queries from ``row`` on, of ``queries`` that ``mask`` is for."""
    if isinstance(mask, tuple):
        return tuple(_tile_from(tile, row) for tile in mask if tile.rows.stop > row)
    return _mask_from(mask, row, queries)


def causal_tiles(queries: int, keys: int, most: int) -> tuple[Tile, ...]:
    """Tiles of ``most`` queries or fewer, for a mask ``"causal"``. Each has all keys, so their scores have equal sizes:
    the memory of a tile is the next one's."""
    before, tiles = keys - queries, []
    for rows in _tiles(queries, most):
        causal = mx.arange(before + rows.start, before + rows.stop)[:, None] >= mx.arange(keys)
        tiles.append(Tile(rows, slice(0, keys), causal))
    return tuple(tiles)


def sliding_mask(queries: int, keys: int, window: int, image_ids: np.ndarray | None = None) -> Mask:
    """Mask of a sliding layer for the last ``queries`` of ``keys`` consecutive positions.

    A query sees itself, the ``window - 1`` positions before it, and its own image also where that lies ahead. More than
    SLIDING_ROWS queries are cut into tiles, each with the keys that its window and its last image reach.

    Args:
        image_ids: [queries], the image that each query belongs to, -1 for none. Keys before the queries belong to other
            images, because an image enters in one piece.
    """
    if image_ids is None and keys <= window:
        return full_mask(queries)
    if queries <= SLIDING_ROWS:
        return _sliding(slice(0, queries), slice(0, keys), keys - queries, window, image_ids)
    before, tiles = keys - queries, []
    for rows in _tiles(queries, SLIDING_ROWS):
        last = before + rows.stop
        if image_ids is not None and image_ids[rows.stop - 1] >= 0:
            last = before + int(np.flatnonzero(image_ids == image_ids[rows.stop - 1])[-1]) + 1
        seen = slice(max(0, before + rows.start - window + 1), last)
        tiles.append(Tile(rows, seen, _sliding(rows, seen, before, window, image_ids)))
    return tuple(tiles)


def _sliding(rows: slice, keys: slice, before: int, window: int, image_ids: np.ndarray | None) -> mx.array:
    """Which of some keys some queries see. ``before`` keys lie before the first query."""
    key = mx.arange(keys.start, keys.stop)
    query = mx.arange(before + rows.start, before + rows.stop)[:, None]
    distance = query - key
    visible = distance >= 0
    if image_ids is not None:
        images = np.concatenate([np.full(before, -1, dtype=image_ids.dtype), image_ids])
        query_image, key_image = mx.array(image_ids[rows]), mx.array(images[keys])
        visible = visible | ((query_image[:, None] == key_image) & (key_image >= 0))
    return visible & (distance < window)


def _tiles(queries: int, most: int) -> list[slice]:
    """Rows 0 to ``queries`` in as few parts as possible, of about equal sizes, ``most`` at most but at least one."""
    count = -(-queries // max(most, 1))
    size = -(-queries // count)
    return [slice(start, min(start + size, queries)) for start in range(0, queries, size)]


def _tile_from(tile: Tile, row: int) -> Tile:
    """A tile without the queries before ``row``; the others count from there."""
    start, stop = max(tile.rows.start, row), tile.rows.stop
    mask = _mask_from(tile.mask, start - tile.rows.start, stop - tile.rows.start)
    return Tile(slice(start - row, stop - row), tile.keys, mask)


def _mask_from(mask: mx.array | str | None, row: int, queries: int) -> mx.array | str | None:
    if isinstance(mask, mx.array):
        return mask[..., row:, :] if row else mask
    return None if mask is None else full_mask(queries - row)
