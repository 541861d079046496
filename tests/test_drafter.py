"""Drafters: the reference's numbers, the same text whatever is drafted, and what cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from conftest import loaded
from drafters import Known, eager, random_model
from golden import answered, heard, seen
from reference_cases import CASES, REFERENCE, media_file, picture_prompt, reference_case, speech_prompt, turn_content

from mlx_gemma4 import Model, Processor, Sampling, Session, load, stream_generate
from mlx_gemma4.cli import main
from mlx_gemma4.decoder.drafter import Shared
from mlx_gemma4.outputs.drafter import Drafter, draft_tokens, load_drafter
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step

DRAFTERS = ("drafter", "drafter-ordered")
ROUNDING = 1e-3, 1e-3, 0.02, 0.1
"""Of each step's logits: a step continues from the rounding of the last one, and random weights amplify it."""


@pytest.fixture(scope="module")
def drafters() -> dict[str, Drafter]:
    return {name: load_drafter(REFERENCE / name / "checkpoint", dtype="float32") for name in DRAFTERS}


@pytest.mark.parametrize("prompt", ["short", "past-window"])
@pytest.mark.parametrize("name", DRAFTERS)
def test_drafts_are_those_of_the_reference(drafters: dict[str, Drafter], name: str, prompt: str) -> None:
    """Tokens are equal, logits to rounding; behind the window too, where sliding layers see a part."""
    model, _ = loaded("resaved")
    drafter = drafters[name].model
    assert drafter is not None
    expected = np.load(REFERENCE / name / "drafts.npz")
    session = Session(model)
    session.extend(expected[f"{prompt}_ids"])
    first = int(expected[f"{prompt}_first"])
    assert draft_tokens(drafter, session, mx.array([first]), 4).tolist() == expected[f"{prompt}_drafted"].tolist()

    hidden, shared = session.hidden, {kind: Shared(seen, session.position) for kind, seen in session.shared().items()}
    tokens = [first, *expected[f"{prompt}_drafted"][:3].tolist()]
    for token, row, rounding in zip(tokens, expected[f"{prompt}_logits"], ROUNDING, strict=True):
        state, hidden = drafter(model.embed_tokens(mx.array([[token]])), hidden, shared)
        logits, ids = (np.array(each) for each in drafter.logits(state[0, -1]))
        assert np.abs(row[ids] - logits).max() < rounding
        left_out = np.setdiff1d(np.arange(371), ids)
        assert (row[left_out] < logits.min()).all()


