"""What a camera can be, a device, a file, an address or a test pattern, and how FFmpeg opens it."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.inputs.vision.video_container import (
    address_options,
    check_size,
    file_options,
    file_url,
    pictures_of,
    refusal,
)
from mlx_gemma4.live.see.camera_names import find_camera

if TYPE_CHECKING:
    import av

OPEN_SECONDS = 10.0
"""Seconds that an address may take to answer."""
GIVE_UP_SECONDS = 15.0
"""Seconds that opening may take."""
ALLOW_SECONDS = 60.0
"""The same while the system may be asking whether the camera is allowed."""
DEVICE, PATTERN = "/dev/video", "lavfi:"
ADDRESS = "(https?|rtsps?)://"
"""What counts as an address; everything else is the name of a file."""
PRIVACY = "System Settings > Privacy & Security > Camera"


@dataclass(frozen=True)
class CameraAddress:
    """A source of pictures that can be opened."""

    url: str
    title: str
    """Its name in messages, without passwords."""
    format: str | None = None
    """FFmpeg's name of the format; None: FFmpeg finds it."""
    options: dict[str, str] = field(default_factory=dict)
    is_address: bool = False

    @property
    def is_device(self) -> bool:
        return self.format in ("avfoundation", "v4l2")

    @property
    def asks(self) -> bool:
        """Whether the system may be asking the user for permission."""
        return self.format == "avfoundation"

    @property
    def open_seconds(self) -> float:
        """Seconds that it may take to open."""
        return ALLOW_SECONDS if self.asks else GIVE_UP_SECONDS

    def not_allowed(self, symptom: str) -> str:
        """Why a device may open and show nothing."""
        if self.asks:
            return f"{symptom} from {self.title}: it may be covered, or not allowed yet ({PRIVACY}). Waiting for it."
        return f"{symptom} from {self.title}: it may be covered. Waiting for it."

    def open(self, stall_seconds: float) -> av.container.InputContainer:
        """Open it.

        Args:
            stall_seconds: Seconds that an address may send nothing.

        Raises:
            ValueError: It does not exist, cannot be used, or has no pictures.
        """
        import av

        # twice: the camera reports a stall itself, this only frees its thread
        timeout = (OPEN_SECONDS, 2 * stall_seconds) if self.is_address else None
        try:
            container = av.open(self.url, format=self.format, options=self.options, timeout=timeout)
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: this FFmpeg does not know the format
            raise ValueError(self._refusal(error)) from error
        stream = pictures_of(container)
        if stream is None:
            what = "a cover picture alone" if container.streams.video else "no video stream"
            container.close()
            raise ValueError(f"There are no pictures from {self.title}: it has {what}")
        check_size(stream, self.title)
        return container

    def way_out(self, error: Exception | None = None) -> str:
        """What to do if it does not open, or gives no pictures."""
        if self.is_address:
            return "check the address, and that the camera is on"
        if not self.is_device:
            return "name another file or graph"
        if sys.platform == "darwin":
            return f"unplugged, used by another program, or not allowed ({PRIVACY}; then start the terminal anew)"
        if isinstance(error, FileNotFoundError):
            return "connect it, or name another number, a file or an address"
        if isinstance(error, PermissionError):
            return "join the group video, then log in anew"
        return "unplugged, or used by another program"

    def _refusal(self, error: Exception) -> str:
        told = reason(error)
        if self.is_device:
            return f"Cannot open {self.title}: {told}; {self.way_out(error)}"
        told = told if self.format is not None else refusal(error)
        return f"FFmpeg cannot read the video {self.title}: {told}"


def camera_address(source: int | str | os.PathLike[str]) -> CameraAddress:
    """What a source names: a camera's number, device or name, ``lavfi:GRAPH``, an address, or a file.

    Raises:
        ValueError: There is no such file or camera.
    """
    name = str(source) if isinstance(source, int) else os.fspath(source)
    if name.isdecimal() or name.startswith(DEVICE):
        return _device(name)
    if name.startswith(PATTERN):
        return CameraAddress(name.removeprefix(PATTERN), name, "lavfi")
    if re.match(ADDRESS, name) and not Path(name).is_file():
        options = {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}
        title = re.sub("//[^/@]*@", "//", name)
        return CameraAddress(name, title, options={**options, **address_options()}, is_address=True)
    if not Path(name).is_file() and is_camera_name(name):
        return _device(find_camera(name).number)
    if not Path(name).is_file():
        raise ValueError(f"There is no video file at {name}")
    return CameraAddress(file_url(name), name, options=file_options())


def is_camera_name(name: str) -> bool:
    """Whether it is a camera's name rather than a path, by its looks."""
    return bool(name.strip()) and not re.search(r"[/\\]|\.\w{1,5}$", name)


def reason(error: Exception) -> str:
    """What FFmpeg says, in its words."""
    return getattr(error, "strerror", None) or str(error)


def _device(name: str) -> CameraAddress:
    if sys.platform == "darwin":
        # most devices refuse any other rate; the pixel format is the device's choice
        return CameraAddress(name, f"camera {name}", "avfoundation", {"framerate": "30"})
    path = DEVICE + name if name.isdecimal() else name
    return CameraAddress(path, f"camera {path}", "v4l2")
