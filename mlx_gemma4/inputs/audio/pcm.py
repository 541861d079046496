"""Uncompressed samples of every encoding to float32. numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Hz. Speech needs more than the lowest; no recorder writes more than the highest."""
MOST_CHANNELS = 64


def decode(data: bytes, encoding: str) -> np.ndarray:
    """Bytes of a whole number of samples → float32 [n], in [-1, 1] for whole numbers."""
    return ENCODINGS[encoding].decode(data)


class SampleStream:
    """Decodes samples that arrive in blocks. A block may end inside a sample."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes, encoding: str, channels: int = 1) -> np.ndarray:
        """Take a block; return the samples [n, channels] that are complete, perhaps none."""
        data, size = self._rest + data, ENCODINGS[encoding].width * channels
        whole = len(data) // size * size
        self._rest = data[whole:]
        return decode(data[:whole], encoding).reshape(-1, channels)

    def clear(self) -> None:
        """Forget a part of a sample: what follows does not continue it."""
        self._rest = b""


def scaled(values: np.ndarray) -> np.ndarray:
    """Samples of any type, as float32: whole numbers are scaled to [-1, 1], unsigned bytes are centred first."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.signedinteger):
        return values.astype(np.float32) / np.float32(-float(np.iinfo(values.dtype).min))
    with np.errstate(over="ignore"):  # a double that becomes infinite is reported as no sound
        return values.astype(np.float32)


def check_layout(rate: float, channels: int, name: str, channel: int | None = None) -> None:
    """Raise a ValueError if no recording has such a rate or so many channels, as a damaged header may say.

    Args:
        channel: A channel that must exist, from 1 on.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{name} says its sample rate is {rate:g} Hz: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz; "
            "its header is damaged, export the recording again"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise ValueError(
            f"{name} says it has {channels} channels: expected 1 to {MOST_CHANNELS}; export it with fewer channels"
        )
    if channel is not None and channel > channels:
        count = "1 channel" if channels == 1 else f"{channels} channels"
        raise ValueError(f"{name} has {count}: there is no channel {channel}")


@dataclass(frozen=True)
class RawFormat:
    """The format of samples without a header. Channels are interleaved.

    Raises:
        ValueError: An unknown encoding, or a rate or number of channels that no recording has.
    """

    encoding: str = "s16le"
    rate: int = 16_000
    """Hz."""
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in RAW_ENCODINGS:
            raise ValueError(f"Expected raw samples as one of {', '.join(RAW_ENCODINGS)}, got {self.encoding!r}")
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise ValueError(f"Expected a raw rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {self.rate}")
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise ValueError(f"Expected 1 to {MOST_CHANNELS} raw channels, got {self.channels}")


@dataclass(frozen=True)
class Encoding:
    """How one sample is stored."""

    width: int
    """Bytes of a sample."""
    decode: Callable[[bytes], np.ndarray]


def _plain(dtype: str) -> Encoding:
    return Encoding(np.dtype(dtype).itemsize, lambda data: scaled(np.frombuffer(data, dtype)))


def _three_bytes(*, little: bool) -> Encoding:
    def decode(data: bytes) -> np.ndarray:
        triples = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(triples), 4), np.uint8)  # a 24-bit sample is the upper part of a 32-bit one
        wide[:, 1:] = triples if little else triples[:, ::-1]
        return scaled(wide.reshape(-1).view("<i4").astype("=i4"))

    return Encoding(3, decode)


def _by_table(make: Callable[[], np.ndarray]) -> Encoding:
    table = cache(make)
    return Encoding(1, lambda data: table()[np.frombuffer(data, np.uint8)])


def _mu_law() -> np.ndarray:
    """[256] float32, ITU-T G.711."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = code >> 4 & 7, (code & 15).astype(np.int32)
    size = ((mantissa << 3) + 132 << exponent) - 132
    return np.where(code & 128, -size, size).astype(np.float32) / 32768


def _a_law() -> np.ndarray:
    """[256] float32, ITU-T G.711."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    size = np.where(exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 264 << np.maximum(exponent - 1, 0))
    return np.where(code & 128, size, -size).astype(np.float32) / 32768


ENCODINGS = {
    "u8": _plain("u1"),
    "s8": _plain("i1"),
    "s16le": _plain("<i2"),
    "s16be": _plain(">i2"),
    "s24le": _three_bytes(little=True),
    "s24be": _three_bytes(little=False),
    "s32le": _plain("<i4"),
    "s32be": _plain(">i4"),
    "f32le": _plain("<f4"),
    "f32be": _plain(">f4"),
    "f64le": _plain("<f8"),
    "f64be": _plain(">f8"),
    "alaw": _by_table(_a_law),
    "mulaw": _by_table(_mu_law),
}
"""By FFmpeg's names."""
RAW_ENCODINGS = tuple(ENCODINGS)
