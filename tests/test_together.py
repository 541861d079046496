"""Answers of several sessions in the same forwards: each as if alone, in fewer forwards."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from drafters import eager
from reference_cases import reference_case
from servers import serving
from test_serve_chat import PICTURE, sound, text, user

from mlx_gemma4 import Constraint, Model, Sampling, Session
from mlx_gemma4.decoder.budget import ContextFull
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.constrained_steps import answer_plan
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.together import Plan, Step, compute_together
from mlx_gemma4.serve.priority import Turn

CHECKPOINTS = ("released", "demo")
LENGTHS = (3, 40, 230)
"""Of prompts: within the window, near its end, and behind it, for both checkpoints."""


def prompts(checkpoint: str) -> list[Prompt]:
    size = loaded(checkpoint)[0].config.text_config.vocab_size
    random = np.random.default_rng(3)
    return [Prompt.from_tokens(random.integers(40, size - 1, length).tolist()) for length in LENGTHS]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("kv_bits", [None, 8])
def test_logits_are_those_of_each_session_alone(checkpoint: str, kv_bits: int | None, monkeypatch: Any) -> None:
    """One row, several, and a token that is not read yet; then each session goes on by itself, and back."""
    model, _ = loaded(checkpoint)
    if checkpoint == "released" and kv_bits:
        pytest.skip("its heads are too small to be stored in bits")
    monkeypatch.setattr(model, "kv_bits", kv_bits)
    shared, alone = [[Session(model) for _ in LENGTHS] for _ in range(2)]
    for sessions in (shared, alone):
        for session, prompt in zip(sessions, prompts(checkpoint), strict=True):
            session.extend(prompt)
    for tokens in ([[41], [42, 43, 44, 45], [46]], [[47, 48], [49], [50, 51]]):
        starts = [max(len(each) - 2, 0) for each in tokens]
        given = zip(shared, tokens, starts, strict=True)
        together = compute_together([Step(session, mx.array(each), start) for session, each, start in given])
        for logits, session, each, start in zip(together, alone, tokens, starts, strict=True):
            assert isinstance(logits, mx.array)
            expected = session.step(mx.array(each), logits_from=start)
            assert logits.shape == expected.shape
            np.testing.assert_allclose(np.array(logits), np.array(expected), atol=2e-3)
    (first, *_), lazy = compute_together([Step(each, mx.array(41) + 1) for each in shared]), mx.array(42)
    assert isinstance(first, mx.array) and first.ndim == 1
    np.testing.assert_allclose(np.array(first), np.array(alone[0].step(lazy)), atol=2e-3)
    for one, other in zip(shared, alone, strict=True):
        assert (one.forwards, one.computed) == (other.forwards, other.computed) or one is not shared[0]
        end = one.position - 2
        one.rewind(end)
        other.rewind(end)
        assert one.content.common_prefix(Prompt.from_tokens([41])) == other.content.common_prefix(
            Prompt.from_tokens([41])
        )
        np.testing.assert_allclose(np.array(one.extend([44])), np.array(other.extend([44])), atol=2e-3)


def test_a_session_that_has_no_room_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = loaded("released")
    full, other = Session(model), Session(model)
    full.extend([40] * 8)
    other.extend([40] * 4)
    monkeypatch.setattr(model, "budget", replace(model.budget, context=8))
    problem, logits, again = compute_together([Step(each, mx.array(41)) for each in (full, other, full)])
    assert isinstance(problem, ContextFull) and isinstance(again, ContextFull) and isinstance(logits, mx.array)
    assert (full.position, other.position) == (8, 5)
    (problem,) = compute_together([Step(full, mx.array(41))])
    assert isinstance(problem, ContextFull)
    assert all(isinstance(each, ContextFull) for each in compute_together([Step(full, mx.array(41))] * 2))


def run(plans: Sequence[Plan], begins: Sequence[int] = ()) -> tuple[list[list[int]], int]:
    """The tokens of plans whose forwards are shared, and how many there were.

    Args:
        begins: The forward with which each of them begins; 0 by default.
    """
    begins = begins or [0] * len(plans)
    tokens: list[list[int]] = [[] for _ in plans]
    asked: dict[int, Step] = {}
    forwards, begun = 0, 0

    def go_on(number: int, result: mx.array | None) -> None:
        asked.pop(number, None)
        try:
            while not isinstance(told := plans[number].send(result), Step):
                tokens[number].append(told)
                result = None
            asked[number] = told
        except StopIteration:
            return

    while asked or begun < len(plans):
        while begun < len(plans) and begins[begun] <= forwards:
            go_on(begun, None)
            begun += 1
        numbers = list(asked)
        forwards += 1
        for number, result in zip(numbers, compute_together([asked[each] for each in numbers]), strict=True):
            assert isinstance(result, mx.array)
            go_on(number, result)
    return tokens, forwards


def plan(model: Model, number: int, checkpoint: str, drafted: bool) -> tuple[Session, Plan]:
    """One of three answers: free, bound, and sampled."""
    _, processor = loaded(checkpoint)
    session, prompt = Session(model), prompts(checkpoint)[number]
    logits = session.extend(prompt)
    size = model.config.text_config.vocab_size
    sampling = Sampling(temperature=1.5, seed=7) if number == 2 else Sampling()
    sampler = Sampler(sampling, size, suppress=(*processor.suppressed_ids, *processor.stop_ids))
    schema = {"type": "object", "properties": {"a": {"enum": ["one", "two"]}, "b": {"type": "boolean"}}}
    constraint = Constraint.json_schema({**schema, "required": ["a", "b"], "additionalProperties": False})
    matcher = Matcher(constraint, vocabulary(processor)) if number == 1 else None
    if matcher is not None:
        sampler = Sampler(sampling, size, suppress=processor.suppressed_ids)
    drafts = eager(seed=number).begin(session, prompt.token_ids, processor.suppressed_ids) if drafted else None
    return session, answer_plan(session, logits, sampler, matcher, max_tokens=20 + 5 * number, drafts=drafts)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize(("drafted", "begins"), [(False, [0, 0, 0]), (False, [0, 4, 9]), (True, [0, 2, 3])])
def test_answers_are_the_same_in_fewer_forwards(checkpoint: str, drafted: bool, begins: list[int]) -> None:
    """Free, bound and sampled ones, which come and go at any forward; sessions end as they would alone."""
    model, _ = loaded(checkpoint)
    apart, ends, counts = [], [], []
    for number in range(3):
        session, each = plan(model, number, checkpoint, drafted)
        (tokens,), count = run([each])
        apart.append(tokens)
        ends.append(session.position)
        counts.append(count)
    made = [plan(model, number, checkpoint, drafted) for number in range(3)]
    together, forwards = run([each for _, each in made], begins)
    assert together == apart
    assert [session.position for session, _ in made] == ends
    assert (
        forwards < sum(counts) and forwards <= max(begin + own for begin, own in zip(begins, counts, strict=True)) + 1
    )
    if begins == [0, 0, 0]:
        assert forwards == max(counts)


def test_chats_at_the_same_time_share_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP: the texts are those of each alone. One prompt is read while another answer is decoded."""
    speech = user(sound("pico-04.wav"), text("Transcribe the audio."))
    asked = [PICTURE, speech, PICTURE]
    with serving(sessions=4) as server:
        processor = server.service.processor
        monkeypatch.setattr(processor, "suppressed_ids", (*processor.suppressed_ids, *processor.stop_ids))

        def ask(index: int, answers: dict[int, str]) -> None:
            reply = server.chat(asked[index], temperature=0, max_tokens=40).json()
            answers[index] = reply["choices"][0]["message"]["content"]

        alone: dict[int, str] = {}
        for index in range(len(asked)):
            ask(index, alone)
        turns = dict(server.service.engine.turns)
        held = threading.Event()
        blocked = threading.Thread(target=server.service.engine.run, args=[held.wait])
        blocked.start()
        together: dict[int, str] = {}
        threads = [threading.Thread(target=ask, args=[index, together]) for index in range(len(asked))]
        for each in threads:
            each.start()
        while server.service.engine.waiting < len(asked):
            threading.Event().wait(0.01)
        held.set()
        for each in [*threads, blocked]:
            each.join()
        assert together == alone
        again = server.service.engine.turns[Turn.DECODE] - turns[Turn.DECODE]
    assert turns[Turn.DECODE] == 3 * 39 and again < 2 * 39


def test_the_reference_is_the_same_in_company() -> None:
    """Greedy tokens of the reference implementation, beside another session."""
    model, processor = loaded("released")
    case = reference_case("released", "text")
    sessions = [Session(model), Session(model)]
    logits = [sessions[0].extend(case.prompt), sessions[1].extend([50, 51, 52])]
    plain = [Sampler(Sampling(), 371, suppress=processor.suppressed_ids) for _ in sessions]
    plans = [
        answer_plan(session, each, sampler, None, max_tokens=16)
        for session, each, sampler in zip(sessions, logits, plain, strict=True)
    ]
    tokens, _ = run(plans)
    fresh = Session(model)
    (expected,), _ = run([answer_plan(fresh, fresh.extend(case.prompt), plain[0], None, max_tokens=16)])
    assert tokens[0] == expected
