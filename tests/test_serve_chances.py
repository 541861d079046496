"""Probabilities of the tokens of bound answers: the model's own, also of tokens that had to follow."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from json_schemas import SCHEMAS
from reference_cases import reference_case
from servers import serving
from test_serve_tools import LIGHTS, USER, writing

from mlx_gemma4 import Constraint, Sampling, Session
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.constrained_steps import constrained_plan
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.together import alone
from mlx_gemma4.serve.events import TokenChance
from mlx_gemma4.serve.protocols.chat_request import read_chat
from mlx_gemma4.serve.protocols.wire import write
from mlx_gemma4.serve.work.chances import WatchedSampler

HOT = Sampling(temperature=2.0, seed=4)
CONSTRAINTS = {
    **{name: Constraint.json_schema(schema) for name, schema in SCHEMAS.items()},
    "forced": Constraint.choice(["Go back seven meters. " * 12]),
    "free": Constraint.regex("[a-z]{30}"),
}


def answered(
    constraint: Constraint, *, watched: bool, checkpoint: str = "released", **options: Any
) -> tuple[list[int], list[TokenChance], Session]:
    """The tokens of an answer, how likely they were, and the session behind it."""
    model, processor = loaded(checkpoint)
    size = model.config.text_config.vocab_size
    session = Session(model)
    logits = session.extend(prompt_of(checkpoint))
    if not watched:
        plain = Sampler(HOT, size, suppress=processor.suppressed_ids)
        matcher = Matcher(constraint, vocabulary(processor))
        return list(alone(constrained_plan(session, logits, plain, matcher, **options))), [], session
    sampler = WatchedSampler(HOT, size, suppress=processor.suppressed_ids, history=(), alternatives=2)
    matcher = Matcher(constraint, vocabulary(processor))
    steps = alone(constrained_plan(session, logits, sampler, matcher, watch=sampler.see, **options))
    told = [(token, sampler.taken(token, processor.tokenizer)) for token in steps]
    return [token for token, _ in told], [chance for _, chance in told], session


def prompt_of(checkpoint: str) -> Prompt:
    return reference_case("released", "text").prompt if checkpoint == "released" else loaded("demo")[1].text("Hi")


def scores_of(tokens: list[int], checkpoint: str = "released") -> np.ndarray:
    """Log-probabilities [n, V], of one forward over a prompt and the answer to it."""
    prompt = prompt_of(checkpoint)
    logits = Session(loaded(checkpoint)[0]).extend(
        prompt + Prompt.from_tokens(tokens[:-1]), logits_from=len(prompt) - 1
    )
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_the_probabilities_are_the_models_own(name: str) -> None:
    """Before the mask and the temperature, and the answer is the same as without them."""
    tokens, chances, session = answered(CONSTRAINTS[name], watched=True, max_tokens=120)
    assert tokens == answered(CONSTRAINTS[name], watched=False, max_tokens=120)[0]
    expected = scores_of(tokens)
    for row, token, chance in zip(expected, tokens, chances, strict=True):
        assert chance.logprob == pytest.approx(row[token], abs=1e-3)
        best = sorted(row, reverse=True)[:2]
        assert [each.logprob for each in chance.alternatives] == pytest.approx(best, abs=1e-3)
    assert session.position == len(prompt_of("released")) + len(tokens) - 1


@pytest.mark.parametrize("most", [1, 2, 64, 65, 66])
def test_forced_tokens_are_cut(most: int) -> None:
    """Within max_tokens, and within the context."""
    tokens, chances, session = answered(CONSTRAINTS["forced"], watched=True, max_tokens=most, checkpoint="demo")
    assert len(tokens) == len(chances) == most
    assert [chance.logprob for chance in chances] == pytest.approx(
        [row[token] for row, token in zip(scores_of(tokens, "demo"), tokens, strict=True)], abs=1e-3
    )
    assert session.position == len(prompt_of("demo")) + most - 1


def test_probabilities_over_http() -> None:
    """Of JSON, and beside calls, which stay bound."""
    schema = {"type": "object", "properties": {"room": {"enum": ["hall", "bath"]}}, "required": ["room"]}
    form = {"type": "json_schema", "json_schema": {"name": "room", "schema": {**schema, "additionalProperties": False}}}
    with serving(model=writing) as server:
        options = {"logprobs": True, "top_logprobs": 1, "max_tokens": 80}
        choice = server.chat(USER, response_format=form, **options).json()["choices"][0]
        tokens = choice["logprobs"]["content"]
        assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
        assert choice["message"]["content"].replace(" ", "") in ('{"room":"hall"}', '{"room":"bath"}')
        assert all(token["logprob"] <= token["top_logprobs"][0]["logprob"] < 0 for token in tokens)
        tool = {"type": "function", "function": {"name": "lights", "parameters": schema}}
        required = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
        (call,) = server.chat(USER, **required, **options).json()["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "lights"
        assert server.chat(USER, tools=[LIGHTS], **options).status == 200


def test_calls_are_bound_beside_probabilities() -> None:
    """Where the model may choose whether to call."""
    with serving(model=writing) as server:
        questions = server.service.questions
        request = {"messages": [USER], "tools": [LIGHTS], "logprobs": True}
        question, _ = questions.prepare(read_chat(write(request)))
        assert question.matcher is not None and question.alternatives == 0
