"""Video files, by FFmpeg: every picture and all sound that can be decoded, each with its time.

What containers claim about length, rate and index is not relied on, and what is broken is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma4.audio_frame import samples_of

if TYPE_CHECKING:
    import av

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
    """(width, height) of the first picture, which all are brought to."""
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
            raise ValueError(f"Expected a video file, found none at {self.path}")
        with self._open() as container:
            if not container.streams.video:
                raise ValueError(f"Expected pictures in {self.path}, it has no video stream, or is cut short before it")
            if sound and not container.streams.audio:
                raise ValueError(f"Expected sound in {self.path}, it has no audio track; leave out --with-audio")
            stream = container.streams.video[0]
            first = next(self._frames(container.demux(stream)), None)
            if first is None:
                raise ValueError(f"Expected pictures in {self.path}, it has 0 video frames")
            # bare streams, outside any container, hold no times
            self._frame_seconds = 1 / float(stream.guessed_rate or 1)
            self._zero = first.time or 0.0
            self._size = (first.width, first.height)
            self.length = None if container.duration is None else container.duration / 1e6
            if sound and next(self._frames(container.demux(container.streams.audio[0])), None) is None:
                raise ValueError(f"Expected sound in {self.path}, its audio track is empty; leave out --with-audio")

    def decode(self, *, sound: bool = False, start: float = 0.0) -> Iterator[Picture | Sound]:
        """Every picture in order, and the sound between them where it lies in the file.

        Args:
            start: Seconds before which pictures may be left out: those before the last key frame.
        """
        import av

        index, heard = 0, 0.0
        with self._open() as container:
            packets = container.demux([container.streams.video[0], *container.streams.audio[: int(sound)]])
            for frame in self._frames(_from_key_frame(packets, self._zero + start)):
                if isinstance(frame, av.VideoFrame):
                    yield self._picture(frame, index)
                    index += 1
                else:
                    # of the frames in one packet, only the first has a time
                    seconds = heard if frame.time is None else frame.time - self._zero
                    yield Sound(seconds, samples_of(frame), frame.sample_rate)
                    heard = seconds + frame.samples / frame.sample_rate

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

    def _picture(self, frame: av.VideoFrame, index: int) -> Picture:
        seconds = index * self._frame_seconds if frame.time is None else frame.time - self._zero
        return Picture(seconds, seconds + self._frame_seconds, self._size, frame)

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        import av

        try:
            with av.open(str(self.path)) as container:
                yield container
        except av.error.FFmpegError as error:
            raise self._unreadable(error.strerror) from error

    def _unreadable(self, problem: str) -> ValueError:
        return ValueError(f"Expected a video that FFmpeg reads in {self.path}, got: {problem}")


def upright(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] as it is to be seen: phones store what they filmed lying on its side."""
    stored = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.rot90(stored, round(frame.rotation / 90))


def _from_key_frame(packets: Iterator[av.Packet], seconds: float) -> Iterator[av.Packet]:
    """Leave out the pictures before the last key frame up to ``seconds``: none from there on refers to them."""
    held: list[av.Packet] = []
    reached = False
    for packet in packets:
        if reached or packet.stream.type != "video":
            yield packet
            continue
        time = None if packet.pts is None else float(packet.pts * packet.time_base)
        if packet.is_keyframe and time is not None and time <= seconds:
            held.clear()
        held.append(packet)
        reached = time is None or time > seconds
        if reached or len(held) > HELD:
            yield from held
            held.clear()
    yield from held
