"""Speech to text on a session: the instruction is cached once, frames go in as they come, the text when they end.

Every segment starts by rewinding to the instruction, so none knows of the ones before. No clock, no devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlx_gemma4.audio import SAMPLE_RATE, cut_point
from mlx_gemma4.channels import Channels
from mlx_gemma4.generation import MAX_TOKENS, generate_step
from mlx_gemma4.model import Model
from mlx_gemma4.processor import Processor
from mlx_gemma4.prompt import AUDIO
from mlx_gemma4.sample import Sampler, Sampling
from mlx_gemma4.session import Session

TRANSCRIBE = (
    "Transcribe the following speech segment in {language} into {language} text.\n\n"
    "Follow these specific instructions for formatting the answer:\n"
    "*   Only output the transcription, with no newlines.\n"
    "*   When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
    "three."
)
TRANSLATE = (
    "Transcribe the following speech segment in {language}, then translate it into {target}.\n"
    "When formatting the answer, first output the transcription in {language}, then one newline, then output the "
    "string '{target}: ', then the translation in {target}."
)
"""The prompts that Google publishes for this model."""

MAX_SEGMENT = 15.0
"""Seconds of a segment, at most, by default; the model takes 30."""


def instruction(language: str = "English", translate_to: str | None = None) -> str:
    """Google's prompt for transcription, or for transcription and translation."""
    if translate_to is None:
        return TRANSCRIBE.format(language=language)
    return TRANSLATE.format(language=language, target=translate_to)


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its text."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float
    text: str
    tokens: int
    """Tokens of the answer, the one that ended it included."""
    forwards: int
    """Forward passes after the last frame was in: one for the end of the prompt, the others for the answer."""
    complete: bool
    """False where the answer was stopped at ``max_tokens``."""


class Transcriber:
    """Frames of sound in, as they come; a segment of text out, when they end or when they become too many.

    Args:
        text: The instruction; Google's for English by default (``instruction``).
        max_segment: Seconds after which a segment is cut, at its quietest pause.
        max_tokens: Tokens of one segment's text, at most.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        *,
        text: str | None = None,
        max_segment: float = MAX_SEGMENT,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.frame_seconds = processor.frame_samples / SAMPLE_RATE
        self.max_frames = _max_frames(max_segment, self.frame_seconds, processor.limits.audio_tokens)
        self._max_tokens = max_tokens
        self._processor = processor
        silence = np.zeros(processor.frame_samples, dtype=np.float32)
        content = [{"type": "text", "text": text or instruction()}, {"type": "audio", "audio": silence}]
        prompt = processor.prompt([{"role": "user", "content": content}])
        audio = int((prompt.token_types == AUDIO).argmax())
        self._tail = prompt[audio + 1 :]
        self.session = Session(model, room=self.max_frames + len(self._tail) + max_tokens)
        self.session.extend(prompt[:audio])
        self._start = self.session.mark()
        self._sampler = Sampler(
            Sampling(), model.config.text_config.vocab_size, suppress=processor.generation.suppress_tokens
        )
        self._speech = np.zeros((0, processor.frame_samples), dtype=np.float32)
        self._before = 0

    def feed(self, frames: np.ndarray) -> Iterator[Segment]:
        """Take frames [F, frame_samples]; yield a segment each time that one has reached its longest."""
        while len(frames):
            free = self.max_frames - len(self._speech)
            if free == 0:
                yield self._cut()
                continue
            self._take(frames[:free])
            frames = frames[free:]

    def finish(self) -> Segment | None:
        """End the segment and return its text, or None if no frame came since the last one."""
        if len(self._speech) == 0:
            return None
        segment = self._answer(len(self._speech))
        self._begin_after(len(self._speech))
        return segment

    def transcribe(self, samples: np.ndarray) -> list[Segment]:
        """All segments of a recording [n] at 16 kHz, as ``feed`` and ``finish`` would give them."""
        self._before = 0
        segments = list(self.feed(self._processor.frames(samples)))
        last = self.finish()
        return segments if last is None else [*segments, last]

    def _take(self, frames: np.ndarray) -> None:
        self.session.extend(frames)
        self._speech = np.concatenate([self._speech, frames])

    def _cut(self) -> Segment:
        count = cut_point(self._speech)
        rest = self._speech[count:]
        self.session.rewind(self._start.position + count)
        segment = self._answer(count)
        self._begin_after(count)
        if len(rest):
            self._take(rest)
        return segment

    def _begin_after(self, count: int) -> None:
        self.session.rewind(self._start)
        self._speech = self._speech[:0]
        self._before += count

    def _answer(self, count: int) -> Segment:
        before = self.session.forwards
        tokens = generate_step(
            self.session, self.session.extend(self._tail), self._sampler, max_tokens=self._max_tokens
        )
        channels = Channels(self._processor.tokenizer)
        text, answered, complete = "", 0, False
        for token in tokens:
            answered += 1
            if token in self._processor.stop_ids:
                complete = True
                break
            text += "".join(said for _, said in channels.push(token))
        tokens.close()
        text += "".join(said for _, said in channels.flush())
        return Segment(
            start=self._before * self.frame_seconds,
            end=(self._before + count) * self.frame_seconds,
            text=text.strip(),
            tokens=answered,
            forwards=self.session.forwards - before,
            complete=complete,
        )


def _max_frames(max_segment: float, frame_seconds: float, limit: int) -> int:
    frames = round(max_segment / frame_seconds) if math.isfinite(max_segment) else 0
    if not 1 <= frames <= limit:
        raise ValueError(
            f"Expected a longest segment of {frame_seconds:g} to {limit * frame_seconds:g} s, got {max_segment:g}"
        )
    return frames
