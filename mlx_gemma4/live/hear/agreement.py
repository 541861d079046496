"""Which words of a changing guess can be shown for good: those on which two guesses in a row agree.

LocalAgreement-2 (Liu et al. 2020, as in whisper_streaming). Committed text never changes.
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
        """The text that stands."""
        return "".join(self._committed)

    @property
    def draft(self) -> str:
        """The rest of the last guess, with the space before it; empty where the guess contradicts what stands."""
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
        """Take the final text; return what follows in it behind the words that stand, and in how many places they
        differ from it: words that it has otherwise, does not have, or has between them."""
        units = UNIT.findall(text)
        behind, changed = align(self._committed, units)
        return "".join(units[behind:]), changed


def align(committed: Sequence[str], units: Sequence[str]) -> tuple[int, int]:
    """How many of the first ``units`` stand for the ``committed`` ones, and the edits between them (Levenshtein).

    Of the prefixes with the fewest edits, the one with the most equal words, and then the longest.
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
