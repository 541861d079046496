"""Which frames are an utterance: drawn timelines with their exact events, and any grouping.

A character of a timeline is a frame of 40 ms:
    #  speech             +  speech at half its amplitude      ~  less sure: below the threshold, above the release
    0  digital silence
    .  silence            n  a noise, loud, nobody speaks      q  quiet, below the level, but surely a voice
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer, EndpointerEvent, Endpointing, Speech
from mlx_gemma4.inputs.audio.frames import to_frames

FRAME = 0.04
SOUNDS = {
    "#": (0.9, 0.1),
    "+": (0.9, 0.05),
    "~": (0.4, 0.1),
    ".": (0.05, 0.001),
    "n": (0.05, 0.1),
    "q": (0.9, 0.001),
    "0": (0.0, 0.0),
}
"""Probability of speech, amplitude."""


def draw(timeline: str) -> np.ndarray:
    """[F, 640]: the first sample has the probability, the second the number of the frame, both very small."""
    sound = np.zeros((len(timeline), 640), dtype=np.float32)
    for number, kind in enumerate(timeline):
        probability, amplitude = SOUNDS[kind]
        sound[number] = amplitude
        if kind != "0":
            sound[number, :2] = probability * 1e-3, number * 1e-5
    return sound


def voice(frame: np.ndarray) -> float:
    return round(float(frame[0]) * 1e3, 2)


def numbers(sound: np.ndarray) -> list[int]:
    return np.rint(sound[:, 1] * 1e5).astype(int).tolist()


class Small(TypedDict):
    """Arguments of an Endpointer."""

    settings: Endpointing
    max_frames: int


def small(
    *,
    silence: int = 3,
    pre_roll: int = 2,
    tail: int = 1,
    min_speech: int = 2,
    longest: int = 10,
    level: float = -50,
    **others: float,
) -> Small:
    """Settings in frames, and a level above that of "q"."""
    settings = Endpointing(
        level=level,
        silence=silence * FRAME,
        pre_roll=pre_roll * FRAME,
        tail=tail * FRAME,
        min_speech=min_speech * FRAME,
        **others,
    )
    return {"settings": settings, "max_frames": longest}


def plain(events: list[EndpointerEvent]) -> list[Any]:
    """``Speech`` as the range of its frames, which are those that were drawn."""
    told: list[Any] = []
    for event in events:
        if isinstance(event, Speech):
            given = numbers(event.frames)
            assert given == list(range(given[0], given[-1] + 1))
            told.append(range(given[0], given[-1] + 1))
        else:
            told.append(event)
    return told


def at_once(timeline: str, settings: Small) -> list[Any]:
    endpointer = Endpointer(voice, **settings)
    return plain(endpointer.push(draw(timeline)) + endpointer.finish())


def one_by_one(timeline: str, settings: Small) -> list[tuple[int, list[Any]]]:
    """What a push of one frame returned, for those that returned anything; the end is numbered as a frame."""
    endpointer = Endpointer(voice, **settings)
    sound = draw(timeline)
    steps = [plain(endpointer.push(sound[number : number + 1])) for number in range(len(sound))]
    steps.append(plain(endpointer.finish()))
    return [(number, events) for number, events in enumerate(steps) if events]


# where it begins and ends


def test_utterance_with_pre_roll_and_tail() -> None:
    """Two frames before the speech, one frame of silence inside and after it; then three silent ones end it."""
    assert at_once("....##.#....", small()) == [Begin(2), range(2, 9), End(7, "silence")]


def test_when_each_thing_is_said() -> None:
    """Speech is confirmed by its second frame, given out at once, and over with the third silent frame."""
    assert one_by_one("....##.#....", small()) == [
        (5, [Begin(2), range(2, 6)]),
        (6, [range(6, 7)]),
        (7, [range(7, 8)]),
        (8, [range(8, 9)]),
        (10, [End(7, "silence")]),
    ]


def test_held_back_silence_comes_with_the_speech_that_resumes() -> None:
    """Frame 5 would have cost a forward pass; when frame 6 is speech, both are given out."""
    assert one_by_one("..##..#...", small()) == [
        (3, [Begin(0), range(4)]),
        (4, [range(4, 5)]),
        (6, [range(5, 7)]),
        (7, [range(7, 8)]),
        (9, [End(8, "silence")]),
    ]


def test_no_tail_holds_all_silence_back() -> None:
    assert at_once("##..#...", small(tail=0)) == [Begin(0), range(5), End(5, "silence")]


def test_tail_as_long_as_the_silence() -> None:
    """Nothing is held back, so nothing of it is left for the next pre-roll."""
    assert at_once("##...##", small(tail=3)) == [
        Begin(0),
        range(5),
        End(5, "silence"),
        Begin(5),
        range(5, 7),
        End(2, "end of sound"),
    ]


def test_pre_roll_stops_at_the_utterance_before() -> None:
    """Three frames of pre-roll, but only two that the first utterance did not have."""
    assert at_once("##...##...", small(pre_roll=3)) == [
        Begin(0),
        range(3),
        End(3, "silence"),
        Begin(3),
        range(3, 8),
        End(5, "silence"),
    ]


def test_settings_that_fit_exactly() -> None:
    """0.04 + 0.16 + 0.04 is a little more than 0.24 in floating point."""
    assert 0.04 + 0.16 + 0.04 > 0.24
    assert at_once("....####.", small(pre_roll=1, min_speech=4, longest=6))[0] == Begin(3)


def test_no_pre_roll() -> None:
    assert at_once("...###", small(pre_roll=0)) == [Begin(3), range(3, 6), End(3, "end of sound")]


def test_times_are_rounded_to_frames_of_any_length() -> None:
    """80 ms frames: 0.24 s of silence are three, 0.17 s of pre-roll two."""
    settings = Endpointing(silence=0.24, pre_roll=0.17, tail=0.08, min_speech=0.1)
    endpointer = Endpointer(voice, settings, frame_seconds=0.08, max_frames=25)
    assert plain(endpointer.push(draw("....#...."))) == [Begin(2), range(2, 6), End(4, "silence")]


# what is speech


def test_click_is_rejected() -> None:
    assert at_once("....#......#....", small()) == []


def test_click_is_sound_of_the_pre_roll() -> None:
    """It is no utterance, but what follows it closely is, and then it is heard."""
    assert at_once("...#..##...", small(min_speech=2, tail=0)) == [Begin(4), range(4, 8), End(4, "silence")]
    assert at_once("...#..##...", small(pre_roll=3, tail=0)) == [Begin(3), range(3, 8), End(5, "silence")]


def test_dip_of_a_tail_does_not_stop_the_beginning() -> None:
    """Three frames of speech within four; the pre-roll counts from the first of them. A longer dip does."""
    assert at_once("....##.#...", small(min_speech=3)) == [Begin(2), range(2, 9), End(7, "silence")]
    assert at_once("....##..#...", small(min_speech=3)) == []


def test_least_speech_of_nothing_is_one_frame() -> None:
    assert at_once("...#...", small(min_speech=0)) == [Begin(1), range(1, 5), End(4, "silence")]


def test_unsure_goes_on_but_does_not_begin() -> None:
    """Between release and threshold: silence after silence, speech after speech."""
    assert at_once("~~~~~", small()) == []
    assert at_once("..##~~~...", small()) == [Begin(0), range(8), End(8, "silence")]
    assert at_once("..##.~~...", small()) == [Begin(0), range(5), End(5, "silence")]


def test_both_thresholds_are_reached_by_being_equal() -> None:
    assert at_once("##~...", small(threshold=0.9, release=0.4)) == [Begin(0), range(4), End(4, "silence")]
    assert at_once("##~...", small(threshold=0.91, release=0.4)) == []
    assert at_once("##~...", small(threshold=0.9, release=0.41)) == [Begin(0), range(3), End(3, "silence")]


def test_quiet_voice_is_silence() -> None:
    """A frame below the level, however sure the detector is, and a loud noise that is no voice."""
    assert at_once("qqqqqqnnnnnn", small()) == []
    assert at_once("##qqqqqq", small()) == [Begin(0), range(3), End(3, "silence")]
    assert at_once("qqqq", small(level=-70)) == [Begin(0), range(4), End(4, "end of sound")]


def test_level_is_of_the_root_mean_square() -> None:
    """A sine of amplitude 0.1 has -23.01 dBFS: speech at a level just below, silence just above."""
    tone = to_frames(0.1 * np.sin(2 * np.pi * 400 * np.arange(640) / 16_000), 640).repeat(2, axis=0)
    for level, begun in ((-23.02, True), (-23.0, False)):
        endpointer = Endpointer(lambda frame: 1.0, **small(level=level))
        assert bool(endpointer.push(tone)) == begun
        assert endpointer.level == pytest.approx(-23.0103, abs=1e-3)


def test_the_detector_decides() -> None:
    """Without a level, soft speech is speech; with one, what was too soft for it is counted."""
    free, gated = Endpointer(voice, **small(level=-math.inf)), Endpointer(voice, **small())
    assert events_of(free.push(draw("qqqq...")), End) == [End(5, "silence")]
    assert gated.push(draw("qqqq...")) == []
    assert (free.gated, gated.gated) == (0, 4)


def test_digital_silence_is_no_speech() -> None:
    """Exact zeros have no level (-inf dBFS), and are silence whatever the detector says."""
    endpointer = Endpointer(lambda frame: 1.0)
    assert endpointer.push(np.zeros((3, 640), np.float32)) == []
    assert endpointer.level == -math.inf
    assert endpointer.gated == 0


@pytest.mark.parametrize("before", ["", "0", "00", "0000000"])
@pytest.mark.parametrize("behind", ["", "0", "000", "0000000"])
@pytest.mark.parametrize(
    ("sound", "first", "length"),
    [("##", 0, 2), (".##", 0, 3), ("..##..", 0, 5), (".#0#.", 0, 5), (".##0.", 0, 3), ("n0.##", 2, 3), ("n0##", 0, 4)],
)
def test_digital_silence_around_an_utterance(sound: str, first: int, length: int, before: str, behind: str) -> None:
    """It is in no pre-roll's beginning and in no tail: the utterance has the same frames with zeros around it."""
    endpointer = Endpointer(voice, **small())
    events = endpointer.push(draw(before + sound + behind)) + endpointer.finish()
    assert [event.start for event in events_of(events, Begin)] == [len(before) + first]
    assert [event.length for event in events_of(events, End)] == [length]
    assert sum(len(event.frames) for event in events_of(events, Speech)) == length


