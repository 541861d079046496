"""Simulated Macs: what their forwards cost, and what live transcription makes of it. No time is measured here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import loaded
from reference_cases import SHORT, media_file

from mlx_gemma4 import Transcriber, load_audio
from mlx_gemma4.live.hear.events import ListenerEvent
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.measure.simulated_machine import (
    MACHINES,
    TAIL_TOKENS,
    Machine,
    SimulatedClock,
    Simulation,
    simulate,
    with_pauses,
)

M4_PRO = Machine("M4 Pro", 273, 9.2)
M4, _, _, FAST, M2_PRO, M3_PRO = MACHINES
SLOW = Machine("half an M4", 60, 2.15)


def in_rows(machine: Machine, rows: int) -> float:
    """A forward without head, in units of one over a single row."""
    return machine.seconds(rows, 0) / machine.seconds(1, 0)


def test_small_batches_cost_what_was_published() -> None:
    """An M4 Pro by issue 3852 of MLX; an M2 Pro and an M3 Pro by what users report of 8 rows."""
    published = {1: 1, 2: 0.99, 3: 1.13, 4: 1.43, 5: 1.75, 8: 2.84, 32: 4.5}
    for rows, cost in published.items():
        assert in_rows(M4_PRO, rows) == pytest.approx(cost, rel=0.15)
    assert in_rows(M2_PRO, 8) == pytest.approx(7, rel=0.1)
    assert in_rows(M3_PRO, 8) == pytest.approx(3.4, rel=0.1)


def test_rows_share_a_tile() -> None:
    """13 rows cost as much as 32, on an M2 already 6; one more costs a tile more. 6 rows are two small tiles."""
    assert M4.seconds(13, 0) == M4.seconds(32, 0) < M4.seconds(33, 0)
    assert M2_PRO.seconds(6, 0) == M2_PRO.seconds(32, 0)
    assert M4.seconds(2, 0) == M4.seconds(1, 0)
    assert FAST.seconds(6, 0) - FAST.seconds(1, 0) == pytest.approx(6.25e9 / 340e9)


def test_the_head_and_the_cache_cost_too() -> None:
    assert M4.seconds(1, 1) - M4.seconds(1, 0) == pytest.approx(0.82e9 / 102e9)
    assert M4.seconds(1, 0, 1000) - M4.seconds(1, 0) == pytest.approx(344_064_000 / 102e9)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return with_pauses([load_audio(media_file(name)) for name in ("hibari-03.wav", "long-0.wav")])


@pytest.fixture(scope="module")
def simulated(samples: np.ndarray) -> dict[str, Simulation]:
    return {
        machine.name: simulate(machine, *loaded("demo"), samples, text=SHORT) for machine in (M4, FAST, M2_PRO, SLOW)
    }


def test_texts_are_the_same_on_all_machines(simulated: dict[str, Simulation]) -> None:
    texts = [simulation.texts for simulation in simulated.values()]
    assert texts[1:] == texts[:1] * 3 and all(texts[0])


def test_a_machine_is_busy_for_part_of_the_time(simulated: dict[str, Simulation]) -> None:
    """Nine seconds of speech: slower Macs were busy all the time, when frames did not wait for each other."""
    assert simulated[M4.name].busy < 0.7
    assert simulated[M2_PRO.name].busy < 0.7
    assert simulated[FAST.name].busy < 0.28
    assert not any(simulated[machine.name].overload for machine in (M4, M2_PRO, FAST))


def test_the_text_comes_soon_after_the_silence(simulated: dict[str, Simulation]) -> None:
    assert max(simulated[FAST.name].late) < 0.001
    for machine in (M4, M2_PRO):
        assert max(simulated[machine.name].late) < 1.0


def test_forwards_of_a_second_of_speech(
    simulated: dict[str, Simulation], samples: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a loop that computes what has arrived and guesses every half second: a third of its forwards at most, no
    more rows for speech, prompt and draft, and the head on the draft's rows only."""

    def compute(listener: Listener) -> Iterator[ListenerEvent]:
        transcriber = listener._transcriber
        transcriber.compute()
        new = transcriber.heard - listener._guessed
        if new >= 13 or (new and listener.endpointer.until_complete == 0):
            yield from listener._make_guess()

    monkeypatch.setattr(Listener, "_compute", compute)
    before = simulate(FAST, *loaded("demo"), samples, text=SHORT)
    after = simulated[FAST.name]
    assert after.texts == before.texts
    assert before.per_second("frames")[:2] == (pytest.approx(18, abs=3), pytest.approx(25, abs=0.01))
    assert after.per_second("frames")[0] < 1.2
    (forwards_before, rows_before), (forwards, rows) = (
        [sum(simulation.per_second(kind)[column] for kind in ("frames", "guess", "token")) for column in (0, 1)]
        for simulation in (before, after)
    )
    assert forwards < forwards_before / 3 and rows <= 1.05 * rows_before
    for simulation in (before, after):
        frames, guess = simulation.per_second("frames"), simulation.per_second("guess")
        assert frames[2] == 0
        assert frames[1] + guess[1] - (TAIL_TOKENS - 1) * guess[0] - guess[2] == pytest.approx(25, abs=0.01)


def test_a_machine_that_does_not_keep_up_is_told_of() -> None:
    """Not by a recording that is read fast: nothing piles up."""
    samples = with_pauses([load_audio(media_file(name)) for name in ("long-1.wav", "long-0.wav")], seconds=0.4)
    slow = Machine("a quarter of an M4", 30, 1.1)
    assert simulate(slow, *loaded("demo"), samples, text=SHORT).overload
    clock = SimulatedClock(slow)
    transcriber = Transcriber(*loaded("demo"), text=SHORT)
    listener = Listener(transcriber, clock=clock)
    with clock.timing(transcriber.session, 0):
        for _ in listen(samples, listener):
            assert listener.overload is None and not listener.is_late
    assert listener.rhythm.overload(behind=2.0) is not None
