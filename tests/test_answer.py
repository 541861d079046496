"""A guess changes how many forwards an answer takes, never the answer."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from golden import heard
from reference_cases import demo_prompts, reference_case

from mlx_gemma4 import Model, Processor, Sampling, Session
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.answer import answer, text_of
from mlx_gemma4.outputs.sample import Sampler

END = 5
"""``<turn|>`` in all checkpoints here."""


class Asked:
    """A session that holds a prompt but for its last token, which is asked again and again."""

    def __init__(self, model: Model, prompt: Prompt) -> None:
        self.session, self.last = Session(model), prompt[-1:]
        self.session.extend(prompt[:-1])
        self.sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
        self.mark = self.session.mark()

    def __call__(self, draft: list[int], *, most: int = 40) -> tuple[list[int], int]:
        """Tokens, and forwards beyond the question's own."""
        self.session.rewind(self.mark)
        before = self.session.forwards
        tokens = answer(self.session, self.last, self.sampler, stop_ids={END}, max_tokens=most, draft=draft)
        return tokens, self.session.forwards - before - 1


@pytest.fixture
def question(demo: tuple[Model, Processor]) -> Asked:
    """The prompt with a recording, before the demo."""
    model, processor = demo
    return Asked(model, demo_prompts(processor)["audio"])


def test_the_right_guess_costs_one_forward(question: Asked) -> None:
    """However long the answer."""
    tokens, forwards = question([])
    assert tokens == heard("hibari-03.wav", "short").tokens
    assert forwards == len(tokens) - 1
    assert question(tokens) == (tokens, 0)


def test_a_guess_is_kept_as_far_as_it_is_right(demo: tuple[Model, Processor], question: Asked) -> None:
    """One wrong token somewhere, or an end too early: the same answer, and a forward for each token after it."""
    tokens = heard("hibari-03.wav", "short").tokens
    for kept, token in enumerate(tokens):
        for wrong in {demo[0].config.text_config.vocab_size - 1, END} - {token}:
            draft = [*tokens[:kept], wrong, *tokens[kept + 1 :]]
            assert question(draft) == (tokens, len(tokens) - kept - 1)


def test_any_guess_gives_the_same_answer(released: tuple[Model, Processor]) -> None:
    """Random drafts on a random model, beyond its window."""
    model, _ = released
    asked = Asked(model, reference_case("released", "text").prompt)
    random = np.random.default_rng(0)
    expected, _ = asked([])
    for _ in range(10):
        kept, rest = int(random.integers(0, 40)), random.integers(0, 371, 10).tolist()
        assert asked([*expected[:kept], *rest])[0] == expected


def test_the_limit_holds_with_and_without_a_guess(question: Asked) -> None:
    tokens, _ = question([])
    for draft in ([], tokens, tokens[:3]):
        assert question(draft, most=2)[0] == tokens[:2]
        assert question(draft, most=len(tokens) - 1)[0] == tokens[:-1]
        assert question(draft, most=1)[0] == tokens[:1]


def test_a_loop_ends_the_answer(
    demo: tuple[Model, Processor], question: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that says the same for ever is stopped, in a guess as well."""
    assert demo[1].tokenizer.token_id("<turn|>") == END
    monkeypatch.setattr(Sampler, "choose", lambda self, logits, *others: mx.full((len(logits),), 30))
    for draft in ([], [30] * 30):
        assert question(draft)[0] == [30] * 16


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
