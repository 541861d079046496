"""What followed the last tokens before."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.outputs.ngrams import LONGEST, Ngrams


def test_the_longest_ngram_counts_and_of_equal_ones_the_last() -> None:
    """After 1 2 3 came 4; after a later 9 2 3 came 5; and 9 2 3 is what stands at the end."""
    ngrams = Ngrams([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3])
    assert ngrams.find(2) == (3, [4, 9])
    assert Ngrams([8, 2, 3, 4, 9, 2, 3, 5, 7, 2, 3]).find(3) == (2, [5, 7, 2])
    ngrams.add([4, 9, 2])
    assert ngrams.find(9) == (6, [3, 5, 1, 2, 3, 4, 9, 2])
    assert ngrams.find(1) == (6, [3])


def test_nothing_to_draft() -> None:
    """One token alone foretells nothing; nor does an n-gram that only stands at the end."""
    for ids in ([], [1], [1, 1], [1, 2, 1], [1, 2, 3, 4], [5, 2, 7, 2]):
        assert Ngrams(ids).find(4) == (0, [])
    assert Ngrams([1, 1, 1]).find(4) == (2, [1])


def test_a_draft_ends_before_ids_that_are_never_chosen() -> None:
    ids = [1, 2, 3, 4, 5, 1, 2]
    assert Ngrams(ids, excluded=[5]).find(9) == (2, [3, 4])
    assert Ngrams(ids, excluded=[3]).find(9) == (0, [])


def test_long_ngrams_are_compared_as_far_as_it_matters() -> None:
    ids = [*range(20), 99, *range(20)]
    assert Ngrams(ids).find(3) == (LONGEST, [99, 0, 1])


def test_growing_is_having_been_so_from_the_beginning() -> None:
    """On random histories of few different tokens, against a search by hand."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 4, 300).tolist()
    grown = Ngrams()
    for end, token in enumerate(ids, 1):
        grown.add([token])
        assert grown.find(3) == by_hand(ids[:end], 3)


def by_hand(ids: list[int], most: int) -> tuple[int, list[int]]:
    for length in range(LONGEST, 1, -1):
        for end in range(len(ids) - 1, length - 1, -1):
            if len(ids) > length and ids[end - length : end] == ids[-length:]:
                return length, ids[end : end + most]
    return 0, []
