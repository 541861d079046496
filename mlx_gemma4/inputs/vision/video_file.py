"""Video files, by FFmpeg: every picture and all sound that can be decoded, each with its time.

What containers claim about length, rate and index is not relied on, and what is broken is passed over.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma4.inputs.audio.pyav_frame import samples_of
from mlx_gemma4.inputs.vision.image import no_file
from mlx_gemma4.inputs.vision.timeline import BACK, LEAP, PICTURES, SOUND, Timeline
from mlx_gemma4.inputs.vision.upright import orientation_of, turn
from mlx_gemma4.inputs.vision.video_container import check_size, leap_of, open_file, pictures_of, refusal

if TYPE_CHECKING:
    import av

RATES = (1000, 768_000)
"""Hz of sound that is read: below, a few bytes would be hours."""
QUARTER_TURNS = (1, 8, 3, 6)
"""Orientations by quarter turns against the clock."""
HELD = 1000
"""Packets of pictures that may not be needed, held at most until a key frame says so."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame as it comes out of the decoder."""

    seconds: float
    """When it is shown, from the first picture of the file on."""
    end: float
    """Until when, at the file's usual rate."""
    size: tuple[int, int]
    """(width, height) of the first picture in square pixels, which all are brought to."""
    frame: av.VideoFrame

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3] as it is to be seen."""
        return upright(self.frame, *self.size)


@dataclass(frozen=True, eq=False)
class Sound:
    """A piece of the audio track."""

    seconds: float
    """When it begins, from the first picture of the file on; below 0 before it."""
    samples: np.ndarray
    """[n, channels] float32 in [-1, 1]."""
    rate: int
    """Hz."""


class VideoFile:
    """A file with at least one picture in it.

    Args:
        sound: Whether it must have an audio track.

    Attributes:
        length: In seconds, as the file claims; None where it does not.
        broken: Packets that did not decode, when it was last read.

    Raises:
        ValueError: No such file, nothing that FFmpeg reads, no pictures in it, or no audio track.
    """

    def __init__(self, path: str | os.PathLike[str], *, sound: bool = False) -> None:
        self.path = Path(path)
        self.broken = 0
        if not self.path.is_file():
            raise no_file("video", path)
        with self._open() as container:
            stream = self._pictures_of(container)
            if sound and not container.streams.audio:
                raise ValueError(f"There is no sound in {self.path}: it has no audio track; leave out --with-audio")
            first = next(self._frames(container.demux(stream)), None)
            if first is None:
                raise ValueError(f"There are no pictures in {self.path}: it has 0 video frames")
            # bare streams, outside any container, hold no times
            self._frame_seconds = 1 / float(stream.guessed_rate or 1)
            self._zero = first.time or 0.0
            self._size = shown_size(first.width, first.height, stream.sample_aspect_ratio)
            self.length = None if container.duration is None else container.duration / 1e6
            if sound:
                self._check_sound(next(self._frames(container.demux(container.streams.audio[0])), None))

    def _check_sound(self, first: av.AudioFrame | None) -> None:
        if first is None:
            raise ValueError(f"There is no sound in {self.path}: its audio track is empty; leave out --with-audio")
        if not RATES[0] <= first.sample_rate <= RATES[1]:
            raise ValueError(
                f"Expected sound of {RATES[0]} to {RATES[1]} Hz in {self.path}, got {first.sample_rate} Hz; "
                "leave out --with-audio"
            )

    def decode(self, *, sound: bool = False, start: float = 0.0) -> Iterator[Picture | Sound]:
        """Every picture in order, and the sound between them where it lies in the file.

        Args:
            start: Seconds before which pictures may be left out: those before the last key frame.
        """
        import av

        with self._open() as container:
            leap = leap_of(container)
            timeline = Timeline(self._zero, leap)
            packets = container.demux([self._pictures_of(container), *container.streams.audio[: int(sound)]])
            if leap == LEAP:
                packets = _from_key_frame(packets, self._zero + start)
            for frame in self._frames(packets):
                if isinstance(frame, av.VideoFrame):
                    yield self._picture(frame, timeline)
                else:
                    self._check_sound(frame)
                    # of the frames in one packet, only the first has a time
                    seconds = timeline.of(SOUND, frame.time, frame.samples / frame.sample_rate)
                    yield Sound(seconds, samples_of(frame), frame.sample_rate)

    def _frames(self, packets: Iterator[av.Packet]) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """All that decodes; FFmpeg's error if nothing does."""
        import av

        self.broken, decoded = 0, False
        for packet in packets:
            if packet.stream.codec_context is None:
                raise self._unreadable("Decoder not found")
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                self.broken, problem = self.broken + 1, error
                continue
            while frames:
                yield frames.pop(0)
                decoded = True
        if self.broken and not decoded:
            raise problem

    def _picture(self, frame: av.VideoFrame, timeline: Timeline) -> Picture:
        seconds = timeline.of(PICTURES, frame.time, self._frame_seconds)
        return Picture(seconds, seconds + self._frame_seconds, self._size, frame)

    def _pictures_of(self, container: av.container.InputContainer) -> av.VideoStream:
        stream = pictures_of(container)
        if stream is not None:
            check_size(stream, str(self.path))
            return stream
        what = "a cover picture alone" if container.streams.video else "no video stream, or is cut short before it"
        raise ValueError(f"There are no pictures in {self.path}: it has {what}")

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        import av

        try:
            with open_file(self.path) as container:
                yield container
        except av.error.FFmpegError as error:
            raise self._unreadable(refusal(error)) from error

    def _unreadable(self, problem: str) -> ValueError:
        with self.path.open("rb") as file:
            head = file.read(12)
        if (head[:4], head[8:]) == (b"RIFF", b"WEBP"):
            return ValueError(f"FFmpeg reads no animated WebP, as {self.path} may be; convert it to GIF or MP4")
        return ValueError(f"FFmpeg cannot read the video {self.path}: {problem}")


