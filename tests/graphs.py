"""What a computation consists of: the primitives of its graph, counted before anything is computed."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import pytest

from mlx_gemma4 import Session

VIEWS = {"Reshape", "Flatten", "Unflatten", "Transpose", "Slice", "ExpandDims", "Squeeze", "Broadcast", "Split"}
"""Primitives that compute nothing: other views of the same numbers."""


def primitives(arrays: Iterable[mx.array]) -> Counter[str]:
    """How often each primitive occurs in the graph of lazy arrays."""
    text = io.StringIO()
    mx.export_to_dot(text, *arrays)
    names = re.findall(r'\[label ="([^"]+)", shape=rectangle\]', text.getvalue())
    return Counter("Compiled" if name.startswith("Compiled") else name for name in names)


def kernels(counts: Counter[str]) -> int:
    """How many of the primitives compute something."""
    return sum(count for name, count in counts.items() if name not in VIEWS)


def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the graphs that a GPU would run. They can be counted, not computed.

    What is one kernel there and many primitives on the CPU becomes one stand-in of the same shape.
    """
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, weight, eps: mx.erf(x))
    monkeypatch.setattr(mx.fast, "rope", lambda x, *sizes, **settings: mx.sigmoid(x))
    monkeypatch.setattr(
        mx.fast,
        "scaled_dot_product_attention",
        lambda q, k, v, *, scale, mask: mx.depends([q], [k, v] + ([mask] if isinstance(mask, mx.array) else []))[0],
    )


def chunk_graphs(session: Session, piece: Any, monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """The graphs that ``extend`` evaluates, forward by forward."""
    graphs, evaluate = [], mx.eval

    def count(arrays: list[mx.array]) -> None:
        graphs.append(primitives(arrays))
        for array in arrays:
            array[...] = mx.zeros_like(array)  # nothing that stands for a GPU's kernels is computed
        evaluate(arrays)

    with monkeypatch.context() as patch:
        patch.setattr(mx, "eval", count)
        session.extend(piece)
    return graphs
