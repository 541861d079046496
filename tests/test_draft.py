"""A guess changes how many forwards an answer takes, never the answer."""

from __future__ import annotations

import numpy as np
import pytest
from golden import heard
from reference_cases import demo_prompts, reference_case

from mlx_gemma4 import Model, Processor, Sampling, Session
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.draft import answer, text_of
from mlx_gemma4.outputs.sample import Sampler

END = 5
"""``<turn|>`` in all checkpoints here."""


def answered(model: Model, prompt: Prompt, draft: list[int], *, most: int = 40) -> tuple[list[int], int]:
    """Tokens, and forwards beyond the question's own."""
    session = Session(model)
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    tokens = answer(session, prompt, sampler, stop_ids={END}, max_tokens=most, draft=draft)
    return tokens, session.forwards - 1


def test_the_right_guess_costs_one_forward(demo: tuple[Model, Processor]) -> None:
    """However long the answer."""
    model, processor = demo
    prompt = demo_prompts(processor)["audio"]
    tokens, forwards = answered(model, prompt, [])
    assert tokens == heard("hibari-03.wav", "short").tokens
    assert forwards == len(tokens) - 1
    assert answered(model, prompt, tokens) == (tokens, 0)


@pytest.mark.parametrize("kept", range(len(heard("hibari-03.wav", "short").tokens)))
def test_a_guess_is_kept_as_far_as_it_is_right(demo: tuple[Model, Processor], kept: int) -> None:
    """One wrong token somewhere, or an end too early: the same answer, and a forward for each token after it."""
    model, processor = demo
    prompt = demo_prompts(processor)["audio"]
    tokens, _ = answered(model, prompt, [])
    for wrong in (model.config.text_config.vocab_size - 1, END):
        if tokens[kept] == wrong:
            continue
        draft = [*tokens[:kept], wrong, *tokens[kept + 1 :]]
        assert answered(model, prompt, draft) == (tokens, len(tokens) - kept - 1)


def test_any_guess_gives_the_same_answer(released: tuple[Model, Processor]) -> None:
    """Random drafts on a random model, beyond its window."""
    model, _ = released
    prompt = reference_case("released", "text").prompt
    random = np.random.default_rng(0)
    expected, _ = answered(model, prompt, [])
    for _ in range(20):
        kept, rest = int(random.integers(0, 40)), random.integers(0, 371, 10).tolist()
        assert answered(model, prompt, [*expected[:kept], *rest])[0] == expected


def test_the_limit_holds_with_and_without_a_guess(demo: tuple[Model, Processor]) -> None:
    model, processor = demo
    prompt = demo_prompts(processor)["audio"]
    tokens, _ = answered(model, prompt, [])
    for draft in ([], tokens, tokens[:3]):
        assert answered(model, prompt, draft, most=2)[0] == tokens[:2]
        assert answered(model, prompt, draft, most=len(tokens) - 1)[0] == tokens[:-1]
        assert answered(model, prompt, draft, most=1)[0] == tokens[:1]


def test_a_loop_ends_the_answer(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that says the same for ever is stopped, in a guess as well."""
    model, processor = demo
    assert processor.tokenizer.token_id("<turn|>") == END
    monkeypatch.setattr(Sampler, "greedy", lambda self, logits: [30] * logits.shape[0])
    prompt = demo_prompts(processor)["audio"]
    for draft in ([], [30] * 30):
        assert answered(model, prompt, draft)[0] == [30] * 16


@pytest.mark.parametrize(
    ("opened", "text"),
    [
        ("", "<|channel>thought\nhm<channel|>It is noon."),
        ("<|channel>thought\n", "hm<channel|>It is noon."),
        ("", "It is<|tool_call>call:f{}<tool_call|> noon."),
    ],
)
def test_only_what_is_said_is_text(released: tuple[Model, Processor], opened: str, text: str) -> None:
    """No thoughts, whoever opens them, and no calls."""
    _, processor = released
    question = processor.markup(f"<|turn>user\ntime?<turn|>\n<|turn>model\n{opened}")
    assert text_of(processor.tokenizer.encode_markup(f"{text}<turn|>"), processor, question) == "It is noon."
