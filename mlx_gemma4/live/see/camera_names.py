"""The cameras of this machine and their names: from FFmpeg on macOS, from the kernel on Linux."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

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
