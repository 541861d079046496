"""The caches of several sequences in one forward, whose rows attend each in their own.

    rows      a │ b b b │ c       of three sequences, behind one another
    weights   ─────────────       read once for all of them
    attend    a   b b b   c       with the keys of its own sequence, at its own positions

Nothing is copied, unlike in a ``BatchCache``: sequences come and go from one forward to the next, and each keeps its
room and its marks. A row computes what it would alone, but for rounding: kernels depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from mlx_gemma4.decoder.cache import Cache, LayerCache
from mlx_gemma4.decoder.masks import Mask


class ApartLayer:
    """One layer of several caches.

    Attributes:
        parts: The rows of each sequence, its cache, and its mask.
    """

    def __init__(self, rows: Sequence[slice], caches: Sequence[LayerCache]) -> None:
        self._rows, self._caches = rows, caches
        self.masks: Sequence[Mask] = ()

    @property
    def parts(self) -> list[tuple[slice, LayerCache, Mask]]:
        return list(zip(self._rows, self._caches, self.masks, strict=True))


class Apart:
    """Several caches.

    Args:
        counts: How many rows of text each sequence has in the forward.
    """

    def __init__(self, caches: Sequence[Cache], counts: Sequence[int]) -> None:
        self._caches, self._counts = caches, counts
        self.rows = [slice(start, stop) for start, stop in pairwise(accumulate(counts, initial=0))]
        """Where the rows of each sequence lie."""
        self.layers = [ApartLayer(self.rows, layers) for layers in zip(*(each.layers for each in caches), strict=True)]

    def masks(self, queries: int, image_ids: np.ndarray | None) -> tuple[Mask, Mask]:
        """Masks of full and of sliding layers: none, because each sequence has its own."""
        assert queries == sum(self._counts) and image_ids is None, "sequences share forwards of text alone"
        pairs = [cache.masks(count, None) for cache, count in zip(self._caches, self._counts, strict=True)]
        for layer, is_sliding in zip(self.layers, self._caches[0].are_sliding, strict=True):
            layer.masks = [pair[is_sliding] for pair in pairs]
        return None, None
