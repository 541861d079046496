"""A few interrupted sessions as processes; ``interrupt_sessions.py`` runs more, at random moments."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from interrupt_sessions import Truth, read_truth, run

MOMENTS = {"listen": (0.3, 4.0), "live": (5.0,), "transcribe": (1.5,)}


@cache
def cached_truth() -> Truth:
    """One for all signals."""
    return read_truth()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_session_writes_its_text(number: int, tmp_path: Path) -> None:
    """At the start and in the middle. How long the end takes depends on the machine; the script reports it."""
    before = signal.signal(number, signal.default_int_handler)  # a shell may have started the tests with it ignored
    try:
        truth = cached_truth()
        with ThreadPoolExecutor() as pool:  # they mostly wait for sound
            sessions = [
                pool.submit(run, name, number, moment, truth, tmp_path)
                for name, moments in MOMENTS.items()
                for moment in moments
            ]
        runs = [session.result() for session in sessions]
    finally:
        signal.signal(number, before)
    assert [(done.command, done.moment, done.faults) for done in runs if done.faults] == []