@pytest.mark.parametrize("name", DRAFTERS)
def test_a_converted_drafter_drafts_the_same(name: str, tmp_path: Path) -> None:
    """In 8 bits, behind a prompt whose drafts are clear."""
    source, out = str(REFERENCE / name / "checkpoint"), str(tmp_path / "out")
    convert = ["convert", "--hf-path", source, "--mlx-path", out, "-q", "--q-bits", "8", "--q-group-size", "32"]
    assert main([*convert, "--q-module", "model.embed_tokens=none"]) in (0, None)
    drafter = load_drafter(tmp_path / "out", dtype="float32")
    assert drafter.model is not None and isinstance(drafter.model.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    model, _ = loaded("resaved")
    expected = np.load(REFERENCE / name / "drafts.npz")
    session = Session(model)
    session.extend(expected["short_ids"])
    drafted = draft_tokens(drafter.model, session, mx.array([int(expected["short_first"])]), 4)
    assert drafted.tolist() == expected["short_drafted"].tolist()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", DRAFTERS)
def test_the_reference_text_with_a_drafter(drafters: dict[str, Drafter], name: str, case: str) -> None:
    """Behind text, images, sound and video, beyond the window: the reference's greedy tokens."""
    model, _ = loaded("resaved")
    known = reference_case("resaved", case)
    session = Session(model)
    drafter = eager(drafters[name].model, seed=len(case))
    sampler = Sampler(Sampling(), 371, suppress=range(23))
    steps = generate_step(
        session,
        session.extend(known.prompt),
        sampler,
        max_tokens=24,
        drafts=drafter.begin(session, known.prompt.token_ids, range(23)),
    )
    assert list(steps) == known.greedy
    assert session.position == len(known.prompt) + 23
    assert drafter.drafted > 24


@pytest.mark.parametrize("centroids", [None, 8])
def test_the_demo_says_the_same_with_a_drafter(demo: tuple[Model, Processor], centroids: int | None) -> None:
    """A recording, a picture, and a spoken question about one; with n-grams and random drafts of every length."""
    model, processor = demo
    drafter = eager(random_model(model, centroids=centroids))
    turn = processor.prompt([{"role": "user", "content": turn_content("question")}])
    for prompt, answer in (
        (speech_prompt(processor, media_file("hibari-03.wav")), heard("hibari-03.wav", "short")),
        (picture_prompt(processor, "picture-01.png"), seen("picture-01.png")),
        (turn, answered("question")),
    ):
        pieces = stream_generate(model, processor, prompt, max_tokens=len(answer.tokens), drafter=drafter)
        assert [token for piece in pieces for token in piece.tokens] == answer.tokens
    assert drafter.drafted > 10


def test_a_seed_gives_the_same_answer_with_drafts(released: tuple[Model, Processor]) -> None:
    """Sampled tokens do not depend on how many were drafted."""
    model, processor = released
    prompt = reference_case("released", "text").prompt
    sampling = Sampling(temperature=1.5, top_k=40, top_p=0.95, repetition_penalty=1.1, seed=11)
    answers = []
    for drafter in (None, eager(random_model(model)), eager(seed=2)):
        pieces = stream_generate(model, processor, prompt, max_tokens=60, sampling=sampling, drafter=drafter)
        answers.append([token for piece in pieces for token in piece.tokens])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_forwards_per_token(right: float) -> None:
    """A round of k drafts gives 1 + a + … + a^k tokens, where each is right with a probability of a."""
    model, _ = loaded("resaved")
    prompt = reference_case("resaved", "text").prompt
    session = Session(model)
    count, length = 200, 3

    def steps(drafts: Known | None) -> list[int]:
        session.reset()
        logits = session.extend(prompt)
        return list(generate_step(session, logits, Sampler(Sampling(), 371), max_tokens=count, drafts=drafts))  # type: ignore[arg-type]

    expected = steps(None)
    before = session.forwards
    assert steps(Known(expected, length, right, seed=1)) == expected
    forwards = session.forwards - before - 1
    tokens_a_round = sum(right**power for power in range(length + 1))
    if right == 0.5:
        assert forwards == pytest.approx((count - 1) / tokens_a_round, rel=0.12)
    else:
        assert forwards == -(-(count - 1) // tokens_a_round)


def test_sampled_tokens_have_their_distribution() -> None:
    """A chain of 6 states, 20,000 tokens, drafts of any 2: the transitions pass a chi-square test."""
    table = np.random.default_rng(5).normal(size=(6, 6)).astype(np.float32)

    class Chain:
        position, context = 0, None

        def step(self, tokens: mx.array, *, logits_from: int = 0) -> mx.array:
            self.position += tokens.size
            assert logits_from == 0
            return mx.array(table)[tokens]

        def rewind(self, position: int) -> None:
            self.position = position

    chain = Chain()
    sampler = Sampler(Sampling(temperature=1.0, seed=1), 6)
    drafts = Known(np.random.default_rng(6).integers(0, 6, 20_000).tolist(), 2)
    tokens = np.array([*generate_step(chain, chain.step(mx.array(0)), sampler, max_tokens=20_000, drafts=drafts)])  # type: ignore[arg-type]
    counts = np.zeros((6, 6))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    weights = np.exp(table)
    expected = counts.sum(1, keepdims=True) * weights / weights.sum(1, keepdims=True)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 59.7  # 30 degrees of freedom, 99.9 %


@pytest.mark.parametrize("taken", [1, 2, 5, 6, 9])
def test_a_closed_generator_leaves_all_tokens_but_the_last(released: tuple[Model, Processor], taken: int) -> None:
    """Inside a round too; the session then goes on as one without drafts."""
    model, _ = released
    prompt = reference_case("released", "text").prompt
    plain, session = Session(model), Session(model)
    expected = list(generate_step(plain, plain.extend(prompt), Sampler(Sampling(), 371), max_tokens=20))
    steps = generate_step(
        session, session.extend(prompt), Sampler(Sampling(), 371), max_tokens=20, drafts=Known(expected, 4)
    )  # type: ignore[arg-type]
    assert [next(steps) for _ in range(taken)] == expected[:taken]
    steps.close()
    assert session.position == len(prompt) + taken - 1
    plain.rewind(len(prompt))
    for token in expected[: taken - 1]:
        plain.step(mx.array(token))
    probe = np.array(session.extend([40]))
    np.testing.assert_allclose(probe, np.array(plain.extend([40])), atol=1e-4)


def test_a_session_with_little_room_drafts_little(released: tuple[Model, Processor]) -> None:
    """Beyond the window, only as much can be drafted as can be rewound."""
    model, _ = released
    prompt = reference_case("released", "text").prompt
    plain = Session(model)
    expected = list(generate_step(plain, plain.extend(prompt), Sampler(Sampling(), 371), max_tokens=30))
    for room in (2, 3, 5):
        session, drafter = Session(model, room=room), eager(random_model(model))
        drafts = drafter.begin(session, prompt.token_ids)
        steps = generate_step(session, session.extend(prompt), Sampler(Sampling(), 371), max_tokens=30, drafts=drafts)
        assert list(steps) == expected
        assert (drafter.drafted > 0) == (room > 2)


def test_what_is_no_drafter(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    """Each is refused with the way out."""
    model, processor = demo
    with pytest.raises(ValueError, match=r"^There is nothing to draft from: give a drafter's model, or allow n-grams$"):
        Drafter(ngrams=False)
    with pytest.raises(ValueError, match=r"Expected a drafter \(model_type gemma4_unified_assistant\), got 'gemma4"):
        load_drafter("demo")
    with pytest.raises(ValueError, match=r"There is no drafter: .*config\.json does not exist"):
        load_drafter(tmp_path)
    with pytest.raises(ValueError, match="Expected a dtype of bfloat16, float16, float32, got 'int8'"):
        load_drafter("demo", dtype="int8")
    message = "This is a drafter, which runs beside a model: name the model with --model, and this with --draft-model"
    with pytest.raises(ValueError, match=message):
        load(REFERENCE / "drafter" / "checkpoint")
    other = load_drafter(REFERENCE / "drafter" / "checkpoint")
    message = "^The drafter was made for another model: its hidden_size is 64, the model's .*; use the drafter of this"
    with pytest.raises(ValueError, match=message):
        next(stream_generate(model, processor, "Hello", drafter=other))


def test_a_damaged_drafter(tmp_path: Path) -> None:
    """Ids beyond the vocabulary, layers with keys of their own, clusters that do not divide it."""
    source = REFERENCE / "drafter-ordered" / "checkpoint"
    weights = mx.load(str(source / "model.safetensors"))
    assert isinstance(weights, dict)
    weights["masked_embedding.token_ordering"] = weights["masked_embedding.token_ordering"] + 1
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    shutil.copy(source / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"Expected token ids from 0 to 370 in masked_embedding.token_ordering in"):
        load_drafter(tmp_path)
    raw = json.loads((source / "config.json").read_text())
    for change, message in (
        ({"num_centroids": 8}, "The vocabulary of 371 cannot be divided into 8 clusters"),
        (
            {"text_config": raw["text_config"] | {"num_kv_shared_layers": 2}},
            "whose 4 layers all share the model",
        ),
        ({"text_config": raw["text_config"] | {"hidden_size": 48}}, "The tensors in .* do not fit its config.json"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(raw | change))
        with pytest.raises(ValueError, match=message):
            load_drafter(tmp_path)
