"""A video with its sound, stretch by stretch, decoded in one pass and in memory that does not grow with its length.

numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, Resampler
from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.inputs.vision.video import TOLERANCE, Film, Pace, Selection, check_any, picker, shown_in
from mlx_gemma4.inputs.vision.video_file import Picture, Sound, VideoFile

SHORTEST = 0.1
"""Seconds of a stretch, at least. Less sound than this after the last picture is an encoder's padding."""
SLACK = 0.04
"""Seconds by which the times of sound may be wrong before it is moved."""
LAG = 10.0
"""Seconds by which pictures and sound may lie apart in a file; what is further behind counts as missing."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """A part of a video."""

    start: float
    """Seconds from the video's first frame on."""
    end: float
    film: Film | None
    """None if no video frame is taken."""
    samples: np.ndarray
    """Its sound, float32 [n] at 16 kHz; shorter if the sound ends earlier, [0] if it was not asked for."""

    @property
    def content(self) -> list[dict[str, Any]]:
        """The parts of a message: pictures, then sound."""
        seen = [] if self.film is None else [{"type": "video", "video": self.film}]
        heard = [{"type": "audio", "audio": self.samples}] if len(self.samples) else []
        return [*seen, *heard]


def stretches(
    file: VideoFile, seconds: float, selection: Selection, prepare: Callable[[np.ndarray], Patches], *, sound: bool
) -> Iterator[Stretch]:
    """Cut a video into stretches of ``seconds``, the last one shorter. Empty ones are left out.

    Args:
        selection: With ``fps``, each stretch has its own frames, the first at or after its start and every 1 / fps
            from there, and ``max_video_frames`` does not count. Without, ``max_video_frames`` are those of the whole.
        prepare: Makes patches of a video frame, uint8 [H, W, 3], as soon as it is decoded.

    Raises:
        ValueError: Stretches that are too short, or no frame in the selected time.
    """
    check_length(seconds)
    shown = partial(shown_in, file, selection.start)
    if selection.fps is None:
        take = picker(shown, str(file.path), selection)
    else:
        take = _PaceOfEach(selection.start, seconds, selection.fps).take
    cutter = _Cutter(seconds, selection, Track(selection.start) if sound else None)
    for item in file.decode(sound=sound, start=selection.start):
        if isinstance(item, Sound):
            cutter.hear(item)
        elif selection.has_begun(item.seconds) and not selection.is_over(item.seconds) and take(item.seconds):
            cutter.see(item, prepare(item.pixels()))
        else:
            cutter.see(item, None)
        yield from cutter.complete()
        if cutter.is_over:
            break
    yield from cutter.rest()
    check_any(cutter.seen, shown, str(file.path), selection)


def check_length(seconds: float) -> None:
    """Raise a ValueError if stretches of ``seconds`` are too short, or no length at all."""
    if not SHORTEST <= seconds < math.inf:
        raise ValueError(f"Expected segments of {SHORTEST:g} s or more, got {seconds:g}")


class _PaceOfEach:
    """``Pace``, restarted at each stretch."""

    def __init__(self, start: float, seconds: float, fps: float) -> None:
        self._start = start
        self._seconds = seconds
        self._fps = fps
        self._index = -1

    def take(self, seconds: float) -> bool:
        index = math.floor((seconds + TOLERANCE - self._start) / self._seconds)
        if index != self._index:
            self._index, self._pace = index, Pace(self._start + index * self._seconds, self._fps)
        return self._pace.take(seconds)


