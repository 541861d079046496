"""Answers that follow a grammar: always valid, the same with drafts, in fewer forwards, in a session that goes on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from drafters import eager, random_model
from json_schemas import SCHEMAS
from jsonschema import Draft202012Validator
from reference_cases import reference_case

from mlx_gemma4 import Constraint, Model, Processor, Sampling, Session, generate, stream_generate
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.constrained_steps import constrained_plan
from mlx_gemma4.outputs.drafter import Draft
from mlx_gemma4.outputs.generate import GenerationResponse
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.together import alone

CARD = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
    },
    "required": ["colour", "count", "notes"],
}
HOT = Sampling(temperature=2.0, seed=4)


def answered(
    checkpoint: str, constraint: Constraint, prompt: Prompt | str = "Hi", **options: Any
) -> tuple[str, list[int], GenerationResponse]:
    """The text, the tokens, and the last piece."""
    pieces = list(stream_generate(*loaded(checkpoint), prompt, constraint=constraint, **options))
    return "".join(piece.text for piece in pieces), [token for piece in pieces for token in piece.tokens], pieces[-1]


def steps_of(session: Session, constraint: Constraint, sampling: Sampling = HOT, **options: Any) -> Any:
    _, processor = loaded("released")
    sampler = Sampler(sampling, 371, suppress=processor.suppressed_ids)
    logits = session.extend(reference_case("released", "text").prompt)
    return alone(constrained_plan(session, logits, sampler, Matcher(constraint, vocabulary(processor)), **options))


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_satisfy_their_schema(name: str) -> None:
    """Random weights and the demo, greedy and at temperature 2; an answer that is cut says so."""
    constraint = Constraint.json_schema(SCHEMAS[name])
    for checkpoint, temperature in (("released", 2.0), ("demo", 0.0)):
        sampling = Sampling(temperature=temperature, seed=1)
        text, tokens, last = answered(checkpoint, constraint, sampling=sampling, max_tokens=40)
        if last.finish_reason == "length":
            assert len(tokens) == 40
        else:
            Draft202012Validator(SCHEMAS[name]).validate(json.loads(text))
            assert last.finish_reason == "stop" and tokens[-1] in loaded(checkpoint)[1].stop_ids


@pytest.mark.parametrize("sampling", [Sampling(), HOT, Sampling(temperature=1.0, top_k=5, top_p=0.9, seed=2)])
def test_other_forms(sampling: Sampling) -> None:
    for constraint, pattern in (
        (Constraint.regex(r"[a-c]{2,9}-\d+"), r"[a-c]{2,9}-\d+"),
        (Constraint.choice(["red", "red or blue", "<eos>"]), r"red|red or blue|<eos>"),
        (Constraint.lark('start: item+ "."\nitem: /[xy]/ "z"'), r"([xy]z)+\."),
    ):
        text, _, last = answered("demo", constraint, sampling=sampling, max_tokens=60)
        assert last.finish_reason == "length" or re.fullmatch(pattern, text)
        assert generate(*loaded("demo"), "Hi", constraint=constraint, sampling=sampling, max_tokens=60) == text


@pytest.mark.parametrize("checkpoint", ["released", "demo"])
@pytest.mark.parametrize("sampling", [Sampling(), HOT, Sampling(temperature=1.0, repetition_penalty=1.2, seed=3)])
def test_the_same_with_drafts(checkpoint: str, sampling: Sampling) -> None:
    """By n-grams, by a drafter of random weights, and by both, of every length."""
    model, _ = loaded(checkpoint)
    for schema in (CARD, SCHEMAS["table"]):
        constraint = Constraint.json_schema(schema)
        answers = [
            answered(checkpoint, constraint, sampling=sampling, max_tokens=36, drafter=drafter)[1]
            for drafter in (None, eager(seed=1), eager(random_model(model), seed=2))
        ]
        assert answers[0] == answers[1] == answers[2]


class Known:
    """Drafts of what comes next, known beforehand."""

    def __init__(self, tokens: list[int], length: int) -> None:
        self.tokens, self.most, self._taken = tokens, length, 0

    def waits(self, left: int) -> bool:
        return True

    def propose(self, token: mx.array, left: int, *, by_model: bool) -> Draft | None:
        ahead = self.tokens[self._taken : self._taken + min(left, self.most)]
        return Draft(mx.array(ahead), "known") if ahead else None

    def take_constrained(self, tokens: list[int], *_: Any, **__: Any) -> None:
        self._taken += len(tokens)

    def begun(self, count: int) -> None:
        self._taken += count


def test_forwards() -> None:
    """One for each choice; none for what is forced; one in all behind a draft that is right."""
    model, processor = loaded("released")
    constraint = Constraint.json_schema(CARD)
    session = Session(model)
    tokens = list(steps_of(session, constraint))
    state = Matcher(constraint, vocabulary(processor))
    choices, at = 0, len(state.advance())
    begun = at
    while tokens[at] not in processor.stop_ids:
        choices += 1
        state.take([tokens[at]])
        at += 1 + len(state.advance())
        if at == len(tokens):
            break
    assert 0 < choices < len(tokens) / 2
    # the prompt, the choices, and what is forced behind the last one
    assert session.forwards == 1 + choices + 1
    drafted = Session(model, room=64)
    drafts = Known(tokens, 60)
    drafts.begun(begun)
    assert list(steps_of(drafted, constraint, drafts=drafts)) == tokens
    assert drafted.forwards == 1 + 1
    wrong = Known([*tokens[:begun], tokens[begun] + 1, *tokens[begun + 1 :]], 60)
    wrong.begun(begun)
    assert list(steps_of(Session(model, room=64), constraint, drafts=wrong)) == tokens


@pytest.mark.parametrize("patience", [0, 1000])
def test_what_drafts_learn_of_steps(patience: int) -> None:
    """A forward over one token is what a step costs, queued early or not; one over forced tokens is not."""

    class Watching(Known):
        def __init__(self) -> None:
            super().__init__([], 7)
            self.plain: list[bool] = []

        def waits(self, left: int) -> bool:
            return False

        def take_constrained(self, tokens: list[int], *_: Any, is_plain: bool, waited: bool, **__: Any) -> None:
            assert not waited
            self.plain.append(is_plain)

    model, _ = loaded("released")
    for pattern, expected in (("[a-z ]{9}", [True] * 9), ("[ab]-->[ab][ab]", [True, False, True])):
        drafts = Watching()
        list(steps_of(Session(model), Constraint.regex(pattern), drafts=drafts, patience=patience))
        assert drafts.plain == expected[: len(drafts.plain)] and len(drafts.plain) >= 2


def test_one_forward_is_queued_early_where_nothing_is_forced() -> None:
    """As many forwards as tokens; with patience, none is superfluous."""
    model, _ = loaded("released")
    constraint = Constraint.regex("[a-z ]{30}")
    for patience in (0, 12, 1000):
        session = Session(model)
        assert len(list(steps_of(session, constraint, patience=patience))) <= 31
        assert session.position == 5 or session.forwards <= 1 + 30


@pytest.mark.parametrize("patience", [0, 12])
@pytest.mark.parametrize("taken", [0, 1, 2, 3, 9, 14, 20])
def test_a_closed_generator_leaves_all_tokens_but_the_last(taken: int, patience: int) -> None:
    """Inside forced tokens and drafts too; the session then goes on as one that was fed the tokens."""
    model, _ = loaded("released")
    prompt = reference_case("released", "text").prompt
    constraint = Constraint.json_schema(CARD)
    expected = list(steps_of(Session(model), constraint))
    for drafts in (None, Known(expected, 7)):
        session = Session(model, room=20)
        steps = steps_of(session, constraint, drafts=drafts, patience=patience)
        tokens = [next(steps) for _ in range(taken)]
        steps.close()
        assert tokens == expected[:taken]
        assert session.position == len(prompt) + max(taken - 1, 0)
        again = Session(model)
        again.extend(prompt)
        for token in tokens[:-1]:
            again.step(mx.array(token))
        np.testing.assert_allclose(np.array(session.extend([40])), np.array(again.extend([40])), atol=1e-4)


def test_long_forced_texts() -> None:
    """Longer than a forward: they are computed in pieces, and cost no choice."""
    model, processor = loaded("demo")
    text = "red circle " * 300
    session = Session(model)
    found, tokens, last = answered("demo", Constraint.choice([text]), session=session, max_tokens=2000)
    assert (found, last.finish_reason) == (text, "stop")
    assert tokens == [*processor.tokenizer.encode(text), 5] and len(tokens) > 550
    again = Session(model)
    again.extend(processor.prompt([{"role": "user", "content": "Hi"}]) + Prompt.from_tokens(tokens[:-1]))
    np.testing.assert_allclose(np.array(session.extend([40])), np.array(again.extend([40])), atol=1e-3)


@pytest.mark.parametrize("most", [1, 2, 5, 11, 12])
def test_max_tokens(most: int) -> None:
    """The first tokens of the whole answer, and never more, also where they are forced."""
    whole = answered("released", Constraint.json_schema(CARD), sampling=HOT)[1]
    _, tokens, last = answered("released", Constraint.json_schema(CARD), sampling=HOT, max_tokens=most)
    assert tokens == whole[:most] and last.finish_reason == "length" and last.generation_tokens == most


def test_a_full_context_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = loaded("released")
    prompt = reference_case("released", "text").prompt
    monkeypatch.setattr(model, "budget", replace(model.budget, context=len(prompt) + 9))
    _, tokens, last = answered("released", Constraint.regex("[a-z]{40}"), prompt)
    assert len(tokens) == 10 and last.finish_reason == "length"


def test_a_constraint_is_refused_before_anything_runs() -> None:
    """The session is unchanged."""
    model, processor = loaded("demo")
    session = Session(model)
    with pytest.raises(ValueError, match=r"^Cannot compile the grammar: "):
        list(stream_generate(model, processor, "Hi", session=session, constraint=Constraint.lark("start: <|channel>")))
    assert (session.position, session.forwards) == (0, 0)


def test_thoughts_come_before_the_answer() -> None:
    """A thought that is open ends when the model closes it; the answer behind it is bound."""
    _, processor = loaded("released")
    begin, end = (processor.tokenizer.token_id(marker) for marker in ("<|channel>", "<channel|>"))
    assert begin is not None and end is not None
    prompt = processor.text("Think.") + Prompt.from_tokens([4, begin])
    sampling = Sampling(temperature=2.0, seed=1)
    text, tokens, last = answered("released", Constraint.choice(["red", "blue"]), prompt, sampling=sampling)
    assert last.finish_reason == "stop" and text in ("red", "blue")
    assert tokens.count(end) == 1 and tokens.index(end) > 10
    assert not {1, 5, 20, 18}.intersection(tokens[:-1])


def test_a_seed_gives_the_same_answer() -> None:
    constraint = Constraint.json_schema(CARD)
    first = answered("released", constraint, sampling=HOT)[1]
    assert answered("released", constraint, sampling=HOT)[1] == first
    assert answered("released", constraint, sampling=Sampling(temperature=2.0, seed=5))[1] != first


def test_nan_is_reported(monkeypatch: pytest.MonkeyPatch, released: tuple[Model, Processor]) -> None:
    """A mask leaves finite logits alone; damaged weights are found all the same."""
    model, _ = released
    monkeypatch.setattr(type(model), "logits", lambda self, hidden: mx.full((*hidden.shape[:2], 371), mx.nan))
    with pytest.raises(ValueError, match="NaN in float32"):
        answered("released", Constraint.regex("[ab]"))
