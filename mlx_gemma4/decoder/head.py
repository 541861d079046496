"""Logits of many rows, a few rows at a time.

A row of the 12B has 262,144 logits: 0.5 MB, and several times that while a token is chosen from them. So those of a
long draft are never made all at once:

    hidden states [300 rows]   ──▶ logits [128, V] ──▶ 128 choices
                               ──▶ logits [128, V] ──▶ 128 choices     in the memory of the first ones
                               ──▶ logits [ 44, V] ──▶  44 choices
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

HEAD_ROWS = 128
"""Rows whose logits are made at a time: 67 MB of the 12B in bfloat16. Drafts of live transcription are shorter."""


class RowLogits:
    """The logits that follow several rows, computed when ``read`` asks for them.

    Args:
        head: Hidden states [1, n, D] → logits [1, n, V].
        hidden: [1, L, D], which may be lazy.
    """

    def __init__(self, head: Callable[[mx.array], mx.array], hidden: mx.array) -> None:
        self._head, self._hidden = head, hidden

    def __len__(self) -> int:
        """Rows."""
        return self._hidden.shape[1]

    @property
    def dtype(self) -> mx.Dtype:
        return self._hidden.dtype

    def read(self, function: Callable[[mx.array, int], list[mx.array]]) -> list[list[mx.array]]:
        """What ``function`` makes of the logits [n, V] of each block and of the number of its first row; all lazy.

        A block waits for what was made of the one before it: MLX would compute the logits of all of them first.
        """
        results = list[list[mx.array]]()
        for row in range(0, len(self), HEAD_ROWS):
            hidden = self._hidden[:, row : row + HEAD_ROWS]
            if results:
                [hidden] = mx.depends([hidden], results[-1])
            results.append(function(self._head(hidden).squeeze(0), row))
        return results
