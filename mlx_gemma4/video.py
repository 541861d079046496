"""Moving pictures in: frames evenly sampled, with their times. numpy only; files through PyAV (the [camera] extra)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av

MAX_FRAMES = 32
"""Frames taken from a video, at most."""


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames that the model is to see."""

    frames: np.ndarray
    """[T, H, W, 3] uint8."""
    seconds: tuple[float, ...]
    """[T]: when each frame is shown, from the start."""


def load_video(source: str | os.PathLike[str] | tuple[np.ndarray, float], *, max_frames: int = MAX_FRAMES) -> Clip:
    """Read a video and keep at most ``max_frames`` of its frames, evenly.

    Args:
        source: A path, or (frames [T, H, W, 3] uint8, frames per second).

    Raises:
        ValueError: No such file, no pictures in it, or frames of another form.
        ImportError: A file, and PyAV is not installed.
    """
    if isinstance(source, tuple):
        return _sample_array(*source, max_frames=max_frames)
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"Expected a video file, found none at {path}")
    return _sample_file(path, max_frames)


def sample_indices(total: int, count: int) -> np.ndarray:
    """``count`` of ``total`` frames, evenly from the first on; all of them where there are fewer.

    transformers ``default_sample_indices_fn``.
    """
    count = min(count, total)
    return np.arange(count) * total // count if count else np.arange(0)


def timestamp(seconds: float) -> str:
    """mm:ss, rounded down, as the prompt carries it."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def _sample_array(frames: np.ndarray, fps: float, *, max_frames: int) -> Clip:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(f"Expected video frames as uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    if not fps > 0:
        raise ValueError(f"Expected a positive number of frames per second, got {fps}")
    indices = sample_indices(len(frames), max_frames)
    return Clip(frames[indices], tuple(float(index / fps) for index in indices))


def _sample_file(path: Path, max_frames: int) -> Clip:
    try:
        import av
    except ImportError as error:
        raise ImportError("Video files need the [camera] extra: pip install 'mlx-gemma4[camera]'") from error
    try:
        wanted = set(sample_indices(sum(1 for _ in _decode(path)), max_frames).tolist())
        shown = [(second, frame) for index, (second, frame) in enumerate(_decode(path)) if index in wanted]
    except av.error.FFmpegError as error:
        raise ValueError(f"Expected a video that FFmpeg reads in {path}, got: {error.strerror}") from error
    if not shown:
        raise ValueError(f"Expected pictures in {path}, it has 0 video frames")
    start, first = shown[0]
    frames = [_upright(frame, first.width, first.height) for _, frame in shown]
    return Clip(np.stack(frames), tuple(second - start for second, _ in shown))


def _decode(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every picture and its time. What containers claim about either is often missing or wrong."""
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError(f"Expected pictures in {path}, it has no video stream, or is cut short before it")
        stream = container.streams.video[0]
        for index, frame in enumerate(container.decode(stream)):
            # bare streams, outside any container, hold no times
            yield index / float(stream.guessed_rate or 1) if frame.time is None else frame.time, frame


def _upright(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] as it is to be seen: phones store what they filmed lying on its side."""
    return np.rot90(frame.to_ndarray(format="rgb24", width=width, height=height), round(frame.rotation / 90))
