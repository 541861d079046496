"""Moving pictures in: frames evenly sampled, with their times. numpy only; files through PyAV (the [camera] extra)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
        total = _count_frames(path)
        wanted = set(sample_indices(total, max_frames).tolist())
        frames, seconds = [], []
        with av.open(str(path)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    seconds.append(float(frame.time or 0.0))
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"Expected a video that FFmpeg reads in {path}, got: {error}") from error
    if not frames:
        raise ValueError(f"Expected pictures in {path}, it has 0 video frames")
    return Clip(np.stack(frames), tuple(second - seconds[0] for second in seconds))


def _count_frames(path: Path) -> int:
    """Decode once to count: what containers claim is often missing or wrong."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
