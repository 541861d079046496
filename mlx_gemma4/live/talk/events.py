"""What happens in a conversation with eyes and ears."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Looked:
    """A picture is in the cache."""

    time: float
    """When it was taken, in seconds since the first one."""
    age: float
    """Seconds since it came from the camera."""
    forwards: int


@dataclass(frozen=True)
class SightLost:
    """Sight is lost: the camera has ended or stalls. Its last picture is not shown any more; a new one would be."""

    problem: str
    """Why, in a sentence."""


@dataclass(frozen=True)
class Heard:
    """Somebody has spoken; the answer follows."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float


@dataclass(frozen=True)
class Transcribed:
    """What was said, as text (``Transcript``)."""

    start: float
    """As of ``Heard``."""
    end: float
    text: str


@dataclass(frozen=True)
class Said:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Called:
    """The model wants a function called; its answer goes on when ``Assistant.reply`` has brought all results."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default="", compare=False)
    """Of this call alone: consent to it, and its result, belong to no other."""


@dataclass(frozen=True)
class Refused:
    """The model wants a function called in a way that is not declared; it is told so, and its answer goes on."""

    name: str
    problem: str
    id: str = field(default="", compare=False)


@dataclass(frozen=True)
class Answered:
    """An answer is over."""

    text: str
    reason: str
    """"stop"; "length": at ``max_tokens`` or at the end of the context; "calls": after too many of them; "kept" or
    "dropped": somebody spoke into it; "interrupted": the session ended."""
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


AssistantEvent = Looked | SightLost | Heard | Transcribed | Said | Called | Refused | Answered | Forgot
