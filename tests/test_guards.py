"""Loops, too many words, and remarks about the sound."""

from __future__ import annotations

import pytest

from mlx_gemma4.outputs.guards import is_remark, loop_start, most_tokens


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        ([1] * 16, 1),
        ([9, 8, 7] + [1] * 16, 4),
        ([1] * 15, None),
        ([1, 2] * 8, 2),
        ([5, 6, 7] + [1, 2, 3, 4] * 4, 7),
        ([1, 2, 3, 4] * 3, None),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 4, 8),
        ([3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5], None),
        ([], None),
    ],
)
def test_a_loop_is_long_and_often(tokens: list[int], start: int | None) -> None:
    """Four digits in a row are no loop."""
    assert loop_start(tokens) == start


def test_time_bounds_the_words() -> None:
    assert [most_tokens(seconds) for seconds in (0.0, 1.0, 15.0, 30.0)] == [24, 36, 204, 384]


@pytest.mark.parametrize(
    "text",
    [
        "The audio was not provided. Please provide it.",
        "I'm sorry, I cannot hear any speech in the recording.",
        "I cannot transcribe the audio.",
        "Please provide the audio file.",
        "There is no audio in the recording provided.",
        "Sorry, the audio is empty.",
    ],
)
def test_remarks_are_recognised(text: str) -> None:
    assert is_remark(text)


@pytest.mark.parametrize(
    "text",
    [
        "The audience was provided with seats.",
        "I'm sorry, I am late.",
        "Please provide your name.",
        "go forward two meters",
        "No sound.",
        "He said: I cannot hear the audio.",
        "",
    ],
)
def test_what_people_say_is_not_a_remark(text: str) -> None:
    assert not is_remark(text)