def test_every_frame_is_heard_once_and_in_order() -> None:
    """The detector remembers: quiet frames are not kept from it, and those after a cut are not repeated."""
    heard: list[int] = []

    def listening(frame: np.ndarray) -> float:
        heard.append(round(float(frame[1]) * 1e5))
        return voice(frame)

    endpointer = Endpointer(listening, **small())
    endpointer.push(draw("..q######+++######..."))
    assert heard == list(range(21))


# what becomes too long


def test_cut_lies_in_the_quiet_place() -> None:
    """Frame 10 is one too many. The quietest 120 ms are frames 6 to 8: cut after the middle one; 8 and 9 come again."""
    assert at_once("######+++######", small()) == [
        Begin(0),
        range(10),
        End(8, "length"),
        Begin(8),
        range(8, 15),
        End(7, "end of sound"),
    ]


def test_cut_is_made_when_more_is_to_come() -> None:
    assert one_by_one("######+++######", small())[8:10] == [
        (9, [range(9, 10)]),
        (10, [End(8, "length"), Begin(8), range(8, 11)]),
    ]


def test_longest_utterance_is_not_cut_if_silence_follows() -> None:
    """Its tail no longer fits in, and is not worth another utterance."""
    assert at_once("##########....", small()) == [Begin(0), range(10), End(10, "silence")]
    assert at_once("##########", small()) == [Begin(0), range(10), End(10, "end of sound")]


