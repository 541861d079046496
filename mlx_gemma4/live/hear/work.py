"""What a listener has done, in numbers."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass
class Work:
    """What a listener has done."""

    speech_frames: int = 0
    """Frames given to the model, each counted once."""
    silent_frames: int = 0
    gated_frames: int = 0
    """Frames that the detector took for speech, but that are below the endpointer's level."""
    audio_computed: int = 0
    """Audio positions computed: more than ``speech_frames`` only where a long utterance was cut."""
    audio_forwards: int = 0
    """Forwards that computed them, of guesses or not."""
    forwards: int = 0
    busy: float = 0.0
    """Seconds for which the model computed."""
    speech: float = 0.0
    """Seconds of ``speech_frames``."""
    guesses: int = 0
    utterances: int = 0
    revised: int = 0
    """Committed words that differ in the final text."""

    def __add__(self, other: Work) -> Work:
        return Work(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))
