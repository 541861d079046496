"""Logits of many rows, a few at a time: the same choices, and memory for a few rows only."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from graphs import primitives

from mlx_gemma4 import Sampling, Session
from mlx_gemma4.decoder.ahead import bounded_ahead
from mlx_gemma4.decoder.head import RowLogits
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs import steps
from mlx_gemma4.outputs.answer import answer
from mlx_gemma4.outputs.sample import Sampler

SAMPLINGS = [Sampling(), Sampling(temperature=1.0, top_k=40, seed=3), Sampling(repetition_penalty=1.3)]


def test_blocks_are_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 rows three blocks, whose logits are the product's; each block is told its first row."""
    mx.random.seed(0)
    head, hidden = mx.random.normal((8, 40)), mx.random.normal((1, 300, 8))
    rows = RowLogits(lambda h: h @ head, hidden)
    assert len(rows) == 300 and rows.dtype == mx.float32
    blocks = rows.read(lambda block, row: [block, mx.array(row)])
    assert [(row.item(), len(block)) for block, row in blocks] == [(0, 128), (128, 128), (256, 44)]
    actual = np.concatenate([np.array(block) for block, _ in blocks])
    np.testing.assert_allclose(actual, np.array((hidden @ head)[0]), atol=1e-5)


def test_blocks_are_not_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """5,120 rows of 1,024 logits are 21 MB; the choices from them need those of a few blocks."""
    monkeypatch.setattr("mlx_gemma4.decoder.ahead.AHEAD_BYTES", 1 << 20)
    mx.random.seed(0)
    head, hidden = mx.random.normal((4, 1024)), mx.random.normal((1, 5120, 4))
    mx.eval(head, hidden)
    rows = RowLogits(lambda h: h @ head, hidden)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    with bounded_ahead():
        mx.eval(rows.read(lambda block, row: [mx.argmax(mx.tanh(block), axis=-1)]))
    assert mx.get_peak_memory() - before < 8 << 20


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampled", "penalty"])
@pytest.mark.parametrize("wrong", [0, 3, 9, 20])
def test_a_long_draft_gives_the_same_answer(sampling: Sampling, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of its tokens is wrong, in blocks of four rows and at once, and without a draft."""
    model, _ = loaded("demo")
    question = Prompt.from_tokens(np.arange(40, 60))
    vocabulary = model.config.text_config.vocab_size

    def answered(draft: list[int]) -> list[int]:
        sampler = Sampler(sampling, vocabulary)
        return answer(Session(model), question, sampler, stop_ids=(), max_tokens=21, draft=draft)

    expected = answered([])
    draft = [token + (index == wrong) for index, token in enumerate(expected[:20])]
    assert answered(draft) == expected
    monkeypatch.setattr("mlx_gemma4.decoder.head.HEAD_ROWS", 4)
    assert answered(draft) == expected


def test_a_short_draft_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the graph of a draft whose logits are given as an array."""
    graphs = []
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: graphs.append(primitives(arrays)))
    session = Session(loaded("demo")[0])
    for _ in range(2):
        start = session.mark()
        logits = session.extend(np.arange(40, 60), logits_from=10)
        sampler, draft = Sampler(Sampling(), logits.shape[1]), mx.array(list(range(9)))
        steps._Chosen(sampler, session.row_logits(10) if graphs else logits, draft)
        session.rewind(start)
    first, second = graphs
    assert second == first


def test_rows_that_are_not_kept() -> None:
    session = Session(loaded("demo")[0])
    with pytest.raises(ValueError, match=r"^The logits of the last 1 rows are not kept, only 0; extend the session"):
        session.row_logits(1)
    logits = session.extend(np.arange(40, 60), logits_from=15)
    with pytest.raises(ValueError, match=r"^The logits of the last 6 rows are not kept, only 5; extend the session"):
        session.row_logits(6)
    [[last]] = session.row_logits(2).read(lambda block, row: [block])
    np.testing.assert_allclose(np.array(last), np.array(logits)[-2:], atol=1e-5)
    session.rewind(18)
    with pytest.raises(ValueError, match="only 0"):
        session.row_logits(1)
