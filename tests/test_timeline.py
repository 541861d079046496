"""One line of time out of clocks that restart, leap and say nothing."""

from __future__ import annotations

import pytest

from mlx_gemma4.inputs.vision.timeline import LEAP, LEAP_OF_BROADCASTS, PICTURES, SOUND, Timeline


def pictures(timeline: Timeline, told: list[float | None]) -> list[float]:
    return [timeline.of(PICTURES, each, 1.0) for each in told]


def test_the_first_picture_is_at_zero() -> None:
    assert pictures(Timeline(7.0), [7.0, 8.0, 10.0]) == [0.0, 1.0, 3.0]


def test_gaps_stay() -> None:
    """A slide may stand for an hour."""
    assert pictures(Timeline(0.0), [0.0, 3600.0]) == [0.0, 3600.0]


def test_a_clock_that_restarts_goes_on() -> None:
    assert pictures(Timeline(5.0), [5.0, 6.0, 5.0, 6.0, 0.0, 1.0]) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(("leap", "told"), [(LEAP, 1e9), (LEAP_OF_BROADCASTS, 3600.0)])
def test_a_leap_is_closed(leap: float, told: float) -> None:
    """And what follows it is told by the new clock."""
    assert pictures(Timeline(0.0, leap), [0.0, 1.0, told, told + 3]) == [0.0, 1.0, 2.0, 5.0]


def test_pictures_without_times_follow_each_other() -> None:
    assert pictures(Timeline(0.0), [None, None, 5.0, None]) == [0.0, 1.0, 5.0, 6.0]


def test_pictures_never_run_back() -> None:
    """By less than a new clock would."""
    assert pictures(Timeline(0.0), [0.0, 2.0, 1.9, 4.0]) == [0.0, 2.0, 2.0, 4.0]


def test_sound_goes_with_the_pictures() -> None:
    """Of the clock before, it may have something left when the pictures' clock restarts."""
    timeline = Timeline(10.0)
    assert timeline.of(SOUND, 9.5, 0.5) == -0.5
    assert pictures(timeline, [10.0, 11.0, 12.0]) == [0.0, 1.0, 2.0]
    assert timeline.of(SOUND, 10.0, 2.5) == 0.0
    assert pictures(timeline, [10.0]) == [3.0]
    assert timeline.of(SOUND, 12.5, 0.5) == 2.5
    assert timeline.of(SOUND, 10.0, 1.0) == 3.0
    assert pictures(timeline, [11.0]) == [4.0]


def test_sound_that_is_an_age_away_begins_with_the_pictures() -> None:
    """Its clock says nothing about where it belongs."""
    for told in (-1e9, 1e9):
        timeline = Timeline(0.0)
        assert timeline.of(SOUND, told, 1.0) == 0.0
        assert pictures(timeline, [0.0, 1.0]) == [0.0, 1.0]
