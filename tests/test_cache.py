"""Caches against a plain list of everything that went in."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from graphs import primitives

from mlx_gemma4.decoder.cache import Cache, SlidingCache
from mlx_gemma4.decoder.config import FULL, SLIDING, LayerConfig
from mlx_gemma4.decoder.full_cache import FullCache
from mlx_gemma4.decoder.memory import SPARE, STEP

WINDOW, ROOM = 40, 30


def rows(start: int, length: int) -> tuple[mx.array, mx.array]:
    """Keys that carry their position, and values that carry its negative: [1, 1, length, 1]."""
    keys = mx.arange(start, start + length, dtype=mx.float32).reshape(1, 1, length, 1)
    return keys, -keys


def lengths(seed: int, total: int, most: int) -> list[int]:
    random = np.random.default_rng(seed)
    cuts = []
    while sum(cuts) < total:
        cuts.append(int(random.integers(1, most)))
    return cuts


@pytest.mark.parametrize("most", [3, 60, 700])
@pytest.mark.parametrize("seed", range(5))
def test_a_sliding_cache_returns_the_window_before_and_the_new(seed: int, most: int) -> None:
    """Whatever the pieces, the keys fetched are those at the positions that the queries may see."""
    cache = SlidingCache(WINDOW, ROOM)
    for length in lengths(seed, 2000, most):
        start = cache.position
        assert cache.visible(length) == min(start, WINDOW - 1) + length
        keys, values = cache.update_and_fetch(*rows(start, length))
        expected = np.arange(max(0, start - WINDOW + 1), start + length)
        np.testing.assert_array_equal(np.array(keys).reshape(-1), expected)
        np.testing.assert_array_equal(np.array(values).reshape(-1), -expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_sliding_cache_never_holds_more_than_window_and_room(seed: int) -> None:
    """SPARE comes on top; a longer piece needs a longer buffer, for itself and the window before it."""
    cache = SlidingCache(WINDOW, ROOM)
    usual = WINDOW - 1 + ROOM + SPARE
    for length in lengths(seed, 3000, 500):
        cache.update_and_fetch(*rows(cache.position, length))
        assert cache.position - cache.start <= WINDOW - 1 + ROOM
        assert cache.keys is not None and cache.keys.shape[2] <= max(usual, WINDOW - 1 + length)
        cache.compact()
        assert cache.keys.shape[2] <= usual and cache.values is not None
        held = slice(cache.start - cache.origin, cache.position - cache.origin)
        np.testing.assert_array_equal(
            np.array(cache.keys[..., held, :]).reshape(-1), np.arange(cache.start, cache.position)
        )


@pytest.mark.parametrize(
    ("room", "pieces", "capacities"),
    [
        # grows by STEP to window - 1 + room + SPARE, and stays
        (2, [10, 300, 300, 300, 200, 1, 500], [256, 512, 768, 1024, 1089, 1089, 1089]),
        (512, [10, 1000, 1000, 512, 1], [256, 1024, 1599, 1599, 1599]),
        # a piece may be longer than what stays of it
        (2, [5000, 1], [1089, 1089]),
        (0, [1023, 1, 64, 1], [1087, 1087, 1087, 1087]),
    ],
)
def test_the_size_of_a_sliding_buffer(room: int, pieces: list[int], capacities: list[int]) -> None:
    """To the position, with the 12B's window."""
    cache = SlidingCache(1024, room)
    for length, capacity in zip(pieces, capacities, strict=True):
        cache.update_and_fetch(*rows(cache.position, length))
        cache.compact()
        assert cache.keys is not None and cache.keys.shape[2] == capacity


@pytest.mark.parametrize(("room", "copies"), [(2, [0, 2, 2, 2, 2, 2, 0]), (512, [0, 2, 2, 2, 2, 0, 0])])
def test_a_piece_is_copied_once(room: int, copies: list[int]) -> None:
    """One concatenation of each buffer where a chunk does not fit; none where it fits, or where it is the first."""
    cache = SlidingCache(1024, room)
    counts = []
    for length in (512, 512, 512, 512, 512, 1, 1):
        fetched = cache.update_and_fetch(*rows(cache.position, length))
        counts.append(primitives([*fetched, cache.keys, cache.values])["Concatenate"])  # type: ignore[list-item]
        mx.eval(cache.keys, cache.values)
    assert counts == copies


@pytest.mark.parametrize("seed", range(5))
def test_a_rewound_sliding_cache_is_as_if_never_extended(seed: int) -> None:
    """Rewinding to the furthest allowed place and going on fetches the right keys."""
    random = np.random.default_rng(seed)
    cache = SlidingCache(WINDOW, ROOM)
    for length in lengths(seed, 2000, 90):
        cache.update_and_fetch(*rows(cache.position, length))
        cache.position = int(random.integers(cache.earliest, cache.position + 1))
        start = cache.position
        keys, _ = cache.update_and_fetch(*rows(start, 2))
        np.testing.assert_array_equal(np.array(keys).reshape(-1), np.arange(max(0, start - WINDOW + 1), start + 2))


