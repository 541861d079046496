"""Events as lines of text, JSON and subtitles, and as a picture in a terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from mlx_gemma4.cli.shared.display import Display
from mlx_gemma4.cli.shared.writers import Writer
from mlx_gemma4.live.hear.delays import Delays
from mlx_gemma4.live.hear.events import Committed, DroppedAudio, Final, ListenerEvent, Partial, Silence
from mlx_gemma4.live.hear.work import Work
from mlx_gemma4.programs.formats import Style, write
from mlx_gemma4.programs.transcribe import Segment


def final(number: int, start: float, end: float, text: str, *, revised: int = 0, delay: float = 0.05) -> Final:
    speech = ((start + 0.5, end - 0.5),)
    return Final(number, start, end, text, text, revised, "silence", delay, 2, 4, True, speech, 0.5 + delay)


EVENTS: list[ListenerEvent] = [
    Silence(0.0, 1.0),
    Partial(0, 1.0, 1.5, "", "go fo"),
    Committed(0, 2.0, "go"),
    Final(0, 1.0, 2.5, "go forward", " forward", 0, "silence", 0.05, 2, 4, True),
    DroppedAudio(0.25),
    final(1, 3.0, 3.5, ""),
    final(2, 4.0, 5.25, "1 < 2"),
]


def written(layout: str) -> str:
    stream = io.StringIO()
    writer = Writer(stream, layout)
    for event in EVENTS:
        writer.write(event)
    writer.finish()
    return stream.getvalue()


def test_text_is_a_line_for_each_utterance() -> None:
    assert written("txt") == "go forward\n1 < 2\n"


def test_subtitles_are_numbered_without_the_empty_ones() -> None:
    assert written("srt") == (
        "1\n00:00:01,000 --> 00:00:02,500\ngo forward\n\n2\n00:00:04,000 --> 00:00:05,250\n1 < 2\n\n"
    )
    assert written("vtt") == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\ngo forward\n\n00:00:04.000 --> 00:00:05.250\n1 &lt; 2\n\n"
    )


def test_json_is_a_document() -> None:
    """As transcribe writes it: each utterance when it has ended, and the end of the document, once, at the end."""
    finals = [event for event in EVENTS if isinstance(event, Final)]
    segments = [Segment(each.start, each.end, each.text, 4, 2, True) for each in finals]
    assert written("json") == write(segments, "json")
    writer = Writer(stream := io.StringIO(), "json")
    writer.write(EVENTS[3])
    begun = stream.getvalue()
    assert json.loads(begun + "]}")["segments"][0]["text"] == "go forward"
    writer.finish(complete=False)
    writer.finish()
    told = json.loads(stream.getvalue())
    assert stream.getvalue().startswith(begun) and told["complete"] is False and len(told["segments"]) == 1


def test_json_has_the_times_of_words() -> None:
    """Interpolated, and it says so."""
    for layout in ("json", "jsonl"):
        writer = Writer(stream := io.StringIO(), layout, Style(word_times=True))
        writer.write(final(0, 1.0, 4.0, "go back"))
        writer.finish()
        told = json.loads(stream.getvalue())
        told = told["segments"][0] if layout == "json" else told
        assert told["times"] == "interpolated"
        assert told["words"] == [
            {"word": "go", "start": 1.5, "end": 2.167},
            {"word": "back", "start": 2.167, "end": 3.5},
        ]


def test_json_lines_have_all_but_guesses() -> None:
    lines = written("jsonl").splitlines()
    assert lines[:2] == [
        '{"event": "silence", "start": 0.0, "end": 1.0}',
        '{"event": "committed", "utterance": 0, "end": 2.0, "text": "go"}',
    ]
    assert lines[3] == '{"event": "lost", "seconds": 0.25}' and len(lines) == 6
    assert '"text": "go forward", "rest": " forward", "revised": 0, "reason": "silence", "delay": 0.05' in lines[2]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a format of txt, json, jsonl, srt, vtt, got 'doc'"):
        Writer(io.StringIO(), "doc")


def test_a_terminal_keeps_final_text_and_shows_the_rest_below() -> None:
    """Final lines are printed; the guess and the status line are redrawn and gone at the end."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with Display(console) as display:
        for event in EVENTS:
            display.show(event)
            display.status(speaking=True, level=-30.0, behind=0.7)
        display._live.refresh()
        display.show(final(3, 6.0, 7.0, "go back", revised=2))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        display.show(Partial(4, 8.0, 9.0, "turn", " left"))
        display.status(speaking=True, level=-30.0, behind=0.0)
        display._live.refresh()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "go forward\n" in shown and "[0.25 s of sound were lost]" in shown
    assert "go back  (2 of the words shown were corrected)" in text
    assert "● ▮▮▮▮▮▮▯▯▯▯▯▯  text 550 ms after speech" in text and "0.7 s behind" in text
    assert "turn left" in text


def test_statistics_name_delays_and_work() -> None:
    delays = Delays()
    for number in range(20):
        delays.add(Partial(number, 1.0, 1.5, "", ""))
        delays.add(Partial(number, 1.0, 2.0, "", "words"))
        delays.add(Partial(number, 1.0, 3.0, "words", ""))
        delays.add(final(number, 0.0, 1.0, "a", delay=number / 1000))
    delays.add(Final(20, 0.0, 1.0, "a", "a", 0, "length", 0.019, 2, 4, True, ((0.0, 1.0),), 9.0))
    work = Work(
        speech_frames=200,
        silent_frames=50,
        audio_computed=210,
        audio_forwards=21,
        forwards=96,
        busy=2.0,
        speech=8.0,
        guesses=12,
        utterances=20,
    )
    assert delays.report(work).splitlines() == [
        "utterances 20 · guesses 12 · committed words revised 0",
        "frames of speech 200 · judged silent 50, 0 of them speech below --level · audio positions computed 210 "
        "(1.05 a frame) · forwards 96",
        "in a second of speech: 0.25 s busy · 1.5 guesses · 12.0 forwards · 10.0 frames in each that computes frames",
        "first words after 1.00 s of an utterance, pre-roll included (p50)",
        "from the decision that speech has ended to its text: p50 10 ms, p95 19 ms, at most 2 forwards",
        "from the last sample of speech to its text: p50 510 ms, p95 519 ms",
    ]
