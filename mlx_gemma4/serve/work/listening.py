"""A listener with what it borrows: a transcriber whose instruction is in the cache, and a detector of speech."""

from __future__ import annotations

from typing import Generic, TypeVar

from mlx_gemma4.inputs.audio.endpoint import Endpointer
from mlx_gemma4.live.hear.events import Committed as Stood
from mlx_gemma4.live.hear.events import Final, ListenerEvent, Partial
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.rhythm import Rhythm
from mlx_gemma4.serve.hearing import HearingSettings, Said, Supposed, Words
from mlx_gemma4.serve.work.speech import Transcribers, instruction_for

E = TypeVar("E", bound=Endpointer)


class Listening(Generic[E]):
    """Hears one sound, until it is closed.

    Args:
        default: The English name of the language that is spoken if the settings name none.
        rhythm: What was learned before about forwards.
        endpointing: Makes what finds speech.

    Attributes:
        listener: Takes the sound.
        endpointer: What it finds speech with.
        rhythm: What the next one may go on with.
    """

    def __init__(
        self,
        transcribers: Transcribers,
        settings: HearingSettings,
        default: str,
        rhythm: Rhythm | None,
        endpointing: type[E],
    ) -> None:
        self._transcribers = transcribers
        self._instruction = instruction_for(settings.languages or (default,), settings.prompt, settings.keywords)
        self._transcriber = transcribers.take(self._instruction)
        self._voice = transcribers.take_voice()
        self.endpointer = endpointing(
            self._voice,
            settings.endpointing,
            frame_seconds=self._transcriber.frame_seconds,
            max_frames=self._transcriber.max_frames,
        )
        self.listener = Listener(self._transcriber, self.endpointer, guess_every=settings.guess_every)
        self.rhythm = rhythm
        if settings.guess_every is None:  # what forwards cost on this machine is learned once
            self.rhythm = self.listener.rhythm = rhythm or self.listener.rhythm

    def close(self) -> None:
        """Give back what was borrowed."""
        self._transcriber.drop()
        self._transcribers.give_back(self._instruction, self._transcriber)
        self._transcribers.give_back_voice(self._voice)


def heard(event: ListenerEvent, before: float) -> Words | Supposed | Said | None:
    """What a listener has heard, as protocols take it; None where there are no words in it.

    Args:
        before: Seconds of sound before the listener's.
    """
    if isinstance(event, Stood):
        return Words(event.text)
    if isinstance(event, Partial):
        return Supposed(event.committed, event.draft)
    if isinstance(event, Final):
        return Said(before + event.start, before + event.end, event.text, event.rest)
    return None
