"""The arithmetic of memory, beside what is really allocated."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from mlx.utils import tree_flatten

from mlx_gemma4 import Model, Session
from mlx_gemma4.decoder.cache import Cache
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.memory import (
    AHEAD_BYTES,
    LONGEST,
    MARGIN,
    MOST_GROWTH,
    SPARE,
    MemoryPlan,
    Needs,
    Use,
    forward_bytes,
    full_positions,
    longest_context,
    plan_memory,
    position_bytes,
    row_bytes,
)
from mlx_gemma4.decoder.stored import part_widths
from mlx_gemma4.decoder.twelve_b import TWELVE_B

TEXT = Config.from_dict(TWELVE_B).text_config
WEIGHTS = 7_055_409_248
"""Of the 12B at 4 bits."""
NEEDS = Needs(TEXT, WEIGHTS)
S, F = "sliding_attention", "full_attention"


def test_the_12b() -> None:
    """0.3 GB in its windows, and 10 KB a position; a quarter, and a scale and a bias for each 64 numbers, in 4 bits."""
    assert (position_bytes(TEXT), position_bytes(TEXT, 4), position_bytes(TEXT, 2, 4)) == (10_240, 20_480, 2_880)
    plan = plan_memory(NEEDS, Use(room=512), 10_000)
    assert plan.sliding == 327_680 * (1023 + 512 + SPARE) and plan.positions == 10_240 * full_positions(10_000)
    assert plan.total == WEIGHTS + plan.sliding + plan.positions + plan.forward + MARGIN
    short = plan_memory(NEEDS, Use(room=512), 100)
    assert short.sliding == 327_680 * 256 and short.positions == 10_240 * 256
    assert short.forward == forward_bytes(NEEDS, 100, 100, 512)
    # while a prompt is computed, a chunk stands beside its window
    assert plan_memory(NEEDS, Use(room=2), 10_000).sliding == 327_680 * (1023 + 512)


@pytest.mark.parametrize("is_ahead", [False, True])
def test_the_forward_of_the_12b_is_flat(is_ahead: bool) -> None:
    """About 1 GB at any length: scores are cut into tiles, and MLX waits. The rest are the buffers that move."""
    needs = replace(NEEDS, is_ahead=is_ahead)
    sizes = [forward_bytes(needs, 512, context, 512) for context in (1024, 8192, 32_768, LONGEST)]
    assert sizes == sorted(sizes) and sizes[-1] < 1.1e9
    if is_ahead:
        assert sizes[0] > AHEAD_BYTES and sizes[-1] - sizes[0] < 0.4e9


@pytest.mark.parametrize(("room", "bits"), [(2, None), (512, None), (2, 8), (512, 4)])
@pytest.mark.parametrize("context", [300, 2048, 5120, 20_480])
def test_keys_and_values_that_are_really_allocated(context: int, room: int, bits: int | None) -> None:
    """Of the 12B's shapes, in chunks of 512: to the last byte."""
    text = replace(TEXT, layers=TEXT.layers[:6])
    cache = Cache(text.layers, window=text.sliding_window, room=room, kv_bits=bits)
    for start in range(0, context, 512):
        length = min(512, context - start)
        for config, layer in zip(text.layers, cache.layers, strict=True):
            widths = part_widths(config, text.rope[config.layer_type])
            layer.update_and_fetch(
                *(mx.zeros((1, config.num_key_value_heads, length, width), mx.bfloat16) for width in widths)
            )
    assert plan_memory(Needs(text, 0, kv_bits=bits), Use(room=room), context).state == cache.nbytes


