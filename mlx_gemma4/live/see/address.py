"""What a camera can be, a device, a file, an address or a test pattern, and how FFmpeg opens it.

Devices have numbers and names: FFmpeg lists them on macOS, the kernel on Linux.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.inputs.vision.image import no_file
from mlx_gemma4.inputs.vision.video_container import (
    address_options,
    check_size,
    file_options,
    file_url,
    pictures_of,
    refusal,
)

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
        raise no_file("video", name)
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


SYSTEM = Path("/sys/class/video4linux")
"""Where Linux lists its cameras."""
LISTED = "mlx_gemma4 watch --list-cameras lists them"


@dataclass(frozen=True)
class NamedCamera:
    """A camera that could be opened."""

    number: str
    """The number that ``Camera`` takes."""
    name: str


def list_cameras() -> list[NamedCamera]:
    """The cameras of this machine.

    Raises:
        ValueError: The installed PyAV cannot list them.
    """
    return _from_ffmpeg() if sys.platform == "darwin" else _from_kernel()


def find_camera(name: str) -> NamedCamera:
    """The one camera with this name, or whose name contains ``name``, ignoring case.

    Raises:
        ValueError: There is none, or there are several.
    """
    cameras = list_cameras()
    wanted = name.casefold()
    found = [camera for camera in cameras if wanted == camera.name.casefold()]
    found = found or [camera for camera in cameras if wanted in camera.name.casefold()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"Several cameras are called {name!r}: {_listed(found)}; name its number")
    there = f"the cameras are {_listed(cameras)}" if cameras else "there is no camera"
    raise ValueError(f"There is no video file or camera called {name!r}; {there} ({LISTED})")


def _listed(cameras: list[NamedCamera]) -> str:
    return ", ".join(f"{camera.number} {camera.name!r}" for camera in cameras)


def _from_ffmpeg() -> list[NamedCamera]:
    try:
        from av.device import enumerate_input_devices
    except ImportError as error:
        raise ValueError("The installed PyAV cannot list cameras: pip install --upgrade av") from error
    devices = enumerate_input_devices("avfoundation")
    return [NamedCamera(device.name, device.description) for device in devices if "video" in device.media_types]


def _from_kernel() -> list[NamedCamera]:
    cameras = []
    for folder in sorted(SYSTEM.glob("video*"), key=lambda path: (len(path.name), path.name)):
        # further nodes of a camera give no pictures
        if _read(folder / "index") in ("", "0"):
            cameras.append(NamedCamera(folder.name.removeprefix("video"), _read(folder / "name")))
    return cameras


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # unplugged in between
        return ""
