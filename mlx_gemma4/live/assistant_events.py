"""What happens in a conversation with eyes and ears."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Looked:
    """A picture is in the cache."""

    seconds: float
    """When it was taken."""
    forwards: int


@dataclass(frozen=True)
class Heard:
    """Somebody has spoken; the answer follows."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float


@dataclass(frozen=True)
class Said:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Answered:
    """An answer is over."""

    text: str
    reason: str
    """"stop"; "length": at ``max_tokens``; "kept" or "dropped": somebody spoke into it."""
    tokens: int
    delay: float
    """Seconds from the decision that the question has ended to the first token of the answer."""
    forwards: int
    """Forward passes in that time."""


@dataclass(frozen=True)
class Forgot:
    """The oldest turns have left."""

    turns: int
    positions: int
    """That are held now."""


Event = Looked | Heard | Said | Answered | Forgot
