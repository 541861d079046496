"""What a protocol tells the work on live sound, and what that work tells the protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import DEFAULT, Endpointing


@dataclass(frozen=True)
class HearingSettings:
    """How sound is heard."""

    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    prompt: str = ""
    endpointing: Endpointing = DEFAULT
    guess_every: float | None = None
    """Seconds of new speech between two guesses; None: as often as the machine can."""


@dataclass(frozen=True, eq=False)
class Sound:
    """Sound that has arrived, float32 [n] at 16 kHz."""

    samples: np.ndarray


@dataclass(frozen=True)
class Commit:
    """The sound so far is complete: tell its text."""


@dataclass(frozen=True)
class Clear:
    """Forget the sound since the last utterance or commit."""


@dataclass(frozen=True)
class Configure:
    """Hear what follows by other settings."""

    settings: HearingSettings


Command = Sound | Commit | Clear | Configure


@dataclass(frozen=True)
class Began:
    """Somebody speaks."""

    seconds: float
    """From the beginning of the sound."""


@dataclass(frozen=True)
class Words:
    """Words that stand, with the space before them."""

    text: str


@dataclass(frozen=True)
class Supposed:
    """A guess at the open utterance. ``draft`` may change."""

    committed: str
    draft: str


@dataclass(frozen=True)
class Said:
    """An utterance has ended."""

    start: float
    end: float
    text: str
    rest: str
    """The words of the text behind those that stood, with the space before them."""


@dataclass(frozen=True)
class Committed:
    """All sound before a Commit was heard."""


@dataclass(frozen=True)
class Cleared:
    """A Clear was done."""


Hearing = Began | Words | Supposed | Said | Committed | Cleared
