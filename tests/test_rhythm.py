"""When frames are computed and guesses are made, on machines whose forwards cost what a function says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from mlx_gemma4.live.hear.plan import BUSY, Plan
from mlx_gemma4.live.hear.rhythm import FIRST_STRIDE, Moment, Overload, Rhythm

FRAME = 0.04


def tiles(seconds: float) -> Callable[[int], float]:
    """Up to 32 rows cost the same."""
    return lambda rows: seconds * math.ceil(rows / 32)


def linear(seconds: float) -> Callable[[int], float]:
    """Each row costs the same."""
    return lambda rows: seconds * rows


def learned(
    cost: Callable[[int], float], *, guess_every: float | None = None, guesses: bool = True, draft: int = 10
) -> Rhythm:
    """A rhythm that has seen forwards of many sizes; there are nearly two new tokens in a second of speech."""
    rhythm = Rhythm(FRAME, guess_every, guesses=guesses)
    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 28, 32):
        rhythm.computed(rows, cost(rows))
    for rows in (12, 16, 20, 24, 32, 36, 40, 48, 64, 80, 128):
        rhythm.guessed(rows, rows - draft, 13, 0, cost(rows))
    for tokens in (2, 0, 2, 1, 2, 2, 0):
        rhythm.guessed(draft + 13, 13, 13, tokens, cost(draft + 13) + tokens * cost(1))
    return rhythm


def test_before_anything_is_known_frames_wait_for_each_other_and_guesses_come_every_half_second() -> None:
    rhythm = Rhythm(FRAME)
    assert rhythm.plan == Plan(stride=FIRST_STRIDE, alone=13, period=13)
    assert [rhythm.next(Moment(waiting, waiting)) for waiting in range(7)] == [0, 0, 0, 0, 0, 5, 6]
    assert rhythm.next(Moment(waiting=3, new=13)) == "guess"


def test_where_a_tile_has_room_all_frames_wait_for_the_guess() -> None:
    """10 rows of prompt and draft and 13 frames fit into 32 rows."""
    rhythm = learned(tiles(0.1))
    assert (rhythm.plan.period, rhythm.plan.alone) == (13, 0)
    assert [rhythm.next(Moment(waiting, waiting)) for waiting in (1, 5, 12)] == [0, 0, 0]
    assert rhythm.next(Moment(13, 13)) == "guess"
    assert rhythm.plan.load == pytest.approx(0.1 / 0.52 + rhythm_words(rhythm, 0.1), rel=0.01)


def rhythm_words(rhythm: Rhythm, step: float) -> float:
    """The load of forwards for new tokens."""
    return rhythm._tokens / rhythm._heard * step


def test_guesses_are_as_rare_as_they_are_dear() -> None:
    """The shortest period with which the model is busy for at most BUSY; never more often than every half second."""
    periods = [learned(tiles(seconds)).plan.period for seconds in (0.01, 0.1, 0.15, 0.2)]
    assert periods == sorted(periods) and periods[0] == 13 and periods[-1] > 16
    for seconds in (0.01, 0.1, 0.15):
        assert learned(tiles(seconds)).plan.load <= BUSY


def test_a_long_draft_makes_guesses_rarer() -> None:
    assert learned(tiles(0.15), draft=10).plan.period < learned(tiles(0.15), draft=60).plan.period


def test_what_the_user_asks_for_stands() -> None:
    """However dear; 0 is a guess whenever there is a new frame, the longest utterance or more is one in pauses."""
    assert learned(tiles(0.5), guess_every=0.2).plan.period == 5
    always = learned(tiles(0.01), guess_every=0.0)
    assert always.next(Moment(1, 1)) == "guess"
    for seconds in (30.0, 1e9, math.inf):
        rarely = learned(tiles(0.1), guess_every=seconds)
        assert rarely.next(Moment(5, 1000)) == 0 and rarely.next(Moment(32, 1000)) == 32
        assert rarely.next(Moment(5, 1000, until_complete=0)) == "guess"
    for seconds in (-1, math.nan):
        with pytest.raises(ValueError, match=f"Expected guess_every in seconds, 0 or more, got {seconds:g}"):
            Rhythm(FRAME, seconds)


def test_frames_alone_have_a_rhythm_without_guesses() -> None:
    """As a conversation has it: what is heard is not written down."""
    never = learned(tiles(0.1), guesses=False)
    assert never.next(Moment(5, 1000)) == 0 and never.next(Moment(32, 1000)) == 32
    assert never.next(Moment(5, 1000, until_complete=0)) == 5


def test_what_was_waited_for_does_not_count() -> None:
    """A machine that slept, once: four times the cost at most, and no more than that of a larger forward."""
    rhythm = learned(tiles(0.1))
    plan = rhythm.plan
    rhythm.guessed(24, 14, 13, 0, 3600.0)
    rhythm.computed(10, 3600.0)
    assert (rhythm.plan.period, rhythm.plan.alone) == (plan.period, plan.alone)


def test_the_first_silence_flushes_what_the_guess_would_have_to_compute() -> None:
    """12 frames before a tail of 4 more: worth it where each row costs, not where the guess has room for them."""
    before_tail = Moment(waiting=12, new=12, until_complete=4, pause=1)
    assert learned(linear(0.004)).next(before_tail) == 12
    assert learned(tiles(0.05)).next(before_tail) == 0
    assert learned(tiles(0.05), draft=20).next(before_tail) == 12
    for rhythm in (Rhythm(FRAME), learned(linear(0.004)), learned(tiles(0.05), guesses=False)):
        assert rhythm.next(before_tail) == 12
        assert rhythm.next(Moment(waiting=2, new=14, until_complete=2, pause=3)) == 0


def test_a_complete_utterance_is_guessed_at_once() -> None:
    """Late or not: this guess becomes the final text. A second one would have heard nothing new."""
    rhythm = learned(tiles(0.1))
    assert rhythm.next(Moment(waiting=4, new=4, until_complete=0, behind=9.0)) == "guess"
    assert rhythm.next(Moment(waiting=0, new=0, until_complete=0)) == 0


def test_a_guess_waits_while_sound_piles_up() -> None:
    """More than arrives from one guess to the next, the time of a guess included."""
    rhythm = learned(tiles(0.1))
    longest = 13 * FRAME + 0.1
    assert rhythm.next(Moment(20, 20, behind=longest - 0.01)) == "guess"
    assert rhythm.next(Moment(50, 50, behind=longest + 0.01)) == 50


def test_late_guesses_are_rare() -> None:
    """Every 3 s of speech, or as rarely as was asked for: their words would have to be computed at the end."""
    rhythm = learned(tiles(0.1))
    assert [rhythm.next(Moment(5, new, behind=9.0)) for new in (74, 75)] == [5, "guess"]
    rhythm = learned(tiles(0.1), guess_every=10.0)
    assert [rhythm.next(Moment(5, new, behind=99.0)) for new in (75, 249, 250)] == [5, 5, "guess"]


def test_costs_of_a_guess_are_split_between_its_forwards() -> None:
    """Guesses that needed their first forward only show what it costs; the others, what a token costs."""
    rhythm = Rhythm(FRAME)
    for tokens in (2, 5, 0, 4, 2, 6, 1, 3, 0, 1, 2, 4):
        rhythm.guessed(20, 5, 13, tokens, 0.3 + tokens * 0.05)
    assert rhythm._guess_seconds(20) == pytest.approx(0.3, rel=0.1)
    assert rhythm._guess_seconds(1) == pytest.approx(0.05, rel=0.3)


def test_a_machine_that_is_too_slow_is_found_out() -> None:
    """After 10 s of speech, not by one slow forward; with what would help."""
    slow = learned(tiles(0.25), guess_every=0.2)
    for _ in range(9):
        slow.spent(25, 1.3)
    assert slow.overload(2.0) is None
    slow.spent(25, 1.3)
    assert slow.overload(0.5) is None, "nothing has piled up"
    assert slow.overload(2.0) == Overload(pytest.approx(1.3), rarer_guesses=True, shorter_segments=False)
    for _ in range(10):
        slow.spent(25, 0.9)
    assert slow.overload(2.0) is None
    hopeless = learned(tiles(3.0))
    for _ in range(10):
        hopeless.spent(25, 5.0)
    assert hopeless.overload(2.0) == Overload(pytest.approx(5.0), rarer_guesses=False, shorter_segments=False)


def test_a_machine_that_cannot_guess_guesses_in_pauses_only() -> None:
    """Where no period would leave it any time; frames still wait for each other."""
    rhythm = learned(tiles(0.3), draft=120)
    assert rhythm.next(Moment(5, 1000)) == 0 and rhythm.next(Moment(40, 1000)) == 40
    assert rhythm.next(Moment(5, 1000, until_complete=0)) == "guess"
    rhythm.begin(6)
    assert rhythm.next(Moment(5, 75)) == "guess"


def test_silence_leaves_no_trace() -> None:
    """Hours of it: 25 passes a second."""
    rhythm = learned(tiles(0.1))
    for _ in range(1000):
        rhythm.spent(0, 0.0)
    assert not rhythm._spent
    for _ in range(10_000):
        rhythm.spent(1, 0.02)
    assert len(rhythm._spent) <= 251
