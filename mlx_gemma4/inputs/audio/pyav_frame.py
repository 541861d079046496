"""Frames of sound as PyAV hands them over, to float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma4.inputs.audio.pcm import scaled

if TYPE_CHECKING:
    import av

MOST_PLANES = 7
"""With more planes (one for each channel), PyAV reads beyond its list of them, and the process may crash."""


def samples_of(frame: av.AudioFrame) -> np.ndarray:
    """A frame's samples, float32 [n, channels], scaled as libsndfile does."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > MOST_PLANES:
        frame = _interleaved(frame)
    values = frame.to_ndarray()
    return scaled(values.T if frame.format.is_planar else values.reshape(-1, channels))


def _interleaved(frame: av.AudioFrame) -> av.AudioFrame:
    import av

    [packed] = av.AudioResampler(frame.format.packed.name).resample(frame)
    return packed
