"""What a model needs of a machine's memory, by arithmetic: nothing is loaded, and nothing is computed.

    weights      every tensor as it is held while the model computes
    sliding      keys and values of the sliding layers: the window and its room, however long the sequence is
    positions    keys and values of the full layers, for each position of the context
    snapshots    copies of sliding state to go back to
    forward      what one forward makes and frees again: it grows with its rows, not with the context
    margin       the program, and buffers that are kept for reuse

Of the 12B a position costs 10 KB: 8 of its 48 layers are full ones with one head, which stores most of a key and its
value once (``stored``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mlx_gemma4.decoder.config import LayerConfig, TextConfig
from mlx_gemma4.decoder.stored import layer_bytes

NUMBER = 2
"""Bytes of a number in bfloat16, in which the checkpoint computes."""
PROGRAM = 300_000_000
"""Bytes of the program itself: Python, its libraries, a tokenizer of 262,144 tokens, pictures and sound."""
MARGIN = 500_000_000
"""Bytes for the program, and for what MLX keeps for reuse or computes ahead."""
KEPT_BUFFERS = 400_000_000
"""Bytes that MLX may keep for reuse between forwards. Every length of a piece needs buffers of other sizes, and MLX
would keep those of all lengths that ever occurred: gigabytes of the 12B after a minute of live guesses."""
SCORE_BYTES = 128 << 20
"""Bytes of an array of attention scores, at most: the queries of a long forward are cut into tiles (``attend``)."""
AHEAD_BYTES = 512 << 20
"""Bytes that a forward of a prompt takes before MLX waits for the device (``decoder.ahead``)."""
WIDE, NARROW, HEADS = 4, 8, 4
"""Arrays that are held at once while a layer is computed, of [rows, intermediate_size], [rows, hidden_size] and
[rows, heads, head_dim]; and one of scores. Measured on a CPU (tests/test_memory.py)."""
NARROW_16, HEADS_16 = 20, 6
"""The same where a CPU computes in 16 bits: MLX computes norms in float32 there."""
CHUNK = 512
"""Rows of the largest forward, as a session cuts them."""
STEP, MOST_GROWTH = 256, 2048
"""Positions by which buffers grow: allocating for each token would copy everything for each token. Those of full layers
grow by a quarter, but not by more than the second: of the 12B 34 MB."""
DEFAULT_ROOM = 512
"""Positions that can be rewound on sliding layers by default: 20 s of sound."""
SPARE = 64
"""Positions that a sliding buffer of full size can be written before it moves. The 12B copies a window of 335 MB then,
which is 0.1 % of what 64 tokens read."""
BATCH_STEP = 64
"""Positions by which the buffers of a batch grow. Unused ones cost time where the attention kernel does not skip what
is masked."""
SNAPSHOTS = 400_000_000
"""Bytes of snapshots in memory by default: one of the 12B."""
LONGEST = 131_072
"""Positions of the longest context that is planned for, if the checkpoint names none."""
SHORTEST = 1024
"""Positions of the shortest context that is of use by default: a picture, a question and an answer."""


@dataclass(frozen=True)
class Use:
    """What a program does with a model, as far as it decides how much memory that needs."""

    room: int = DEFAULT_ROOM
    """Positions that can be rewound on sliding layers."""
    rows: int = CHUNK
    """Rows of the largest forward. An image goes in one."""
    least: int = SHORTEST
    """Positions of the shortest context that is of use. Where the context is not chosen, it is as long as fits."""
    snapshots: int = 0
    """Bytes of snapshots in memory, if there is room for them; others go to disk."""


@dataclass(frozen=True)
class Needs:
    """What a checkpoint needs whatever is done with it."""

    text: TextConfig
    weights: int
    """Bytes of all tensors, in the type that they are computed in."""
    loading: int = 0
    """Bytes that are held beside the weights for a moment while they are read: tensors in another type."""
    number: int = NUMBER
    """Bytes of a number that is computed."""
    kv_bits: int | None = None
    """Bits of keys and values on full layers; None: as they are computed."""
    is_ahead: bool = True
    """The device is handed work faster than it computes: a GPU."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of each part."""

    weights: int
    sliding: int
    positions: int
    forward: int
    snapshots: int = 0
    loading: int = 0
    margin: int = MARGIN

    @property
    def state(self) -> int:
        """Bytes of keys and values."""
        return self.sliding + self.positions

    @property
    def computing(self) -> int:
        """Bytes that MLX holds at most, without a margin: in a forward, or while weights are read."""
        return self.weights + max(self.loading, self.state + self.snapshots + self.forward)

    @property
    def total(self) -> int:
        return self.computing + self.margin

    @property
    def parts(self) -> dict[str, int]:
        """What the total consists of: the parts of its peak, by name."""
        beside = {"keys and values": self.state, "snapshots": self.snapshots, "a forward": self.forward}
        if self.loading > sum(beside.values()):
            beside = {"converting them": self.loading}
        return {"weights": self.weights, **beside, "the program": self.margin}


