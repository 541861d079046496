"""What a model may use while it runs: the positions of a sequence, and bytes of memory. ``load`` sets it.

A session refuses a piece that would break the budget before it computes anything, so nothing is lost: the program can
remove the oldest turns, rewind, or end the answer.
"""

from __future__ import annotations

from dataclasses import dataclass


class ContextFull(ValueError):
    """A sequence would become longer than the context. Nothing was computed."""


@dataclass(frozen=True)
class Budget:
    """The limits of a model; None where there is none."""

    context: int | None = None
    """Positions of a sequence, at most."""
    longest: int | None = None
    """Positions of the longest context that the checkpoint and the memory have room for."""

    def check_context(self, position: int, length: int) -> None:
        """Raise a ContextFull if ``length`` more positions do not fit behind ``position``."""
        needed = position + length
        if self.context is None or needed <= self.context:
            return
        larger = self.longest is not None and needed <= self.longest
        way = f"start with a context of {needed} or more (--context)" if larger else "start a new sequence"
        raise ContextFull(
            f"The context is {self.context} positions, of which {position} are used, and this needs {length} more; "
            f"shorten it, or {way}"
        )
