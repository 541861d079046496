"""Which words of a changing guess are committed: those on which two guesses in a row agree.

LocalAgreement-2 (Liu et al. 2020, as in whisper_streaming). Committed text never changes.

    guess       "go for"
    guess       "go forward to"          agrees on "go": committed;            draft " forward to"
    guess       "go forward two meters"  agrees on "go forward": committed;    draft " two meters"
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_gemma4.outputs.word_times import UNIT


class Agreement:
    """The guesses of one utterance."""

    def __init__(self) -> None:
        self._committed: list[str] = []
        self._last: list[str] = []

    @property
    def committed(self) -> str:
        """The committed text."""
        return "".join(self._committed)

    @property
    def draft(self) -> str:
        """The rest of the last guess, with the space before it; empty if that guess contradicts the committed text."""
        known = len(self._committed)
        return "".join(self._last[known:]) if self._last[:known] == self._committed else ""

    def add(self, text: str) -> str:
        """Take a guess; return what it commits, with the space before it."""
        units = UNIT.findall(text)
        known = len(self._committed)
        fresh: list[str] = []
        if units[:known] == self._committed:
            for unit, before in zip(units[known:], self._last[known:], strict=False):
                if unit != before:
                    break
                fresh.append(unit)
        if self._last[:known] != self._committed:
            fresh = []
        self._committed += fresh
        self._last = units
        return "".join(fresh)

    def finish(self, text: str) -> tuple[str, int]:
        """Take the final text; return its words after the committed ones, and the edits between those and it: words
        replaced, missing or added."""
        units = UNIT.findall(text)
        behind, changed = align(self._committed, units)
        return "".join(units[behind:]), changed


def align(committed: Sequence[str], units: Sequence[str]) -> tuple[int, int]:
    """How many of the first ``units`` correspond to the ``committed`` ones, and the edits between them (Levenshtein).

    Of all prefixes with the fewest edits, this takes the one with the most equal words, and of these the longest.
    """

    def step(cost: tuple[int, int], edits: int, equal: int = 0) -> tuple[int, int]:
        return cost[0] + edits, cost[1] - equal

    costs = [(count, 0) for count in range(len(units) + 1)]
    for word in committed:
        row = [step(costs[0], 1)]
        for unit, diagonal, above in zip(units, costs, costs[1:], strict=False):
            same = word.strip() == unit.strip()
            row.append(min(step(diagonal, 1 - same, same), step(above, 1), step(row[-1], 1)))
        costs = row
    behind = min(range(len(costs)), key=lambda count: (costs[count], -count)) if committed else 0
    return behind, costs[behind][0]
