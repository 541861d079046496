"""What a protocol tells the work on live sound, and what that work tells the protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import DEFAULT, Endpointing
from mlx_gemma4.inputs.prompt import Prompt


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
    waited: float = 0.0
    """Seconds since it came."""


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


@dataclass(frozen=True)
class TurnSettings:
    """How the turns of a conversation are heard."""

    hearing: HearingSettings = HearingSettings()
    finds_turns: bool = True
    """Whether turns begin and end where somebody speaks; otherwise a Commit ends them, and silence belongs to them."""
    transcribes: bool = False
    """Whether the words are told."""


@dataclass(frozen=True)
class Converse:
    """Hear what follows as turns of a conversation."""

    settings: TurnSettings


@dataclass(frozen=True)
class Transcribe:
    """From now on, the sound is transcribed, and is part of no conversation."""


@dataclass(frozen=True, eq=False)
class History:
    """What the next prompt of the conversation begins with, to be computed while nobody waits."""

    prompt: Prompt
    heard: int | None
    """The prompt ends where this frame of the open turn follows; None: where no sound follows."""


@dataclass(frozen=True)
class Release:
    """An answer is about to be computed: give its session back."""


def sounds(samples: np.ndarray) -> list[Command]:
    """Samples as a command, if there are any."""
    return [Sound(samples)] if len(samples) else []


Command = Sound | Commit | Clear | Configure | Converse | Transcribe | History | Release


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


@dataclass(frozen=True, eq=False)
class Spoke:
    """A stretch of an open turn has ended: an utterance."""

    start: float
    end: float
    samples: np.ndarray
    """float32 [n] at 16 kHz: whole frames."""


@dataclass(frozen=True)
class TurnEnded:
    """The open turn is over. An utterance that was cut at its longest does not end one, if more follows at once."""

    by_client: bool
    """Whether the client has ended it, and not a silence."""


@dataclass(frozen=True)
class Transcribed:
    """Words of an utterance of a conversation."""

    utterance: int | None
    """The number of its ``Began``, from 0; None: it is in the buffer that the next ``Committed`` ends."""
    told: Words | Supposed | Said


Hearing = Began | Words | Supposed | Said | Committed | Cleared | Spoke | TurnEnded | Transcribed
