"""The arithmetic of memory, beside what is really allocated."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4 import Session
from mlx_gemma4.decoder.cache import SPARE, Cache
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.memory import (
    LONGEST,
    MARGIN,
    MemoryPlan,
    forward_bytes,
    longest_context,
    plan_memory,
    position_bytes,
    prefill_rows,
)
from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.measure.speed.random_model import random_model

TEXT = Config.from_dict(TWELVE_B).text_config
WEIGHTS = 7_055_409_248
"""Of the 12B at 4 bits."""


def test_the_12b() -> None:
    """0.3 GB in its windows, and 16 KB a position."""
    assert position_bytes(TEXT) == 16_384
    plan = plan_memory(WEIGHTS, TEXT, context=10_000, rows=512, room=0)
    assert plan.sliding == 335_544_320 and plan.positions == 163_840_000
    assert plan.total == WEIGHTS + 335_544_320 + 163_840_000 + plan.forward + MARGIN
    short = plan_memory(WEIGHTS, TEXT, context=100, rows=512, room=512)
    assert short.sliding == 335_544_320 * 100 // 1024
    assert short.forward == plan_memory(WEIGHTS, TEXT, context=100, rows=100, room=512).forward


@pytest.mark.parametrize(("context", "measured"), [(8192, 12.3e9), (32_768, 16.6e9)])
def test_the_peaks_that_were_measured_on_a_gpu(context: int, measured: float) -> None:
    """Prompts of the 12B in chunks of 512, on an H100 through CUDA; buffers that are kept for reuse do not count."""
    plan = plan_memory(WEIGHTS, TEXT, context=context, rows=512, room=768)
    forward = forward_bytes(TEXT, 512, context)
    assert plan.weights + plan.sliding + plan.positions + forward == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("context", [2048, 5120, 20_480])
def test_keys_and_values_that_are_really_allocated(context: int) -> None:
    """Of the 12B's shapes, in chunks of 512; buffers grow in steps, so there is a little more."""
    room = 512
    cache = Cache(TEXT.layers[:6], window=TEXT.sliding_window, room=room)
    text = replace(TEXT, layers=TEXT.layers[:6])
    for _ in range(0, context, 512):
        for config, layer in zip(text.layers, cache.layers, strict=True):
            layer.update_and_fetch(*[mx.zeros((1, config.num_key_value_heads, 512, config.head_dim), mx.bfloat16)] * 2)
    plan = plan_memory(0, text, context=context, rows=512, room=room + SPARE)
    assert plan.sliding + plan.positions == pytest.approx(cache.nbytes, rel=0.1)


def test_a_forward_holds_no_more_than_planned() -> None:
    """On a CPU, where arrays are freed as soon as they were read. In float32, which needs twice as much."""
    model = random_model("small", "bf16")
    model.set_dtype(mx.float32)
    session = Session(model)
    mx.eval(model.parameters())
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    session.extend(np.zeros(512, dtype=np.int32))
    plan = plan_memory(0, model.config.text_config, context=512, rows=512, room=512 + SPARE)
    assert plan.forward / 4 < mx.get_peak_memory() - before - session.nbytes <= 2 * plan.forward


def test_the_longest_context_just_fits() -> None:
    budgets = (11_453_251_584, 13_958_643_712)
    for budget in budgets:
        longest = longest_context(budget, WEIGHTS, TEXT, rows=512, room=768)
        totals = [plan_memory(WEIGHTS, TEXT, context=longest + more, rows=512, room=768).total for more in (0, 1)]
        assert totals[0] <= budget < totals[1]
    assert longest_context(WEIGHTS, WEIGHTS, TEXT, rows=512, room=768) == 0
    assert longest_context(10**12, WEIGHTS, TEXT, rows=512, room=768) == LONGEST
    lengths = [longest_context(budgets[0], WEIGHTS, TEXT, rows=rows, room=768) for rows in (512, 256, 128, 64)]
    assert all(one < two for one, two in pairwise(lengths))


def test_a_forward_has_fewer_rows_in_a_long_context() -> None:
    """512 up to 8,192 positions, then half as many whenever the context doubles; so the plan of a forward stays."""
    starts = (0, 7680, 7681, 16_128, 16_129, 32_640, 65_000, 131_040, 10**6)
    assert [prefill_rows(start, 512) for start in starts] == [512, 512, 256, 256, 128, 128, 64, 32, 32]
    assert prefill_rows(0, 100) == 100
    forwards = {plan_memory(0, TEXT, context=context, rows=512, room=2).forward for context in (8192, 20_000, LONGEST)}
    assert forwards == {forward_bytes(TEXT, 512, 8192)}


def test_what_is_held_at_once_decides() -> None:
    """Of the scores no less than one full layer's."""
    whole, half, none = (forward_bytes(TEXT, 512, 4096, held=held) for held in (1.0, 0.5, 0.0))
    logits = 2 * 3 * TEXT.vocab_size
    assert whole - logits == pytest.approx(2 * (half - logits), abs=1)
    assert none == logits + 3 * 2 * 16 * 512 * 4096


def test_a_plan_adds_up() -> None:
    assert MemoryPlan(1, 2, 3, 4, 5).total == 15
