"""Wyoming, the protocol of Home Assistant, as a state machine. Events of the client and of the work in, events out.

    client                                server
    describe                              info
    transcribe {language}
    audio-start, audio-chunk …            transcript-start, transcript-chunk …       while somebody speaks
    audio-stop                            transcript-chunk …, transcript {text}, transcript-stop
    transcript {text}                     handled-start, handled-chunk …, handled {text}, handled-stop
                                          or not-handled {text}
    ping                                  pong

A chunk cannot be taken back, so only words on which two guesses agreed are chunks before the end; ``transcript`` has
the text of the whole sound and is the one that counts. Events of other types are ignored, as the protocol wants.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Info
from wyoming.ping import Pong

from mlx_gemma4.inputs.audio.pcm import HIGHEST_RATE, LOWEST_RATE, MOST_CHANNELS, SampleStream
from mlx_gemma4.inputs.audio.recording import Resampler
from mlx_gemma4.programs.languages import language_codes
from mlx_gemma4.serve.hearing import (
    Command,
    Commit,
    Committed,
    Configure,
    Hearing,
    HearingSettings,
    Said,
    Words,
    sounds,
)
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.speech_request import LONGEST_KEYWORD, MOST_KEYWORDS, known_languages
from mlx_gemma4.serve.protocols.wyoming_wire import fields

WIDTHS = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}
"""Encodings of samples, by their bytes."""

LONGEST_NAME = 200
"""Characters of a conversation's name; one with a longer name is not remembered."""

Names = list[str] | None
Context = dict[str, Any] | None


class TranscribeData(msgspec.Struct):
    name: str | None = None
    language: str | None = None
    context: Context = None
    transcript_names: Names = None
    transcript_terms: Names = None


class SoundData(msgspec.Struct):
    rate: Annotated[int, msgspec.Meta(ge=LOWEST_RATE, le=HIGHEST_RATE)]
    width: Annotated[int, msgspec.Meta(ge=1, le=4)]
    channels: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHANNELS)]


class TranscriptData(msgspec.Struct):
    text: str
    language: str | None = None
    context: Context = None


class PingData(msgspec.Struct):
    text: str | None = None


@dataclass(frozen=True)
class Ask:
    """Answer a text."""

    text: str
    language: str | None = None
    """Of the answer; an English name."""
    context: Context = None
    """What the client sends to get it back."""

    @property
    def conversation(self) -> str | None:
        """The conversation that the text belongs to."""
        name = (self.context or {}).get("conversation_id")
        return name if isinstance(name, str) and len(name) <= LONGEST_NAME else None


@dataclass
class _Utterance:
    """Sound from one audio-start to its audio-stop."""

    language: str | None
    context: Context
    texts: list[str] = field(default_factory=list)
    has_begun: bool = False
    """Whether its stream of words was begun."""
    is_first: bool = True
    """Whether the next words are the first ones of a stretch of speech."""


