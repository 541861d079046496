"""A camera as a source of pictures: a device, an address, a file at its own pace. Knows neither model nor tokenizer.

A thread drains it into one slot, where the newest frame takes the place of one that nobody has read. Only frames that
are read become pixels.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma4.live.feed import feed, reason
from mlx_gemma4.video_file import upright

if TYPE_CHECKING:
    import av

STALL_SECONDS = 10.0
"""Without a frame for this long, a device or a stream is given up."""
BROKEN_PACKETS = 100
"""So many in a row that do not decode, and none will."""
RETRY_SECONDS = 0.005
"""Between two looks at a device that has no frame yet."""
NAP_SECONDS = 0.1
"""The longest sleep that does not look whether the camera was stopped."""
CLOSE_SECONDS = 1.0
"""How long a device may take to let go."""
USUAL_RATE = 25.0
"""Frames per second of what names neither times nor a rate, as FFmpeg has it."""


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

    Args:
        source: A device's number, a file, an ``rtsp://`` or ``http(s)://`` address, or ``lavfi:`` and a filter graph.
        fast: Hand out every frame of a file or a graph, each when it is read, without waiting.
        loop: Start a file again when it ends; times go on.
        stall_seconds: Without a frame for this long, a device or a stream has ended.

    Raises:
        ValueError: No such file. On entry: it cannot be opened or has no video, or ``fast`` or ``loop`` is asked of
            what has no end.
    """

    def __init__(
        self,
        source: int | str | os.PathLike[str] = 0,
        *,
        fast: bool = False,
        loop: bool = False,
        stall_seconds: float = STALL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.problem: str | None = None
        """Why the pictures ended, in a sentence, if they should not have."""
        self.seen = 0
        """Frames that have come."""
        self.broken = 0
        """Packets that did not decode and were passed over."""
        self._feed = feed(source)
        self._fast = fast
        self._loop = loop
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._sleep = sleep
        self._read = 0
        self._last_read = 0
        self._slot: _Frame | None = None
        self._lock = threading.Lock()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False
        self._ended = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Camera:
        self._container = self._feed.open(self._stall_seconds)
        # an address that knows its length is a file's
        self.is_live = self._feed.is_device or (self._feed.is_address and self._container.duration is None)
        self._frames = self._decode()
        if self.is_live and (self._fast or self._loop):
            self._container.close()
            raise ValueError(f"Expected a file to read fast or in a loop, got {self._feed.title}, which is live")
        if self.is_live:
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        if self._thread is None or not self._thread.is_alive():
            self._frames.close()
            self._container.close()

    @property
    def dropped(self) -> int:
        """Frames whose place newer ones took before they were read."""
        return self._last_read - self._read

    def stop(self) -> None:
        """Let the pictures end here. Safe to call from a signal handler."""
        self._stopped = True
        self._wake.put(None)

    def read(self) -> Shot | None:
        """Wait for the next frame that nobody has read; None when there will be none.

        Raises:
            ValueError: It ended without a single frame.
        """
        frame = next(self._frames, None) if self._fast else self._next()
        if frame is None or self._stopped:
            return None
        self._read += 1
        self._last_read = frame.number
        pixels = upright(frame.picture, frame.picture.width, frame.picture.height)
        return Shot(pixels, frame.time, frame.arrived, self.dropped)

    def _next(self) -> _Frame | None:
        if self._thread is None:
            self._start()
        while not self._stopped:
            ended = self._ended  # before the slot: what came last is still handed out
            with self._lock:
                frame, self._slot = self._slot, None
            if frame is not None:
                return frame
            if ended:
                if self._failure is not None:
                    raise self._failure
                return None
            self._wait()
        return None

    def _wait(self) -> None:
        """Until something happens, or for too long."""
        deadline = self._came_at + self._stall_seconds
        try:
            self._wake.get(timeout=max(0.0, deadline - self._clock()) if self.is_live else None)
        except queue.Empty:
            if self._clock() - self._came_at >= self._stall_seconds:
                self._stall()

    def _stall(self) -> None:
        self.stop()
        if self.seen == 0 and self._feed.is_device:
            raise ValueError(
                f"Expected pictures from {self._feed.title}, none came for {self._stall_seconds:g} s; "
                f"{self._feed.way_out()}"
            )
        self.problem = f"The pictures from {self._feed.title} stalled: none came for {self._stall_seconds:g} s."

    def _start(self) -> None:
        self._came_at = self._clock()
        self._thread = threading.Thread(target=self._drain, name="camera", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        try:
            for frame in self._frames:
                self._came_at = frame.arrived
                with self._lock:
                    waiting, self._slot = self._slot, frame
                if waiting is None:
                    self._wake.put(None)
        except Exception as error:  # for the reader's thread
            self._failure = error
        finally:
            self._ended = True
            self._wake.put(None)

    def _decode(self) -> Generator[_Frame, None, None]:
        """All frames, each when it has come or is due."""
        from av.error import FFmpegError

        times = _Times(float(self._container.streams.video[0].guessed_rate or USUAL_RATE))
        failure = None
        try:
            for picture in self._pictures(times):
                seconds = times.of(picture)
                if not self.is_live and not self._fast:
                    self._pace(seconds)
                if self._stopped:
                    break
                self.seen += 1
                yield _Frame(picture, self.seen, seconds, self._clock())
        except FFmpegError as error:
            failure = error
        if not self._stopped:
            self._explain(failure)

    def _explain(self, failure: Exception | None) -> None:
        """Say why the pictures ended, if they should not have."""
        title = self._feed.title
        if failure is not None:
            self.problem = f"The pictures from {title} broke off: {reason(failure)}."
        elif self.is_live:
            self.problem = f"The pictures from {title} ended."
        elif self.seen == 0:
            raise ValueError(f"Expected pictures from {title}, it has 0 video frames")

    def _pictures(self, times: _Times) -> Iterator[av.VideoFrame]:
        """Every picture that decodes, of every round."""
        while True:
            before = self.seen
            yield from self._round()
            if not self._loop or self.seen == before or self._stopped:
                return
            self._container.close()
            self._container = self._feed.open(self._stall_seconds)
            times.restart()

    def _round(self) -> Iterator[av.VideoFrame]:
        from av.error import FFmpegError

        in_a_row = 0
        for packet in self._packets():
            try:
                pictures = packet.decode()
            except FFmpegError:
                self.broken += 1
                in_a_row += 1
                if in_a_row == BROKEN_PACKETS:
                    raise
                continue
            in_a_row = 0
            yield from pictures

    def _packets(self) -> Iterator[av.Packet]:
        while not self._stopped:
            try:
                yield from self._container.demux(self._container.streams.video[0])
                return
            except BlockingIOError:  # avfoundation does not wait for its next frame
                self._sleep(RETRY_SECONDS)

    def _pace(self, seconds: float) -> None:
        """Wait until a frame of a file is due."""
        if self.seen == 0:
            self._started = self._clock() - seconds
        while not self._stopped and (left := self._started + seconds - self._clock()) > 0:
            self._sleep(min(left, NAP_SECONDS))


@dataclass(frozen=True, eq=False)
class _Frame:
    """As it came out of the decoder, and which one it is, from 1 on."""

    picture: av.VideoFrame
    number: int
    time: float
    arrived: float


class _Times:
    """Seconds since the first frame, from what each says of itself; by count where it says nothing. Never back."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._count = 0
        self._last = self._next = 0.0
        self._shift: float | None = None

    def restart(self) -> None:
        """The next frame follows the last one, whatever it says."""
        self._shift = None

    def of(self, picture: av.VideoFrame) -> float:
        told = self._count / self._rate if picture.time is None else picture.time
        self._count += 1
        if self._shift is None or told + self._shift < self._last:
            self._shift = self._next - told
        self._last = told + self._shift
        shown = picture.duration * picture.time_base if picture.duration else 1 / self._rate
        self._next = self._last + float(shown)
        return self._last