def test_buffers_of_full_layers_grow_by_a_bounded_step() -> None:
    lengths = [length + 1 for length in range(0, LONGEST, 4096)]
    assert all(full_positions(length) - length < min(256 + length // 4, 256 + MOST_GROWTH) for length in lengths)
    assert full_positions(0) == 0


def test_the_rows_of_a_batch_that_are_really_allocated() -> None:
    """Three sequences side by side."""
    model = loaded("released")[0]
    text, session = model.config.text_config, Session(model)
    cache = model.make_batch_cache()
    session.extend([5] * 100)
    for row in range(3):
        cache.put(session.held(), row)
    planned = row_bytes(Needs(text, 0, number=4), 100)
    assert cache.nbytes == 3 * planned


def shaped(types: list[str], **sizes: int) -> Config:
    """A small model in the 12B's arrangement."""
    small = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "head_dim": 32,
        "num_key_value_heads": 2,
        "global_head_dim": 64,
        "vocab_size": 64,
        "sliding_window": 64,
    }
    layers = {"layer_types": types, "num_hidden_layers": len(types)}
    text = {**TWELVE_B["text_config"], **small, **layers, **sizes}
    return Config.from_dict({**TWELVE_B, "text_config": text, "vision_config": None, "audio_config": None})


def peak(model: Model, context: int, room: int) -> int:
    """MLX's peak while a prompt is computed, beside what is there already."""
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    Session(model, room=room).extend(np.zeros(context, dtype=np.int32))
    return mx.get_peak_memory() - before


CASES: list[tuple[str, dict[str, Any]]] = [
    ("float32", {"context": 1024}),
    ("float32", {"context": 1536, "room": 512}),
    ("float32", {"context": 300}),
    ("float32", {"context": 1024, "types": [F] * 4}),
    ("float32", {"context": 1024, "intermediate_size": 1024}),
    ("float32", {"context": 1024, "num_attention_heads": 8}),
    ("float32", {"context": 1024, "sliding_window": 256, "room": 512}),
    ("bfloat16", {"context": 1024}),
    ("bfloat16", {"context": 1024, "intermediate_size": 1024}),
    ("demo", {"context": 512}),
]


@pytest.mark.skipif(sys.platform != "linux" or mx.default_device().type == mx.gpu, reason="arrays of a CPU on Linux")
@pytest.mark.parametrize(("what", "case"), CASES)
def test_the_peak_is_the_plans(what: str, case: dict[str, Any]) -> None:
    """Within 5 %, without the margin. How far MLX computes ahead depends on the machine: one of three tries decides."""
    case = {"types": [S, F, S, S], "room": 2, **case}
    context, room = case.pop("context"), case.pop("room")
    if what == "demo":
        model = loaded("demo")[0]
    else:
        model = Model(shaped(**case))
        model.set_dtype(getattr(mx, what))
        mx.eval(model.parameters())
    weights = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    needs = Needs(model.config.text_config, weights, number=model.dtype.size, is_ahead=False)
    planned = plan_memory(needs, Use(room=room), context).computing
    tries = (weights + peak(model, context, room) for _ in range(3))
    assert any(planned == pytest.approx(measured, rel=0.05) for measured in tries)


def test_the_longest_context_just_fits() -> None:
    use = Use()
    for budget in (9_000_000_000, 9_500_000_000):
        longest = longest_context(budget, NEEDS, use)
        totals = [plan_memory(NEEDS, use, longest + more).total for more in (0, 1)]
        assert 0 < longest < LONGEST and totals[0] <= budget < totals[1]
    assert longest_context(WEIGHTS, NEEDS, use) == 0
    assert longest_context(10**12, NEEDS, use) == LONGEST
    assert longest_context(10**12, NEEDS, use, 4096) == 4096
    bits = [longest_context(9_000_000_000, replace(NEEDS, kv_bits=bits), use, 10**6) for bits in (None, 8, 4)]
    assert bits == sorted(bits) and len(set(bits)) == 3


def test_a_plan_adds_up() -> None:
    plan = MemoryPlan(weights=1, sliding=2, positions=3, forward=4, snapshots=5, loading=6, margin=7)
    assert (plan.state, plan.computing, plan.total) == (5, 15, 22)
    assert sum(plan.parts.values()) == plan.total
    assert "converting them" not in plan.parts
    loading = replace(plan, loading=20)
    assert (loading.computing, loading.total) == (21, 28)
    assert loading.parts == {"weights": 1, "converting them": 20, "the program": 7}
