"""A camera as a source of pictures: a device, an address, or a file at its own pace.

    device ─ FFmpeg ─ thread ──▶ [slot] ──▶ read()       the slot holds the newest picture; a newer one replaces it
                                                         and is counted as dropped. Only what is read becomes pixels.

Knows neither model nor tokenizer.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.inputs.vision.video_file import shown_size, upright
from mlx_gemma4.live.see.address import camera_address
from mlx_gemma4.live.see.stream import CameraStream, Frame, StreamSettings

if TYPE_CHECKING:
    import av

STALL_SECONDS = 10.0
"""Seconds without a picture after which a device or an address counts as ended."""
TRIES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each attempt to open a device or an address again, in a long session."""
STEADY_SECONDS = 30.0
"""Seconds of pictures after which all attempts are available again."""
DARK_SECONDS = 2.0
"""Only exactly black pictures for this long means covered or not yet allowed: a real sensor has noise."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture of a camera."""

    pixels: np.ndarray
    """uint8 [H, W, 3], upright."""
    time: float
    """Seconds since the first picture."""
    arrived: float
    """When it arrived, by ``time.monotonic()`` or the camera's clock."""
    dropped: int = 0
    """Pictures so far that newer ones replaced before they were read."""


class Camera:
    """A camera, as a context manager. Devices and addresses run from entry on, files from the first read.

    A device that begins with exactly black pictures is waited for, because the system may be asking whether the camera
    is allowed. Those pictures are not returned.

    Args:
        source: A device's number or part of its name, a file, an ``rtsp://`` or ``http(s)://`` address, or ``lavfi:``
            and a filter graph.
        fast: Return every picture of a file or a graph, without waiting.
        loop: Start a file again when it ends. Times continue.
        stall_seconds: Seconds without a picture after which a device or an address has ended.
        tries: When a device or an address ends after it has given pictures, open it again after so many seconds each
            (``TRIES``). By default it ends. Times continue.
        tell: Called in the reading thread with a sentence, when the camera is waited for or opened again.

    Raises:
        ValueError: No such file or device. On entry: it cannot be opened, has no pictures, or is live and ``fast`` or
            ``loop`` was given.
    """

    def __init__(
        self,
        source: int | str | os.PathLike[str] = 0,
        *,
        fast: bool = False,
        loop: bool = False,
        stall_seconds: float = STALL_SECONDS,
        tries: Sequence[float] = (),
        tell: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.problem: str | None = None
        """Why the pictures ended, in a sentence, if they should not have."""
        self._settings = StreamSettings(camera_address(source), fast, loop, stall_seconds, clock, sleep)
        self._address, self._clock, self._tell = self._settings.address, clock, tell
        self._tries = tries
        self._tried = 0
        self._read = self._last_read = 0
        self._seen_before = self._broken_before = 0
        self._arrived = self._opened_at = 0.0
        self._first_problem = ""
        self._dark_since: float | None = None
        self._is_lit = not self._address.is_device
        self._is_told_of = False
        self._stopped = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stream: CameraStream | None = None

    def __enter__(self) -> Camera:
        stream = self._stream = CameraStream(self._settings, self._wake)
        try:
            self._await_opening(stream)
            if stream.is_live and (self._settings.fast or self._settings.loop):
                raise ValueError(f"Only a file can be read fast or in a loop, not {self._address.title}, which is live")
        except BaseException:
            stream.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if self._stream is not None:
            self._stream.close()

    @property
    def is_live(self) -> bool:
        """Whether it has no end of its own. Known after it was opened."""
        return self._address.is_device if self._stream is None else self._stream.is_live

    @property
    def seen(self) -> int:
        """Pictures that have arrived."""
        return self._seen_before + (0 if self._stream is None else self._stream.seen)

    @property
    def broken(self) -> int:
        """Packets that could not be decoded and were skipped."""
        return self._broken_before + (0 if self._stream is None else self._stream.broken)

    @property
    def dropped(self) -> int:
        """Pictures that newer ones replaced before they were read."""
        return self._last_read - self._read

    @property
    def skipped_seconds(self) -> float:
        """Seconds of a film without a new picture that were not waited for."""
        return 0.0 if self._stream is None else self._stream.skipped

    def stop(self) -> None:
        """End the pictures. Safe to call from a signal handler."""
        self._stopped = True
        if self._stream is not None:
            self._stream.stop()
        self._wake.put(None)

    def read(self) -> Shot | None:
        """Wait for the next unread picture; None when there are no more.

        Raises:
            ValueError: It ended without a single picture.
        """
        while (frame := self._next()) is not None and not self._stopped:
            self._read += 1
            self._last_read = self._seen_before + frame.number
            self._arrived = frame.arrived
            pixels = self._pixels(frame.picture)
            if self._is_lit or self._is_seen(pixels, frame.arrived):
                return Shot(pixels, frame.time, frame.arrived, self.dropped)
        return None

    def _pixels(self, picture: av.VideoFrame) -> np.ndarray:
        """uint8 [H, W, 3], upright, in square pixels."""
        assert self._stream is not None
        if self._stream.is_still:
            return load_image(self._address.title)  # the same pixels as with --image
        return upright(picture, *shown_size(picture.width, picture.height, self._stream.pixel_ratio))

    def _await_opening(self, stream: CameraStream) -> None:
        """Wait until it is open, but not too long: FFmpeg may wait forever, for example for a first picture."""
        begun = self._opened_at = self._clock()
        deadline = self._address.open_seconds
        while not (stream.opened or stream.ended or self._stopped):
            passed = self._clock() - begun
            if passed >= deadline:
                raise ValueError(f"{self._address.title} did not open within {deadline:g} s; {self._address.way_out()}")
            if self._address.asks and passed >= DARK_SECONDS:
                self._say_once(self._address.not_allowed(f"No picture has come for {DARK_SECONDS:g} s"))
            self._sleep_until(begun + (deadline if self._is_told_of or not self._address.asks else DARK_SECONDS))
        if stream.failure is not None and not stream.opened:
            raise stream.failure

    def _next(self) -> Frame | None:
        stream = self._stream
        assert stream is not None
        stream.want()
        while not self._stopped:
            ended = stream.ended  # read before the slot, so that the last picture is still returned
            if (frame := stream.take()) is not None:
                return frame
            if ended:
                if (following := self._after(stream)) is None:
                    return None
                stream = following
            else:
                self._wait(stream)
        return None

    def _wait(self, stream: CameraStream) -> None:
        """Wait until something happens, or too long."""
        limited = stream.is_live or stream.seen == 0
        deadline = stream.came_at + self._settings.stall_seconds
        self._sleep_until(deadline if limited else None)
        if limited and self._clock() - stream.came_at >= self._settings.stall_seconds:
            self._stall(stream)

    def _sleep_until(self, deadline: float | None) -> None:
        """Wait until something happens."""
        with suppress(queue.Empty):
            self._wake.get(timeout=None if deadline is None else max(0.0, deadline - self._clock()))

    def _stall(self, stream: CameraStream) -> None:
        stream.stop()
        seconds = f"{self._settings.stall_seconds:g} s"
        if self.seen == 0 and not self._address.is_address:
            self._stopped = True
            way_out = f"; {self._address.way_out()}" if self._address.is_device else ""
            raise ValueError(f"There are no pictures from {self._address.title}: none came for {seconds}{way_out}")
        stream.problem = f"The pictures from {self._address.title} stalled: none came for {seconds}."
        stream.ended = True

    def _after(self, stream: CameraStream) -> CameraStream | None:
        """The stream that follows one that has ended; None if it was the last."""
        if stream.failure is not None and (stream.opened or not self.seen):
            raise stream.failure
        problem = stream.problem or str(stream.failure or "") or None
        if problem is None or not stream.is_live or not self.seen:
            self.problem = problem
            return None
        return self._again(stream, problem)

    def _again(self, stream: CameraStream, problem: str) -> CameraStream | None:
        if stream.seen and self._arrived - self._opened_at >= STEADY_SECONDS:
            self._tried = 0
        if self._tried == 0:
            self._first_problem = problem
        if self._tried >= len(self._tries):
            tried = f" Opening it again did not help (tries: {self._tried})." if self._tried else ""
            self.problem = f"{self._first_problem}{tried}"
            return None
        seconds = self._tries[self._tried]
        self._tried += 1
        self._tell(f"{problem.rstrip('.')}. Opening it again in {seconds:g} s.")
        return self._reopened(stream, seconds)

    def _reopened(self, stream: CameraStream, seconds: float) -> CameraStream | None:
        until = self._clock() + seconds
        while not self._stopped and self._clock() < until:
            self._sleep_until(until)
        if self._stopped:
            return None
        self._seen_before += stream.seen
        self._broken_before += stream.broken
        if stream.times is not None:
            stream.times.restart(max(0.0, self._clock() - self._arrived))
        self._opened_at = self._clock()
        self._stream = CameraStream(self._settings, self._wake, before=stream)
        return self._stream

    def _is_seen(self, pixels: np.ndarray, arrived: float) -> bool:
        """Whether a device shows anything yet, other than black."""
        self._is_lit = bool(pixels.any())
        if self._dark_since is None:
            self._dark_since = arrived
        if not self._is_lit and arrived - self._dark_since >= DARK_SECONDS:
            self._say_once(self._address.not_allowed(f"Only black pictures have come for {DARK_SECONDS:g} s"))
        return self._is_lit

    def _say_once(self, text: str) -> None:
        if not self._is_told_of:
            self._is_told_of = True
            self._tell(text)
