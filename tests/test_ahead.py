"""Memory of forwards: what MLX may hand to the device before it waits, and what a prompt takes however long it is."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from test_forward import random_model

from mlx_gemma4 import Session
from mlx_gemma4.decoder.ahead import bounded_ahead

MB = 1 << 20


def memory_limit() -> int:
    limit = mx.set_memory_limit(0)
    mx.set_memory_limit(limit)
    return limit


@pytest.fixture(autouse=True)
def limit_is_restored() -> Iterator[None]:
    """Whatever a test does, MLX has the limit of before when it ends."""
    loaded("released")  # loading sets a limit
    before = memory_limit()
    yield
    assert mx.set_memory_limit(before) == before


def test_the_limit_lasts_as_long_as_the_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from what is in use, and from what will stay; and an error ends it, too."""
    monkeypatch.setattr("mlx_gemma4.decoder.ahead.AHEAD_BYTES", 5 * MB)
    before = memory_limit()
    with bounded_ahead(kept=3 * MB):
        assert memory_limit() == mx.get_active_memory() + 8 * MB
    with bounded_ahead(kept=-MB):
        assert memory_limit() == mx.get_active_memory() + 5 * MB
    assert memory_limit() == before
    with pytest.raises(KeyboardInterrupt), bounded_ahead():
        raise KeyboardInterrupt
    assert memory_limit() == before


def test_the_limit_of_a_program_stays() -> None:
    """If it is lower."""
    before = mx.set_memory_limit(MB)
    with bounded_ahead():
        assert memory_limit() == MB
    assert mx.set_memory_limit(before) == MB


def test_evaluations_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one may end before the second: the larger limit holds, and the program's is back behind both."""
    before = memory_limit()
    monkeypatch.setattr("mlx_gemma4.decoder.ahead.AHEAD_BYTES", 5 * MB)
    first, second = bounded_ahead(), bounded_ahead(kept=MB)
    first.__enter__()
    small = memory_limit()
    second.__enter__()
    assert memory_limit() == small + MB
    first.__exit__(None, None, None)
    assert memory_limit() == small + MB
    second.__exit__(None, None, None)
    assert memory_limit() == before


def test_mlx_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 arrays of 4 MB, each made of the one before it: none is needed for long, but MLX allocates ahead."""
    monkeypatch.setattr("mlx_gemma4.decoder.ahead.AHEAD_BYTES", 16 * MB)
    y = mx.zeros((1024, 1024))
    mx.eval(y)
    for _ in range(200):
        y = mx.contiguous(y[::-1])
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    with bounded_ahead():
        mx.eval(y)
    assert mx.get_peak_memory() - before < 16 * MB + 25 * 4 * MB  # it learns of an end after every ten operations


@pytest.mark.parametrize(("most", "grows"), [(1 << 40, True), (256 << 10, False)])
def test_the_memory_of_a_chunk_is_flat(most: int, grows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its context, where its scores are made in tiles; and it would grow where they are not."""
    monkeypatch.setattr("mlx_gemma4.decoder.attention.SCORE_BYTES", most)
    monkeypatch.setattr("mlx_gemma4.session.PREFILL_STEP", 64)
    session, peaks = Session(random_model(7), room=2), list[int]()
    for start in (448, 1984):
        session.extend(np.full(start - session.position, 30))
        taken = []
        for _ in range(3):  # in one of them, no buffer moves
            mx.reset_peak_memory()
            before = mx.get_active_memory()
            session.extend(np.full(64, 30))
            taken.append(mx.get_peak_memory() - before)
        peaks.append(min(taken))
    assert (peaks[1] > 1.5 * peaks[0]) == grows


def test_a_chunk_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is evaluated for a prompt is bounded, and keys and values that stay are not counted."""
    limits, evaluate, start = [], mx.eval, memory_limit()
    monkeypatch.setattr(
        mx, "eval", lambda arrays: limits.append(memory_limit() - mx.get_active_memory()) or evaluate(arrays)
    )
    monkeypatch.setattr("mlx_gemma4.decoder.ahead.AHEAD_BYTES", 7 * MB)
    session = Session(loaded("released")[0], room=2)
    session.extend(np.full(40, 30))
    assert limits[0] - 7 * MB == pytest.approx(session.nbytes, abs=session.nbytes // 8)
    session.extend(np.full(40, 30))
    assert limits[1] == pytest.approx(7 * MB, abs=MB)
    assert memory_limit() == start


def test_rows_to_read_hold_no_copies_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 chunks, whose logits are read later: lazy hidden states keep the keys of the last layer."""
    monkeypatch.setattr("mlx_gemma4.session.PREFILL_STEP", 32)
    model, piece = random_model(6), np.full(1024, 30)
    held = {}
    for logits_from in (None, 0):
        session = Session(model, room=2)
        before = mx.get_active_memory()
        logits = session.extend(piece, logits_from=logits_from)
        held[logits_from] = mx.get_active_memory() - before
        assert logits.shape[-1] == 371
    hidden = 1024 * model.config.text_config.hidden_size * 4
    assert held[0] - held[None] < 2 * hidden
