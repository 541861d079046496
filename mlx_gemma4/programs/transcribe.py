"""Speech to text on a session: the instruction is cached once, frames go into the cache as they come.

Every segment starts by rewinding to the instruction, so it does not depend on those before. No clock, no devices.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.audio.frames import cut_point
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import AUDIO, Prompt
from mlx_gemma4.outputs.answer import answer, text_of
from mlx_gemma4.outputs.batch import BATCH_SIZE, Question, decode_steps
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.guards import is_remark, most_tokens
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import MAX_TOKENS
from mlx_gemma4.programs.languages import language_name
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
"""Seconds of the longest segment by default; the model takes at most 30."""


def instruction(language: str = "English", translate_to: str | None = None) -> str:
    """Google's prompt for transcription, or for transcription and translation.

    Raises:
        ValueError: A language that ``language_name`` does not know.
    """
    language = language_name(language)
    if translate_to is None:
        return TRANSCRIBE.format(language=language)
    return TRANSLATE.format(language=language, target=language_name(translate_to))


def with_terms(text: str, terms: Sequence[str]) -> str:
    """An instruction with names and words that may come up."""
    return f"{text}\n\nThese terms may come up: {', '.join(term.strip() for term in terms if term.strip())}."


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its text."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float
    text: str
    tokens: int
    """Tokens of the answer, including the stop token."""
    forwards: int
    """Forward passes after the last frame: none if the last guess covered all frames; otherwise one for the end of the
    prompt with the last guess as a draft, and one for each token that the draft lacked. In a batch, one for each token,
    shared with other segments."""
    complete: bool
    """False if the answer was cut: at ``max_tokens``, at more tokens than the time has room for, or in a loop."""
    speech: tuple[tuple[float, float], ...] = ()
    """Where the detector found speech, in seconds; empty without a detector."""


@dataclass(frozen=True)
class Guess:
    """What the text would be if the speech ended here."""

    text: str
    tokens: tuple[int, ...]
    frames: int
    """Frames that it covers."""


class Transcriber:
    """Frames of sound in, as they come; a guess at any time, and the text of the segment at its end.

    Args:
        text: The instruction; Google's for English by default (``instruction``).
        max_segment: Seconds after which a segment is cut, at its quietest pause. This is also the longest utterance of
            whatever feeds it: a ``Listener`` or ``segments.transcribe`` tells its endpointer.
        max_tokens: Tokens of one segment's text, at most.

    Raises:
        ValueError: A longest segment of less than a frame, or of more than the checkpoint takes.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        *,
        text: str | None = None,
        max_segment: float = MAX_SEGMENT,
        max_tokens: int = MAX_TOKENS,
        drafter: Drafter | None = None,
    ) -> None:
        self.frame_samples = processor.frame_samples
        self.frame_seconds = processor.frame_samples / SAMPLE_RATE
        self.max_frames = _max_frames(max_segment, self.frame_seconds, processor.limits.audio_tokens)
        self._max_tokens = max_tokens
        self.drafter = drafter
        self._processor = processor
        silence = np.zeros(processor.frame_samples, dtype=np.float32)
        content = [{"type": "text", "text": text or instruction()}, {"type": "audio", "audio": silence}]
        prompt = processor.prompt([{"role": "user", "content": content}])
        audio = int((prompt.token_types == AUDIO).argmax())
        self._tail = prompt[audio + 1 :]
        self.session = Session(model, room=self.max_frames + len(self._tail) + max_tokens)
        self.session.extend(prompt[:audio])
        self._start = self.session.mark()
        self._sampler = Sampler(Sampling(), model.config.text_config.vocab_size, suppress=processor.suppressed_ids)
        self._audio = processor.config.token_ids.audio
        self._speech = np.zeros((0, processor.frame_samples), dtype=np.float32)
        self._in_cache = 0
        """Frames of the current segment that the session holds."""
        self._before = 0
        self._guess: Guess | None = None
        self.audio_computed = 0
        """Audio positions computed so far."""

    @property
    def heard(self) -> int:
        """Frames of the current segment."""
        return len(self._speech)

    @property
    def waiting(self) -> int:
        """Frames of the current segment that are not computed yet."""
        return self.heard - self._in_cache

    @property
    def guess_rows(self) -> int:
        """Rows of the forward with which the next guess begins, without the frames that wait: the end of the prompt,
        and the last guess."""
        return len(self._tail) + len(self._draft(self.heard))

    def put(self, frames: np.ndarray) -> None:
        """Take frames [F, frame_samples] without computing them. The next guess computes them in its own forward.

        Raises:
            ValueError: The segment would be longer than its longest.
        """
        if self.heard + len(frames) > self.max_frames:
            raise ValueError(
                f"A segment has at most {self.max_frames} frames, but {self.heard} + {len(frames)} were put; "
                "call finish() first, or use feed()"
            )
        self._speech = np.concatenate([self._speech, frames])

    def compute(self, count: int | None = None) -> None:
        """Compute frames that wait, in one forward: the first ``count`` of them, or all."""
        end = self.heard if count is None else min(self.heard, self._in_cache + count)
        if end > self._in_cache:
            self.session.extend(self._speech[self._in_cache : end])
            self._advance(end)

    def feed(self, frames: np.ndarray) -> Iterator[Segment]:
        """Take frames [F, frame_samples] and compute them; yield a segment whenever one has reached its longest."""
        while len(frames):
            free = self.max_frames - self.heard
            if free == 0:
                speech, length = self._speech, cut_point(self._speech)
                yield self._end(length)
                frames = np.concatenate([speech[length:], frames])
                continue
            self.put(frames[:free])
            self.compute()
            frames = frames[free:]

    def guess(self) -> Guess:
        """What the text would be if the speech ended here. The session is left as it was.

        The last guess is the draft of this one: one forward computes the frames that wait, reads the end of the prompt,
        and checks the draft. Only tokens that are new cost a forward each.
        """
        self._guess = self._guess_of(self.heard)
        return self._guess

    def finish(self, length: int | None = None) -> Segment | None:
        """End the segment and return its text, or None if no frame came since the last one.

        Args:
            length: End it after this many of its frames. The others are dropped; feed them again.
        """
        if self.heard == 0:
            return None
        if length is not None and not 0 < length <= self.heard:
            raise ValueError(f"Expected a length of 1 to {self.heard} frames, as many as the segment has, got {length}")
        return self._end(self.heard if length is None else length)

    def drop(self) -> None:
        """Forget the frames of the segment that is open, if there is one."""
        self.session.rewind(self._start)
        self._speech, self._guess, self._in_cache = self._speech[:0], None, 0

    def transcribe(self, samples: np.ndarray) -> list[Segment]:
        """All segments of a recording [n] at 16 kHz, as ``feed`` and ``finish`` would give them."""
        self._before = 0
        segments = list(self.feed(self._processor.frames(samples)))
        last = self.finish()
        return segments if last is None else [*segments, last]

    def transcribe_batch(
        self,
        stretches: Iterable[tuple[int, np.ndarray]],
        *,
        batch_size: int = BATCH_SIZE,
        first_alone: bool = False,
    ) -> Iterator[Segment]:
        """Transcribe stretches of sound side by side; yield the segment of each, in order, when it is known.

        The texts are those of one after the other, up to the rounding of a batched forward. A stretch is taken when
        there is a place for it. Until the last segment is yielded, no other segment may be open when one is taken.

        Args:
            stretches: (Number of its first frame, frames [F, frame_samples]) of each.
            batch_size: How many are decoded at once, at most. With 1, the drafter drafts; a batch decodes without it.
            first_alone: Take no others until the first one is known, so that it comes early.

        Raises:
            ValueError: A segment is open, or ``batch_size`` is less than 1.
        """
        self._check_closed()
        if batch_size == 1 and self.drafter is not None:
            return self._one_by_one(stretches)
        steps = self.transcribe_steps(stretches, batch_size=batch_size, first_alone=first_alone)
        return (segment for segment in steps if segment is not None)

    def transcribe_steps(
        self,
        stretches: Iterable[tuple[int, np.ndarray] | None],
        *,
        batch_size: int = BATCH_SIZE,
        first_alone: bool = False,
    ) -> Iterator[Segment | None]:
        """As ``transcribe_batch``, for a caller that does other things between two forwards: it yields None after each.

        Args:
            stretches: Where it gives None, the next one has not come yet (``outputs.batch.decode_steps``).
        """
        taken: deque[tuple[int, int]] = deque()

        def questions() -> Iterator[Question | None]:
            for stretch in stretches:
                self._check_closed()
                if stretch is None:
                    yield None
                    continue
                start, frames = stretch
                taken.append((start, start + len(frames)))
                yield Question(self._asked(frames), self._most_tokens(len(frames)))

        steps = decode_steps(
            self.session,
            questions(),
            self._sampler,
            stop_ids=self._processor.stop_ids,
            batch_size=batch_size,
            first_alone=first_alone,
        )
        for tokens in steps:
            if tokens is None:
                yield None
            else:
                yield self._segment(*taken.popleft(), tokens, self._text(tokens), len(tokens))

    def _one_by_one(self, stretches: Iterable[tuple[int, np.ndarray]]) -> Iterator[Segment]:
        for start, frames in stretches:
            self._check_closed()
            before = self.session.forwards
            try:
                tokens = self._answer(self._asked(frames), len(frames))
            finally:
                self.session.rewind(self._start)
            forwards = self.session.forwards - before
            yield self._segment(start, start + len(frames), tokens, self._text(tokens), forwards)

    def _asked(self, frames: np.ndarray) -> Prompt:
        """Frames, if there are any, and the end of the prompt."""
        if not len(frames):
            return self._tail
        assert self._audio is not None
        return Prompt.from_frames(frames, self._audio) + self._tail

    def _answer(self, question: Prompt, length: int, draft: tuple[int, ...] = ()) -> list[int]:
        """The answer after ``length`` frames, of which ``question`` holds those that are not in the cache."""
        return answer(
            self.session,
            question,
            self._sampler,
            stop_ids=self._processor.stop_ids,
            max_tokens=self._most_tokens(length),
            draft=draft,
            drafter=self.drafter,
        )

    def _check_closed(self) -> None:
        if self.heard:
            raise ValueError(f"A segment of {self.heard} frames is open; call finish() first")

    def _segment(self, start: int, end: int, tokens: Sequence[int], text: str, forwards: int) -> Segment:
        """A segment from one frame to another."""
        return Segment(
            start=start * self.frame_seconds,
            end=end * self.frame_seconds,
            text=text,
            tokens=len(tokens),
            forwards=forwards,
            complete=tokens[-1] in self._processor.stop_ids,
        )

    def _most_tokens(self, frames: int) -> int:
        return min(self._max_tokens, most_tokens(frames * self.frame_seconds))

    def _advance(self, end: int) -> None:
        """The session holds the frames of the segment up to ``end`` now, and nothing behind them."""
        self.audio_computed += end - self._in_cache
        self._in_cache = end

    def _end(self, length: int) -> Segment:
        before = self.session.forwards
        guess = self._guess_of(length)
        forwards = self.session.forwards - before
        segment = self._segment(self._before, self._before + length, guess.tokens, guess.text, forwards)
        self.drop()
        self._before += length
        return segment

    def _guess_of(self, length: int) -> Guess:
        if self._guess is not None and self._guess.frames == length:
            return self._guess
        start = self._start.position
        if length < self._in_cache:
            self.session.rewind(start + length)
            self._in_cache = length
        try:
            tokens = self._answer(self._asked(self._speech[self._in_cache : length]), length, self._draft(length))
        except BaseException:
            self.session.rewind(min(self.session.position, start + self._in_cache))
            raise
        self.session.rewind(start + length)
        self._advance(length)
        return Guess(self._text(tokens), tuple(tokens), length)

    def _draft(self, length: int) -> tuple[int, ...]:
        """The tokens of the last guess that may be the answer after ``length`` frames."""
        return () if self._guess is None else self._guess.tokens[: self._most_tokens(length) - 1]

    def _text(self, tokens: list[int]) -> str:
        text = text_of(tokens, self._processor, self._tail)
        return "" if is_remark(text) else text


def _max_frames(max_segment: float, frame_seconds: float, limit: int) -> int:
    frames = round(max_segment / frame_seconds) if math.isfinite(max_segment) else 0
    if not 1 <= frames <= limit:
        raise ValueError(
            f"Expected a max_segment of {frame_seconds:g} to {limit * frame_seconds:g} seconds, got {max_segment:g}"
        )
    return frames
