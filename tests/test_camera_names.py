"""Cameras by their names: which are listed, which one is meant, and what is said where none is."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_gemma4.cli import main
from mlx_gemma4.live.see import address
from mlx_gemma4.live.see.address import NamedCamera, camera_address, find_camera, list_cameras


def kernel(folder: Path, *nodes: tuple[int, int, str]) -> None:
    """What Linux has for each node: its number, its index in the camera, the name."""
    for number, index, name in nodes:
        node = folder / f"video{number}"
        node.mkdir()
        (node / "index").write_text(f"{index}\n")
        (node / "name").write_text(f"{name}\n")


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(address, "SYSTEM", tmp_path)
    return tmp_path


def test_cameras_of_linux(linux: Path) -> None:
    """By number; nodes that hand out no pictures are left out."""
    kernel(linux, (10, 0, "Capture Card"), (2, 0, "HD Webcam C920"), (3, 1, "HD Webcam C920"))
    assert list_cameras() == [NamedCamera("2", "HD Webcam C920"), NamedCamera("10", "Capture Card")]
    assert camera_address("webcam").url == "/dev/video2"


def test_cameras_of_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Microphones, which FFmpeg lists with them, are left out."""
    told = [("0", "FaceTime HD Camera", ["video"]), ("1", "Capture screen 0", ["video"]), ("0", "Mic", ["audio"])]

    def devices(kind: str) -> list[SimpleNamespace]:
        assert kind == "avfoundation"
        return [SimpleNamespace(name=name, description=text, media_types=types) for name, text, types in told]

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "av.device", SimpleNamespace(enumerate_input_devices=devices))
    assert list_cameras() == [NamedCamera("0", "FaceTime HD Camera"), NamedCamera("1", "Capture screen 0")]
    found = camera_address("FaceTime")
    assert (found.url, found.format) == ("0", "avfoundation")
    monkeypatch.setitem(sys.modules, "av.device", None)
    message = "^The installed PyAV cannot list cameras: pip install --upgrade av$"
    with pytest.raises(ValueError, match=message):
        list_cameras()


def test_a_name_that_means_no_camera_or_several(linux: Path) -> None:
    """What is there is listed; the whole name wins over a part of others."""
    message = "There is no video file or camera called 'Cam'; there is no camera (mlx_gemma4 watch --list-cameras"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        camera_address("Cam")
    kernel(linux, (0, 0, "Cam"), (1, 0, "Cam 2"), (2, 0, "Webcam"))
    assert find_camera("cam").number == "0"
    with pytest.raises(ValueError, match=r"^Several cameras are called 'am': 0 'Cam', 1 'Cam 2', 2 'Webcam'; name"):
        find_camera("am")
    with pytest.raises(
        ValueError,
        match=r"^There is no video file or camera called 'Eye'; the cameras are 0 'Cam', 1",
    ):
        find_camera("Eye")


@pytest.mark.parametrize("name", ["absent.mp4", "films/absent", ""])
def test_what_looks_like_a_file_is_one(linux: Path, name: str) -> None:
    kernel(linux, (0, 0, "films/absent.mp4"))
    with pytest.raises(ValueError, match=f"^There is no video file at {re.escape(name)}$"):
        camera_address(name)


@pytest.mark.parametrize("command", ["watch", "live"])
def test_cameras_are_listed(linux: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--list-cameras", "--model", "nowhere"]) == 0
    assert capsys.readouterr() == ("", "There is no camera.\n")
    kernel(linux, (0, 0, "HD Webcam"))
    assert main([command, "--list-cameras", "--model", "nowhere"]) == 0
    assert capsys.readouterr() == (" 0 HD Webcam\n", "")
