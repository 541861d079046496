"""``/v1/realtime``: the events of a client in a transcription session, and the settings in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Annotated, Any, TypeVar

import msgspec

from mlx_gemma4.inputs.audio.endpoint import DEFAULT, Endpointing
from mlx_gemma4.serve.hearing import HearingSettings, TurnSettings
from mlx_gemma4.serve.protocols.failure import unsupported, wrong
from mlx_gemma4.serve.protocols.realtime_answers import AnswerFields
from mlx_gemma4.serve.protocols.speech_request import (
    checked_keywords,
    checked_prompt,
    known_languages,
    voice_endpointing,
)

ENCODINGS = {"audio/pcm": "s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
PCM_RATE, G711_RATE = 24_000, 8000
LOWEST, HIGHEST = 8000, 48_000
"""Hz of PCM that is taken; the protocol's own rate is 24,000."""
EAGERNESS = {"low": 1.5, "medium": 0.8, "auto": 0.8, "high": 0.4}
"""Seconds of silence that end a turn with ``semantic_vad``. It listens for silence, not for meaning."""
DELAYS = {"minimal": 0.25, "low": 0.5, "medium": 1.0, "high": 2.0, "xhigh": 30.0}
"""Seconds of new speech between two guesses, by the client's wish; the last one guesses in pauses only."""
HYPOTHESES = "item.input_audio_transcription.hypotheses"
"""Asks, in ``include``, for guesses as events of their own."""
INCLUDES = (HYPOTHESES, "item.input_audio_transcription.logprobs")

REMEDY = "connect with ?intent=transcription to transcribe, and without to converse"

Maybe = msgspec.UnsetType
T = TypeVar("T")


class Format(msgspec.Struct):
    type: str = "audio/pcm"
    rate: Annotated[int, msgspec.Meta(ge=LOWEST, le=HIGHEST)] | None = None


class TranscriptionSettings(msgspec.Struct):
    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    prompt: str | None = None
    keywords: list[str] | None = None
    delay: str | None = None


class Input(msgspec.Struct):
    format: Format | Maybe | None = msgspec.UNSET
    transcription: TranscriptionSettings | Maybe | None = msgspec.UNSET
    turn_detection: dict[str, Any] | Maybe | None = msgspec.UNSET
    noise_reduction: dict[str, Any] | Maybe | None = msgspec.UNSET


class Audio(msgspec.Struct):
    input: Input | None = None


class Session(AnswerFields):
    """An update, of which a transcription session takes the sound alone."""

    type: str | None = None
    audio: Audio | None = None
    include: list[str] | Maybe | None = msgspec.UNSET


class Update(msgspec.Struct, tag="session.update", tag_field="type"):
    session: Session
    event_id: str | None = None


class Append(msgspec.Struct, tag="input_audio_buffer.append", tag_field="type"):
    audio: str
    event_id: str | None = None


class CommitBuffer(msgspec.Struct, tag="input_audio_buffer.commit", tag_field="type"):
    event_id: str | None = None


class ClearBuffer(msgspec.Struct, tag="input_audio_buffer.clear", tag_field="type"):
    event_id: str | None = None


ClientEvent = Update | Append | CommitBuffer | ClearBuffer


class Head(msgspec.Struct):
    """What an event has in any case, to tell which one is wrong."""

    type: str = ""
    event_id: str | None = None


def event_id_of(message: bytes) -> str | None:
    """The id that the client gave to an event, which may be anything."""
    try:
        return msgspec.json.decode(message, type=Head).event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _server_vad() -> dict[str, Any]:
    return {
        "type": "server_vad",
        "threshold": DEFAULT.threshold,
        "prefix_padding_ms": round(1000 * DEFAULT.pre_roll),
        "silence_duration_ms": round(1000 * DEFAULT.silence),
    }


