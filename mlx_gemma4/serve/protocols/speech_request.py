"""``POST /v1/audio/transcriptions`` and ``/translations``: the fields of a form, besides the file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.inputs.audio.endpoint import DEFAULT, Endpointing
from mlx_gemma4.programs.languages import find_language
from mlx_gemma4.serve.protocols.failure import unsupported, wrong

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
LONGEST_PROMPT, LONGEST_KEYWORD, MOST_KEYWORDS, MOST_LANGUAGES = 4000, 100, 200, 8
YES = ("true", "1")
_INNER = re.compile(r"(\w+)\[(\w+)\]")


@dataclass(frozen=True)
class SpeechRequest:
    """What a client asks for."""

    translates: bool
    model: str | None = None
    languages: tuple[str, ...] = ()
    """English names of the languages that may be spoken; empty where the client does not say."""
    keywords: tuple[str, ...] = ()
    prompt: str = ""
    """What the recording is about, or what was said before."""
    form: str = "json"
    has_words: bool = False
    has_segments: bool = True
    streams: bool = False
    endpointing: Endpointing = DEFAULT


def read_speech(fields: Iterable[tuple[str, str]], *, translates: bool) -> SpeechRequest:
    """Read the fields of a form. Lists are repeated fields, with or without ``[]`` behind the name.

    Raises:
        Failure: A field is wrong, or asks for what is not supported; the message names it.
    """
    form = _Form(fields)
    layout = form.one("response_format") or "json"
    if layout == "diarized_json":
        raise unsupported("response_format", "Speakers are not told apart: use another response_format")
    if layout not in FORMATS:
        raise wrong("response_format", f"response_format must be one of {', '.join(FORMATS)}")
    if form.many("include"):
        raise unsupported("include", "include is not supported; leave it out")
    streams = (form.one("stream") or "").lower() in YES
    if streams and layout not in ("json", "text"):
        raise wrong("stream", "stream: true goes with response_format json: its events have the text")
    granularities = form.many("timestamp_granularities")
    for each in granularities:
        if each not in GRANULARITIES:
            raise wrong("timestamp_granularities", "timestamp_granularities must be word or segment")
    if granularities and layout != "verbose_json":
        raise wrong("timestamp_granularities", "timestamp_granularities need response_format verbose_json")
    return SpeechRequest(
        translates=translates,
        model=form.one("model"),
        languages=known_languages([*form.many("languages"), *form.many("language")]),
        keywords=checked_keywords(form.many("keywords")),
        prompt=checked_prompt(form.one("prompt") or ""),
        form=layout,
        has_words="word" in granularities,
        has_segments="segment" in granularities or not granularities,
        streams=streams,
        endpointing=_endpointing(form.object("chunking_strategy")),
    )


class _Form:
    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.removesuffix("[]"), []).append(value)

    def one(self, name: str) -> str | None:
        values = self._fields.get(name)
        return values[-1].strip() if values and values[-1].strip() else None

    def many(self, name: str) -> list[str]:
        return [value.strip() for value in self._fields.get(name, ()) if value.strip()]

    def object(self, name: str) -> dict[str, Any] | str | None:
        """A field that is an object: written as JSON, or as fields with names such as ``name[key]``."""
        inner = {}
        for field, values in self._fields.items():
            found = _INNER.fullmatch(field)
            if found is not None and found[1] == name:
                inner[found[2]] = values[-1]
        text = self.one(name)
        if inner or text is None:
            return inner or None
        try:
            read: Any = json.loads(text)
        except (ValueError, RecursionError):
            return text
        return read if isinstance(read, dict) else text


def known_languages(codes: Sequence[str]) -> tuple[str, ...]:
    """The English names of languages, each once.

    Raises:
        Failure: There are too many, or one is unknown.
    """
    if len(codes) > MOST_LANGUAGES:
        raise wrong("languages", f"languages takes at most {MOST_LANGUAGES} languages, got {len(codes)}")
    names = {code: find_language(code) for code in codes}
    for code, name in names.items():
        if name is None:
            raise wrong("language", f"Unknown language {code[:40]!r}: use a code such as de, or an English name")
    return tuple(dict.fromkeys(name for name in names.values() if name is not None))


def checked_keywords(words: Sequence[str]) -> tuple[str, ...]:
    """Words that may come up. Raises a Failure if they are too many or too long."""
    words = tuple(filter(None, map(str.strip, words)))
    if len(words) > MOST_KEYWORDS or any(len(word) > LONGEST_KEYWORD for word in words):
        raise wrong("keywords", f"keywords takes at most {MOST_KEYWORDS} words of at most {LONGEST_KEYWORD} characters")
    return words


def checked_prompt(text: str) -> str:
    """What a recording is about. Raises a Failure if it is too long."""
    if len(text) > LONGEST_PROMPT:
        raise wrong("prompt", f"prompt takes at most {LONGEST_PROMPT} characters, got {len(text)}")
    return text.strip()


def voice_endpointing(detection: Mapping[str, Any], where: str) -> Endpointing:
    """How utterances are found, of an object of the type ``server_vad``.

    Raises:
        Failure: A number is out of its bounds.
    """
    threshold = _number(detection, "threshold", DEFAULT.threshold, 0, 1, where)
    silence = _number(detection, "silence_duration_ms", 1000 * DEFAULT.silence, 40, 10_000, where) / 1000
    pre_roll = _number(detection, "prefix_padding_ms", 1000 * DEFAULT.pre_roll, 0, 5000, where) / 1000
    return Endpointing(
        threshold=threshold,
        release=min(threshold, DEFAULT.release),
        silence=silence,
        pre_roll=pre_roll,
        tail=min(silence, DEFAULT.tail),
    )


def _endpointing(strategy: dict[str, Any] | str | None) -> Endpointing:
    """How utterances are found."""
    if strategy in (None, "auto"):
        return DEFAULT
    if not isinstance(strategy, dict) or strategy.get("type", "server_vad") != "server_vad":
        raise wrong("chunking_strategy", "chunking_strategy must be auto, or an object of the type server_vad")
    return voice_endpointing(strategy, "chunking_strategy")


def _number(settings: Mapping[str, Any], name: str, default: float, least: float, most: float, where: str) -> float:
    value = settings.get(name)
    if value is None:
        return default
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise wrong(f"{where}.{name}", f"{where}.{name} must be a number from {least:g} to {most:g}")
    return number