def test_a_rewind_by_the_room_is_always_possible() -> None:
    """The room is a promise, not a matter of when the buffer was last moved."""
    cache = SlidingCache(WINDOW, ROOM)
    for _ in range(3000):
        cache.update_and_fetch(*rows(cache.position, 1))
        assert cache.earliest <= max(0, cache.position - ROOM)


def test_room_that_grows_or_shrinks() -> None:
    """It holds for what comes from then on: a rewind to where it grew stays possible, for as far as it grew."""
    cache = make_cache()
    assert (cache.room, cache.earliest) == (ROOM, 200 - ROOM)
    cache.room = 300
    for layer in cache.layers:
        for _ in range(30):
            layer.update_and_fetch(*rows(layer.position, 10))
    assert (cache.position, cache.earliest) == (500, 200)
    cache.room = 10
    for layer in cache.layers:
        layer.update_and_fetch(*rows(layer.position, 10))
    assert (cache.position, cache.earliest) == (510, 500)
    cache.compact()
    sliding = cache.layers[0]
    assert sliding.keys is not None and sliding.keys.shape[2] == WINDOW - 1 + 10 + SPARE


def test_a_full_cache_returns_everything_and_grows_in_steps() -> None:
    """Few moves, and at most a quarter of unused space beyond a STEP."""
    cache = FullCache()
    capacities = set()
    for length in lengths(0, 20_000, 200):
        keys, _ = cache.update_and_fetch(*rows(cache.position, length))
        [capacity] = {array.shape[2] for array in cache.arrays}
        capacities.add(capacity)
        assert capacity <= 1.25 * cache.position + 2 * STEP
    np.testing.assert_array_equal(np.array(keys).reshape(-1), np.arange(cache.position))
    assert len(capacities) < 25


def make_cache() -> Cache:
    layers = [LayerConfig(SLIDING, 1, 1, False), LayerConfig(FULL, 1, 1, True)]
    cache = Cache(layers, window=WINDOW, room=ROOM)
    for layer in cache.layers:
        layer.update_and_fetch(*rows(0, 200))
    return cache


def test_a_rewind_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a position from 0 to 200 to rewind to, got 201"):
        make_cache().rewind(201)


def test_a_rewind_beyond_the_room_is_refused_and_changes_nothing() -> None:
    cache = make_cache()
    with pytest.raises(ValueError, match=r"within the last 30 to rewind to, got 169 at 200.*larger room"):
        cache.rewind(169)
    assert cache.position == 200
    cache.rewind(170)
    assert [layer.position for layer in cache.layers] == [170, 170]


def test_only_full_layers_grow_for_ever() -> None:
    """nbytes of the sliding layer stays while the sequence grows tenfold."""
    cache = make_cache()
    sliding, full = cache.layers
    before = sum(array.nbytes for array in full.arrays)
    for layer in cache.layers:
        for _ in range(20):
            layer.update_and_fetch(*rows(layer.position, 100))
    cache.compact()
    sizes = [[array.nbytes for array in layer.arrays] for layer in (sliding, full)]
    assert sizes[0] == [4 * (WINDOW - 1 + ROOM + SPARE)] * 2
    assert sum(sizes[1]) >= 8 * before
    assert cache.nbytes == sum(map(sum, sizes))


@pytest.mark.parametrize("position", [0, 3, 39, 40, 170, 185, 200])
def test_a_cache_gives_its_state_and_takes_it_back(position: int) -> None:
    """Without spare room, into buffers of its own: both go on, and neither sees the other."""
    cache, other = (
        make_cache(),
        Cache([LayerConfig(SLIDING, 1, 1, False), LayerConfig(FULL, 1, 1, True)], window=WINDOW),
    )
    if position < 170:
        cache.rewind(0)
        for layer in cache.layers:
            layer.update_and_fetch(*rows(0, position + 1))
    states = cache.state(position)
    sliding, full = [sorted(state) for state in states]
    assert sliding == full == (["keys", "values"] if position else [])
    other.restore(states, position)
    assert other.position == position
    assert other.earliest == (cache.earliest if position else 0)
    for layer, mine in zip(other.layers, cache.layers, strict=True):
        first = max(0, position - WINDOW + 1) if isinstance(layer, SlidingCache) else 0
        keys, values = layer.update_and_fetch(*rows(position, 5))
        np.testing.assert_array_equal(np.array(keys).reshape(-1), np.arange(first, position + 5))
        np.testing.assert_array_equal(np.array(values).reshape(-1), -np.arange(first, position + 5))
        assert not {id(array) for array in mine.arrays} & {id(array) for array in layer.arrays}


def test_windows_lead_back_from_anywhere() -> None:
    """Full layers still hold what came before."""
    cache = make_cache()
    windows = cache.windows(180 - WINDOW + 1, 180)
    assert [array.shape for array in windows] == [(2, 1, 1, WINDOW - 1, 1)]
    mx.eval(windows)
    for layer in cache.layers:
        layer.update_and_fetch(*rows(200, 300))
    cache.restore_windows(windows, 180)
    assert (cache.position, cache.earliest) == (180, 180)
    for layer in cache.layers:
        keys, _ = layer.update_and_fetch(*rows(180, 2))
        first = 180 - WINDOW + 1 if isinstance(layer, SlidingCache) else 0
        np.testing.assert_array_equal(np.array(keys).reshape(-1), np.arange(first, 182))
