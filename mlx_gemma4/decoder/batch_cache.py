"""Keys and values of sequences that are decoded side by side: rows join and leave between steps.

A step writes the new keys of all rows at the same index: one slice. So the buffers are rings, in which the keys of a
row lie behind each other up to the index that is written next::

    index     0 1 2 3 4 5 6 7     capacity 8; the next step writes index 3 (``next``)
    row 0     d e f . . a b c     6 keys are held, the first of them at index 5
    row 1     y z . . . . . x     3 keys
    row 2     s t u . . p q r     6 keys: it has just joined, and was laid out like this

Attention does not depend on the order of keys, whose positions are in them (RoPE). What a row does not hold is masked.
A sliding layer needs room for its window, a full layer for its longest row. The rows have their own positions: neither
who else is in the batch nor where in the ring they lie changes what a row computes, except for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.buffers import spare
from mlx_gemma4.decoder.cache import Held
from mlx_gemma4.decoder.config import LayerConfig
from mlx_gemma4.decoder.masks import Mask
from mlx_gemma4.decoder.memory import BATCH_STEP as STEP
from mlx_gemma4.decoder.quantized import Stored, decode, encode


class BatchCache:
    """The caches of several sequences. Each step takes one token of each row.

    Args:
        kv_bits: As the caches of the sequences have it.
    """

    def __init__(self, layers: Sequence[LayerConfig], *, window: int, kv_bits: int | None = None) -> None:
        self._full, self._sliding = Ring(None, kv_bits), Ring(window)
        self.layers = [(self._sliding if layer.is_sliding else self._full).add_layer() for layer in layers]
        self._is_sliding = [layer.is_sliding for layer in layers]
        self._positions = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        """Rows."""
        return len(self._positions)

    def put(self, sequence: Held, row: int) -> None:
        """Let a sequence take the place of a row; a row behind the last one is a new one."""
        if row == len(self):
            self._positions = np.append(self._positions, np.int32(0))
        self._positions[row] = sequence.position
        pairs = list(zip(sequence.layers, self._is_sliding, strict=True))
        self._full.put([layer for layer, is_sliding in pairs if not is_sliding], row)
        self._sliding.put([layer for layer, is_sliding in pairs if is_sliding], row)

    def keep(self, rows: Sequence[int]) -> None:
        """Let all rows but these leave."""
        self._positions = self._positions[rows]
        self._full.keep(rows)
        self._sliding.keep(rows)

    def masks(self, queries: int, image_ids: np.ndarray | None) -> tuple[Mask, Mask]:
        """Make room for a step, and return its masks."""
        assert queries == 1 and image_ids is None, "a batch takes one text token of each row a step"
        offset = mx.array(self._positions)
        self._positions = self._positions + 1
        return self._full.step(offset), self._sliding.step(offset)

    @property
    def arrays(self) -> list[mx.array]:
        """All buffers, for ``mx.async_eval``."""
        return [array for layer in self.layers for array in layer.arrays]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


class BatchLayer:
    """What one layer stores of keys and values."""

    def __init__(self, ring: Ring) -> None:
        self.arrays: list[mx.array] = []
        """Buffers [B, K, capacity, width]."""
        self._ring = ring

    @property
    def offset(self) -> mx.array:
        """[B], the positions of the step."""
        return self._ring.offset

    def update_and_fetch(self, *new: mx.array) -> tuple[Stored, ...]:
        """Write parts ``[B, K, 1, width]`` at the index of the step, and return everything."""
        index = slice(self._ring.index, self._ring.index + 1)
        for buffer, each in zip(self.arrays, encode(new, self._ring.bits), strict=True):
            buffer[..., index, :] = each
        return decode(self.arrays, self._ring.bits)


class Ring:
    """Where the keys of each row lie, in the buffers of all layers of one type.

    Args:
        window: Of sliding layers; None for full ones.
        bits: Of a stored number; None: as it is computed.
    """

    def __init__(self, window: int | None, bits: int | None = None) -> None:
        self.bits = bits
        self.index = 0
        """Where the step writes."""
        self.offset: mx.array = mx.array(0)
        self._window = window
        self._layers: list[BatchLayer] = []
        self._capacity = 0
        self._next = 0
        self._held = np.zeros(0, dtype=np.int64)
        """[B], how many keys of each row the next position sees."""

    def add_layer(self) -> BatchLayer:
        self._layers.append(BatchLayer(self))
        return self._layers[-1]

    def put(self, layers: Sequence[tuple[mx.array, ...]], row: int) -> None:
        """Lay out a sequence, arrays ``[1, K, S, width]`` of each layer, as the row."""
        if not layers:
            return
        length = layers[0][0].shape[2]
        if row == len(self._held):
            self._held = np.append(self._held, 0)
        self._held[row] = 0  # the row that leaves needs no room
        self._fit(max(length, self._held.max()) + 1)
        self._held[row] = length
        if not self._layers[0].arrays:
            self._next = length
        for layer, arrays in zip(self._layers, layers, strict=True):
            buffers: Sequence[mx.array | None] = layer.arrays or [None] * len(arrays)
            layer.arrays = [
                _place(buffer, self._around(array), row) for buffer, array in zip(buffers, arrays, strict=True)
            ]

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        self._held = self._held[rows]
        if len(rows):
            self._move(self._held.max() + 1, mx.array(list(rows)))
            return
        self._capacity = 0
        for layer in self._layers:
            layer.arrays = []

    def step(self, offset: mx.array) -> Mask:
        """Make room for a key of each row; the mask [B, 1, 1, capacity] of what the new positions see."""
        if not self._layers:
            return None
        self._fit(self._held.max() + 1)
        self.index, self.offset = self._next, offset
        back = (self.index - np.arange(self._capacity)) % self._capacity
        visible = back <= self._held[:, None]
        self._next = (self._next + 1) % self._capacity
        self._held = self._held + 1 if self._window is None else np.minimum(self._held + 1, self._window - 1)
        return mx.array(visible[:, None, None])

    def _fit(self, needed: int) -> None:
        """Grow if there is too little room, and shrink if there is more than twice as much as needed."""
        if needed > self._capacity or 2 * self._room(needed) < self._capacity:
            self._move(needed, None)

    def _room(self, needed: int) -> int:
        room = -(-needed // STEP) * STEP
        return room if self._window is None else min(room, self._window)

    def _move(self, needed: int, rows: mx.array | None) -> None:
        """Move the keys of some rows, or of all, to the front of new buffers."""
        capacity, length = self._room(needed), int(self._held.max())
        start = (self._next - length) % max(self._capacity, 1)

        def moved(buffer: mx.array) -> mx.array:
            if rows is not None:
                buffer = buffer[rows]
            parts = [buffer[..., start : start + length, :]]
            if start + length > self._capacity:
                parts.append(buffer[..., : self._next, :])
            parts.append(spare(buffer, capacity - length))
            return mx.concatenate(parts, axis=2)

        for layer in self._layers:
            layer.arrays = [moved(buffer) for buffer in layer.arrays]
        self._capacity, self._next = capacity, length

    def _around(self, sequence: mx.array) -> mx.array:
        """``[1, K, S, width]`` → ``[1, K, capacity, width]``, laid out up to the index that is next."""
        length = sequence.shape[2]
        start, room = (self._next - length) % self._capacity, self._capacity - length
        empty = spare(sequence, room)
        if start <= room:
            parts = [empty[..., :start, :], sequence, empty[..., start:, :]]
        else:
            ahead = self._capacity - start
            parts = [sequence[..., ahead:, :], empty, sequence[..., :ahead, :]]
        return mx.concatenate(parts, axis=2)


def _place(buffer: mx.array | None, sequence: mx.array, row: int) -> mx.array:
    if buffer is None:
        return sequence
    if row == len(buffer):
        return mx.concatenate([buffer, sequence])
    buffer[row : row + 1] = sequence
    return buffer
