"""Whether live transcription keeps up: fast, tight and slow machines, and those without a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4.measure import probes
from mlx_gemma4.measure.checks import live
from mlx_gemma4.measure.checks.live import AFTERWARDS, RELIEF, MeasuredMachine, follows, listen_to_the_demo
from mlx_gemma4.measure.simulated_machine import MACHINES, Forward, Simulation

FIGURES = {"rows": {"1": 0.04, "8": 0.1, "32": 0.2}, "head": {"1": 0.005, "8": 0.01}}


def simulated(busy: float, late: list[float], overload: bool = False) -> Simulation:
    forwards = [Forward("frames", 8, 0, 10 * busy)]
    return Simulation(MACHINES[0], 10.0, forwards, guesses=15, behind=0.4, late=late, overload=overload)


@pytest.mark.parametrize(
    ("simulation", "verdict", "text"),
    [
        (
            simulated(0.5, [0.12, -0.004, 0.31]),
            "ok",
            "The 12B needs 0.50 s of computing for a second of speech, and has the text 0.12 s after the silence that "
            "ends it, 0.31 s at most. Simulated, with measured costs.",
        ),
        (
            simulated(0.5, []),
            "ok",
            "The 12B needs 0.50 s of computing for a second of speech. Simulated, with measured costs.",
        ),
        (
            simulated(0.91, [0.5]),
            "warning",
            "The 12B needs 0.91 s of computing for a second of speech, and has the text 0.50 s after the silence that "
            "ends it, 0.50 s at most. Simulated, with measured costs.",
        ),
        (
            simulated(1.2, [3.0]),
            "problem",
            "The 12B needs 1.20 s of computing for a second of speech: it falls behind. Simulated, with measured "
            "costs.",
        ),
        (
            simulated(0.97, [3.0], overload=True),
            "problem",
            "The 12B needs 0.97 s of computing for a second of speech: it falls behind. Simulated, with measured "
            "costs.",
        ),
    ],
)
def test_how_busy_a_machine_is(simulation: Simulation, verdict: str, text: str) -> None:
    found = follows(simulation)
    assert (found.subject, found.verdict, found.text) == ("live", verdict, text)
    assert found.remedy == ("" if verdict == "ok" else RELIEF)
    assert found.figures["guesses_per_second"] == 1.5 and found.figures["behind"] == 0.4


def test_figures_of_late_texts() -> None:
    """Sorted; a text that was there before the silence ended is not late."""
    assert follows(simulated(0.5, [0.12, -0.004, 0.31])).figures["late"] == [0.0, 0.12, 0.31]


def test_this_machine() -> None:
    """What was measured, as it is; the head only where it runs."""
    machine = MeasuredMachine.of(FIGURES)
    assert machine.seconds(8, 0, position=500) == 0.1
    assert machine.seconds(32, 8) == pytest.approx(0.21)
    assert machine.seconds(1, 1) == pytest.approx(0.045)
    assert 0.1 < machine.seconds(16, 0) < 0.2


@pytest.fixture
def one_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = probes.packaged_recordings()[-1:]
    monkeypatch.setattr(probes, "packaged_recordings", lambda: recordings)


def test_the_demo_listens_at_the_pace_of_the_12b(one_recording: None) -> None:
    """The slower the forwards are, the busier is the machine; one that is too slow is told so."""
    busy = []
    for slower in (1.0, 2.0):
        figures = {kind: {rows: slower * each for rows, each in costs.items()} for kind, costs in FIGURES.items()}
        busy.append(follows(listen_to_the_demo(figures)).figures["busy"])
    assert 0.1 < busy[0] < busy[1]


def test_the_check_simulates_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(live, "listen_to_the_demo", lambda figures: asked.append(figures) or simulated(0.3, []))
    [found] = live.check({"device": {"device": "gpu, Apple M4"}, "speed": FIGURES})
    assert asked == [FIGURES] and found == follows(simulated(0.3, []))


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is simulated: 25 frames a second at what a row costs in the largest forward that was measured."""
    monkeypatch.setattr(live, "listen_to_the_demo", None)
    figures = {"rows": {"1": 80.0, "8": 600.0}, "head": {"1": 7.0}}
    [found] = live.check({"device": {"device": "cpu"}, "speed": figures})
    assert (found.verdict, found.text, found.remedy) == (
        "problem",
        "The 12B needs about 1875 s of computing for a second of speech on this CPU: it cannot follow.",
        AFTERWARDS,
    )
    assert found.figures == {"busy": 1875.0}
