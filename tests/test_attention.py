"""Attention in tiles: the same numbers as in one piece, in memory that does not grow with the context."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from graphs import primitives

from mlx_gemma4.decoder import attention, masks
from mlx_gemma4.decoder.masks import Mask, causal_tiles, mask_from, number_images, sliding_mask

SDPA = mx.fast.scaled_dot_product_attention


def random_heads(
    queries: int, keys: int, *, heads: int = 4, kv_heads: int = 1, batch: int = 1, dtype: mx.Dtype = mx.float32
) -> list[mx.array]:
    """Queries, keys and values of head size 16."""
    mx.random.seed(queries + keys)
    shapes = [(batch, heads, queries, 16), *[(batch, kv_heads, keys, 16)] * 2]
    arrays = [mx.random.normal(shape).astype(dtype) for shape in shapes]
    mx.eval(arrays)
    return arrays


def attend(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    """Attention over keys and values of one part each."""
    [out] = attention.attend([queries], [keys], [values], mask)
    return out


def scores_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Notes the bytes of each array of scores."""
    made: list[int] = []

    def noted(queries: mx.array, keys: mx.array, values: mx.array, **settings: Any) -> mx.array:
        batch, heads, rows, _ = queries.shape
        made.append(batch * heads * rows * keys.shape[2] * queries.dtype.size)
        return SDPA(queries, keys, values, **settings)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", noted)
    return made


