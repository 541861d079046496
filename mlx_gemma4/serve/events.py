"""What the work on a request tells, in order. The protocols write it in their own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlx_gemma4.outputs.channels import Kind


@dataclass(frozen=True)
class TokenChance:
    """A token of an answer, and how likely it was."""

    token: str
    logprob: float
    bytes: bytes
    alternatives: tuple[TokenChance, ...] = ()
    """The most likely tokens at this place, the most likely one first."""


@dataclass(frozen=True)
class Began:
    """The prompt is known; nothing is computed yet."""

    prompt_tokens: int
    cached_tokens: int
    """Tokens of the prompt that were in a cache already."""
    audio_tokens: int
    """Tokens of the prompt that are sound."""
    image_tokens: int = 0
    """Tokens of the prompt that are pictures, or of videos."""


@dataclass(frozen=True)
class Piece:
    """A piece of an answer."""

    kind: Kind
    text: str
    chances: tuple[TokenChance, ...] = ()
    """The tokens of the text, if they were asked for."""


@dataclass(frozen=True)
class Finished:
    """The end of an answer."""

    reason: Literal["stop", "length"]
    tokens: int
    """Of the answer, including the one that ends it."""
    thought_tokens: int
    """Of those, the ones in thoughts."""
    stopped_by: str | None = None
    """The stop sequence that ended it."""


@dataclass(frozen=True)
class Heard:
    """A segment of a recording, and its text."""

    start: float
    """Seconds from the beginning of the recording."""
    end: float
    text: str
    tokens: int
    """Of the answer, including the one that ends it."""
    forwards: int
    complete: bool
    """False if the text was cut, at a limit or in a loop."""
    speech: tuple[tuple[float, float], ...]
    """Where in the recording speech was found, in seconds."""


@dataclass(frozen=True)
class Listened:
    """The end of a recording."""

    seconds: float
    audio_tokens: int
    """Tokens of sound that the model was given."""
    text_tokens: int
    """Tokens of the instruction."""


ChatEvent = Began | Piece | Finished
SpeechEvent = Heard | Listened
