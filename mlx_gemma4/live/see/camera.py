"""A camera as a source of pictures: a device, an address, a file at its own pace. Knows neither model nor tokenizer.

A thread drains it into one slot, where the newest frame takes the place of one that nobody has read. Only frames that
are read become pixels.
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
from mlx_gemma4.live.see.opening import Frame, Run, Settings

if TYPE_CHECKING:
    import av

STALL_SECONDS = 10.0
"""Without a frame for this long, a device or a stream is given up."""
TRIES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each try to open a device or a stream again, for a session that is to last."""
STEADY_SECONDS = 30.0
"""What has run for this long gets all its tries anew."""
DARK_SECONDS = 2.0
"""Exact black for this long, and nothing else so far, means covered or not yet allowed: every sensor has noise."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame of a camera."""

    pixels: np.ndarray
    """uint8 [H, W, 3], upright."""
    time: float
    """Seconds since the first frame."""
    arrived: float
    """When it came, in ``time.monotonic()`` (or the camera's clock): its age is the time since."""
    dropped: int = 0
    """Frames until then whose place newer ones took."""


class Camera:
    """A camera, until it is closed. Opened on entry; devices and streams run from then on, files from the first read.

    A device that begins with black frames, exactly black, is waited for: the system may be asking whether the camera
    is allowed. Those frames are not handed out.

    Args:
        source: A device's number or part of its name, a file, an ``rtsp://`` or ``http(s)://`` address, or ``lavfi:``
            and a filter graph.
        fast: Hand out every frame of a file or a graph, each when it is read, without waiting.
        loop: Start a file again when it ends; times go on.
        stall_seconds: Without a frame for this long, a device or a stream has ended, and what has not begun is given
            up.
        tries: When a device or a stream ends that has given pictures, open it again after so many seconds, and again;
            by default it ends (``TRIES`` are good ones). Times go on.
        tell: Called in the thread that reads, with a sentence: the camera is waited for, or is opened again.

    Raises:
        ValueError: No such file or device. On entry: it cannot be opened or has no video, or ``fast`` or ``loop`` is
            asked of what has no end.
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
        self._settings = Settings(camera_address(source), fast, loop, stall_seconds, clock, sleep)
        self._feed, self._clock, self._tell = self._settings.feed, clock, tell
        self._tries = tries
        self._tried = 0
        self._read = self._last_read = 0
        self._seen_before = self._broken_before = 0
        self._arrived = self._opened_at = 0.0
        self._first_problem = ""
        self._dark_since: float | None = None
        self._is_lit = not self._feed.is_device
        self._is_told_of = False
        self._stopped = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._run: Run | None = None

    def __enter__(self) -> Camera:
        run = self._run = Run(self._settings, self._wake)
        try:
            self._await_opening(run)
            if run.is_live and (self._settings.fast or self._settings.loop):
                raise ValueError(f"Only a file can be read fast or in a loop, not {self._feed.title}, which is live")
        except BaseException:
            run.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if self._run is not None:
            self._run.close()

    @property
    def is_live(self) -> bool:
        """Whether it has no end of its own; known when it is open."""
        return self._feed.is_device if self._run is None else self._run.is_live

    @property
    def seen(self) -> int:
        """Frames that have come."""
        return self._seen_before + (0 if self._run is None else self._run.seen)

    @property
    def broken(self) -> int:
        """Packets that did not decode and were passed over."""
        return self._broken_before + (0 if self._run is None else self._run.broken)

    @property
    def dropped(self) -> int:
        """Frames whose place newer ones took before they were read."""
        return self._last_read - self._read

    @property
    def skipped_seconds(self) -> float:
        """Seconds in which a film shows nothing new that were not waited for."""
        return 0.0 if self._run is None else self._run.skipped

    def stop(self) -> None:
        """Let the pictures end here. Safe to call from a signal handler."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()
        self._wake.put(None)

    def read(self) -> Shot | None:
        """Wait for the next frame that nobody has read; None when there will be none.

        Raises:
            ValueError: It ended without a single frame.
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
        assert self._run is not None
        if self._run.is_still:
            return load_image(self._feed.title)  # a picture is what --image makes of it
        return upright(picture, *shown_size(picture.width, picture.height, self._run.pixel_ratio))

    def _await_opening(self, run: Run) -> None:
        """Until it is open, or for too long: FFmpeg may wait for ever, for example for a first frame."""
        begun = self._opened_at = self._clock()
        deadline = self._feed.open_seconds
        while not (run.opened or run.ended or self._stopped):
            passed = self._clock() - begun
            if passed >= deadline:
                raise ValueError(f"{self._feed.title} did not open within {deadline:g} s; {self._feed.way_out()}")
            if self._feed.asks and passed >= DARK_SECONDS:
                self._say_once(self._feed.not_allowed(f"No picture has come for {DARK_SECONDS:g} s"))
            self._sleep_until(begun + (deadline if self._is_told_of or not self._feed.asks else DARK_SECONDS))
        if run.failure is not None and not run.opened:
            raise run.failure

    def _next(self) -> Frame | None:
        run = self._run
        assert run is not None
        run.want()
        while not self._stopped:
            ended = run.ended  # before the slot: what came last is still handed out
            if (frame := run.take()) is not None:
                return frame
            if ended:
                if (next_run := self._after(run)) is None:
                    return None
                run = next_run
            else:
                self._wait(run)
        return None

    def _wait(self, run: Run) -> None:
        """Until something happens, or for too long."""
        limited = run.is_live or run.seen == 0
        deadline = run.came_at + self._settings.stall_seconds
        self._sleep_until(deadline if limited else None)
        if limited and self._clock() - run.came_at >= self._settings.stall_seconds:
            self._stall(run)

    def _sleep_until(self, deadline: float | None) -> None:
        """Until something happens."""
        with suppress(queue.Empty):
            self._wake.get(timeout=None if deadline is None else max(0.0, deadline - self._clock()))

    def _stall(self, run: Run) -> None:
        run.stop()
        seconds = f"{self._settings.stall_seconds:g} s"
        if self.seen == 0 and not self._feed.is_address:
            self._stopped = True
            way_out = f"; {self._feed.way_out()}" if self._feed.is_device else ""
            raise ValueError(f"There are no pictures from {self._feed.title}: none came for {seconds}{way_out}")
        run.problem = f"The pictures from {self._feed.title} stalled: none came for {seconds}."
        run.ended = True

    def _after(self, run: Run) -> Run | None:
        """The run that follows one that has ended; None where it was the last."""
        if run.failure is not None and (run.opened or not self.seen):
            raise run.failure
        problem = run.problem or str(run.failure or "") or None
        if problem is None or not run.is_live or not self.seen:
            self.problem = problem
            return None
        return self._again(run, problem)

    def _again(self, run: Run, problem: str) -> Run | None:
        if run.seen and self._arrived - self._opened_at >= STEADY_SECONDS:
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
        return self._reopened(run, seconds)

    def _reopened(self, run: Run, seconds: float) -> Run | None:
        until = self._clock() + seconds
        while not self._stopped and self._clock() < until:
            self._sleep_until(until)
        if self._stopped:
            return None
        self._seen_before += run.seen
        self._broken_before += run.broken
        if run.times is not None:
            run.times.restart(max(0.0, self._clock() - self._arrived))
        self._opened_at = self._clock()
        self._run = Run(self._settings, self._wake, before=run)
        return self._run

    def _is_seen(self, pixels: np.ndarray, arrived: float) -> bool:
        """Whether a device shows anything yet."""
        self._is_lit = bool(pixels.any())
        if self._dark_since is None:
            self._dark_since = arrived
        if not self._is_lit and arrived - self._dark_since >= DARK_SECONDS:
            self._say_once(self._feed.not_allowed(f"Only black pictures have come for {DARK_SECONDS:g} s"))
        return self._is_lit

    def _say_once(self, text: str) -> None:
        if not self._is_told_of:
            self._is_told_of = True
            self._tell(text)
