"""Masks as literal matrices: 1 where a query (row) sees a key (column)."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.decoder.masks import full_mask, number_images, sliding_mask


def matrix(mask: object) -> list[list[int]]:
    return np.array(mask).astype(int).tolist()


def test_runs_number_consecutive_placeholders() -> None:
    """Each run is an image of its own."""
    is_image = np.array([0, 1, 1, 0, 1, 0, 0, 1], dtype=bool)
    assert number_images(is_image).tolist() == [-1, 0, 0, -1, 1, -1, -1, 2]


def test_full_layers_are_causal_and_nothing_else() -> None:
    """MLX's own causal mask, or none for a single query."""
    assert full_mask(1) is None
    assert full_mask(5) == "causal"


def test_inside_the_window_a_sliding_layer_is_causal() -> None:
    """No array is built where the window cannot bite."""
    assert sliding_mask(4, 4, window=4) == "causal"
    assert sliding_mask(1, 4, window=4) is None


def test_a_query_sees_itself_and_the_window_before_it() -> None:
    """Three queries behind two cached keys, window 3."""
    assert matrix(sliding_mask(3, 5, window=3)) == [
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]


def test_an_image_sees_itself_ahead() -> None:
    """Text, an image of three, text; window 5."""
    image_ids = np.array([-1, 0, 0, 0, -1])
    assert matrix(sliding_mask(5, 5, window=5, image_ids=image_ids)) == [
        [1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_an_image_longer_than_the_window_loses_what_lies_behind_it_only() -> None:
    """An image of four, window 2: ahead everything, behind one."""
    assert matrix(sliding_mask(4, 4, window=2, image_ids=np.zeros(4, dtype=int))) == [
        [1, 1, 1, 1],
        [1, 1, 1, 1],
        [0, 1, 1, 1],
        [0, 0, 1, 1],
    ]


def test_images_do_not_see_each_other_ahead() -> None:
    """Two images with a text position between, behind one cached key."""
    image_ids = np.array([0, 0, -1, 1, 1])
    assert matrix(sliding_mask(5, 6, window=6, image_ids=image_ids)) == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1],
    ]