def plan_memory(needs: Needs, use: Use, context: int) -> MemoryPlan:
    """What a sequence of ``context`` positions needs."""
    text, number = needs.text, needs.number
    sliding = sum(_state(text, layer, number) for layer in text.layers if layer.is_sliding)
    return MemoryPlan(
        weights=needs.weights,
        sliding=sliding * sliding_positions(text, use.rows, use.room, context),
        positions=position_bytes(text, number, needs.kv_bits) * full_positions(context),
        forward=forward_bytes(needs, min(use.rows, context), context, use.room),
        snapshots=use.snapshots,
        loading=needs.loading,
    )


def longest_context(budget: int, needs: Needs, use: Use, most: int = LONGEST) -> int:
    """The longest context, in positions, whose plan fits into a budget of bytes; at most ``most``, 0 if none fits."""
    shortest, longest = 0, most
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if plan_memory(needs, use, middle).total <= budget:
            shortest = middle
        else:
            longest = middle - 1
    return shortest


def position_bytes(text: TextConfig, number: int = NUMBER, kv_bits: int | None = None) -> int:
    """Bytes of keys and values that a position beyond the window adds: those of the full layers."""
    return sum(_state(text, layer, number, kv_bits) for layer in text.layers if not layer.is_sliding)


@lru_cache
def full_positions(context: int) -> int:
    """Positions of the buffers of full layers when ``context`` are held: a prompt is computed in chunks."""
    capacity = 0
    for start in range(0, context, CHUNK):
        end = min(start + CHUNK, context)
        capacity = capacity if end <= capacity else grown(capacity, end)
    return capacity


def sliding_positions(text: TextConfig, rows: int, room: int, context: int) -> int:
    """Positions of the buffers of sliding layers while a prompt of ``context`` positions is computed."""
    kept = text.sliding_window - 1 + room
    if context < kept:
        return min(in_steps(context), kept + SPARE)
    # a chunk that does not fit beside what its first row sees makes the buffer longer for a moment
    return max(kept + SPARE, min(context, text.sliding_window - 1 + rows))


def row_bytes(needs: Needs, length: int) -> int:
    """Bytes of keys and values of a sequence in a batch, the next position included: of sliding layers the window."""
    text, room = needs.text, -(-(length + 1) // BATCH_STEP) * BATCH_STEP
    window = min(room, text.sliding_window)
    return sum(
        (window if layer.is_sliding else room) * _state(text, layer, needs.number, needs.kv_bits)
        for layer in text.layers
    )


def forward_bytes(needs: Needs, rows: int, context: int, room: int = 0) -> int:
    """Bytes of the arrays that a forward makes and frees again, at the end of a context."""
    text, number = needs.text, needs.number
    layers = text.layers[:-1] or text.layers  # of the last one, only the rows that are read are computed
    each = [_layer_bytes(needs, layer, rows, context, room) for layer in layers]
    ahead = min(sum(each), AHEAD_BYTES + max(each)) if needs.is_ahead else max(each)
    return ahead + 3 * number * text.vocab_size


def _layer_bytes(needs: Needs, layer: LayerConfig, rows: int, context: int, room: int) -> int:
    """Bytes that are held at once while a layer is computed, its scores and the buffers that move included."""
    text, number = needs.text, needs.number
    heads = text.num_attention_heads
    narrow, per_head = (NARROW, HEADS) if needs.is_ahead or number > 2 else (NARROW_16, HEADS_16)
    numbers = WIDE * text.intermediate_size + narrow * text.hidden_size + per_head * heads * layer.head_dim
    seen = min(context, text.sliding_window - 1 + rows) if layer.is_sliding else context
    scores = min(number * heads * rows * seen, max(SCORE_BYTES, number * heads * seen))
    held = sliding_positions(text, rows, room, context) if layer.is_sliding else full_positions(context)
    moved = _state(text, layer, number, needs.kv_bits) * held
    # without a GPU, what is quantized is made plain before it is multiplied
    plain = 0 if needs.kv_bits is None or needs.is_ahead or layer.is_sliding else _state(text, layer, number) * context
    return number * rows * numbers + scores + moved + plain


def _state(text: TextConfig, layer: LayerConfig, number: int, kv_bits: int | None = None) -> int:
    """Bytes of a position's key and value in a layer."""
    return layer_bytes(layer, text.rope[layer.layer_type], number, kv_bits)


def grown(capacity: int, end: int) -> int:
    """Positions of a full layer's next buffer, when one of ``capacity`` has no room for those before ``end``."""
    return in_steps(max(end, capacity + min(capacity // 4, MOST_GROWTH)))


def in_steps(length: int) -> int:
    """A length in whole steps."""
    return -(-length // STEP) * STEP
