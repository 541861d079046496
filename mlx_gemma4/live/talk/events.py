"""What happens in a live conversation. Times are seconds from the beginning of the sound or of the pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Looked:
    """A picture was computed and is in the cache."""

    time: float
    """When it was taken, in seconds since the first one."""
    age: float
    """Seconds since it came from the camera."""
    forwards: int


@dataclass(frozen=True)
class SightLost:
    """The camera has ended or stalls. Its last picture is no longer shown to the model; a new one will be."""

    problem: str
    """Why, in a sentence."""


@dataclass(frozen=True)
class Heard:
    """An utterance has ended; the answer follows."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float


@dataclass(frozen=True)
class Transcribed:
    """The text of an utterance (``Transcript``)."""

    start: float
    """As in ``Heard``."""
    end: float
    text: str


@dataclass(frozen=True)
class Said:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Called:
    """The model calls a function. The answer continues after ``Assistant.reply`` for all calls."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default="", compare=False)
    """Identifies the call: consent and result belong to this one only."""


@dataclass(frozen=True)
class Refused:
    """The model called a function in a way that is not declared. The problem is the result, and it continues."""

    name: str
    problem: str
    id: str = field(default="", compare=False)


@dataclass(frozen=True)
class Answered:
    """An answer is complete."""

    text: str
    reason: str
    """"stop"; "length": at ``max_tokens`` or the end of the context; "loop": it repeated itself; "calls": after too
    many calls; "kept" or "dropped": interrupted by speech; "interrupted": the session ended."""
    tokens: int
    delay: float
    """Seconds from the decision that the question has ended to the first token."""
    forwards: int
    """Forward passes during the delay."""


@dataclass(frozen=True)
class Forgot:
    """The oldest turns have left the sequence."""

    turns: int
    positions: int
    """Length of the sequence now."""


AssistantEvent = Looked | SightLost | Heard | Transcribed | Said | Called | Refused | Answered | Forgot
