"""Costs of forwards, measured on models whose layers share weights; and what the doctor makes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4 import Session
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.measure.checks import speed
from mlx_gemma4.measure.checks.speed import extrapolated, measured, part
from mlx_gemma4.measure.speed import random_model
from mlx_gemma4.measure.speed.figures import Repeats, number
from mlx_gemma4.measure.speed.forwards import BEFORE, TOKENS, Forwards, part_seconds, sharing_models

TWELVE = {
    **random_model.SMALL["text_config"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 12,
    "layer_types": TWELVE_B["text_config"]["layer_types"][:12],
    "vocab_size": 512,
}


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> tuple[Model, Model]:
    """Twelve small layers that share the weights of six."""
    monkeypatch.setitem(random_model.SIZES, "twelve", {"text_config": TWELVE, "vision_config": {"mm_embed_dim": 64}})
    return sharing_models("twelve", "bf16")


def test_layers_share_weights(models: tuple[Model, Model]) -> None:
    """Each has the weights of the first layer of its place among six, in the same memory."""
    whole_model, few = models
    layers, own = whole_model.language_model.model.layers, few.language_model.model.layers
    assert (len(layers), len(own)) == (12, 6)
    for index, layer in enumerate(layers):
        pairs = zip(tree_flatten(layer.parameters()), tree_flatten(own[index % 6].parameters()), strict=True)
        assert all(name == other and mx.array_equal(value, same) for (name, value), (other, same) in pairs)
    before = mx.get_active_memory()
    mx.eval(whole_model.parameters())
    assert mx.get_active_memory() - before < 0.1 * sum(value.nbytes for _, value in tree_flatten(few.parameters()))


def test_a_forward_runs_all_layers(models: tuple[Model, Model]) -> None:
    """And gives what twelve layers give: the first six twice."""
    whole_model, few = models
    ids = np.arange(5)
    hidden = []
    for model in (whole_model, few):
        session = Session(model)
        session.extend(ids)
        hidden.append(np.array(session.hidden.astype(mx.float32)))
    assert not np.allclose(*hidden)
    assert len(Session(whole_model)._cache.layers) == 12


class Ticks:
    """A clock that says how often it was asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_what_is_computed(models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without the head, each time after the same positions; tokens with it, one after the other."""
    calls: list[tuple[str, int, int]] = []

    def spy(kind: str, original: Callable[..., Any], session: Session, piece: Any, **options: Any) -> Any:
        calls.append((kind, session.position, 1 if kind == "step" else len(piece)))
        return original(session, piece, **options)

    for kind in ("extend", "step"):
        original = getattr(Session, kind)
        monkeypatch.setattr(Session, kind, lambda *args, k=kind, o=original, **options: spy(k, o, *args, **options))
    heads: list[int] = []
    logits = Model.logits
    monkeypatch.setattr(Model, "logits", lambda self, hidden: heads.append(hidden.shape[1]) or logits(self, hidden))
    forwards = Forwards(models[1], repeats=Repeats(2, patience=100.0, warm_up=100.0), clock=Ticks())
    assert forwards.rows(3) == 1.0  # between the two readings of the clock
    assert calls == [("extend", 0, BEFORE), *[("extend", BEFORE, 3)] * 3]
    heads.clear()
    assert forwards.head(4) == 1.0
    assert heads == [4, 4, 4]
    calls.clear()
    heads.clear()
    assert forwards.decode() == 1.0 / TOKENS
    assert calls == [("extend", BEFORE, 1), *[("step", BEFORE + 1 + index, 1) for index in range(TOKENS)]]
    assert heads == [1] * (TOKENS + 1)


def test_a_part_of_a_product() -> None:
    """The least of three times."""
    assert part_seconds(128, 64, (1, 8), Ticks()) == {1: 1.0, 8: 1.0}


def test_figures_of_whole_forwards(models: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_gemma4.measure.speed.forwards.sharing_models", lambda size, recipe: models)
    monkeypatch.setattr("mlx_gemma4.measure.speed.forwards.REPEATS", Repeats(1, warm_up=0.0))
    monkeypatch.setattr(speed, "PREFILL", 8)
    [found] = speed.check({"device": {"device": "gpu, Apple M1"}})
    assert found.subject == "speed"
    assert [*found.figures] == ["rows", "head", "decode", "prefill"]
    assert [*found.figures["rows"]] == ["1", "2", "4", "8", "16", "32", "64"]
    assert [*found.figures["head"]] == ["1", "8", "32"]
    assert min(found.figures["rows"].values()) > 0 and found.figures["decode"] > 0


@pytest.mark.parametrize(("decode", "verdict"), [(22.46, "ok"), (4.9, "warning")])
def test_whole_forwards_on_paper(decode: float, verdict: str) -> None:
    figures = {"rows": {"1": 0.0445, "2": 0.05, "32": 0.2}, "head": {}, "decode": decode, "prefill": 312.4}
    found = measured(figures)
    assert (found.verdict, found.text) == (
        verdict,
        f"The 12B with 4bit (random weights, 48 layers that share the weights of six): {number(decode)} tokens/s, "
        "312 positions/s of a prompt.",
    )
    remedy = "Close other programs that use the GPU. If that does not help, use a faster chip."
    assert found.remedy == ("" if verdict == "ok" else remedy)
    assert found.table == [("rows of a forward", "1", "2", "32"), ("ms", "44", "50", "200")]


def test_an_extrapolation() -> None:
    """By the shares of the weights: half a percent of the layers takes 0.1 s."""
    found = extrapolated({1: 0.1, 8: 0.8}, 0.005, 0.05)
    assert (found.verdict, found.text, found.remedy) == (
        "warning",
        "A token of the 12B with 4bit would take about 22.0 s on this CPU with --dtype float32, by one product with "
        "0.50% of the weights.",
        "Use a Mac with an M chip for the 12B.",
    )
    assert found.figures == {
        "rows": {"1": pytest.approx(20.0), "8": pytest.approx(160.0)},
        "head": {"1": pytest.approx(2.0), "8": pytest.approx(16.0)},
        "decode": pytest.approx(1 / 22),
        "share": 0.005,
    }


def test_the_part_of_the_12b(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sixteenth of an MLP matrix: 3840 × 960 of 10.9 billion weights."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "mlx_gemma4.measure.speed.forwards.part_seconds", lambda *sizes: asked.append(sizes) or {1: 0.1, 8: 0.2}
    )
    seconds, of_layers, of_head = part()
    assert seconds == {1: 0.1, 8: 0.2} and asked == [(3840, 960, (1, 8))]
    assert 3840 * 960 / of_layers == pytest.approx(10.9e9, rel=0.001)
    assert 3840 * 960 / of_head == 262_144 * 3840
    [found] = speed.check({"device": {"device": "cpu"}})
    assert found == extrapolated(seconds, of_layers, of_head)


def test_repeats_are_short() -> None:
    """What takes long is measured once."""
    from mlx_gemma4.measure.speed.forwards import REPEATS

    clock = Ticks()
    assert REPEATS.collect(partial(clock), clock) == [2.0]
