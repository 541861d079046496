"""What a model needs of a machine's memory, by arithmetic: nothing is loaded, and nothing is computed.

    weights      every matrix as its recipe stores it
    sliding      keys and values of the sliding layers: the window and its room, however long the sequence is
    positions    keys and values of the full layers, for each position of the context
    forward      what one forward makes and frees again; the largest part of it grows with its rows
    margin       the program, and buffers that are kept for reuse

Of the 12B a position costs 16 KB, because 8 of its 48 layers are full ones with one head of keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_gemma4.decoder.config import LayerConfig, TextConfig

NUMBER = 2
"""Bytes of a number in bfloat16, in which the checkpoint computes."""
MARGIN = 500_000_000
"""Bytes for the program itself, and for buffers that MLX keeps for reuse."""
WIDE, NARROW = 2, 9
"""Arrays that a layer makes of [rows, intermediate_size] and of [rows, hidden_size]."""
SCORES = 1.2
"""Arrays of [heads, rows, positions] that a full layer makes: no fused attention exists for its head size. These three
numbers give the peaks that were measured on one GPU (H100, through CUDA) with prompts of 8,192 and 32,768 positions."""
ONE_LAYER = 3
"""The same of one full layer, which are held at once on any device: scores, masked scores and probabilities."""
MOST_SCORES = 512 * 8192
"""Rows times positions of one forward, at most (``prefill_rows``): 1.3 GB of the 12B on a GPU."""
LEAST_ROWS = 32
"""Rows that a forward may have at any length: fewer would take about as long."""
SCORE_BYTES = 128 << 20
"""Bytes of an array of attention scores, at most: the queries of a long forward are cut into tiles (``attend``)."""
AHEAD_BYTES = 512 << 20
"""Bytes that a forward of a prompt takes before MLX waits for the device (``decoder.ahead``)."""
LONGEST = 131_072
"""Positions of the longest context that is planned for."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of each part."""

    weights: int
    sliding: int
    positions: int
    forward: int
    margin: int = MARGIN

    @property
    def total(self) -> int:
        return self.weights + self.sliding + self.positions + self.forward + self.margin


def prefill_rows(position: int, most: int) -> int:
    """Rows of the next forward of a prompt, ``most`` or fewer: in a long context a row has more scores.

    So a prompt needs no more memory for its forwards however long it is, only for its keys and values.
    """
    rows = most
    while rows > LEAST_ROWS and rows * (position + rows) > MOST_SCORES:
        rows //= 2
    return rows


def plan_memory(weights: int, text: TextConfig, *, context: int, rows: int, room: int, held: float = 1.0) -> MemoryPlan:
    """What a context needs.

    Args:
        weights: Bytes of the weights, as they are stored.
        context: Positions of the sequence.
        rows: Rows of the largest forward; they become fewer in a long context (``prefill_rows``).
        room: Positions that can be rewound on sliding layers.
        held: As in ``forward_bytes``.
    """
    rows = min(rows, context)
    return MemoryPlan(
        weights=weights,
        sliding=sum(_state(layer) for layer in text.layers if layer.is_sliding)
        * min(context, text.sliding_window + room),
        positions=context * position_bytes(text),
        forward=forward_bytes(text, rows, min(context, MOST_SCORES // rows), held=held),
    )


def position_bytes(text: TextConfig) -> int:
    """Bytes of keys and values that a position beyond the window adds: those of the full layers."""
    return sum(_state(layer) for layer in text.layers if not layer.is_sliding)


def forward_bytes(text: TextConfig, rows: int, context: int, *, held: float = 1.0) -> int:
    """Bytes of the arrays that a forward makes and frees again, at the end of a context.

    Args:
        held: The share of the layers whose arrays are held at once. A GPU that is handed the layers faster than it
            computes them holds all (1.0).
    """
    per_layer = WIDE * text.intermediate_size + NARROW * text.hidden_size
    full = sum(not layer.is_sliding for layer in text.layers)
    copies = max(held * SCORES * full, ONE_LAYER) if full else 0
    scores = copies * text.num_attention_heads * context
    logits = 3 * text.vocab_size  # of one row
    return round(NUMBER * (rows * (held * len(text.layers) * per_layer + scores) + logits))


def longest_context(budget: int, weights: int, text: TextConfig, *, rows: int, room: int, held: float = 1.0) -> int:
    """The longest context, in positions, whose plan fits into a budget of bytes; at most LONGEST, 0 if none fits."""
    shortest, longest = 0, LONGEST
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if plan_memory(weights, text, context=middle, rows=rows, room=room, held=held).total <= budget:
            shortest = middle
        else:
            longest = middle - 1
    return shortest


def _state(layer: LayerConfig) -> int:
    """Bytes of a position's key and value in a layer."""
    return 2 * NUMBER * layer.num_key_value_heads * layer.head_dim