def test_cut_with_silence_held_back() -> None:
    """Frames 8 and 9 come together and only 8 fits in: the cut is in that pause, and both are in the next utterance."""
    assert at_once("#######..##...", small(longest=9)) == [
        Begin(0),
        range(9),
        End(8, "length"),
        Begin(8),
        range(8, 12),
        End(4, "silence"),
    ]


def test_what_follows_a_cut_is_no_utterance_unless_it_is_speech() -> None:
    """One frame of speech after the pause: a click, not an utterance without words."""
    assert at_once("#######..#.....", small(longest=9)) == [Begin(0), range(9), End(8, "length")]


def test_no_more_than_the_pre_roll_is_taken_from_a_pause_after_the_cut() -> None:
    """Frame 8 was given out in the first utterance, is in neither in the end, and counts as spoken."""
    endpointer = Endpointer(voice, **small(longest=9, pre_roll=0))
    assert plain(endpointer.push(draw("#######..##")) + endpointer.finish()) == [
        Begin(0),
        range(9),
        End(8, "length"),
        Begin(9),
        range(9, 11),
        End(2, "end of sound"),
    ]
    assert (endpointer.spoken, endpointer.silent) == (11, 0)


def test_cut_is_not_in_the_pre_roll() -> None:
    """The pre-roll is the quietest part, but an utterance of it alone would be empty."""
    assert at_once("....##########", small(pre_roll=4)) == [
        Begin(0),
        range(10),
        End(8, "length"),
        Begin(8),
        range(8, 14),
        End(6, "end of sound"),
    ]


