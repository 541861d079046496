"""What a full layer has seen: every key and value, in the parts that the layer stores (``stored``).

    parts       one buffer each, [B, K, capacity, width]; in 8 or 4 bits three each: codes, scales and biases
    positions   [ 0 … position | spare ]

A position is quantized by itself when it is written, the first one like all others. So what is held does not depend on
how the sequence was cut, and a rewind is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_gemma4.decoder.buffers import State, moved, spare
from mlx_gemma4.decoder.memory import grown, in_steps
from mlx_gemma4.decoder.quantized import Stored, decode, encode
from mlx_gemma4.decoder.stored import PARTS, QUANTIZED, array_names


class FullCache:
    """Every key and value.

    Args:
        bits: Of a stored number, 8 or 4; None stores what comes.
    """

    def __init__(self, bits: int | None = None) -> None:
        self.arrays: list[mx.array] = []
        """The buffers, of which the first ``position`` positions are valid."""
        self.position = 0
        self.bits = bits

    @property
    def offset(self) -> int:
        return self.position

    @property
    def earliest(self) -> int:
        """The furthest position to which a rewind is exact."""
        return 0

    def rewind(self, position: int) -> None:
        """Forget everything from ``position`` on."""
        self.position = position

    def update_and_fetch(self, *new: mx.array) -> tuple[Stored, ...]:
        """Append parts [B, K, L, width] and return all of each, up to the new end."""
        end = self.position + new[0].shape[2]
        capacity = self.arrays[0].shape[2] if self.arrays else 0
        entries = encode(new, self.bits)
        if end > capacity:
            room = grown(capacity, end) - end
            held = slice(0, self.position)
            buffers: Sequence[mx.array | None] = self.arrays or [None] * len(entries)
            self.arrays = [
                moved(buffer, held, each, spare(each, room)) for buffer, each in zip(buffers, entries, strict=True)
            ]
        else:
            for buffer, each in zip(self.arrays, entries, strict=True):
                buffer[..., self.position : end, :] = each
        self.position = end
        return self.shared()

    def held(self) -> tuple[mx.array, ...]:
        """All that is valid in the buffers."""
        return tuple(array[..., : self.position, :] for array in self.arrays)

    def shared(self) -> tuple[Stored, ...]:
        """The parts that a drafter sees: all."""
        return decode(self.held(), self.bits)

    def state(self, position: int | None = None) -> State:
        """All that is held before ``position``, by default before the end; without spare room."""
        end = self.position if position is None else position
        if end == 0:
            return {}
        parts = len(self.arrays) if self.bits is None else len(self.arrays) // len(QUANTIZED)
        named = zip(array_names(parts, self.bits), self.arrays, strict=True)
        return {name: array[..., :end, :] for name, array in named}

    def restore(self, state: State, position: int) -> None:
        """Hold what ``state`` gave at ``position``, in buffers of its own.

        Raises:
            ValueError: It was stored in other bits. Nothing is changed.
        """
        known = [array_names(parts, self.bits) for parts in PARTS] + [[]]
        names = next((names for names in known if set(names) == set(state)), None)
        if names is None:
            raise ValueError(
                f"Expected keys and values of full layers {_stored_in(self.bits)}, got {', '.join(sorted(state))}: set "
                "the kv_bits that they were stored with"
            )
        self.arrays = [
            mx.concatenate([state[name], spare(state[name], in_steps(position + 1) - position)], axis=2)
            for name in names
        ]
        self.position = position


def _stored_in(bits: int | None) -> str:
    return "as they are computed" if bits is None else f"in {bits} bits"
