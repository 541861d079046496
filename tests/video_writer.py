"""Video files for tests: any frames at any times, with sound. Lossless unless another codec is named."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

LOSSLESS = {"ffv1": "bgr0", "qtrle": "rgb24", "png": "rgb24"}
"""Codecs that keep RGB as it is, and how they hold it."""
BLOCK = 1000
"""Samples that are encoded at once."""


def needs(codec: str) -> str:
    """The codec, or the test is skipped."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder for {codec}")
    return codec


def write_video(
    path: Path,
    frames: Sequence[np.ndarray] | np.ndarray,
    *,
    rate: float = 2,
    times: Sequence[float] | None = None,
    codec: str = "ffv1",
    kind: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 16_000,
    sound_codec: str = "pcm_s16le",
    sound_start: float = 0.0,
) -> Path:
    """Write uint8 [H, W, 3] frames, one every 1 / ``rate`` seconds or at ``times``, and sound, int16 [n, channels]."""
    base = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
    times = [float(index * base) for index in range(len(frames))] if times is None else times
    with av.open(str(path), "w", format=kind, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.height, stream.width = frames[0].shape[:2] if len(frames) else (48, 64)
        stream.pix_fmt = LOSSLESS.get(codec, "yuv420p")
        stream.codec_context.time_base = base
        blocks = []
        if sound is not None:
            layout = "stereo" if sound.shape[1] == 2 else "mono"
            track = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            blocks = _blocks(sound, layout, sound_rate, sound_start)
        container.start_encoding()
        for pixels, seconds in zip(frames, times, strict=True):
            while blocks and blocks[0].time <= seconds:
                container.mux(track.encode(blocks.pop(0)))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(seconds / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for block in blocks:
            container.mux(track.encode(block))
        if sound is not None:
            container.mux(track.encode())
    return path


def _blocks(sound: np.ndarray, layout: str, rate: int, start: float) -> list[av.AudioFrame]:
    blocks = []
    for first in range(0, len(sound), BLOCK):
        packed = np.ascontiguousarray(sound[first : first + BLOCK]).reshape(1, -1)
        block = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), first + round(start * rate)
        blocks.append(block)
    return blocks
