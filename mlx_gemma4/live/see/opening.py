"""One opening of a camera, in a thread of its own: opened, decoded and closed there.

Whoever reads never hangs in FFmpeg. The newest frame takes the place of one that nobody has read.
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
from mlx_gemma4.live.see.frame_times import FrameTimes

if TYPE_CHECKING:
    import av

BROKEN_PACKETS = 100
"""So many in a row that do not decode, and none will."""
RETRY_SECONDS = 0.005
"""Between two looks at a device that has no frame yet."""
NAP_SECONDS = 0.1
"""The longest sleep that does not look whether the camera was stopped."""
LONGEST_WAIT = 10.0
"""Seconds that a film at its own pace may show nothing new; what is longer is cut."""
CLOSE_SECONDS = 1.0
"""How long a device may take to let go."""
USUAL_RATE = 25.0
"""Frames per second of what names neither times nor a rate, as FFmpeg has it."""


@dataclass(frozen=True)
class Settings:
    """How a camera is read."""

    feed: CameraAddress
    fast: bool
    loop: bool
    stall_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, eq=False)
class Frame:
    """As it came out of the decoder."""

    picture: av.VideoFrame
    number: int
    """Of the run, from 1 on."""
    time: float
    arrived: float


class Run:
    """A feed from its opening to its end. ``wake`` gets something whenever there is something new.

    Args:
        before: The run of the same feed that this one follows; times go on.
    """

    def __init__(self, settings: Settings, wake: queue.SimpleQueue[None], before: Run | None = None) -> None:
        self.problem: str | None = None
        """Why the pictures ended, in a sentence, if they should not have."""
        self.failure: Exception | None = None
        """For the reader: the feed did not open, holds no pictures, or something else went wrong."""
        self.is_live: bool = settings.feed.is_device if before is None else before.is_live
        self.opened = self.ended = False
        self.seen = 0
        """Frames that have come."""
        self.broken = 0
        """Packets that did not decode and were passed over."""
        self.pixel_ratio: Fraction | None = None
        """Of the sides of a stored pixel, where they are not square."""
        self.is_still = False
        """A file that holds one picture."""
        self.skipped = 0.0
        """Seconds of a film without a new picture that were not waited for."""
        self.times: FrameTimes | None = None if before is None else before.times
        self.came_at = settings.clock()
        """When something came last, by the clock."""
        self._settings, self._wake = settings, wake
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._slot: Frame | None = None
        self._lock = threading.Lock()
        self._stopped = self._begun = False
        self._thread = threading.Thread(target=self._work, name="camera", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let it end here. Safe to call from a signal handler."""
        self._stopped = True
        self._wanted.put(None)

    def close(self) -> None:
        """Stop, and wait a moment until the device is free."""
        self.stop()
        self._thread.join(CLOSE_SECONDS)

    def want(self) -> None:
        """The next frame of a film may come: a film does not run before it is read, nor, when fast, ahead."""
        if not self._begun:
            self._begun = True
            if not self.is_live:
                self.came_at = self._settings.clock()
        elif not self._settings.fast:
            return
        self._wanted.put(None)

    def take(self) -> Frame | None:
        """The newest frame, if nobody has read it."""
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
        except Exception as error:  # for the reader's thread
            self.failure = error
        finally:
            self.ended = True
            self._wake.put(None)

    def _opened(self) -> Generator[Frame, None, None]:
        feed = self._settings.feed
        self._container = feed.open(self._settings.stall_seconds)
        # an address that knows its length is a file's
        self.is_live = feed.is_device or (feed.is_address and self._container.duration is None)
        self.pixel_ratio = self._stream().sample_aspect_ratio
        self.is_still = not (feed.is_device or feed.is_address) and self._container.format.name.endswith("_pipe")
        self.opened = True
        return self._decode()

    def _put(self, frame: Frame) -> None:
        self.came_at = frame.arrived
        with self._lock:
            waiting, self._slot = self._slot, frame
        if waiting is None:
            self._wake.put(None)

    def _decode(self) -> Generator[Frame, None, None]:
        """All frames, each when it has come or is due."""
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
        assert stream is not None, "the feed has looked for it"
        return stream

    def _explain(self, failure: Exception | None) -> None:
        """Say why the pictures ended, if they should not have."""
        title = self._settings.feed.title
        if failure is not None:
            self.problem = f"The pictures from {title} broke off: {reason(failure)}."
        elif self.is_live:
            self.problem = f"The pictures from {title} ended."
        elif self.seen == 0:
            raise ValueError(f"There are no pictures from {title}: it has 0 video frames")

    def _pictures(self, times: FrameTimes) -> Iterator[av.VideoFrame]:
        """Every picture that decodes, of every round."""
        while True:
            before = self.seen
            yield from self._round()
            if not self._settings.loop or self.seen == before or self._stopped:
                return
            self._container.close()
            self._container = self._settings.feed.open(self._settings.stall_seconds)
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
            except BlockingIOError:  # avfoundation does not wait for its next frame
                self._settings.sleep(RETRY_SECONDS)

    def _pace(self, seconds: float) -> None:
        """Wait until a frame of a film is due."""
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
