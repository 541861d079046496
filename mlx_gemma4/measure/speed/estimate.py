"""How long a bench will take, from one matrix: said before it begins, since on a CPU a 12B takes days."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_gemma4.decoder.config import Config
from mlx_gemma4.measure.speed.bench import ROWS, Settings
from mlx_gemma4.measure.speed.figures import Repeats
from mlx_gemma4.measure.speed.peer_script import PATIENCE, RUNS, WARM_UP

LONG = 300.0
"""Seconds of a bench that need a word in advance."""
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


def measure_costs(config: Config, nbytes: int, clock: Callable[[], float] = time.perf_counter) -> Costs:
    """Costs from one matrix, made as the checkpoint stores most of its own. Attention is left out.

    Args:
        nbytes: Bytes that a step reads.
    """
    text, setting = config.text_config, config.quantization
    matrix: nn.Module = nn.Linear(text.hidden_size, text.intermediate_size, bias=False)
    matrix.set_dtype(mx.bfloat16)
    if setting is not None:
        matrix = matrix.to_quantized(**{key: setting[key] for key in ("group_size", "bits", "mode") if key in setting})
    mx.eval(matrix.parameters())
    share = sum(tensor.nbytes for tensor in dict(tree_flatten(matrix.parameters())).values()) / nbytes

    def seconds(rows: int) -> float:
        x = mx.zeros((1, rows, text.hidden_size), dtype=mx.bfloat16)
        mx.eval(matrix(x))  # compiles
        began = clock()
        mx.eval(matrix(x))
        return clock() - began

    return Costs(seconds(1) / share, seconds(MANY) / MANY / share)


def bench_seconds(costs: Costs, settings: Settings) -> float:
    """About how long a bench takes."""
    runs = [costs.of_prefill(count) + settings.tokens * costs.step for count in settings.positions]
    runs += [costs.of_prefill(MEDIA_POSITIONS), *(costs.of_prefill(rows) for rows in ROWS)]
    live = LIVE_STEPS * costs.step + LIVE_POSITIONS * costs.row
    runs += [2 * settings.tokens * costs.step] * 2  # two texts, each without and with drafts
    return sum(_repeated(run, settings.repeats) for run in runs) + 2 * live


def comparison_seconds(costs: Costs, positions: Sequence[int], tokens: int, turns: int) -> float:
    """About how long a comparison takes, if the other program is as fast."""
    runs = [*map(costs.of_prefill, positions), tokens * costs.step, costs.of_prefill(MEDIA_POSITIONS)]
    repeats = Repeats(RUNS, patience=PATIENCE, warm_up=WARM_UP)
    return 2 * turns * sum(_repeated(run, repeats) for run in runs)


def _repeated(run: float, repeats: Repeats) -> float:
    """All repetitions of a run, as ``Repeats.collect`` makes them."""
    total, kept = run, int(run > repeats.warm_up)
    while kept == 0 or (kept < repeats.count and total < repeats.patience):
        total, kept = total + run, kept + 1
    return total


def announcement(costs: Costs, seconds: float) -> str | None:
    """What to say before a bench that takes so long; None if it is short."""
    if seconds < LONG:
        return None
    why = f": one token takes about {duration(costs.step)} on this device" if costs.step >= 1 else ""
    return (
        f"This will take about {duration(seconds)}{why}. Ctrl-C prints what was measured until then; --quick measures "
        "less, --random small a small model."
    )


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h" or "2 days"."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
