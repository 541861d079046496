"""Which words of a changing guess can be shown for good: those on which two guesses in a row agree.

LocalAgreement-2 (Liu et al. 2020, as in whisper_streaming). Committed text never changes.
"""

from __future__ import annotations

import re

UNIT = re.compile(r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)")
"""A word with the space before it; a character, in scripts that are written without spaces."""


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
        """Take the final text; return what it adds to what stands, and how many of the words that stand it changed."""
        units = UNIT.findall(text)
        known = len(self._committed)
        changed = sum(unit != committed for unit, committed in zip(units, self._committed, strict=False))
        changed += max(0, known - len(units))
        return "".join(units[known:]), changed