@pytest.mark.parametrize(("queries", "keys"), [(2, 2), (7, 7), (64, 64), (50, 333), (64, 1000)])
@pytest.mark.parametrize("most", [1, 3000, 40_000, 10**9])
@pytest.mark.parametrize(("kv_heads", "batch", "dtype"), [(1, 1, mx.float32), (2, 3, mx.float32), (1, 1, mx.bfloat16)])
def test_tiles_change_no_number(
    queries: int, keys: int, most: int, kv_heads: int, batch: int, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding of a matrix product, whose order of sums may depend on its rows."""
    arrays = random_heads(queries, keys, kv_heads=kv_heads, batch=batch, dtype=dtype)
    expected = SDPA(*arrays, scale=1.0, mask="causal").astype(mx.float32)
    monkeypatch.setattr("mlx_gemma4.decoder.attention.SCORE_BYTES", most)
    made = scores_made(monkeypatch)
    actual = attend(*arrays, "causal")
    assert actual.dtype == dtype
    np.testing.assert_allclose(
        np.array(actual.astype(mx.float32)), np.array(expected), atol=1e-6 if dtype == mx.float32 else 1e-2
    )
    row = batch * 4 * keys * dtype.size
    assert max(made) <= max(most, row)
    assert sum(made) == queries * row
    assert len(made) == -(-queries // max(1, most // row))
    assert len(set(made[:-1])) <= 1  # so that the memory of a tile is the next one's


@pytest.mark.parametrize("most", [3000, 40_000])
def test_parts_in_tiles(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in two parts, whose scores add up, as full layers store them; the values are one of them and another."""
    queries, keys, values = random_heads(50, 333)
    expected = np.array(SDPA(queries, keys, values, scale=1.0, mask="causal"))
    monkeypatch.setattr("mlx_gemma4.decoder.attention.SCORE_BYTES", most)
    parts = [[array[..., :4], array[..., 4:]] for array in (queries, keys, values)]
    actual = attention.attend(*parts, "causal")
    np.testing.assert_allclose(np.concatenate([np.array(part) for part in actual], axis=-1), expected, atol=1e-5)


@pytest.mark.parametrize(("queries", "mask"), [(1, None), (16, "causal"), (16, mx.ones((16, 40), dtype=mx.bool_))])
def test_a_short_forward_has_no_tiles(queries: int, mask: Mask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph is that of a single call. One query is never cut, however many keys it has."""
    arrays = random_heads(queries, 40)
    plain = primitives([SDPA(*arrays, scale=1.0, mask=mask)])
    assert primitives([attend(*arrays, mask)]) == plain
    if queries == 1:
        monkeypatch.setattr("mlx_gemma4.decoder.attention.SCORE_BYTES", 1)
        assert primitives([attend(*arrays, mask)]) == plain


def test_tiles_are_not_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX computes breadth first: without an order it would make the scores of all tiles before it reads any."""
    arrays = random_heads(128, 4096)
    scores = 4 * 128 * 4096 * 4
    peaks = {}
    for most in (scores, scores // 64):
        monkeypatch.setattr("mlx_gemma4.decoder.attention.SCORE_BYTES", most)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(attend(*arrays, "causal"))
        peaks[most] = mx.get_peak_memory() - before
    assert peaks[scores] > scores
    assert peaks[scores // 64] < scores / 4


def matrix(tiles: Mask, queries: int, keys: int) -> np.ndarray:
    """The whole mask that tiles stand for."""
    assert isinstance(tiles, tuple)
    whole = np.zeros((queries, keys), dtype=bool)
    for tile in tiles:
        whole[tile.rows, tile.keys] = np.array(tile.mask)
    assert [tile.rows.start for tile in tiles] == [0, *(tile.rows.stop for tile in tiles[:-1])]
    assert tiles[-1].rows.stop == queries
    return whole


def test_causal_tiles_are_the_causal_mask() -> None:
    tiles = causal_tiles(10, 13, 4)
    assert [tile.rows.stop - tile.rows.start for tile in tiles] == [4, 4, 2]
    np.testing.assert_array_equal(matrix(tiles, 10, 13), np.tri(10, 13, 3, dtype=bool))


@pytest.mark.parametrize("seed", range(20))
def test_sliding_tiles_are_the_sliding_mask(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of random sequences with and without images, some of which are longer than the window or than a tile."""
    random = np.random.default_rng(seed)
    queries, before, window = (int(random.integers(*bounds)) for bounds in ((9, 60), (0, 30), (2, 30)))
    keys = min(before, window - 1) + queries
    image_ids = None
    if seed % 3 or keys <= window:
        image_ids = number_images(np.repeat(random.random(queries) < 0.5, random.integers(1, 40, queries))[:queries])
    whole = np.array(sliding_mask(queries, keys, window, image_ids))
    most = int(random.integers(1, 9))
    monkeypatch.setattr(masks, "SLIDING_ROWS", most)
    tiles = sliding_mask(queries, keys, window, image_ids)
    np.testing.assert_array_equal(matrix(tiles, queries, keys), whole)
    assert isinstance(tiles, tuple)
    for tile in tiles:
        assert tile.rows.stop - tile.rows.start <= most
        seen = np.flatnonzero(whole[tile.rows].any(axis=0))
        assert (tile.keys.start, tile.keys.stop) == (seen[0], seen[-1] + 1)  # no key that none of its queries sees
    for row in range(queries):
        np.testing.assert_array_equal(matrix(mask_from(tiles, row, queries), queries - row, keys), whole[row:])


def test_sliding_tiles_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of 40 between text, window 24, in tiles of 16 queries."""
    image_ids = np.array([-1] * 5 + [0] * 40 + [-1] * 19)
    arrays = random_heads(64, 87, kv_heads=2)
    expected = np.array(SDPA(*arrays, scale=1.0, mask=sliding_mask(64, 87, 24, image_ids)))
    monkeypatch.setattr(masks, "SLIDING_ROWS", 16)
    tiles = sliding_mask(64, 87, 24, image_ids)
    assert isinstance(tiles, tuple) and len(tiles) == 4
    made = scores_made(monkeypatch)
    np.testing.assert_allclose(np.array(attend(*arrays, tiles)), expected, atol=1e-6)
    assert made == [4 * 16 * (tile.keys.stop - tile.keys.start) * 4 for tile in tiles]
    assert all(tile.keys.stop - tile.keys.start < 87 for tile in tiles)


def test_text_needs_a_window_for_each_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 rows behind a full window of 1,024: tiles of 500 rows and 1,523 keys, not 3,023."""
    tiles = sliding_mask(2000, 3023, 1024)
    assert isinstance(tiles, tuple)
    assert [(tile.rows, tile.keys) for tile in tiles] == [
        (slice(start, start + 500), slice(start, start + 1523)) for start in range(0, 2000, 500)
    ]
