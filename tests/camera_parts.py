"""What tests of cameras share: a clock that does not wait, and pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from mlx_gemma4.live.see.camera import Camera, Shot


def frames(count: int, height: int = 4, width: int = 6) -> np.ndarray:
    """Noise, each frame its own."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def drain(camera: Camera) -> list[Shot]:
    shots = []
    while (shot := camera.read()) is not None:
        shots.append(shot)
    return shots


def message(text: str) -> str:
    return f"^{re.escape(text)}$"


class Device:
    """What ``av.open`` returns for a camera: it does what a script says, step by step.

    A step is a picture and its time, an error that is raised, or something to call.
    """

    duration = None

    def __init__(self, script: Sequence[Any]) -> None:
        stream = SimpleNamespace(
            guessed_rate=Fraction(30), disposition=0, sample_aspect_ratio=None, codec_context=None, width=6, height=4
        )
        self.streams = SimpleNamespace(video=[stream], best=lambda kind: stream)
        self.format = SimpleNamespace(flags=0, name="device")
        self.closed = False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        """How it was opened."""
        self._script = list(script)

    def demux(self, stream: Any) -> Iterator[Any]:
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, BlockingIOError):
                raise step
            if isinstance(step, Broken):
                yield SimpleNamespace(decode=step.decode)
            elif isinstance(step, Exception):
                raise step
            elif callable(step):
                step()
            else:
                yield SimpleNamespace(decode=lambda step=step: [picture(*step)])

    def close(self) -> None:
        self.closed = True


class Broken:
    """A packet that does not decode."""

    def decode(self) -> list[av.VideoFrame]:
        raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")


def picture(pixels: np.ndarray, seconds: float | None) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    if seconds is not None:
        frame.pts, frame.time_base = round(1000 * seconds), Fraction(1, 1000)
    return frame


Plugged = Callable[..., Device]


def opened(format: str | None, **options: str) -> dict[str, Any]:
    return {"format": format, "options": options, "timeout": None}
