"""The error of each module alone: every module of a model gets the input of its counterpart in the reference.

         ┌─▶ reference module ─▶ A(x) ─▶ on to the next module
    x ───┤                        │ relative error
         └─▶ model's module ───▶ B(x)   goes nowhere

So no module is blamed for the errors of the modules before it.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

COMPARED = (nn.Linear, nn.Embedding, nn.QuantizedEmbedding)

ROWS = 128
"""Rows of a sequence on which modules are compared, at most; evenly spaced. For a mean, a sample is enough."""


class RelativeError:
    """Square root of the mean over rows of ‖a − b‖² / ‖b‖², where b is the reference's row.

    Each row is divided by its own norm, because one row (the first token's) can be a thousand times as long as the
    others.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._rows = 0

    def add(self, got: mx.array, expected: mx.array) -> None:
        """Add rows [..., D]. Rows whose reference is zero, as in digital silence, are left out."""
        target = expected.astype(mx.float32)
        difference = mx.square(got.astype(mx.float32) - target).sum(axis=-1)
        squares = np.array([difference.flatten(), mx.square(target).sum(axis=-1).flatten()], dtype=np.float64)
        squares = squares[:, squares[1] != 0]
        self._sum += float((squares[0] / squares[1]).sum())
        self._rows += squares.shape[1]

    @property
    def value(self) -> float | None:
        """None if no row was counted."""
        return float(np.sqrt(self._sum / self._rows)) if self._rows else None


class Twin(nn.Module):
    """Replaces a reference module: returns its output, and measures the error of the other module on the same input."""

    def __init__(self, reference: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.reference = reference
        self.model = model
        self.error = RelativeError()

    def __call__(self, x: mx.array) -> mx.array:
        expected = self.reference(x)
        sample = slice(None, None, -(-x.shape[1] // ROWS))
        rows = x[:, sample]
        if not mx.issubdtype(x.dtype, mx.integer):  # token ids are compared by their embeddings only
            rows = rows.astype(self.model.weight.dtype)
        self.error.add(self.model(rows), expected[:, sample])
        return expected


def pair_up(reference: nn.Module, model: nn.Module) -> dict[str, RelativeError]:
    """Replace the modules of ``reference`` that both models have by twins. Returns their errors by module name."""
    others = dict(_leaves(model))
    twins = {
        name: Twin(module, others[name])
        for name, module in _leaves(reference)
        if isinstance(module, COMPARED) and name in others
    }
    _replace(reference, twins)
    return {name: twin.error for name, twin in twins.items()}


def dequantize(module: nn.Module, dtype: mx.Dtype) -> None:
    """Replace quantized linear modules by plain ones with the same weights.

    With hundreds of rows the kernel of a quantized product would dequantize its tiles anyway. Without Metal the
    quantized product is twenty times slower.
    """
    quantized = {name: leaf for name, leaf in _leaves(module) if isinstance(leaf, nn.QuantizedLinear)}
    _replace(module, {name: _plain(leaf, dtype) for name, leaf in quantized.items()})


def _plain(linear: Any, dtype: mx.Dtype) -> nn.Linear:
    plain = nn.Linear(1, 1, bias=False)
    plain.weight = mx.dequantize(
        linear.weight,
        linear.scales,
        linear.get("biases"),
        group_size=linear.group_size,
        bits=linear.bits,
        mode=linear.mode,
        dtype=dtype,
    )
    if "bias" in linear:
        plain.bias = linear.bias
    return plain


def _leaves(module: nn.Module) -> list[tuple[str, nn.Module]]:
    leaves: Any = tree_flatten(module.leaf_modules(), is_leaf=nn.Module.is_module)
    return list(leaves)


def _replace(module: nn.Module, by_name: dict[str, Any]) -> None:
    if by_name:
        module.update_modules(tree_unflatten(list(by_name.items())))
