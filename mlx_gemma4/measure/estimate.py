"""How long a bench will take, from one matrix: said before it begins, since on a CPU a 12B takes days."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.measure.bandwidth import bytes_read_per_token
from mlx_gemma4.measure.bench import ROWS, Settings

MANY = 16
"""Rows of a product that is bound by computing."""
MEDIA_POSITIONS = 22 + 280 + 266
LIVE_STEPS, LIVE_POSITIONS = 130, 500
"""Forwards and positions of a live transcription."""


@dataclass(frozen=True)
class Costs:
    """Seconds that a forward takes."""

    step: float
    """One row."""
    row: float
    """Each of many rows."""

    def of_prefill(self, positions: int) -> float:
        return self.step + self.row * positions


def measure_costs(model: Model, clock: Callable[[], float] = time.perf_counter) -> Costs:
    """Costs from one matrix of the model, by its share of all bytes. Attention is left out."""
    matrix = model.language_model.model.layers[0].mlp.up_proj
    nbytes = sum(tensor.nbytes for tensor in dict(tree_flatten(matrix.parameters())).values())
    width = model.config.text_config.hidden_size

    def seconds(rows: int) -> float:
        x = mx.zeros((1, rows, width), dtype=model.dtype)
        mx.eval(x, matrix(x))  # compiles
        began = clock()
        mx.eval(matrix(x))
        return clock() - began

    share = nbytes / bytes_read_per_token(model)
    return Costs(seconds(1) / share, seconds(MANY) / MANY / share)


def bench_seconds(costs: Costs, settings: Settings) -> float:
    """About how long a bench takes."""
    runs = [costs.of_prefill(count) + settings.tokens * costs.step for count in settings.positions]
    runs += [costs.of_prefill(MEDIA_POSITIONS), *(costs.of_prefill(rows) for rows in ROWS)]
    live = LIVE_STEPS * costs.step + LIVE_POSITIONS * costs.row
    drafts = 4 * (1 + settings.repeats.count) * settings.tokens * costs.step
    return sum(_repeated(run, settings) for run in runs) + drafts + 2 * live


def _repeated(run: float, settings: Settings) -> float:
    """All repetitions of a run, as ``Repeats.collect`` makes them."""
    repeats = settings.repeats
    total, kept = run, int(run > repeats.warm_up)
    while kept == 0 or (kept < repeats.count and total < repeats.patience):
        total, kept = total + run, kept + 1
    return total


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h" or "2 days"."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
