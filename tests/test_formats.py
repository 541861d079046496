"""Segments as files: every format to the last character."""

from __future__ import annotations

import json

import pytest

from mlx_gemma4.programs.formats import FORMATS, write
from mlx_gemma4.programs.transcribe import Segment


def segment(start: float, end: float, text: str, *, complete: bool = True) -> Segment:
    return Segment(start=start, end=end, text=text, tokens=4, forwards=5, complete=complete)


SEGMENTS = [
    segment(0, 1.5, "Hello, “world”."),
    segment(1.5, 3, ""),
    segment(3599.9996, 3725.04, "Übung 1.7 & 3", complete=False),
]


def test_txt() -> None:
    """A line for each segment that has text."""
    assert write(SEGMENTS, "txt") == "Hello, “world”.\nÜbung 1.7 & 3\n"


def test_json() -> None:
    """All that is known of every segment, empty ones too, in readable characters."""
    expected = """{
  "segments": [
    {
      "start": 0,
      "end": 1.5,
      "text": "Hello, “world”.",
      "tokens": 4,
      "forwards": 5,
      "complete": true
    },
    {
      "start": 1.5,
      "end": 3,
      "text": "",
      "tokens": 4,
      "forwards": 5,
      "complete": true
    },
    {
      "start": 3599.9996,
      "end": 3725.04,
      "text": "Übung 1.7 & 3",
      "tokens": 4,
      "forwards": 5,
      "complete": false
    }
  ]
}
"""
    assert write(SEGMENTS, "json") == expected
    assert json.loads(expected)["segments"][2]["complete"] is False


def test_srt() -> None:
    """Numbered without gaps, a comma before the milliseconds, an empty line between cues."""
    expected = "1\n00:00:00,000 --> 00:00:01,500\nHello, “world”.\n\n2\n01:00:00,000 --> 01:02:05,040\nÜbung 1.7 & 3\n"
    assert write(SEGMENTS, "srt") == expected


def test_vtt() -> None:
    """A header, a point before the milliseconds, and & and < written as WebVTT wants them."""
    expected = (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello, “world”.\n\n01:00:00.000 --> 01:02:05.040\nÜbung 1.7 &amp; 3\n"
    )
    assert write(SEGMENTS, "vtt") == expected
    assert write([segment(0, 1, "a <b> --> c")], "vtt").endswith("\na &lt;b&gt; --&gt; c\n")


def test_an_empty_line_does_not_end_a_cue() -> None:
    """A translation stands in two lines; what is between them must not cut it off."""
    segments = [segment(0, 1, "Hallo.\n\nEnglish: Hello.")]
    assert write(segments, "srt") == "1\n00:00:00,000 --> 00:00:01,000\nHallo.\nEnglish: Hello.\n"
    assert write(segments, "vtt") == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHallo.\nEnglish: Hello.\n"
    assert write(segments, "txt") == "Hallo.\n\nEnglish: Hello.\n"


@pytest.mark.parametrize(
    ("layout", "text"), [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("json", '{\n  "segments": []\n}\n')]
)
def test_no_segments(layout: str, text: str) -> None:
    """A file of its format, with nothing in it."""
    assert write([], layout) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00:00,000"),
        (0.0004, "00:00:00,000"),
        (0.9996, "00:00:01,000"),
        (59.9999, "00:01:00,000"),
        (360_000, "100:00:00,000"),
    ],
)
def test_times_are_rounded_to_milliseconds(seconds: float, text: str) -> None:
    """And carried into seconds, minutes and hours."""
    assert write([segment(0, seconds, "a")], "srt") == f"1\n00:00:00,000 --> {text}\na\n"


def test_unknown_format() -> None:
    """The message names all there are."""
    assert FORMATS == ("txt", "json", "jsonl", "srt", "vtt")
    with pytest.raises(ValueError, match=r"^Expected a format of txt, json, jsonl, srt, vtt, got 'ass'$"):
        write(SEGMENTS, "ass")
