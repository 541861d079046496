"""The reference implementation's numbers, from the same weights.

The reference checkpoints are random, and such a deep random stack multiplies rounding: the reference's own float32
logits lie up to 0.04 from its float64 ones (``rounding.json``). So the bound is a small multiple of that. On the
trained demo checkpoint, which multiplies rounding little, it is about 1e-4.
"""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import DATA, REFERENCE, Case, demo_prompts, reference_case

from mlx_gemma4 import Session, load
from mlx_gemma4.outputs.steps import generate_step

ROUNDING = json.loads((REFERENCE / "rounding.json").read_text())
DEMO_LOGITS = np.load(DATA / "demo" / "logits.npz")
FIRST_PLAIN_TOKEN = 23  # the reference's greedy tokens leave out the special ones below


def all_logits(checkpoint: str, case: Case) -> np.ndarray:
    model, _ = loaded(checkpoint)
    return np.array(Session(model).extend(case.prompt, logits_from=0))


def test_logits_are_the_references(case: Case) -> None:
    """Every logit of every case, about as near to the reference as the reference is to exact arithmetic."""
    error = np.abs(all_logits(case.checkpoint, case) - case.logits).max()
    assert error < (2 if case.name == "audio" else 4) * ROUNDING[f"{case.checkpoint}-{case.name}"]


def test_tiles_give_the_references_logits(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention in tiles of a few queries: images are cut, and longer than a tile."""
    heads = loaded(case.checkpoint)[0].config.text_config.num_attention_heads
    monkeypatch.setattr("mlx_gemma4.decoder.attention.SCORE_BYTES", 4 * heads * len(case.prompt) * 5)
    monkeypatch.setattr("mlx_gemma4.decoder.masks.SLIDING_ROWS", 7)
    made, attention = [], mx.fast.scaled_dot_product_attention
    monkeypatch.setattr(
        mx.fast,
        "scaled_dot_product_attention",
        lambda q, k, v, **settings: made.append(q.shape[2]) or attention(q, k, v, **settings),
    )
    error = np.abs(all_logits(case.checkpoint, case) - case.logits).max()
    assert error < (2 if case.name == "audio" else 4) * ROUNDING[f"{case.checkpoint}-{case.name}"]
    assert max(made) < len(case.prompt)


@pytest.mark.parametrize("name", ["audio", "image", "both"])
def test_logits_of_the_demo_are_the_references(name: str) -> None:
    """The same on trained weights, for sound, a picture, and both in one sequence, from the reference's float64 logits:
    its own rounding does not count against us."""
    model, processor = loaded("demo")
    logits = Session(model).extend(demo_prompts(processor)[name], logits_from=0)
    assert np.abs(np.array(logits) - DEMO_LOGITS[name]).max() < 4 * ROUNDING[f"demo-{name}"]


def test_the_likeliest_tokens_are_the_references(case: Case) -> None:
    """Top-1 differs at most where the reference's two likeliest are nearer to each other than its rounding."""
    logits = all_logits(case.checkpoint, case)
    ours, theirs = logits.argmax(-1), case.logits.argmax(-1)
    where = np.flatnonzero(ours != theirs)
    lost = case.logits[where, theirs[where]] - case.logits[where, ours[where]]
    assert len(where) <= 0.02 * len(ours)
    assert (lost < 4 * ROUNDING[f"{case.checkpoint}-{case.name}"]).all()


def test_greedy_tokens_are_the_references(case: Case) -> None:
    """The 24 tokens that follow."""
    model, _ = loaded(case.checkpoint)
    session = Session(model)

    def likeliest_plain(logits: mx.array) -> mx.array:
        return mx.argmax(logits[FIRST_PLAIN_TOKEN:]) + FIRST_PLAIN_TOKEN

    tokens = list(generate_step(session, session.extend(case.prompt), likeliest_plain, max_tokens=24))
    assert tokens == case.greedy


@pytest.mark.parametrize("name", ["audio", "image", "both"])
def test_bfloat16_is_as_near_as_the_references(name: str) -> None:
    """In the checkpoint's own precision logits are off by about as much as the reference's are, and tokens that are
    likeliest by more than that stay so."""
    model, processor = load("demo")
    logits = Session(model).extend(demo_prompts(processor)[name], logits_from=0)
    actual, expected = np.array(logits.astype(mx.float32)), DEMO_LOGITS[name]
    rounding = ROUNDING[f"demo-{name}-bfloat16"]
    assert np.abs(actual - expected).max() < 2 * rounding
    second, first = np.sort(expected)[:, -2:].T
    sure = first - second > rounding
    assert (actual.argmax(-1) == expected.argmax(-1))[sure].all()


def test_an_image_attends_inside_itself() -> None:
    """With causal attention alone the image case is off by more than 2."""
    case = reference_case("resaved", "image")
    model, _ = loaded("resaved")
    rows = [
        model.embed_tokens(mx.array(run.token_ids)[None])
        if not run.is_vision[0]
        else model.embed_image(mx.array(run.patches)[None], mx.array(run.patch_xy)[None])
        for run in case.prompt.spans()
    ]
    causal = model.logits(model(mx.concatenate(rows, axis=1), model.make_cache()))[0]
    assert np.abs(np.array(causal) - case.logits).max() > 2
