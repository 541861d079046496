"""What was said in a conversation, as text. The assistant hears sound itself and writes nothing down: this costs a
second pass over each utterance, made when no answer is being given.
"""

from __future__ import annotations

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.live.talk.events import AssistantEvent, Heard, Transcribed
from mlx_gemma4.programs.transcribe import Transcriber

KEPT_SECONDS = 40.0
"""Sound that is kept: more than the longest utterance, and the silence in which its end is decided."""


class Transcript:
    """Utterances that wait to be written down."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber
        self._sound = np.zeros(0, np.float32)
        self._begin = 0
        """Which sample of the conversation ``_sound`` begins with."""
        self._waiting: list[tuple[Heard, np.ndarray]] = []

    @property
    def waits(self) -> bool:
        """Is there anything to do for ``step``?"""
        return bool(self._waiting)

    def hear(self, samples: np.ndarray) -> None:
        """Take the sound that the assistant gets, float32 [n] at 16 kHz, before it does."""
        dropped = max(0, len(self._sound) - round(KEPT_SECONDS * SAMPLE_RATE))
        self._sound = np.concatenate([self._sound[dropped:], samples])
        self._begin += dropped

    def add(self, event: AssistantEvent) -> None:
        """Take an event of the assistant; an utterance waits from here on."""
        if isinstance(event, Heard):
            start, end = (round(seconds * SAMPLE_RATE) - self._begin for seconds in (event.start, event.end))
            self._waiting.append((event, self._sound[max(0, start) : end]))

    def step(self) -> list[AssistantEvent]:
        """Write down the oldest utterance."""
        if not self._waiting:
            return []
        heard, samples = self._waiting.pop(0)
        segments = self._transcriber.transcribe(samples)
        return [Transcribed(heard.start, heard.end, " ".join(each.text for each in segments if each.text))]
