"""Sound that waits until the engine has time for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden import utterances
from reference_cases import media_file
from servers import Told

from mlx_gemma4 import Model, Processor, load_audio
from mlx_gemma4.serve.hearing import Clear, Commit, Committed, Hearing, Said, Sound, Supposed
from mlx_gemma4.serve.priority import Turn
from mlx_gemma4.serve.work.hearing import LATE, Inbox, hear
from mlx_gemma4.serve.work.speech import Transcribers

BLOCK = 1600
"""Samples of an append: 0.1 s."""
SPEECH = "hibari-03.wav"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def filled(samples: np.ndarray, clock: Clock, *, size: int = BLOCK) -> Inbox:
    inbox = Inbox(clock=clock)
    for start in range(0, len(samples), size):
        inbox.put(Sound(samples[start : start + size]))
    return inbox


def taken(inbox: Inbox) -> list[Any]:
    found = []
    while (command := inbox.take()) is not None:
        found.append(command)
    return found


@pytest.mark.parametrize("size", [1, 160, BLOCK, 5000, 40_000])
def test_sound_is_heard_in_slices_however_it_is_cut(size: int) -> None:
    """0.2 s each, and 1 s where it has waited for as long."""
    samples, clock = np.arange(40_000, dtype=np.float32), Clock()
    inbox = filled(samples, clock, size=size)
    found = [inbox.take() for _ in range(2)]
    clock.now = LATE
    assert inbox.seconds == 33_600 / 16_000
    found += taken(inbox)
    assert [(len(each.samples), each.waited) for each in found] == [
        (3200, 0.0),
        (3200, 0.0),
        (16_000, LATE),
        (16_000, LATE),
        (1600, LATE),
    ]
    assert np.array_equal(np.concatenate([each.samples for each in found]), samples)
    assert inbox.seconds == 0


def test_a_slice_ends_where_the_client_has_ended_the_sound() -> None:
    clock = Clock()
    inbox = filled(np.zeros(1600, np.float32), clock)
    inbox.put(Commit())
    clock.now = 3.0
    inbox.put(Sound(np.ones(1600, np.float32)))
    inbox.put(Clear())
    first, commit, second, clear = taken(inbox)
    assert (len(first.samples), first.waited, len(second.samples), second.waited) == (1600, 3.0, 1600, 0.0)
    assert second.samples[0] == 1 and isinstance(commit, Commit) and isinstance(clear, Clear)


def test_sound_that_is_sent_faster_than_it_is_spoken_has_time() -> None:
    """Up to 3 s ahead, as a client sends that was cut off for a moment, it is live."""
    inbox = Inbox(clock=(clock := Clock()))
    turns = []
    for clock.now in (10.0, 10.1, 10.1, 10.1, 12.0, 12.2, 20.0, 20.5):
        inbox.put(Sound(np.zeros(16_000, np.float32)))
        turns.append(inbox.turn)
    live, waits = Turn.LIVE, Turn.HASTE
    assert turns == [live, live, live, waits, live, waits, live, live]


def listened(demo: tuple[Model, Processor], *, late: bool) -> tuple[list[Hearing], int]:
    """What is told of 6 s of speech, heard when they come or at their end, and how many turns it takes."""
    clock = Clock()
    inbox, told, turns = Inbox(clock=clock), Told(), 0
    work = hear(inbox, Transcribers(*demo), "English", told)  # type: ignore[arg-type]
    for block in np.split(np.resize(load_audio(media_file(SPEECH)), 6 * 16_000), 60):
        inbox.put(Sound(block))
        clock.now += 0.1
        while not late and inbox.seconds:
            next(work)
            turns += 1
    inbox.put(Commit())
    while not (told and isinstance(told[-1], Committed)):
        next(work)
        turns += 1
    work.close()
    return told, turns


def test_a_busy_server_catches_up_with_fewer_guesses_and_the_same_text(demo: tuple[Model, Processor]) -> None:
    in_time, many = listened(demo, late=False)
    late, few = listened(demo, late=True)
    expected, texts = ([each.text for each in told if isinstance(each, Said)] for told in (in_time, late))
    assert texts == expected and expected[0].startswith(utterances(SPEECH)[0])
    guesses = [sum(isinstance(each, Supposed) for each in told) for told in (in_time, late)]
    assert guesses[0] > 3 * guesses[1] > 0
    assert many > 60 and few == 12