def test_long_speech_is_cut_again_and_again() -> None:
    """Every part begins where the last one ended, in one push or in many."""
    events = at_once("#" * 40, small())
    begins = [event.start for event in events if isinstance(event, Begin)]
    ends = [start + end.length for start, end in zip(begins, events_of(events, End), strict=True)]
    assert begins == [0, *ends[:-1]]
    assert ends[-1] == 40
    assert [end.reason for end in events_of(events, End)] == ["length"] * (len(ends) - 1) + ["end of sound"]


def test_beginning_that_rounding_makes_too_long() -> None:
    """1.5 + 1.5 + 0 frames fit into 3.2; rounded to 2 + 2 into 3, they still give an utterance of 3."""
    settings = Endpointing(pre_roll=0.06, min_speech=0.06, tail=0, silence=0.04)
    assert at_once("....##.", {"settings": settings, "max_frames": 3}) == [Begin(3), range(3, 6), End(3, "silence")]


# the end of the sound


def test_finish_in_silence() -> None:
    assert one_by_one(".....", small()) == []
    assert one_by_one("", small()) == []


def test_finish_before_speech_is_confirmed() -> None:
    endpointer = Endpointer(voice, **small())
    assert endpointer.push(draw("....#")) + endpointer.finish() == []
    assert (endpointer.spoken, endpointer.silent) == (0, 5)


def test_finish_in_speech() -> None:
    assert one_by_one("..##", small())[-1] == (4, [End(4, "end of sound")])


def test_finish_in_held_back_silence() -> None:
    """The second silent frame was not given out, and is not any more."""
    endpointer = Endpointer(voice, **small())
    assert plain(endpointer.push(draw("..##.."))) == [Begin(0), range(5)]
    assert endpointer.finish() == [End(5, "end of sound")]
    assert (endpointer.spoken, endpointer.silent) == (5, 1)


def test_finish_twice_and_going_on() -> None:
    """It ends once; what comes after it is another sound, whose frames count on."""
    endpointer = Endpointer(voice, **small())
    endpointer.push(draw("..##~"))
    assert endpointer.finish() == [End(5, "end of sound")]
    assert endpointer.finish() == []
    assert endpointer.push(draw("~~~")) == []
    assert endpointer.push(draw("##"))[0] == Begin(6)


# what can be read meanwhile


def test_state_after_each_frame() -> None:
    endpointer = Endpointer(voice, **small())
    assert (endpointer.speaking, endpointer.level, endpointer.probability) == (False, -math.inf, 0.0)
    speaking, levels, probabilities = [], [], []
    for frame in draw("..##~...")[:, None]:
        endpointer.push(frame)
        speaking.append(endpointer.speaking)
        levels.append(endpointer.level)
        probabilities.append(endpointer.probability)
    assert speaking == [False, False, False, True, True, True, True, False]
    assert levels == pytest.approx([-60, -60, -20, -20, -20, -60, -60, -60], abs=0.2)
    assert probabilities == [0.05, 0.05, 0.9, 0.9, 0.4, 0.05, 0.05, 0.05]


