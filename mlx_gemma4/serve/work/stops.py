"""Ends a text at a stop sequence. What may be the beginning of one is held back until it is known."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_gemma4.serve.events import TokenChance


class Stops:
    """Takes pieces of a text, and gives those that stand.

    Args:
        texts: The stop sequences. They are not part of the text.

    Attributes:
        found: The one that was found, or None.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._held = ""
        self._chances: list[tuple[int, TokenChance]] = []
        """Tokens that are held back, and where their texts end in what is held."""
        self.found: str | None = None

    def push(self, text: str, chances: Sequence[TokenChance] = ()) -> tuple[str, tuple[TokenChance, ...]]:
        """Take a piece; return the text that stands now, and its tokens."""
        before = len(self._held)
        self._held += text
        for chance in chances:
            before = min(before + len(chance.token), len(self._held))
            self._chances.append((before, chance))
        found = [(place, text) for text in self._texts if (place := self._held.find(text)) >= 0]
        if found:
            place, self.found = min(found)
            return self._give(place)
        return self._give(len(self._held) - self._open())

    def flush(self) -> tuple[str, tuple[TokenChance, ...]]:
        """Nothing follows: return what was held back."""
        return self._give(0 if self.found is not None else len(self._held))

    def _open(self) -> int:
        """How many characters at the end may begin a stop sequence."""
        return max(
            (
                length
                for text in self._texts
                for length in range(1, min(len(text), len(self._held) + 1))
                if self._held.endswith(text[:length])
            ),
            default=0,
        )

    def _give(self, length: int) -> tuple[str, tuple[TokenChance, ...]]:
        text, self._held = self._held[:length], "" if self.found is not None else self._held[length:]
        given = tuple(chance for end, chance in self._chances if end <= length)
        self._chances = [(end - length, chance) for end, chance in self._chances if end > length]
        return text, given
