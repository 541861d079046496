"""Keys and values of the layers: they grow, and can be rewound.

A full layer keeps everything. A sliding layer keeps its window and, behind it, some room:

    positions   0 1 2 3 4 5 6 7 8 9          window 4, room 3; the next position is 10
    held              [. . . 7 8 9]          window - 1 + room = 6 keys, from 4 on (``start``)
    the next one sees        7 8 9           and itself
    rewound to 7       4 5 6                 still has its whole window: as far back as a rewind is exact (``earliest``)

The buffer of a sliding layer is written in place until it is full, then its last ``window - 1 + room`` entries move to
the front of a new one (``origin`` is the position at its index 0):

    buffer      [ old | start … position | spare ]     a rewind only lowers ``position``: nothing is copied

A piece that does not fit moves along with them, in one copy, and so does what its first query sees. After a long piece
the buffer is larger than usual, until ``compact``.

To go back further, somebody keeps the window of a position (``between``) before it leaves, and gives it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.buffers import State, moved, spare
from mlx_gemma4.decoder.config import LayerConfig
from mlx_gemma4.decoder.full_cache import FullCache
from mlx_gemma4.decoder.masks import Mask, full_mask, sliding_mask
from mlx_gemma4.decoder.memory import DEFAULT_ROOM, SPARE, in_steps
from mlx_gemma4.decoder.quantized import Stored


class LayerCache(Protocol):
    """What an attention layer needs from its cache."""

    @property
    def offset(self) -> int | mx.array:
        """Position of the next row; [B] where the sequences of a batch differ in length."""

    def update_and_fetch(self, *new: mx.array) -> tuple[Stored, ...]:
        """Append keys and values, or the parts of them that the layer stores, and return what the queries may see.

        Args:
            new: [B, K, L, width] each.
        """


class ModelCache(Protocol):
    """What the decoder needs from the caches of its layers."""

    @property
    def layers(self) -> Sequence[Any]:
        """What each layer needs: a LayerCache, or an ``ApartLayer``."""

    def masks(self, queries: int, image_ids: np.ndarray | None) -> tuple[Mask, Mask]:
        """Masks of full and of sliding layers for ``queries`` more positions; ``image_ids`` as in ``sliding_mask``."""


@dataclass(frozen=True)
class Held:
    """What the next position of a sequence may see: of each layer the arrays ``[1, K, S, width]`` that it stores."""

    position: int
    layers: list[tuple[mx.array, ...]]


class SlidingCache:
    """The last ``window - 1 + room`` keys and values, in a buffer with up to SPARE positions more.

    Positions ``[start, position)`` are held; index 0 of the buffer is position ``origin <= start``.
    """

    def __init__(self, window: int, room: int) -> None:
        self.window = window
        self.room = room
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.position = 0
        self.start = 0
        self.origin = 0

    @property
    def offset(self) -> int:
        return self.position

    @property
    def arrays(self) -> list[mx.array]:
        """The buffers."""
        return [array for array in (self.keys, self.values) if array is not None]

    @property
    def kept(self) -> int:
        """How many keys stay when others come."""
        return self.window - 1 + self.room

    def held(self) -> tuple[mx.array, mx.array]:
        """The keys and values that the next position may see."""
        assert self.keys is not None and self.values is not None
        seen = slice(self._first_seen() - self.origin, self.position - self.origin)
        return self.keys[..., seen, :], self.values[..., seen, :]

    def shared(self) -> tuple[mx.array, mx.array]:
        """The keys and values that a drafter sees: up to two more than the next position does, as in the reference.

        There a drafter has a bidirectional mask, whose window includes both ends, and its query stands behind the last
        key.
        """
        assert self.keys is not None and self.values is not None
        seen = slice(max(self.start, self.position - self.window - 1) - self.origin, self.position - self.origin)
        return self.keys[..., seen, :], self.values[..., seen, :]

    @property
    def earliest(self) -> int:
        """The furthest position to which a rewind is exact: its whole window is still held."""
        return self.start + self.window - 1 if self.start else 0

    def earliest_after(self, length: int) -> int:
        """What ``earliest`` will be when ``length`` more positions have come."""
        start = max(self.start, self.position + length - self.kept)
        return start + self.window - 1 if start else 0

    def rewind(self, position: int) -> None:
        """Forget everything from ``position`` on; ``earliest`` or later, or 0."""
        self.position = position
        if position == 0:
            self.start = self.origin = 0

    def state(self, position: int | None = None) -> State:
        """All that is held before ``position``, by default before the end; without spare room."""
        end = self.position if position is None else position
        return self.between(self.start, end)

    def between(self, start: int, stop: int) -> State:
        """Keys and values of the positions from ``start`` to before ``stop``, which are held."""
        if self.keys is None or self.values is None or start == stop:
            return {}
        held = slice(start - self.origin, stop - self.origin)
        return {"keys": self.keys[..., held, :], "values": self.values[..., held, :]}

    def release(self) -> None:
        """Forget all keys and values, but not the position. ``restore`` brings them back."""
        self.keys = self.values = None
        self.start = self.origin = self.position

    def restore(self, state: State, position: int) -> None:
        """Hold what ``state`` gave at ``position``, in buffers of its own, or a part that ends there."""
        self.keys = self.values = None
        self.position = self.start = self.origin = position
        if position:
            length = state["keys"].shape[2]
            room = spare(state["keys"], max(length + 1, min(in_steps(length + 1), self.kept + SPARE)) - length)
            self.keys, self.values = (mx.concatenate([state[name], room], axis=2) for name in ("keys", "values"))
            self.start = self.origin = position - length

    def visible(self, length: int) -> int:
        """How many keys ``update_and_fetch`` returns for ``length`` more positions."""
        return self.position - self._first_seen() + length

    def update_and_fetch(self, *new: mx.array) -> tuple[mx.array, mx.array]:
        """Append keys and values ``[B, K, L, head_dim]``; return what the L queries may see: ``window - 1`` before, and
        these."""
        keys, values = new
        end = self.position + keys.shape[2]
        seen, start = self._first_seen(), max(self.start, end - self.kept)
        if self.keys is not None and self.values is not None and end - self.origin <= self.keys.shape[2]:
            free = slice(self.position - self.origin, end - self.origin)
            self.keys[..., free, :] = keys
            self.values[..., free, :] = values
        else:
            self._move(min(seen, start), keys, values)
        assert self.keys is not None and self.values is not None
        self.position, self.start = end, start
        fetched = slice(seen - self.origin, end - self.origin)
        return self.keys[..., fetched, :], self.values[..., fetched, :]

    def compact(self) -> None:
        """Move to a buffer of the usual size, if a long piece has left a larger one."""
        if self.keys is not None and self.values is not None and self.keys.shape[2] > self.kept + SPARE:
            self._move(self.start, self.keys[..., :0, :], self.values[..., :0, :])

    def _move(self, first: int, keys: mx.array, values: mx.array) -> None:
        """Move what is held from position ``first`` on, and new keys and values behind it, to a new buffer."""
        length, most = self.position - first + keys.shape[2], self.kept + SPARE
        capacity = max(length, min(in_steps(length), most) if length < self.kept else most)
        held, room = slice(first - self.origin, self.position - self.origin), spare(keys, capacity - length)
        self.keys, self.values = moved(self.keys, held, keys, room), moved(self.values, held, values, room)
        self.origin = first

    def _first_seen(self) -> int:
        return max(self.start, self.position - self.window + 1)


class Cache:
    """One cache per layer, all at the same position."""

    def __init__(
        self, layers: Sequence[LayerConfig], *, window: int, room: int = DEFAULT_ROOM, kv_bits: int | None = None
    ) -> None:
        self.layers = [SlidingCache(window, room) if layer.is_sliding else FullCache(kv_bits) for layer in layers]
        self._configs = layers
        self.window = window
        self.kv_bits = kv_bits
        """Bits of the keys and values of full layers; None: as they are computed."""
        self._room = room

    @property
    def room(self) -> int:
        """How many positions sliding layers keep behind their window. What has left does not come back."""
        return self._room

    @room.setter
    def room(self, room: int) -> None:
        self._room = room
        for layer in self._sliding:
            layer.room = room

    @property
    def are_sliding(self) -> list[bool]:
        """Which layers have a window."""
        return [layer.is_sliding for layer in self._configs]

    @property
    def _sliding(self) -> list[SlidingCache]:
        return [layer for layer in self.layers if isinstance(layer, SlidingCache)]

    def empty(self) -> Cache:
        """Another one of this kind, which holds nothing."""
        return Cache(self._configs, window=self.window, room=self._room, kv_bits=self.kv_bits)

    @property
    def position(self) -> int:
        """Positions written so far."""
        return self.layers[0].position

    @property
    def earliest(self) -> int:
        """The furthest position to which ``rewind`` can go."""
        return max(layer.earliest for layer in self.layers)

    def masks(self, queries: int, image_ids: np.ndarray | None) -> tuple[Mask, Mask]:
        """Masks of full and of sliding layers for ``queries`` more positions."""
        first = next((layer for layer in self.layers if isinstance(layer, SlidingCache)), None)
        if first is None:
            return full_mask(queries), None
        return full_mask(queries), sliding_mask(queries, first.visible(queries), first.window, image_ids)

    def held(self) -> Held:
        """What the next position may see. It stays valid when this cache is rewound or grows.

        Nothing is copied, unless the cache is written to while this is still referenced.
        """
        return Held(self.position, [layer.held() for layer in self.layers])

    def rewind(self, position: int) -> None:
        """Forget everything from ``position`` on, as if it had never been there.

        Raises:
            ValueError: ``position`` lies ahead, or so far back that sliding layers no longer hold its window.
        """
        if not 0 <= position <= self.position:
            raise ValueError(f"Expected a position from 0 to {self.position} to rewind to, got {position}")
        if 0 < position < self.earliest:
            reach = max(0, self.position - self.earliest)
            raise ValueError(
                f"Expected a position within the last {reach} to rewind to, got {position} at {self.position}: "
                f"sliding layers keep room for {self.room} beyond their window; "
                "rewind further, take a snapshot there in time, or make the session with a larger room"
            )
        for layer in self.layers:
            layer.rewind(position)

    def earliest_after(self, length: int) -> int:
        """What ``earliest`` will be when ``length`` more positions have come."""
        return max((layer.earliest_after(length) for layer in self._sliding), default=0)

    def state(self, position: int | None = None) -> list[State]:
        """All that the layers hold before ``position``, by default before the end; not before ``earliest``."""
        return [layer.state(position) for layer in self.layers]

    def restore(self, states: Iterable[State], position: int) -> None:
        """Hold what ``state`` gave at ``position``, of a cache with the same window. One layer is copied at a time."""
        for layer, state in zip(self.layers, states, strict=True):
            layer.restore(state, position)
            mx.eval(layer.arrays)

    def windows(self, start: int, stop: int) -> list[mx.array]:
        """Copies of what sliding layers hold from ``start`` to before ``stop``: ``[2, B, K, S, head_dim]`` of each.

        They are keys and values, and lazy.
        """
        states = [layer.between(start, stop) for layer in self._sliding]
        return [mx.stack([state["keys"], state["values"]]) for state in states]

    @property
    def start(self) -> int:
        """The first position that sliding layers hold."""
        return max((layer.start for layer in self._sliding), default=0)

    @property
    def is_released(self) -> bool:
        """Whether sliding layers hold nothing (``release``)."""
        first = next((layer for layer in self.layers if isinstance(layer, SlidingCache)), None)
        return first is not None and first.position > 0 and first.keys is None

    def release(self) -> None:
        """Free the memory of sliding layers. ``restore_windows`` brings back what they held."""
        for layer in self._sliding:
            layer.release()

    def restore_full(self, cache: Cache, position: int) -> None:
        """Hold in full layers what those of another cache hold before ``position``; sliding layers stay."""
        for layer, theirs in zip(self.layers, cache.layers, strict=True):
            if not isinstance(layer, SlidingCache):
                layer.restore(theirs.state(position), position)
                mx.eval(layer.arrays)

    def restore_windows(self, windows: Iterable[mx.array], position: int) -> None:
        """Go back to ``position`` with ``windows`` that end there. Full layers still hold theirs."""
        for sliding, (keys, values) in zip(self._sliding, windows, strict=True):
            sliding.restore({"keys": keys, "values": values}, position)
            mx.eval(sliding.arrays)
        for layer in self.layers:
            layer.rewind(min(position, layer.position))

    def compact(self) -> None:
        """Free what a long piece needed beyond the window and the room of sliding layers."""
        for layer in self._sliding:
            layer.compact()

    @property
    def arrays(self) -> list[mx.array]:
        """All buffers, for ``mx.eval``."""
        return [array for layer in self.layers for array in layer.arrays]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    @property
    def sliding_bytes(self) -> int:
        """The share of sliding layers."""
        return sum(array.nbytes for layer in self._sliding for array in layer.arrays)
