"""What SIGINT, SIGTERM and SIGHUP leave: exit codes, no traceback, and the text of what was heard."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from reference_cases import media_file

from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared import signals
from mlx_gemma4.cli.shared.signals import Interrupted, Session, Terminated, keeping, owner
from mlx_gemma4.programs.transcribe import Segment


def told(session: Session, number: int | None, at: int, log: list[str]) -> Generator[str, None, None]:
    """Five events; a signal comes while the one ``at`` is made. Last words at an interruption."""
    try:
        for index in range(5):
            if index == at and number is not None:
                signal.raise_signal(number)
            log.append(f"made {index}")
            yield f"event {index}"
    except KeyboardInterrupt:
        yield "last words"
        raise


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_one_signal_stops_the_sources(number: int, code: int) -> None:
    """And all that was heard is worked off."""
    stopped: list[int] = []
    with owner(), Session(lambda: stopped.append(1), patience=60) as session:
        assert list(session.events(told(session, number, 2, []))) == [f"event {index}" for index in range(5)]
    assert (stopped, session.code, session.hurried) == ([1], code, False)


def test_a_second_signal_cuts_the_work() -> None:
    """Where it computes; the last words are among the events."""
    log: list[str] = []
    with owner(), Session(patience=60) as session:
        signal.raise_signal(signal.SIGINT)
        events = list(session.events(told(session, signal.SIGINT, 1, log)))
        assert events == ["event 0", "last words"]
    assert (log, session.code) == (["made 0"], 130)


@pytest.mark.parametrize("first", [None, signal.SIGTERM])
def test_what_is_kept_is_saved_in_spite_of_signals(first: signal.Signals | None) -> None:
    """A terminal that is closed ends standard input, and sends SIGHUP more than once. Ctrl-C still interrupts."""
    saved: list[int] = []

    def save() -> None:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        saved.append(1)

    with owner() as each:
        each.started()
        with pytest.raises(Terminated) as terminated, keeping(save):
            if first is not None:
                signal.raise_signal(first)
        assert (saved, terminated.value.number) == ([1], first or signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt), keeping(lambda: signal.raise_signal(signal.SIGINT)):
            pass


def test_writing_is_never_cut() -> None:
    """A signal that comes then is remembered until the next computation."""
    written = []
    with owner(), Session(patience=60) as session:
        for event in session.events(told(session, None, 0, [])):
            if event == "event 0":
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
            written.append(event)
    assert (written, session.code) == (["event 0", "last words"], 143)


def test_what_is_uncut_inside_of_the_work() -> None:
    """Sound that is being saved."""
    written = []

    def save(data: str) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        written.append(data)

    with owner(), Session(patience=60) as session, session.working():
        write = session.uncut(save)
        assert write is not None
        write("block")
    assert (written, session.hurried) == (["block"], True)


def test_patience_ends() -> None:
    """The alarm cuts the work."""

    def waits() -> Generator[str, None, None]:
        signal.raise_signal(signal.SIGHUP)
        threading.Event().wait()
        yield "never"

    with owner(), Session(patience=0.01) as session:
        assert list(session.events(waits())) == []
    assert (session.hurried, session.code) == (True, 129)


def test_a_stuck_command_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the main thread does not come back from a library, the watching thread writes the last words."""
    monkeypatch.setattr(signals, "LAST", 0.0)
    said: list[Any] = []
    left = threading.Event()

    def leave(number: int) -> None:
        said.append(number)
        left.set()

    monkeypatch.setattr(signals, "_leave", leave)
    monkeypatch.setattr(Session, "_hurry", lambda session: None)  # as if Python did not come to it
    with owner(), Session(last_words=lambda: said.append("last words"), patience=0.01) as session, session.working():
        signal.raise_signal(signal.SIGTERM)
        left.wait()
        session._pen.release()  # it would never get it back
    assert said == ["last words", signal.SIGTERM]


def test_signals_of_a_command_without_a_session() -> None:
    """Ctrl-C is KeyboardInterrupt, as chat expects it; the others are no Exception."""
    with owner() as signals_owner:
        signals_owner.started()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Terminated, match="SIGTERM") as raised:
            signal.raise_signal(signal.SIGTERM)
        assert raised.value.number == signal.SIGTERM and not isinstance(raised.value, Exception)


def test_handlers_are_given_back() -> None:
    before = {number: signal.getsignal(number) for number in (*signals.SIGNALS, signal.SIGALRM)}
    with owner(), Session():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before


def test_an_interruption_without_a_signal_is_not_swallowed() -> None:
    with pytest.raises(Interrupted), Session():
        raise Interrupted


def test_an_interrupted_transcription_writes_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text of the segments that are done, in a whole document; the exit code says that some are missing."""

    def segments(recordings: Iterator[Any], *arguments: Any, **options: Any) -> Iterator[tuple[int, Segment]]:
        next(recordings)
        yield 0, Segment(0.0, 1.0, "first", 2, 1, True)
        signal.raise_signal(signal.SIGTERM)
        yield 0, Segment(1.0, 2.0, "never", 2, 1, True)

    monkeypatch.setattr("mlx_gemma4.programs.segments.transcribe_all", segments)
    recording = str(media_file("hibari-03.wav"))
    command = ["transcribe", recording, "--model", "demo", "--format", "json", "--output-dir", str(tmp_path)]
    assert main(command) == 143
    document = json.loads((tmp_path / "hibari-03.json").read_text())
    assert [each["text"] for each in document["segments"]] == ["first"]
    assert "Traceback" not in capsys.readouterr().err