class _Cutter:
    """Pictures and sound in, each in order; stretches out, when both have passed them."""

    def __init__(self, seconds: float, selection: Selection, track: Track | None) -> None:
        self.seen = 0
        """Video frames that were taken."""
        self._seconds = seconds
        self._selection = selection
        self._track = track
        self._cut = 0
        self._frames: list[tuple[float, Patches]] = []
        self._reached = self._shown = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the selected time has passed."""
        return self._selection.end is not None and self._start >= self._selection.end

    def see(self, picture: Picture, patches: Patches | None) -> None:
        """Take a video frame; ``patches`` if it is selected."""
        self._reached, self._shown = picture.seconds, picture.end
        if patches is not None:
            self.seen += 1
            self._frames.append((picture.seconds, patches))

    def hear(self, sound: Sound) -> None:
        assert self._track is not None
        self._track.push(sound)

    def complete(self) -> Iterator[Stretch]:
        while not self.is_over and self._has_passed(self._end):
            self._skip(self._passed)
            yield from self._next(math.inf)

    def rest(self) -> Iterator[Stretch]:
        """The video has ended."""
        if self._track is not None:
            self._track.finish()
        length = max(self._shown, 0.0 if self._track is None else self._track.seconds)
        while not self.is_over and self._start < length:
            self._skip(length)
            yield from self._next(length)

    @property
    def _start(self) -> float:
        return self._selection.start + self._cut * self._seconds

    @property
    def _end(self) -> float:
        end = self._start + self._seconds
        return end if self._selection.end is None else min(end, self._selection.end)

    @property
    def _passed(self) -> float:
        """Seconds up to which nothing more can come."""
        seen = self._reached + TOLERANCE
        if self._track is None:
            return seen
        return max(min(seen, self._track.seconds), max(seen, self._track.seconds) - LAG)

    def _skip(self, passed: float) -> None:
        """Skip empty stretches at once, however many."""
        waiting = [self._frames[0][0] + TOLERANCE] if self._frames else []
        waiting += [] if self._track is None else self._track.waiting
        index = math.floor((min([passed, *waiting]) - self._selection.start) / self._seconds)
        if index > self._cut:
            self._cut = index
            if self._track is not None:
                self._track.take(self._start)

    def _has_passed(self, end: float) -> bool:
        return self._passed >= end

    def _next(self, length: float) -> Iterator[Stretch]:
        start, end = self._start, self._end
        self._cut += 1
        shown = [each for each in self._frames if each[0] + TOLERANCE < end]
        self._frames = self._frames[len(shown) :]
        samples = np.zeros(0, np.float32) if self._track is None else self._track.take(end)
        if shown or len(samples) >= SHORTEST * SAMPLE_RATE:
            film = Film(tuple(patches for _, patches in shown), tuple(at for at, _ in shown)) if shown else None
            yield Stretch(start, min(end, length), film, samples)


class Track:
    """The sound of a video at 16 kHz, mono, from ``start`` on. Gaps are silent."""

    def __init__(self, start: float) -> None:
        self._first = round(start * SAMPLE_RATE)
        self._next = 0
        self._until = 0.0
        self._resampler = Resampler()
        self._pieces: list[tuple[int, np.ndarray]] = []

    @property
    def seconds(self) -> float:
        """Seconds of sound so far."""
        return self._next / SAMPLE_RATE

    @property
    def waiting(self) -> list[float]:
        """When the next waiting sound begins, if any waits."""
        return [self._pieces[0][0] / SAMPLE_RATE] if self._pieces else []

    def push(self, sound: Sound) -> None:
        """Append a piece to the one before, unless its time says otherwise."""
        apart = abs(sound.seconds - self._until) > SLACK
        if apart:
            self.finish()
            self._next, self._until = round(sound.seconds * SAMPLE_RATE), sound.seconds
        self._until += len(sound.samples) / sound.rate
        self._add(self._resampler.push(sound.samples.mean(axis=1), sound.rate))

    def finish(self) -> None:
        """End the sound: the resampler returns what it holds back."""
        self._add(self._resampler.finish())

    def take(self, end: float) -> np.ndarray:
        """The sound from where the last call ended up to ``end`` seconds, without trailing silence."""
        stop = round(end * SAMPLE_RATE)
        pieces = [(at, samples[: stop - at]) for at, samples in self._pieces if at < stop]
        self._pieces = [
            (max(at, stop), samples[max(0, stop - at) :]) for at, samples in self._pieces if at + len(samples) > stop
        ]
        taken = np.zeros(
            max((at + len(samples) for at, samples in pieces), default=self._first) - self._first, np.float32
        )
        for at, samples in pieces:
            taken[at - self._first : at - self._first + len(samples)] = samples
        self._first = stop
        return taken

    def _add(self, samples: np.ndarray) -> None:
        before = max(0, self._first - self._next)
        if before < len(samples):
            self._pieces.append((self._next + before, samples[before:]))
        self._next += len(samples)
