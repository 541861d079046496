"""What forwards of the 12B cost on this machine, with random weights: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known
from mlx_gemma4.measure.speed.figures import number

SIZE, RECIPE = "12b", "4bit"
ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Rows of a forward that live transcription makes."""
HEAD_ROWS = (1, 8, 32)
"""Rows of a forward that the head reads."""
PREFILL = 128
"""Rows of a forward over a prompt."""
PART = 16
"""On a CPU, one in so many outputs of an MLP matrix is computed."""
PART_ROWS = (1, 8)
SLOW = 5.0
"""Tokens per second; people read faster."""
REMEDY = "Close other programs that use the GPU. If that does not help, use a faster chip."
NO_GPU = "Use a Mac with an M chip for the 12B."


def check(known: Known) -> Findings:
    if known["device"]["device"] == "cpu":
        yield extrapolated(*part())
    else:
        yield measured(whole())


def whole() -> dict[str, Any]:
    """Figures of whole forwards, on a GPU."""
    from mlx_gemma4.measure.speed.forwards import Forwards, sharing_models

    model, few = sharing_models(SIZE, RECIPE)
    for each in (few, model):  # the first one compiles the kernels
        forwards = Forwards(each)
        figures = {
            "rows": {str(count): forwards.rows(count) for count in ROWS},
            "head": {str(count): forwards.head(count) for count in HEAD_ROWS},
            "decode": 1 / forwards.decode(),
            "prefill": PREFILL / forwards.rows(PREFILL),
        }
    return figures


def measured(figures: Mapping[str, Any]) -> Finding:
    """What whole forwards cost."""
    decode, prefill = figures["decode"], figures["prefill"]
    text = (
        f"The 12B with {RECIPE} (random weights, 48 layers that share the weights of six): {number(decode)} tokens/s, "
        f"{number(prefill)} positions/s of a prompt."
    )
    table = [
        ("rows of a forward", *figures["rows"]),
        ("ms", *(f"{1000 * seconds:.0f}" for seconds in figures["rows"].values())),
    ]
    if decode < SLOW:
        return Finding("speed", "warning", text, REMEDY, figures, table)
    return Finding("speed", "ok", text, "", figures, table)


def part() -> tuple[dict[int, float], float, float]:
    """Seconds of a part of a step by rows; the share of the layers' weights that it is, and of the head's."""
    from mlx_gemma4.measure.speed.forwards import part_seconds
    from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

    text = TWELVE_B["text_config"]
    inputs, outputs = text["hidden_size"], text["intermediate_size"] // PART
    matrices = {
        name: prod(shape)
        for name, shape in RandomCheckpoint(SIZE, RECIPE).shapes.items()
        if name.endswith("_proj.weight")
    }
    layers = sum(matrices.values())
    size = inputs * outputs
    return part_seconds(inputs, outputs, PART_ROWS), size / layers, size / (text["vocab_size"] * inputs)


def extrapolated(seconds: Mapping[int, float], of_layers: float, of_head: float) -> Finding:
    """What forwards would cost, by the seconds of a part of one.

    Args:
        seconds: Of the part, by rows.
        of_layers: Its share of the layers' weights.
        of_head: Its share of the head's weights.
    """
    step = seconds[1] / of_layers + seconds[1] / of_head
    figures = {
        "rows": {str(count): each / of_layers for count, each in seconds.items()},
        "head": {str(count): each / of_head for count, each in seconds.items()},
        "decode": 1 / step,
        "share": of_layers,
    }
    text = (
        f"A token of the 12B with {RECIPE} would take about {number(step)} s on this CPU with --dtype float32, by one "
        f"product with {of_layers:.2%} of the weights."
    )
    return Finding("speed", "warning", text, NO_GPU, figures)
