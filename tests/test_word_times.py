"""Times of words, interpolated over the speech that was found, and lines of a longest length."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4.outputs.word_times import lines, words
from mlx_gemma4.programs.formats import SegmentWriter, Style, write
from mlx_gemma4.programs.transcribe import Segment


def segment(text: str, *speech: tuple[float, float], start: float = 0.0, end: float = 10.0) -> Segment:
    return Segment(start, end, text, 4, 4, True, speech)


def timed(each: Segment) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start, 6), round(word.end, 6)) for word in words(each)]


def test_letters_are_spread_over_the_speech() -> None:
    """1 s a letter; between two stretches of speech a word ends with the one, and the next begins with the other."""
    assert timed(segment("a bc d", (1.0, 4.0), (6.0, 7.0))) == [("a", 1, 2), (" bc", 2, 4), (" d", 6, 7)]
    assert timed(segment("abcd", (1.0, 4.0), (6.0, 7.0))) == [("abcd", 1, 7)]
    assert timed(segment("ab cd")) == [("ab", 0, 5), (" cd", 5, 10)]
    assert timed(segment("今日 a", (1.0, 4.0))) == [("今", 1, 2), ("日", 2, 3), (" a", 3, 4)]
    assert timed(segment("")) == timed(segment(" ", (1.0, 2.0))) == []


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    said = draw(st.lists(st.sampled_from(["a", "be", "sea,", "deed", "今", "extraordinarily"]), max_size=12))
    edges = sorted(draw(st.sets(st.integers(0, 250), min_size=2, max_size=8)))
    edges = edges[: len(edges) // 2 * 2]
    spans = [(a * 0.04, b * 0.04) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return segment(" ".join(said), *spans)


@given(segments())
def test_words_are_in_order_and_within_the_speech(each: Segment) -> None:
    """Nothing of the text is lost; times do not run back; a word begins and ends in speech."""
    found = words(each)
    assert "".join(word.text for word in found) == each.text
    moments = [moment for word in found for moment in (word.start, word.end)]
    assert all(before <= after + 1e-9 for before, after in pairwise(moments))
    assert all(any(a - 1e-6 <= moment <= b + 1e-6 for a, b in each.speech) for moment in moments)


@given(segments(), st.integers(1, 40))
def test_lines_keep_every_word_and_the_length(each: Segment, longest: int) -> None:
    """Longer than that is only a line of one word; they cover the segment, in order."""
    found = lines(each, longest)
    assert "".join(line.text for line in found).replace(" ", "") == each.text.replace(" ", "")
    assert all(len(line.text) <= longest or " " not in line.text for line in found)
    moments = [moment for line in found for moment in (line.start, line.end)]
    assert all(before <= after + 1e-9 for before, after in pairwise(moments))
    assert not found or (found[0].start, found[-1].end) == (each.start, each.end)


def test_a_long_text_becomes_several_cues() -> None:
    each = segment("go back again", (2.0, 13.0), start=1.0, end=14.0)
    style = Style(max_line=7)
    assert write([each], "srt", style) == (
        "1\n00:00:01,000 --> 00:00:08,000\ngo back\n\n2\n00:00:08,000 --> 00:00:14,000\nagain\n"
    )
    assert write([each], "txt", style) == "go back\nagain\n"
    assert write([each], "vtt", Style(max_line=13)) == write([each], "vtt")


@pytest.mark.parametrize(
    ("layout", "style", "message"),
    [
        ("srt", Style(max_line=0), "--max-line must be at least 1 character, got 0"),
        ("json", Style(max_line=40), "--max-line is for txt, srt and vtt; for json there is --word-times"),
        ("jsonl", Style(max_line=40), "--max-line is for txt, srt and vtt; for jsonl there is --word-times"),
        ("vtt", Style(word_times=True), "--word-times is for json and jsonl; for vtt there is --max-line"),
    ],
)
def test_a_style_that_a_format_has_no_place_for(layout: str, style: Style, message: str) -> None:
    with pytest.raises(ValueError) as error:
        SegmentWriter(io.StringIO(), layout, style)
    assert str(error.value) == message
