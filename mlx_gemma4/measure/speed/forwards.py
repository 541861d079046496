"""What forwards of a large model cost on this machine, in little memory and time.

On a GPU all layers run, but they share the weights of the first six. Each layer still reads its weights from memory, as
its own would be read: six layers of the 12B have 0.8 GB, more than the caches of a chip hold.

    weights   s s s s s F
    layers    s s s s s F s s s s s F s s s s s F …       s sliding, F full

On a CPU a quantized step of the 12B takes minutes, so a part of one matrix is multiplied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.weights import build_model
from mlx_gemma4.measure.speed.figures import Repeats
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import generate_step
from mlx_gemma4.session import Session

LAYERS = 6
"""Layers that have weights of their own: five sliding ones and a full one."""
BEFORE = 64
"""Positions before what is measured."""
TOKENS = 8
"""Tokens that are decoded."""
PART_REPEATS = 3

Clock = Callable[[], float]
REPEATS = Repeats(3, patience=1.0, warm_up=0.3)
"""What takes long is measured once: kernels were compiled by a smaller model before."""


def sharing_models(size: str, recipe: str, layers: int = LAYERS) -> tuple[Model, Model]:
    """A model of random weights whose layers share those of its first ones, and a model of the first ones alone."""
    few = RandomCheckpoint(size, recipe, layers).model()
    config = RandomCheckpoint(size, recipe).config
    count = len(config.text_config.layers)
    weights: dict[str, mx.array] = {}
    for name, value in dict[str, mx.array](tree_flatten(few.parameters())).items():
        before, is_layer, after = name.partition(".layers.")
        if is_layer:
            first, _, rest = after.partition(".")
            weights |= {f"{before}.layers.{index}.{rest}": value for index in range(int(first), count, layers)}
        else:
            weights[name] = value
    return build_model(config, weights), few


class Forwards:
    """Measures forwards of a model."""

    def __init__(self, model: Model, *, repeats: Repeats = REPEATS, clock: Clock = time.perf_counter) -> None:
        self._model, self._repeats, self._clock = model, repeats, clock
        self._session = Session(model)
        self._session.extend(np.zeros(BEFORE, dtype=np.int32))
        self._mark = self._session.mark()

    def rows(self, count: int) -> float:
        """Seconds of a forward over so many rows, without the head."""
        rows = np.zeros(count, dtype=np.int32)

        def run() -> None:
            self._session.extend(rows)
            self._session.rewind(self._mark)

        return self._seconds(run)

    def head(self, count: int) -> float:
        """Seconds of the head over so many rows."""
        config = self._model.config.text_config
        hidden = mx.ones((1, count, config.hidden_size), dtype=self._model.dtype)
        return self._seconds(lambda: mx.eval(self._model.logits(hidden)))

    def decode(self) -> float:
        """Seconds of a token, pipelined as an answer is."""
        sampler = Sampler(Sampling(), self._model.config.text_config.vocab_size)
        logits = self._session.extend(np.zeros(1, dtype=np.int32))
        steps = generate_step(self._session, logits, sampler, max_tokens=TOKENS + 1)
        next(steps)
        began = self._clock()
        for _ in steps:
            pass
        seconds = self._clock() - began
        self._session.rewind(self._mark)
        return seconds / TOKENS

    def _seconds(self, run: Callable[[], None]) -> float:
        return median(self._repeats.collect(lambda: _timed(run, self._clock), self._clock))


def part_seconds(inputs: int, outputs: int, rows: Sequence[int], clock: Clock = time.process_time) -> dict[int, float]:
    """Seconds of a product with a matrix of 4 bits in float32, by rows of what it is multiplied with: the least of
    several.

    On a CPU, MLX multiplies in one thread, and in float32 several times as fast as in bfloat16.
    """
    linear = nn.QuantizedLinear(inputs, outputs, bias=False, group_size=64, bits=4)
    mx.eval(linear.parameters())
    found = {}
    for count in rows:
        x = mx.ones((count, inputs))
        mx.eval(x)
        found[count] = min(_timed(partial(_compute, linear, x), clock) for _ in range(PART_REPEATS))
    return found


def _compute(linear: nn.Module, x: mx.array) -> None:
    mx.eval(linear(x))


def _timed(run: Callable[[], None], clock: Clock) -> float:
    began = clock()
    run()
    return clock() - began