@dataclass(frozen=True)
class Settings:
    """The settings of a session, as the protocol has them. Each update changes those that it names."""

    kind: str = "transcription"
    """Or "realtime": a conversation, in which nothing is transcribed unless the client asks for it."""
    encoding: str = "audio/pcm"
    rate: int = PCM_RATE
    transcription: TranscriptionSettings | None = None
    turn_detection: Mapping[str, Any] | None = field(default_factory=_server_vad)
    noise_reduction: Mapping[str, Any] | None = None
    include: tuple[str, ...] = ()

    def updated(self, session: Session) -> Settings:
        """These settings with the changes of an update.

        Raises:
            Failure: A setting is wrong; none is changed.
        """
        changed = self
        if session.type is not None:
            if session.type not in ("transcription", "realtime"):
                raise wrong("session.type", "session.type must be transcription or realtime")
            if session.type != self.kind:
                raise wrong("session.type", f"The type of this session is {self.kind}, and stays so: {REMEDY}")
        if session.include is not msgspec.UNSET:
            include = tuple(session.include or ())
            if unknown := [name for name in include if name not in INCLUDES]:
                raise wrong("session.include", f"session.include does not know {unknown[0][:60]!r}")
            if "item.input_audio_transcription.logprobs" in include:
                raise unsupported("session.include", "Probabilities of live words are not told; leave include out")
            changed = replace(changed, include=include)
        found = session.audio.input if session.audio is not None else None
        if found is not None:
            changed = changed._with_input(found)
        changed.hearing()  # checks the rest
        return changed

    def _with_input(self, found: Input) -> Settings:
        changed = self
        if isinstance(found.format, Format):
            if found.format.type not in ENCODINGS:
                raise wrong("session.audio.input.format.type", f"The format must be one of {', '.join(ENCODINGS)}")
            own = PCM_RATE if found.format.type == "audio/pcm" else G711_RATE
            rate = found.format.rate or own
            if own == G711_RATE and rate != own:
                raise wrong("session.audio.input.format.rate", f"{found.format.type} has a rate of {own} Hz")
            changed = replace(changed, encoding=found.format.type, rate=rate)
        if not isinstance(found.transcription, Maybe):
            changed = replace(changed, transcription=found.transcription)
        if not isinstance(found.turn_detection, Maybe):
            detection = found.turn_detection
            told = None if detection is None else {"type": "server_vad", **detection}
            changed = replace(changed, turn_detection=told)
        if not isinstance(found.noise_reduction, Maybe):
            changed = replace(changed, noise_reduction=found.noise_reduction)
        return changed

    @property
    def has_turns(self) -> bool:
        """Whether the server finds where utterances end; otherwise the client commits."""
        return self.turn_detection is not None

    def hearing(self) -> HearingSettings:
        """How the sound is heard.

        Raises:
            Failure: A setting is wrong.
        """
        told = self.transcription or TranscriptionSettings()
        codes = [*(told.languages or ()), *([told.language] if told.language else ())]
        if told.delay is not None and told.delay not in DELAYS:
            raise wrong("session.audio.input.transcription.delay", f"delay must be one of {', '.join(DELAYS)}")
        return HearingSettings(
            languages=known_languages(codes),
            keywords=checked_keywords(told.keywords or ()),
            prompt=checked_prompt(told.prompt or ""),
            endpointing=self._endpointing(),
            guess_every=None if told.delay is None else DELAYS[told.delay],
        )

    def _endpointing(self) -> Endpointing:
        where = "session.audio.input.turn_detection"
        detection = self.turn_detection
        if detection is None:
            return DEFAULT
        for name in ("create_response", "interrupt_response"):
            if not isinstance(detection.get(name), (bool, NoneType)):
                raise wrong(f"{where}.{name}", f"{where}.{name} must be true or false")
        if detection.get("idle_timeout_ms") is not None:
            raise unsupported(f"{where}.idle_timeout_ms", "idle_timeout_ms is not supported; leave it out")
        kind = detection.get("type", "server_vad")
        if kind == "server_vad":
            return voice_endpointing(detection, where)
        if kind != "semantic_vad":
            raise wrong(f"{where}.type", "turn_detection must be server_vad, semantic_vad or null")
        eagerness = detection.get("eagerness") or "auto"
        if eagerness not in EAGERNESS:
            raise wrong(f"{where}.eagerness", f"eagerness must be one of {', '.join(EAGERNESS)}")
        return Endpointing(silence=EAGERNESS[eagerness])

    @property
    def answers_turns(self) -> bool:
        """Whether the end of a turn begins an answer."""
        return self.turn_detection is not None and self.turn_detection.get("create_response") is not False

    @property
    def is_interruptible(self) -> bool:
        """Whether an answer ends when somebody speaks."""
        return self.turn_detection is not None and self.turn_detection.get("interrupt_response") is not False

    def turns(self) -> TurnSettings:
        """How the turns of a conversation are heard.

        Raises:
            Failure: A setting is wrong.
        """
        return TurnSettings(self.hearing(), finds_turns=self.has_turns, transcribes=self.transcription is not None)

    def _detection(self) -> Mapping[str, Any] | None:
        if self.turn_detection is None or self.kind == "transcription":
            return self.turn_detection
        told = {"create_response": self.answers_turns, "interrupt_response": self.is_interruptible}
        return {**self.turn_detection, **told}

    def record(self) -> dict[str, Any]:
        """The session, as events tell it."""
        form: dict[str, Any] = {"type": self.encoding}
        if self.encoding == "audio/pcm":
            form["rate"] = self.rate
        transcription = None if self.transcription is None else msgspec.structs.asdict(self.transcription)
        if transcription is None and self.kind == "transcription":
            transcription = {}
        return {
            "type": self.kind,
            "audio": {
                "input": {
                    "format": form,
                    "transcription": None if transcription is None else _given(transcription),
                    "turn_detection": self._detection(),
                    "noise_reduction": self.noise_reduction,
                }
            },
            "include": list(self.include) or None,
        }


def _given(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}
