"""Events of live transcription. Times are seconds from the beginning of the sound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Partial:
    """A guess at what has been said so far. ``draft`` may still change."""

    utterance: int
    start: float
    end: float
    committed: str
    draft: str


@dataclass(frozen=True)
class Committed:
    """Words that will not change any more."""

    utterance: int
    end: float
    text: str
    """The new words only, with the space before them."""


@dataclass(frozen=True)
class Final:
    """The text of an utterance that has ended."""

    utterance: int
    start: float
    end: float
    text: str
    """What transcribing exactly this stretch of sound gives."""
    rest: str
    """The words of ``text`` after those that were committed, with the space before them."""
    revised: int
    """Edits between the committed words, which stay as they were shown, and ``text``."""
    reason: str
    """"silence", "length", "end of sound"; "interrupted": cut short, the text is that of the last guess."""
    delay: float
    """Seconds from the decision that the utterance has ended to its text."""
    forwards: int
    """Forward passes in that time."""
    tokens: int
    complete: bool
    """False where the answer was cut (``Segment.complete``)."""
    speech: tuple[tuple[float, float], ...] = ()
    """Where the voice activity detector heard speech."""
    after_speech: float = 0.0
    """Seconds from the last sample of speech to the text: the silence that decided, the sound that had piled up, and
    ``delay``. Sound counts as it would take to be spoken. 0 if the utterance was interrupted."""


@dataclass(frozen=True)
class Silence:
    """Nobody speaks."""

    start: float
    end: float


@dataclass(frozen=True)
class DroppedAudio:
    """Sound that was never delivered."""

    seconds: float


ListenerEvent = Partial | Committed | Final | Silence | DroppedAudio