def test_counters() -> None:
    """Silence is counted when it can be no pre-roll any more: two frames of that, three in which speech may lie."""
    endpointer = Endpointer(voice, **small())
    counted = []
    for frame in draw(".......##.....")[:, None]:
        endpointer.push(frame)
        counted.append((endpointer.silent, endpointer.spoken))
    assert counted == [(n, 0) for n in (0, 0, 0, 0, 0, 1, 2, 3)] + [(5, n) for n in (4, 5, 5, 5, 5, 5)]
    endpointer.finish()
    assert (endpointer.silent, endpointer.spoken) == (9, 5)


def test_frames_are_copied() -> None:
    """A source may use its buffer again."""
    endpointer = Endpointer(voice, **small())
    buffer = draw("...#")
    endpointer.push(buffer)
    buffer[:] = 0
    assert plain(endpointer.push(draw("....#")[4:])) == [Begin(1), range(1, 5)]


# any grouping, any settings


def events_of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def utterances(events: list[Any]) -> list[tuple[int, list[int], int, str]]:
    """(start, frames given out, length, reason); what comes in another order fails."""
    told, begun, given = [], None, []
    for event in events:
        if isinstance(event, Begin):
            assert begun is None
            begun, given = event.start, []
        elif isinstance(event, End):
            assert begun is not None
            told.append((begun, given, event.length, event.reason))
            begun = None
        else:
            assert begun is not None
            given += event
    assert begun is None
    return told


TIMELINES = st.lists(st.tuples(st.sampled_from("##+~..nq"), st.integers(1, 9)), max_size=25).map(
    lambda pieces: "".join(kind * count for kind, count in pieces)
)
SETTINGS = (
    st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(0, 6), st.integers(0, 4), st.integers(1, 30))
    .filter(lambda s: s[2] <= s[0] and s[1] + s[2] + s[3] <= s[4])
    .map(lambda s: small(silence=s[0], pre_roll=s[1], tail=s[2], min_speech=s[3], longest=s[4]))
)


@examples(max_examples=300, deadline=None)
@given(TIMELINES, SETTINGS, st.lists(st.integers(0, 12), max_size=60))
def test_grouping_changes_nothing(timeline: str, settings: Small, sizes: list[int]) -> None:
    """One push, one frame a push, and groups of any size, empty ones too: the same utterances, the same counters."""
    told = []
    for groups in ([len(timeline)], [1] * len(timeline), sizes):
        endpointer, sound, events = Endpointer(voice, **settings), draw(timeline), []
        for size in groups:
            pushed = endpointer.push(sound[:size])
            assert not any(isinstance(a, Speech) and isinstance(b, Speech) for a, b in pairwise(pushed))
            events += plain(pushed)
            sound = sound[size:]
        events += plain(endpointer.push(sound)) + plain(endpointer.finish())
        told.append((utterances(events), endpointer.silent, endpointer.spoken, endpointer.level))
    assert told[0] == told[1] == told[2]


@examples(max_examples=300, deadline=None)
@given(TIMELINES, SETTINGS)
def test_what_always_holds(timeline: str, settings: Small) -> None:
    """Utterances are contiguous, apart, short enough and not empty; frames are counted once.

    No speech is lost, save what a cut leaves over that is as short as a click.
    """
    endpointer = Endpointer(voice, **settings)
    events = plain(endpointer.push(draw(timeline)) + endpointer.finish())
    longest, least = settings["max_frames"], max(1, round(settings["settings"].min_speech / FRAME))
    end, cuts, everything, kept = 0, set(), set(), set()
    for start, given_out, length, reason in utterances(events):
        assert given_out == list(range(start, start + len(given_out)))
        assert start >= end
        assert 0 < length <= len(given_out) <= longest
        assert length == len(given_out) or reason == "length"
        assert sum(timeline[number] in "#+~" for number in given_out[:length]) >= least
        end = start + length
        cuts |= {end} if reason == "length" else set()
        everything |= set(given_out)
        kept |= set(given_out[:length])
    assert endpointer.spoken == len(everything)
    assert endpointer.silent == len(timeline) - len(everything)
    marked = "".join("|" * (number in cuts) + kind for number, kind in enumerate(timeline))
    for speech in re.finditer("[#+]+", marked):
        first = speech.start() - marked[: speech.start()].count("|")
        if len(speech[0]) >= least:
            assert kept >= set(range(first, first + len(speech[0])))


