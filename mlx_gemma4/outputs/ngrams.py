"""Drafts from what was said before: where the last tokens have occurred, the same may follow again.

    history   … the cat sat on the mat. the cat sat
                └─────────┘ sat on the mat     └─────────┘ the longest n-gram at the end that has occurred before,
                           └────────────┘ draft            and what followed it the last time

Prompt lookup decoding (Saxena 2023). It needs no model and pays where an answer repeats its prompt or an earlier one:
quotes, edits of code, a question asked again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHORTEST = 2
"""Tokens of the shortest n-gram that is looked up: after a single one, almost anything may follow."""
LONGEST = 8
"""Longer n-grams do not foretell more."""


class Ngrams:
    """The token ids so far.

    Args:
        excluded: Ids at which a draft ends, because they are never chosen: placeholders of media and other markers.
    """

    def __init__(self, ids: Sequence[int] | np.ndarray = (), excluded: Sequence[int] = ()) -> None:
        self._buffer = np.array(ids, dtype=np.int64)
        self._length = len(self._buffer)
        self._excluded = np.array(excluded, dtype=np.int64)

    def add(self, ids: Sequence[int]) -> None:
        """Take the ids that follow."""
        end = self._length + len(ids)
        if end > len(self._buffer):
            grown = np.zeros(max(2 * len(self._buffer), end, 256), dtype=np.int64)
            grown[: self._length] = self._buffer[: self._length]
            self._buffer = grown
        self._buffer[self._length : end] = ids
        self._length = end

    def find(self, most: int) -> tuple[int, list[int]]:
        """The length of the longest n-gram at the end that has occurred before, and at most ``most`` ids that followed.

        Of several occurrences, the last one counts. (0, []) if there is none, or nothing may follow it.
        """
        history = self._buffer[: self._length]
        ends = np.flatnonzero(history[:-1] == history[-1:]) if self._length > 1 else np.zeros(0, dtype=np.int64)
        length = min(1, len(ends))
        while length and length < LONGEST:
            longer = ends[ends >= length]
            longer = longer[history[longer - length] == history[-1 - length]]
            if len(longer) == 0:
                break
            ends, length = longer, length + 1
        if length < SHORTEST:
            return 0, []
        following = history[ends[-1] + 1 : ends[-1] + 1 + most]
        stops = np.flatnonzero(np.isin(following, self._excluded))
        ids = following[: stops[0]] if len(stops) else following
        return (length, ids.tolist()) if len(ids) else (0, [])