class WyomingSession:
    """One connection.

    Args:
        info: What the server offers.
        language: What is spoken if the client does not say; an English name.
        check_model: Raises a Failure if a client asks for another model.
    """

    def __init__(self, info: Info, language: str, check_model: Callable[[str | None], None]) -> None:
        self._info, self._language, self._check_model = info, language, check_model
        self._wanted = TranscribeData()
        self._utterances: deque[_Utterance] = deque()
        """Those that have no transcript yet; the last one is open if ``_is_open``."""
        self._is_open = False
        self._resampler = Resampler()
        self._format: SoundData | None = None
        self._samples = SampleStream()

    @property
    def is_hearing(self) -> bool:
        """Whether sound is sent, or has no transcript yet."""
        return bool(self._utterances)

    @property
    def waits(self) -> bool:
        """Whether the client has sent all sound of an utterance, and waits for its transcript."""
        return len(self._utterances) > self._is_open

    def receive(self, event: Event) -> tuple[list[Event], list[Command | Ask]]:
        """Take an event of the client; return what to answer, and what to tell the work.

        Raises:
            Failure: The event is wrong.
        """
        if event.type == "describe":
            return [self._info.event()], []
        if event.type == "ping":
            return [Pong(fields(event, PingData).text).event()], []
        if event.type == "transcribe":
            self._wanted = fields(event, TranscribeData)
            self._check_model(self._wanted.name)
            self._settings()
        elif event.type == "audio-start":
            return [], self._start(fields(event, SoundData))
        elif event.type == "audio-chunk":
            return [], self._append(fields(event, SoundData), event.payload or b"")
        elif event.type == "audio-stop":
            return [], self._stop()
        elif event.type == "transcript":
            return [], [_ask(fields(event, TranscriptData))]
        return [], []

    def hear(self, event: Hearing) -> list[Event]:
        """Take an event of the work; return the events that tell it."""
        utterance = self._utterances[0]
        if isinstance(event, Words):
            return self._words(utterance, event.text)
        if isinstance(event, Said):
            events = self._words(utterance, event.rest)
            utterance.texts += [event.text] if event.text else []
            utterance.is_first = True
            return events
        if not isinstance(event, Committed):
            return []
        self._utterances.popleft()
        text = " ".join(utterance.texts)
        told = Transcript(text, context=utterance.context, language=utterance.language)
        return [*self._begun(utterance), told.event(), TranscriptStop().event()]

    def _start(self, layout: SoundData) -> list[Command | Ask]:
        if self._is_open:
            raise Failure(
                400, "audio-start must not come before the audio-stop of the sound before", code="wrong_order"
            )
        settings = self._settings()
        code = self._wanted.language or _CODES[self._language]
        self._utterances.append(_Utterance(code, self._wanted.context))
        self._is_open, self._resampler, self._format = True, Resampler(), layout
        self._samples.clear()
        return [Configure(settings)]

    def _append(self, layout: SoundData, payload: bytes) -> list[Command | Ask]:
        begin = [] if self._is_open else self._start(layout)
        if layout != self._format:
            self._format = layout
            self._samples.clear()
        samples = self._samples.push(payload, WIDTHS[layout.width], layout.channels).mean(axis=1)
        return [*begin, *sounds(self._resampler.push(samples, layout.rate))]

    def _stop(self) -> list[Command | Ask]:
        begin = [] if self._is_open else self._start(SoundData(LOWEST_RATE, 1, 1))
        self._is_open = False
        return [*begin, *sounds(self._resampler.finish()), Commit()]

    def _settings(self) -> HearingSettings:
        wanted = self._wanted
        names = [*(wanted.transcript_names or ()), *(wanted.transcript_terms or ())]
        words = [name.strip() for name in names if 0 < len(name.strip()) <= LONGEST_KEYWORD]
        return HearingSettings(
            languages=known_languages([wanted.language] if wanted.language else []),
            keywords=tuple(dict.fromkeys(words))[:MOST_KEYWORDS],  # the protocol puts the important ones first
        )

    def _words(self, utterance: _Utterance, text: str) -> list[Event]:
        if not text:
            return []
        space = " " if utterance.is_first and utterance.texts and not text.startswith(" ") else ""
        utterance.is_first = False
        return [*self._begun(utterance), TranscriptChunk(space + text).event()]

    def _begun(self, utterance: _Utterance) -> list[Event]:
        if utterance.has_begun:
            return []
        utterance.has_begun = True
        return [TranscriptStart(context=utterance.context, language=utterance.language).event()]


def error_event(failure: Failure) -> Event:
    """What is sent before a connection is ended."""
    return Error(failure.message, failure.code).event()


def _ask(data: TranscriptData) -> Ask:
    if not data.text.strip():
        raise Failure(400, "The transcript to handle has no text", code="invalid_value")
    languages = known_languages([data.language] if data.language else [])
    return Ask(data.text, languages[0] if languages else None, data.context)


_CODES = {name: code for code, name in language_codes().items()}