# mistakes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": 1.1}, "Expected 0 ≤ release ≤ threshold ≤ 1, got a release of 0.35 and a threshold of 1.1"),
        ({"threshold": math.nan}, "Expected 0 ≤ release ≤ threshold ≤ 1, got a release of 0.35 and a threshold of nan"),
        ({"release": 0.6}, "Expected 0 ≤ release ≤ threshold ≤ 1, got a release of 0.6 and a threshold of 0.5"),
        ({"release": -0.1}, "Expected 0 ≤ release ≤ threshold ≤ 1, got a release of -0.1 and a threshold of 0.5"),
        ({"level": 1.0}, "Expected a level of at most 0 dBFS, got 1"),
        ({"level": math.nan}, "Expected a level of at most 0 dBFS, got nan"),
        ({"silence": 0.0, "tail": 0.0}, "silence must be more than 0 seconds, got 0"),
        ({"silence": math.inf}, "Expected silence in seconds, got inf"),
        ({"silence": 0.1}, "Expected a tail of at most the silence, 0.1 s, got 0.2"),
        ({"tail": -0.1}, "Expected tail in seconds, got -0.1"),
        ({"pre_roll": -1.0}, "Expected pre_roll in seconds, got -1"),
        ({"min_speech": math.nan}, "Expected min_speech in seconds, got nan"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Endpointing(**wrong)


@pytest.mark.parametrize(
    ("max_frames", "message"),
    [
        (751, "Expected utterances of 1 to 750 frames (30 s), got 751"),
        (0, "Expected utterances of 1 to 750 frames (30 s), got 0"),
        (
            17,
            "pre_roll + min_speech + tail take 0.78 s, but an utterance may have only 0.68 s; "
            "shorten pre_roll, or allow longer utterances",
        ),
    ],
)
def test_a_longest_utterance_that_makes_no_sense(max_frames: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Endpointer(voice, max_frames=max_frames)


def test_a_beginning_may_exceed_the_longest_utterance_by_its_rounding() -> None:
    """0.78 s are 19.5 frames: they fit into 19, which a longest utterance of 0.78 s may be rounded to, not into 18."""
    Endpointer(voice, max_frames=19)
    with pytest.raises(ValueError, match=r"but an utterance may have only 0\.72 s"):
        Endpointer(voice, max_frames=18)


def test_the_longest_utterance_is_set_between_utterances() -> None:
    endpointer = Endpointer(voice, **small())
    endpointer.push(draw("..##"))
    with pytest.raises(ValueError, match=r"^An utterance is open; set the longest utterance before it begins"):
        endpointer.limit(5)
    endpointer.finish()
    endpointer.limit(5)
    assert events_of(endpointer.push(draw("######.")), End)[0].reason == "length"


def test_samples_that_are_no_frames() -> None:
    with pytest.raises(ValueError, match=r"^Expected frames \[F, frame_samples\], got \[640\]$"):
        Endpointer(voice).push(np.zeros(640, np.float32))


def test_an_utterance_knows_where_its_speech_is() -> None:
    """Within its frames, however it ends; a silence that was held back is none."""
    endpointer = Endpointer(voice, **small(min_speech=1, pre_roll=1))
    events = [*endpointer.push(draw("..##..#.........##")), *endpointer.finish()]
    assert [event.speech for event in events if isinstance(event, End)] == [((1, 3), (5, 6)), ((1, 3),)]


def test_it_is_known_when_an_utterance_would_be_complete() -> None:
    """While its tail arrives, the frames until then; None in speech and outside of utterances."""
    endpointer = Endpointer(voice, **small(tail=3, silence=6))
    left = []
    for frame in draw("..##.#...0....."):
        endpointer.push(frame[None])
        left.append(endpointer.until_complete)
    assert left == [None, None, None, None, 2, None, 2, 1, 0, 0, 0, None, None, None, None]
