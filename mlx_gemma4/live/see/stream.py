"""A camera's pictures from opening to end, in a thread of its own: opened, decoded and closed there.

The reader never hangs in FFmpeg. The newest picture replaces an unread one.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from mlx_gemma4.inputs.vision.video_container import leap_of, pictures_of
from mlx_gemma4.live.see.address import CameraAddress, reason

if TYPE_CHECKING:
    import av

BROKEN_PACKETS = 100
"""Packets in a row that cannot be decoded, after which the stream counts as broken."""
RETRY_SECONDS = 0.005
"""Seconds between two attempts to read a device that has no picture yet."""
NAP_SECONDS = 0.1
"""Longest sleep between two checks whether the camera was stopped."""
LONGEST_WAIT = 10.0
"""Longest pause between two pictures of a film at its own pace, in seconds; longer ones are shortened."""
CLOSE_SECONDS = 1.0
"""Seconds that a device may take to close."""
USUAL_RATE = 25.0
"""Pictures per second if a source names neither times nor a rate, as in FFmpeg."""


@dataclass(frozen=True)
class StreamSettings:
    """How a camera is read."""

    address: CameraAddress
    fast: bool
    loop: bool
    stall_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture as it came out of the decoder."""

    picture: av.VideoFrame
    number: int
    """Number in the stream, from 1 on."""
    time: float
    arrived: float


