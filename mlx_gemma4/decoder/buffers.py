"""Buffers of keys and values, [B, K, capacity, width]: what moves to a new one, or to a file."""

from __future__ import annotations

import mlx.core as mx

State = dict[str, mx.array]
"""What a layer holds, by name; empty at position 0. The arrays may be views of the layer's buffers, and lazy."""


def spare(like: mx.array, length: int) -> mx.array:
    """Unused positions behind others."""
    batch, heads, _, width = like.shape
    return mx.zeros((batch, heads, length, width), dtype=like.dtype)


def moved(buffer: mx.array | None, held: slice, new: mx.array, room: mx.array) -> mx.array:
    """A new buffer: what is held of the last one, new entries behind it, and unused ones. It is copied once."""
    parts = [new, room] if buffer is None else [buffer[..., held, :], new, room]
    parts = [part for part in parts if part.shape[2]]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)


def raw_bytes(array: mx.array) -> memoryview:
    """The bytes of an array, of which a copy is made only if it is part of another."""
    flat = mx.contiguous(array).reshape(-1).view(mx.uint8)
    mx.eval(flat)
    return memoryview(flat)  # type: ignore[arg-type]