def upright(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] as it is to be seen: phones store what they filmed on its side, or mirrored.

    Colours of more than 8 bits are rounded to 8. Those of HDR are not mapped to a smaller range: they look flat.

    Args:
        width: What it is brought to before it is turned, as is ``height``.
    """
    return turn(frame.to_ndarray(format="rgb24", width=width, height=height), orientation(frame))


def shown_size(width: int, height: int, ratio: Fraction | None) -> tuple[int, int]:
    """(width, height) in square pixels; ``ratio`` is that of a stored one's sides, as DVDs and camcorders have it."""
    return (round(width * ratio), height) if ratio and 0.25 <= ratio <= 4 else (width, height)


def orientation(frame: av.VideoFrame) -> int:
    """EXIF's number for the frame's display matrix; 1 where it has none."""
    from av.sidedata.sidedata import Type

    try:
        matrix = next((each for each in frame.side_data if each.type == Type.DISPLAYMATRIX), None)
    except ValueError:  # side data that PyAV has no name for: it then tells the angle alone
        return QUARTER_TURNS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return 1
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return orientation_of((a, b, c, d))


def _from_key_frame(packets: Iterator[av.Packet], seconds: float) -> Iterator[av.Packet]:
    """Leave out the pictures before the last key frame up to ``seconds``: none from there on refers to them."""
    held: list[av.Packet] = []
    reached, before = False, -math.inf
    for packet in packets:
        if reached or packet.stream.type != "video":
            yield packet
            continue
        time = None if packet.pts is None else float(packet.pts * packet.time_base)
        if packet.is_keyframe and time is not None and time <= seconds:
            held.clear()
        held.append(packet)
        reached = time is None or time > seconds or time < before - BACK  # a clock that restarts says nothing
        before = time or before
        if reached or len(held) > HELD:
            yield from held
            held.clear()
    yield from held