class CameraStream:
    """The pictures of an address from opening to end.

    Args:
        wake: Gets an item whenever something is new.
        before: The stream of the same address that this one follows. Times continue.
    """

    def __init__(
        self, settings: StreamSettings, wake: queue.SimpleQueue[None], before: CameraStream | None = None
    ) -> None:
        self.problem: str | None = None
        """Why the pictures ended, in a sentence, if they should not have."""
        self.failure: Exception | None = None
        """For the reader to raise: the address cannot be opened, has no pictures, or something else failed."""
        self.is_live: bool = settings.address.is_device if before is None else before.is_live
        self.opened = self.ended = False
        self.seen = 0
        """Pictures that have arrived."""
        self.broken = 0
        """Packets that could not be decoded and were skipped."""
        self.pixel_ratio: Fraction | None = None
        """Ratio of the sides of a stored pixel, if they are not square."""
        self.is_still = False
        """A file that holds one picture."""
        self.skipped = 0.0
        """Seconds of a film without a new picture that were not waited for."""
        self.times: FrameTimes | None = None if before is None else before.times
        self.came_at = settings.clock()
        """When the last picture arrived, by the clock."""
        self._settings, self._wake = settings, wake
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._slot: Frame | None = None
        self._lock = threading.Lock()
        self._stopped = self._begun = False
        self._thread = threading.Thread(target=self._work, name="camera", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the stream. Safe to call from a signal handler."""
        self._stopped = True
        self._wanted.put(None)

    def close(self) -> None:
        """Stop, and wait a moment for the device to close."""
        self.stop()
        self._thread.join(CLOSE_SECONDS)

    def want(self) -> None:
        """Ask for the next picture of a film: it does not run before the first read, nor ahead when ``fast``."""
        if not self._begun:
            self._begun = True
            if not self.is_live:
                self.came_at = self._settings.clock()
        elif not self._settings.fast:
            return
        self._wanted.put(None)

    def take(self) -> Frame | None:
        """The newest picture, if it is unread."""
        with self._lock:
            frame, self._slot = self._slot, None
            return frame

    def _work(self) -> None:
        try:
            frames = self._opened()
            self._wake.put(None)
            for frame in frames:
                self._put(frame)
                if self._settings.fast:
                    self._wanted.get()
        except Exception as error:  # raised in the reader's thread
            self.failure = error
        finally:
            self.ended = True
            self._wake.put(None)

    def _opened(self) -> Generator[Frame, None, None]:
        address = self._settings.address
        self._container = address.open(self._settings.stall_seconds)
        # an address with a known length is a file
        self.is_live = address.is_device or (address.is_address and self._container.duration is None)
        self.pixel_ratio = self._stream().sample_aspect_ratio
        self.is_still = not (address.is_device or address.is_address) and self._container.format.name.endswith("_pipe")
        self.opened = True
        return self._decode()

    def _put(self, frame: Frame) -> None:
        self.came_at = frame.arrived
        with self._lock:
            waiting, self._slot = self._slot, frame
        if waiting is None:
            self._wake.put(None)

    def _decode(self) -> Generator[Frame, None, None]:
        """All pictures, each when it arrives or is due."""
        from av.error import FFmpegError

        failure = None
        try:
            if not self.is_live:
                self._wanted.get()
            yield from self._timed()
        except FFmpegError as error:
            failure = error
        finally:
            self._container.close()
        if not self._stopped:
            self._explain(failure)

    def _timed(self) -> Iterator[Frame]:
        if self.times is None:
            rate = float(self._stream().guessed_rate or USUAL_RATE)
            self.times = FrameTimes(rate, jump=leap_of(self._container))
        for picture in self._pictures(self.times):
            if self._stopped:
                return
            seconds = self.times.of(picture)
            if not self.is_live and not self._settings.fast:
                self._pace(seconds)
            if self._stopped:
                return
            self.seen += 1
            yield Frame(picture, self.seen, seconds, self._settings.clock())

    def _stream(self) -> av.VideoStream:
        stream = pictures_of(self._container)
        assert stream is not None, "``CameraAddress.open`` has checked it"
        return stream

    def _explain(self, failure: Exception | None) -> None:
        """Say why the pictures ended, if they should not have."""
        title = self._settings.address.title
        if failure is not None:
            self.problem = f"The pictures from {title} broke off: {reason(failure)}."
        elif self.is_live:
            self.problem = f"The pictures from {title} ended."
        elif self.seen == 0:
            raise ValueError(f"There are no pictures from {title}: it has 0 video frames")

    def _pictures(self, times: FrameTimes) -> Iterator[av.VideoFrame]:
        """Every picture that can be decoded, of every loop."""
        while True:
            before = self.seen
            yield from self._round()
            if not self._settings.loop or self.seen == before or self._stopped:
                return
            self._container.close()
            self._container = self._settings.address.open(self._settings.stall_seconds)
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
                yield from self._container.demux(self._stream())
                return
            except BlockingIOError:  # avfoundation does not wait for its next picture
                self._settings.sleep(RETRY_SECONDS)

    def _pace(self, seconds: float) -> None:
        """Wait until a picture of a film is due."""
        clock = self._settings.clock
        if self.seen == 0:
            self._started = clock() - seconds
            self._paced = seconds
        if (beyond := seconds - self._paced - LONGEST_WAIT) > 0:
            self._started -= beyond
            self.skipped += beyond
        self._paced = seconds
        while not self._stopped and (left := self._started + seconds - clock()) > 0:
            self._settings.sleep(min(left, NAP_SECONDS))


class FrameTimes:
    """Seconds since the first picture; counted if pictures carry no times.

    Args:
        rate: Pictures per second, if they do not say how long they are shown.
        jump: A picture further ahead than so many seconds has a new clock: it follows the last one.
    """

    def __init__(self, rate: float, *, jump: float) -> None:
        self._rate, self._jump = rate, jump
        self._count = 0
        self._last = self._next = 0.0
        self._shift: float | None = None

    def restart(self, after: float | None = None) -> None:
        """Let the next picture follow the last one, ``after`` so many seconds if given, whatever its time."""
        self._shift = None
        if after is not None:
            self._next = self._last + after

    def of(self, picture: av.VideoFrame) -> float:
        """Seconds since the first picture."""
        clock_time = self._count / self._rate if picture.time is None else picture.time
        self._count += 1
        if self._shift is None or self._is_new_clock(clock_time + self._shift):
            self._shift = self._next - clock_time
        self._last = clock_time + self._shift
        shown = picture.duration * picture.time_base if picture.duration else 1 / self._rate
        self._next = self._last + float(shown)
        return self._last

    def _is_new_clock(self, seconds: float) -> bool:
        return not self._last <= seconds <= self._last + self._jump
