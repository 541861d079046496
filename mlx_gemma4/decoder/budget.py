"""What a model may use while it runs: the positions of a sequence, and bytes of memory. ``load`` sets it.

A session refuses a piece that would break the budget before it computes anything, so nothing is lost: the program can
remove the oldest turns, rewind, or end the answer.

    bytes   ├── weights ──┬─ keys and values ─┬─ this piece ─┬── free ──┤ memory
                          └ of all sessions   └ what its forward makes, and what its keys and values add
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mlx_gemma4.decoder.memory import PROGRAM, MemoryPlan, Needs, Use, forward_bytes, plan_memory, row_bytes

OUT_OF_MEMORY = ("Unable to allocate", "maximum allowed buffer size", "Insufficient Memory", "out of memory")
"""What MLX's errors say when an allocation fails: on a CPU, on Metal, in Metal's command buffers, on CUDA."""


class ContextFull(ValueError):
    """A sequence would become longer than the context. Nothing was computed."""


class MemoryFull(ValueError):
    """A piece needs more memory than the budget has left, or than the device has."""


@dataclass(frozen=True)
class Budget:
    """The limits of a model; None where there is none."""

    context: int | None = None
    """Positions of a sequence, at most."""
    longest: int | None = None
    """Positions of the longest context that the checkpoint and the memory have room for."""
    memory: int | None = None
    """Bytes for all that the process holds: what MLX allocates, and PROGRAM."""
    needs: Needs | None = None
    """Of the model. None where ``memory`` is None."""
    plan: MemoryPlan | None = None
    """What a sequence as long as the context needs."""

    @property
    def sessions(self) -> int | None:
        """Bytes for the keys and values of all sessions together."""
        return None if self.memory is None or self.plan is None else self.memory - self.plan.total + self.plan.state

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

    def bytes_for(self, end: int, rows: int, room: int, held: int) -> int:
        """Bytes that it takes to extend a sequence to ``end`` positions: while it is computed, and from then on.

        Args:
            rows: Of the largest forward.
            room: That of the session.
            held: Bytes of its keys and values now.
        """
        assert self.needs is not None
        plan = plan_memory(replace(self.needs, weights=0), Use(room=room, rows=rows), end)
        return max(plan.state - held, 0) + plan.forward

    def bytes_for_batch(self, rows: int, length: int) -> int:
        """Bytes of sequences of ``length`` positions that are decoded side by side, and of a step; 0 without limit."""
        return (
            0 if self.needs is None else rows * row_bytes(self.needs, length) + forward_bytes(self.needs, rows, length)
        )

    def spare(self, needed: int, active: int) -> int:
        """Bytes that are left when ``needed`` come to those that are ``active``; less than 0 if they do not fit."""
        assert self.memory is not None
        return self.memory - PROGRAM - active - needed

    def has_memory(self, needed: int, active: int) -> bool:
        """Whether ``needed`` bytes fit beside those that are ``active``."""
        return self.memory is None or self.spare(needed, active) >= 0

    def check_memory(self, needed: int, active: int) -> None:
        """Raise a MemoryFull if ``needed`` bytes do not fit beside those that are ``active``."""
        if not self.has_memory(needed, active):
            assert self.memory is not None
            raise MemoryFull(
                f"This needs {needed / 1e9:.2f} GB more, and {active / 1e9:.2f} of "
                f"{(self.memory - PROGRAM) / 1e9:.2f} GB are used; shorten it, drop other sessions, or start "
                "with more memory (--memory)"
            )


@contextmanager
def allocation_errors() -> Iterator[None]:
    """Turn an error of MLX about an allocation into a MemoryFull."""
    try:
        yield
    except RuntimeError as error:
        if not any(part in str(error) for part in OUT_OF_MEMORY):
            raise
        reason = " ".join(str(error).split())
        raise MemoryFull(
            f"The device has no memory left ({reason}); shorten the input, close other programs, or start with a "
            "smaller context (--context)"
        ) from error
