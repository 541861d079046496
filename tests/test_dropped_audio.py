"""How much sound a microphone lost, from when its blocks came: losses, delays, drift and false flags."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4.live.hear.microphone import DroppedAudioMeter


def arrivals(count: int, *, rate: float = 1.0, gaps: dict[int, float] | None = None) -> list[float]:
    """When blocks of 40 ms come from a device whose clock runs at ``rate``; {block: seconds lost before it}."""
    times, now = [], 5000.0
    for index in range(count):
        now += 0.04 / rate + (gaps or {}).get(index, 0.0)
        times.append(now)
    return times


def lost(times: list[float], flags: set[int] | frozenset[int] = frozenset()) -> float:
    loss = DroppedAudioMeter()
    for index, now in enumerate(times):
        loss.add(now, 0.04, index in flags)
    return loss.seconds


def held_up(times: list[float], start: float, seconds: float) -> list[float]:
    """No callback runs for a while, then all that waited run at once."""
    return [max(now, start + seconds) if now >= start else now for now in times]


@pytest.mark.parametrize("rate", [0.999, 0.9999, 1.0, 1.0001, 1.001])
def test_drift_is_no_loss(rate: float) -> None:
    """In two hours, clocks that differ by 0.1 % are 7 s apart."""
    assert lost(arrivals(2 * 3600 * 25, rate=rate)) == 0


@pytest.mark.parametrize("rate", [0.999, 1.0, 1.001])
@pytest.mark.parametrize("seconds", [0.25, 0.5, 3.0, 60.0])
def test_a_gap_is_lost(rate: float, seconds: float) -> None:
    """Every time, whatever the clocks do."""
    assert lost(arrivals(2000, rate=rate, gaps={500: seconds})) == pytest.approx(seconds, abs=0.005)
    gaps = {500: seconds, 700: seconds, 1500: seconds}
    assert lost(arrivals(2000, rate=rate, gaps=gaps)) == pytest.approx(3 * seconds, abs=0.015)


def test_a_gap_at_the_beginning() -> None:
    """Right after the first block."""
    assert lost(arrivals(50, gaps={1: 0.5})) == pytest.approx(0.5, abs=0.005)


def test_lost_sound_grows() -> None:
    """It is known within half a second, and never taken back."""
    loss = DroppedAudioMeter()
    known = []
    for now in arrivals(100, gaps={50: 1.0}):
        loss.add(now, 0.04)
        known.append(loss.seconds)
    assert known == sorted(known)
    assert known[50] == 0
    assert known[50 + 2 * 14] == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("seconds", [0.15, 0.45, 2.0, 5.0])
@pytest.mark.parametrize("phase", range(14))
def test_late_is_not_lost(seconds: float, phase: int) -> None:
    """The callback could not run, but the driver kept everything: it comes at once, afterwards."""
    times = arrivals(1000)
    assert lost(held_up(times, times[500 + phase] - 0.001, seconds)) == 0


def test_small_gaps_add_up() -> None:
    """A callback that is always too slow loses a block now and then."""
    gaps = dict.fromkeys(range(100, 1100, 10), 0.04)
    assert lost(arrivals(1200, gaps=gaps)) == pytest.approx(4.0, abs=0.3)


def test_small_gap_counts_with_a_flag_only() -> None:
    """Two blocks are within the jitter, unless the driver says so too."""
    for index in range(500, 514):
        times = arrivals(1000, gaps={index: 0.08})
        assert lost(times) == 0
        assert lost(times, {index}) == pytest.approx(0.08, abs=0.002)


def test_flags_alone_are_no_loss() -> None:
    """Some drivers flag every other block."""
    assert lost(arrivals(2000), set(range(0, 2000, 2))) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.3, 5), max_size=5),
    st.floats(0.999, 1.001),
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
)
def test_gaps_among_jitter(gaps: list[float], rate: float, seed: int, burst: int) -> None:
    """Blocks that come in bursts, some late: the gaps alone are counted."""
    times = arrivals(2000, rate=rate, gaps={300 * (index + 1): gap for index, gap in enumerate(gaps)})
    late = np.random.default_rng(seed).exponential(0.02, len(times)).clip(0, 0.15)
    jittered = np.maximum.accumulate(np.array(times) + late)
    bursts = [float(jittered[min(len(times) - 1, index // burst * burst + burst - 1)]) for index in range(len(times))]
    assert lost(bursts) == pytest.approx(sum(gaps), abs=0.02 + 0.06 * len(gaps))
