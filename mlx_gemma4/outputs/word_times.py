"""Times of words, and texts in short lines.

The model gives no times, so those of words are interpolated: the letters of a text are spread evenly over the sound in
which the voice activity detector found speech.

    sound     ....ssssssss.....ssss.....      s: speech
    text          go  back     two            8 letters over 12 frames of speech: 1.5 frames a letter
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

UNIT = re.compile(r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)")
"""A word with the space before it; in scripts written without spaces, a character."""
Span = tuple[float, float]


class Timed(Protocol):
    """A segment, or the final text of an utterance; times in seconds."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def text(self) -> str: ...
    @property
    def speech(self) -> Sequence[Span]: ...


@dataclass(frozen=True)
class Word:
    """A word with its interpolated times."""

    text: str
    """With the space before it."""
    start: float
    end: float


@dataclass(frozen=True)
class Line:
    """Words in a row."""

    start: float
    end: float
    text: str


def words(segment: Timed) -> list[Word]:
    """The words of a segment; their texts joined are its text."""
    units = UNIT.findall(segment.text)
    spans = list(segment.speech) or [(segment.start, segment.end)]
    total = sum(end - start for start, end in spans)
    letters = [0]
    for unit in units:
        letters.append(letters[-1] + len(unit.strip()))
    shares = [total * count / letters[-1] for count in letters] if units else []
    return [
        Word(unit, _moment(spans, before, after=True), _moment(spans, behind, after=False))
        for unit, (before, behind) in zip(units, pairwise(shares), strict=True)
    ]


def lines(segment: Timed, longest: int) -> list[Line]:
    """A segment as lines of at most ``longest`` characters, cut between words; a longer word is a line of its own."""
    groups = list(_groups(words(segment), longest))
    if not groups:
        return []
    starts = [segment.start, *(group[0].start for group in groups[1:])]
    ends = [*(group[-1].end for group in groups[:-1]), segment.end]
    texts = ("".join(word.text for word in group).strip() for group in groups)
    return [Line(*each) for each in zip(starts, ends, texts, strict=True)]


def _groups(timed: list[Word], longest: int) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in timed:
        if group and len("".join(each.text for each in [*group, word]).strip()) > longest:
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _moment(spans: Sequence[Span], spoken: float, *, after: bool) -> float:
    """The time at which so many seconds of speech are over. Between two spans: the end of the first, or with ``after``
    the beginning of the second."""
    for start, end in spans:
        if spoken < end - start - 1e-9 or (not after and spoken <= end - start + 1e-9):
            return start + spoken
        spoken -= end - start
    return spans[-1][1]
