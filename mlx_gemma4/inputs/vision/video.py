"""Videos to video frames: which are taken, one at a time, and when each is shown. numpy only."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.inputs.vision.video_file import Picture, VideoFile

MAX_FRAMES = 32
"""Video frames taken from a video, at most."""
TOLERANCE = 0.001
"""Seconds: Matroska rounds times to milliseconds."""

Shown = tuple[float, Callable[[], np.ndarray]]
"""When a video frame is shown, and a function that decodes its pixels."""


@dataclass(frozen=True)
class Selection:
    """Which video frames are taken. Times are seconds from the first one on."""

    max_video_frames: int = MAX_FRAMES
    fps: float | None = None
    """The first frame at or after every 1 / fps seconds; None: ``max_video_frames`` of them, evenly spaced."""
    start: float = 0.0
    end: float | None = None
    """Exclusive; None: the end of the video."""

    def __post_init__(self) -> None:
        if self.max_video_frames < 1:
            raise ValueError(f"Expected a maximum of 1 frame or more, got {self.max_video_frames}")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"Expected a positive number of frames per second, got {self.fps:g}")
        for seconds in (self.start, self.end):
            if seconds is not None and not 0 <= seconds < math.inf:
                raise ValueError(f"Expected times of 0 s or more, got {seconds:g}")
        if self.end is not None and self.start >= self.end:
            raise ValueError(f"Expected a start before the end, got {self.start:g} s and {self.end:g} s")

    def has_begun(self, seconds: float) -> bool:
        return seconds + TOLERANCE >= self.start

    def is_over(self, seconds: float) -> bool:
        return self.end is not None and seconds + TOLERANCE >= self.end

    def check(self, frames: int) -> None:
        """Raise a ValueError if ``frames``, taken at a rate, are more than ``max_video_frames``."""
        if frames > self.max_video_frames:
            raise ValueError(
                f"Expected at most {self.max_video_frames} frames, got {frames} at {self.fps:g} a second; "
                "raise --max-frames, lower --fps, or use mlx_gemma4 describe"
            )


class Pace:
    """One video frame every 1 / fps seconds from ``start`` on: the first at or after each."""

    def __init__(self, start: float, fps: float) -> None:
        self._start = start
        self._fps = fps
        self._tick = -1

    def take(self, seconds: float) -> bool:
        """Whether to take the next video frame, which is shown at ``seconds``."""
        before, self._tick = self._tick, math.floor((seconds + TOLERANCE - self._start) * self._fps)
        return self._tick != before


class Evenly:
    """``count`` of ``total`` video frames, evenly spaced."""

    def __init__(self, total: int, count: int) -> None:
        self._wanted = set(sample_indices(total, count).tolist())
        self._index = -1

    def take(self, seconds: float) -> bool:
        """Whether to take the next video frame."""
        self._index += 1
        return self._index in self._wanted


def video_frames(
    source: str | os.PathLike[str] | VideoFile | tuple[np.ndarray, float], selection: Selection | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """The selected video frames, (seconds, uint8 [H, W, 3]), each decoded when it is asked for.

    Args:
        source: A file, or (frames [T, H, W, 3] uint8, frames per second).

    Raises:
        ValueError: No such file; no frames in it or in the selected time; more than ``max_video_frames`` at the
            selected rate; or frames of another form.
    """
    selection = selection or Selection()
    if isinstance(source, tuple):
        _check_array(*source)
        return _selected(lambda: _shown_in_array(*source), "the array", selection)
    file = source if isinstance(source, VideoFile) else VideoFile(source)
    return _selected(lambda: shown_in(file, selection.start), str(file.path), selection)


def shown_in(file: VideoFile, start: float = 0.0) -> Iterator[Shown]:
    """The video frames of a file; some before ``start`` may be left out."""
    for item in file.decode(start=start):
        if isinstance(item, Picture):
            yield item.seconds, item.pixels


def picker(shown: Callable[[], Iterator[Shown]], name: str, selection: Selection) -> Callable[[float], bool]:
    """What says of each frame within the selected time, in order, whether it is taken; they are counted first.

    Raises:
        ValueError: No frame is, or more than ``max_video_frames`` at the selected rate.
    """
    if selection.fps is None:
        total = sum(1 for _ in _within(shown(), selection))
        check_any(total, shown, name, selection)
        return Evenly(total, selection.max_video_frames).take
    pace = Pace(selection.start, selection.fps)
    count = sum(pace.take(seconds) for seconds, _ in _within(shown(), selection))
    check_any(count, shown, name, selection)
    selection.check(count)
    return Pace(selection.start, selection.fps).take


def check_any(count: int, shown: Callable[[], Iterator[Shown]], name: str, selection: Selection) -> None:
    """Raise a ValueError if no frame lies within the selected time; the message says where the video ends."""
    if count:
        return
    last = 0.0
    for last, _ in shown():
        if selection.is_over(last):
            raise ValueError(
                f"There is no frame from {selection.start:g} to {selection.end:g} s in {name}; choose a longer time"
            )
    raise ValueError(
        f"Expected a start of at most {last:g} s, where {name} shows its last frame, got {selection.start:g} s"
    )


def sample_indices(total: int, count: int) -> np.ndarray:
    """``count`` of ``total`` frames, evenly from the first on; all of them where there are fewer.

    transformers ``default_sample_indices_fn``.
    """
    count = min(count, total)
    return np.arange(count) * total // count if count else np.arange(0)


def timestamp(seconds: float) -> str:
    """mm:ss, rounded down, as the prompt carries it."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def _selected(
    shown: Callable[[], Iterator[Shown]], name: str, selection: Selection
) -> Iterator[tuple[float, np.ndarray]]:
    take = picker(shown, name, selection)
    for seconds, pixels in _within(shown(), selection):
        if take(seconds):
            yield seconds, pixels()


def _within(shown: Iterator[Shown], selection: Selection) -> Iterator[Shown]:
    for seconds, pixels in shown:
        if selection.is_over(seconds):
            return
        if selection.has_begun(seconds):
            yield seconds, pixels


def _shown_in_array(frames: np.ndarray, fps: float) -> Iterator[Shown]:
    for index in range(len(frames)):
        yield index / fps, partial(frames.__getitem__, index)


def _check_array(frames: np.ndarray, fps: float) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(f"Expected video frames as uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    if not fps > 0:
        raise ValueError(f"Expected a positive number of frames per second, got {fps}")


@dataclass(frozen=True, eq=False)
class Film:
    """Video frames, of a video or a camera."""

    video_frames: tuple[Patches, ...]
    seconds: tuple[float, ...]
    """When each video frame is shown; the prompt says it as mm:ss."""

    def __post_init__(self) -> None:
        if not self.video_frames or len(self.video_frames) != len(self.seconds):
            raise ValueError(
                f"The video has {len(self.video_frames)} video frames but {len(self.seconds)} times: give each a time"
            )

    def __len__(self) -> int:
        return len(self.video_frames)
