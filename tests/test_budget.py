"""What a model may use while it runs: a session refuses what would break its context, and answers end there."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from golden import heard
from reference_cases import demo_prompts

from mlx_gemma4 import Drafter, Model, Sampling, Session, stream_generate
from mlx_gemma4.decoder.budget import Budget, ContextFull
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.answer import answer
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step


@pytest.fixture
def model() -> Iterator[Model]:
    """One whose context is 40 positions."""
    model = loaded("released")[0]
    model.budget = Budget(context=40, longest=50)
    yield model
    model.budget = Budget()


def test_a_piece_that_does_not_fit_is_refused_before_it_is_computed(model: Model) -> None:
    session, whole = Session(model), Session(model)
    ids = np.arange(41) % 300
    session.extend(ids[:38])
    with pytest.raises(ContextFull) as refused:
        session.extend(ids[38:])
    assert str(refused.value) == (
        "The context is 40 positions, of which 38 are used, and this needs 3 more; shorten it, or start with a context "
        "of 41 or more (--context)"
    )
    assert (session.position, session.forwards, session.computed, session.context) == (38, 1, 38, 40)
    logits = session.extend(ids[38:40])
    whole.extend(ids[:38])
    np.testing.assert_array_equal(np.array(logits), np.array(whole.extend(ids[38:40])))
    with pytest.raises(ContextFull, match="of which 40 are used, and this needs 1 more"):
        session.step(mx.array(5))
    assert session.position == 40


def test_no_larger_context_is_named_where_none_fits(model: Model) -> None:
    with pytest.raises(ContextFull, match=r"and this needs 51 more; shorten it, or start a new sequence$"):
        Session(model).extend([5] * 51)


def test_without_a_context_nothing_is_refused() -> None:
    session = Session(loaded("released")[0], room=2)
    session.extend([5] * 600)
    assert session.context is None and session.position == 600


@pytest.mark.parametrize("length", [38, 39, 40])
@pytest.mark.parametrize("max_tokens", [2, 10])
def test_tokens_end_where_the_context_is_full(model: Model, length: int, max_tokens: int) -> None:
    """They are those of a longer context. The last one does not enter the session."""
    ids = [7] * length
    session = Session(model)
    few = list(generate_step(session, session.extend(ids), Sampler(Sampling(), 371), max_tokens=max_tokens))
    assert len(few) == min(max_tokens, 41 - length)
    assert session.position == length + len(few) - 1
    model.budget = Budget()
    session = Session(model)
    assert few == list(generate_step(session, session.extend(ids), Sampler(Sampling(), 371), max_tokens=len(few)))


def test_an_answer_ends_with_length() -> None:
    """With and without drafts: 3 tokens of the demo's answer, of which the last is not in the session."""
    model, processor = loaded("demo")
    prompt = demo_prompts(processor)["audio"]
    expected = heard("hibari-03.wav", "short").tokens
    try:
        model.budget = Budget(context=len(prompt) + 2)
        for drafter in (None, Drafter()):
            *_, last = responses = list(stream_generate(model, processor, prompt, drafter=drafter))
            tokens = [token for response in responses for token in response.tokens]
            assert (tokens, last.finish_reason) == (expected[:3], "length")
        model.budget = Budget(context=len(prompt) - 1)
        with pytest.raises(ContextFull):
            list(stream_generate(model, processor, prompt))
    finally:
        model.budget = Budget()


@pytest.mark.parametrize("free", [0, 1, 3])
def test_a_draft_is_cut_at_the_context(model: Model, free: int) -> None:
    """A guess is no part of the answer: it does not have to fit."""
    question = Prompt.from_tokens([7] * (40 - free))
    sampler = Sampler(Sampling(), 371)
    tokens = answer(Session(model), question, sampler, stop_ids=(), max_tokens=30)
    drafted = answer(Session(model), question, sampler, stop_ids=(), max_tokens=30, draft=[*tokens, 9, 9, 9, 9])
    assert drafted == tokens and 1 <= len(tokens) <= free + 1
