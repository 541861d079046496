"""The transcript of a conversation. The assistant answers sound without writing it down, so each utterance is computed
a second time, when no answer is being given.
"""

from __future__ import annotations

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.live.talk.events import AssistantEvent, Heard, Transcribed
from mlx_gemma4.programs.transcribe import Transcriber

KEPT_SECONDS = 40.0
"""Seconds of sound that are kept: more than the longest utterance and the silence that ends it."""


class Transcript:
    """Utterances that wait to be transcribed."""

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber
        self._sound = np.zeros(0, np.float32)
        self._begin = 0
        """The sample of the conversation with which ``_sound`` begins."""
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
        """Take an event of the assistant; an utterance waits from then on."""
        if isinstance(event, Heard):
            start, end = (round(seconds * SAMPLE_RATE) - self._begin for seconds in (event.start, event.end))
            self._waiting.append((event, self._sound[max(0, start) : end]))

    def step(self) -> list[AssistantEvent]:
        """Transcribe the oldest utterance."""
        if not self._waiting:
            return []
        heard, samples = self._waiting.pop(0)
        segments = self._transcriber.transcribe(samples)
        return [Transcribed(heard.start, heard.end, " ".join(segment.text for segment in segments if segment.text))]
