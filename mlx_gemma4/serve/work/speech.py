"""The transcript of a recording, one forward at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.programs.segments import make_endpointer
from mlx_gemma4.programs.transcribe import TRANSCRIBE, TRANSLATE, Segment, Transcriber, with_terms
from mlx_gemma4.serve.engine import Work
from mlx_gemma4.serve.events import Heard, Listened, SpeechEvent
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.priority import Turn
from mlx_gemma4.serve.protocols.speech_request import SpeechRequest
from mlx_gemma4.serve.work.reader import Reader

TARGET = "English"
"""The language of translations, in OpenAI's protocol."""
UNKNOWN = "the language that is spoken"
MOST_IDLE = 2
"""Transcribers, and detectors of speech, that are kept for those who come next."""


@dataclass(frozen=True)
class Recognition:
    """A recording, and how it is to be transcribed."""

    request: SpeechRequest
    file: BinaryIO
    instruction: str
    longest: float
    """Seconds of the recording, at most."""


class Transcribers:
    """Transcribers whose instruction is in the cache already. Belongs to the engine's thread."""

    def __init__(self, model: Model, processor: Processor) -> None:
        self._model, self._processor = model, processor
        self._idle: list[tuple[str, Transcriber]] = []
        self._voices: list[Voice] = []

    def take(self, instruction: str) -> Transcriber:
        """A transcriber that nobody else uses."""
        for index, (text, transcriber) in enumerate(self._idle):
            if text == instruction:
                del self._idle[index]
                return transcriber
        return Transcriber(self._model, self._processor, text=instruction, drafter=Drafter())

    def give_back(self, instruction: str, transcriber: Transcriber) -> None:
        """Keep a transcriber that has no open segment; the ones that were not used for longest go."""
        self._idle = [*self._idle, (instruction, transcriber)][-MOST_IDLE:]

    def take_voice(self) -> Voice:
        """A detector of speech that nobody else uses. Making one takes as long as a forward."""
        return self._voices.pop() if self._voices else Voice()

    def give_back_voice(self, voice: Voice) -> None:
        """Keep a detector for another sound."""
        voice.reset()
        self._voices = [*self._voices, voice][-MOST_IDLE:]

    def warm_up(self, instruction: str) -> None:
        """Make what the first client would wait for."""
        self.give_back(instruction, self.take(instruction))
        self.give_back_voice(self.take_voice())


def instruction_of(request: SpeechRequest, default: str) -> str:
    """What the model is told to do.

    Args:
        default: The English name of the language that is spoken if the client names none.
    """
    spoken = request.languages or ((UNKNOWN,) if request.translates else (default,))
    return instruction_for(spoken, request.prompt, request.keywords, translates=request.translates)


def instruction_for(
    languages: Sequence[str], context: str, keywords: Sequence[str], *, translates: bool = False
) -> str:
    """Google's instruction, with the languages that may be spoken, and what is known of the sound."""
    language = " or ".join(languages)
    text = TRANSLATE.format(language=language, target=TARGET) if translates else TRANSCRIBE.format(language=language)
    if context:
        text = f"{text}\n\nContext: {context}"
    return with_terms(text, keywords) if keywords else text


def recognise(
    recognition: Recognition, transcribers: Transcribers, outbox: Outbox[SpeechEvent], wake: Callable[[], None]
) -> Work:
    """Transcribe a recording; tell its segments to the outbox, and wait while nobody reads them.

    Args:
        wake: Wakes this job when an utterance was found.
    """
    yield Turn.PREFILL
    transcriber = transcribers.take(recognition.instruction)
    reader = Reader(
        recognition.file,
        lambda: make_endpointer(transcriber, recognition.request.endpointing),
        transcriber.frame_samples,
        recognition.longest,
        wake,
    )
    try:
        yield from _segments(transcriber, reader, recognition, outbox)
    finally:
        reader.stop()
    transcribers.give_back(recognition.instruction, transcriber)


def _segments(transcriber: Transcriber, reader: Reader, recognition: Recognition, outbox: Outbox[SpeechEvent]) -> Work:
    instruction_tokens, audio_tokens = transcriber.session.position, 0
    spans: list[tuple[tuple[float, float], ...]] = []
    is_starved = False

    def stretches() -> Iterator[tuple[int, np.ndarray] | None]:
        nonlocal is_starved, audio_tokens
        for utterance in reader.take():
            is_starved = utterance is None
            if utterance is None:
                yield None
            else:
                spans.append(utterance.speech_seconds(transcriber.frame_seconds))
                audio_tokens += len(utterance.frames)
                yield utterance.start, utterance.frames

    told = 0
    for segment in transcriber.transcribe_steps(stretches(), first_alone=True):
        if segment is not None:
            outbox.put(_heard(segment, spans[told], recognition.request))
            told += 1
            continue
        while outbox.is_full:
            yield Turn.WAIT
        yield Turn.WAIT if is_starved and told == len(spans) else Turn.DECODE
    outbox.put(Listened(reader.seconds, audio_tokens, instruction_tokens))


def _heard(segment: Segment, speech: tuple[tuple[float, float], ...], request: SpeechRequest) -> Heard:
    text = translation(segment.text) if request.translates else segment.text
    return Heard(segment.start, segment.end, text, segment.tokens, segment.forwards, segment.complete, speech)


def translation(text: str) -> str:
    """The translation in a text that holds the transcript, a newline, "English: " and the translation."""
    before, marker, after = text.rpartition(f"{TARGET}: ")
    return after.strip() if marker and (not before or before.endswith("\n")) else text
