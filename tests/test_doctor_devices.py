"""The doctor's microphone and camera: absent, denied, black, hanging, lossy, well."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from camera_parts import Device, frames
from sound_device import FakeSoundDevice, PortAudioError
from virtual_microphone import missing, virtual_microphone

from mlx_gemma4.live.see import address
from mlx_gemma4.live.see.address import NamedCamera
from mlx_gemma4.measure.checks import camera as camera_check
from mlx_gemma4.measure.checks import microphone as microphone_check
from mlx_gemma4.measure.checks.camera import look
from mlx_gemma4.measure.checks.finding import Finding

LISTED = "mlx_gemma4 listen --list-devices lists them"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    module = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def heard(**options: str | None) -> Finding:
    [finding] = microphone_check.check({"options": options})
    assert finding.subject == "microphone"
    return finding


def test_a_microphone_that_hears(device: FakeSoundDevice) -> None:
    """Half of full scale is -6 dBFS. It is closed after a second."""
    device.at_start = (*[0.0] * 10, *[0.5] * 100)
    found = heard()
    assert (found.verdict, found.text, found.remedy) == ("ok", "'Built-in' delivers sound, at -6 dBFS.", "")
    assert found.figures == {"name": "Built-in", "seconds": 4.4, "lost_seconds": 0.0, "dbfs": -6.4}
    assert [stream.closed for stream in device.streams] == [True]


def test_a_microphone_is_listened_to_no_longer_than_needed(
    device: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second of sound, or two of zeros."""
    for value, seconds in ((0.25, 1.0), (0.0, 2.0)):
        blocks = iter([np.full(160, value, np.float32)] * 1000)
        monkeypatch.setattr(microphone_check.Microphone, "read", lambda self, blocks=blocks: next(blocks))
        assert heard().figures["seconds"] == seconds


@pytest.mark.parametrize(
    ("platform", "text", "remedy"),
    [
        (
            "darwin",
            "The microphone has delivered only zeros for 2 s: macOS may not have allowed the terminal to use it.",
            "Allow it in System Settings > Privacy & Security > Microphone, then restart the terminal if the "
            "microphone stays silent.",
        ),
        (
            "linux",
            "The microphone has delivered only zeros for 2 s: it may be muted or not connected.",
            f"Unmute it, or choose another device ({LISTED}).",
        ),
    ],
)
def test_zeros(device: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch, platform: str, text: str, remedy: str) -> None:
    device.at_start = (0.0,) * 60
    monkeypatch.setattr(sys, "platform", platform)
    found = heard()
    assert (found.verdict, found.text, found.remedy) == ("problem", text, remedy)


def test_the_microphone_that_is_asked_for(device: FakeSoundDevice) -> None:
    device.at_start = (0.5,) * 60
    assert [heard(device=name).text for name in ("USB", "12")] == ["'USB' delivers sound, at -6 dBFS."] * 2
    assert [stream.options["device"] for stream in device.streams] == ["USB", 12]


def test_no_microphone(device: FakeSoundDevice) -> None:
    device.devices = device.devices[:1]
    found = heard()
    assert (found.verdict, found.text, found.remedy) == (
        "warning",
        "There is no microphone.",
        "Connect one; listen --input takes recordings and pipes.",
    )


def test_no_default_microphone(device: FakeSoundDevice) -> None:
    device.default = None
    found = heard()
    assert (found.verdict, found.text, found.remedy) == (
        "warning",
        "None of the microphones is the system's default: Built-in, USB.",
        f"Choose one in the system's settings, or with --device ({LISTED}).",
    )


def test_a_microphone_that_cannot_be_opened(device: FakeSoundDevice) -> None:
    device.open_errors = {number: PortAudioError("Device unavailable [PaErrorCode -9985]") for number in (1, 2)}
    found = heard()
    assert (found.verdict, found.text, found.remedy) == (
        "problem",
        f"The default microphone cannot be opened: Device unavailable [PaErrorCode -9985] ({LISTED}).",
        "Close programs that use it, or connect it again.",
    )


def test_a_microphone_that_stalls(device: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone_check, "STALL_SECONDS", 0.03)
    found = heard()
    assert (found.verdict, found.text, found.remedy) == (
        "problem",
        "The microphone stalled: no sound came for 0.03 s, and opening it again did not help.",
        "Connect it again, or choose another.",
    )


def test_a_microphone_that_loses_sound(device: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.at_start = (0.5,) * 60
    monkeypatch.setattr(microphone_check.Microphone, "lost_seconds", 0.75)
    found = heard()
    assert (found.verdict, found.text, found.remedy) == (
        "warning",
        "'Built-in' lost 0.75 s of sound in 2.4 s.",
        "Close programs that keep the machine busy.",
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ImportError("No module named 'sounddevice'"), "The package sounddevice is missing."),
        (OSError("PortAudio library not found"), "The library PortAudio is missing."),
    ],
)
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    class Missing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "sounddevice":
                raise error

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    found = heard()
    assert (found.verdict, found.text) == ("not tested", text)
    assert found.remedy.startswith("pip install sounddevice")


# the camera


def seen(camera: str | None = None) -> Finding:
    [finding] = camera_check.check({"options": {"camera": camera}})
    assert finding.subject == "camera"
    return finding


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[NamedCamera]:
    """The cameras of this machine: FaceTime."""
    listed = [NamedCamera("0", "FaceTime HD Camera"), NamedCamera("1", "Desk View")]
    for module in (camera_check, address):
        monkeypatch.setattr(module, "list_cameras", lambda: listed)
    monkeypatch.setattr(sys, "platform", "darwin")
    return listed


def plug(monkeypatch: pytest.MonkeyPatch, *script: Any) -> Device:
    device = Device(script)
    monkeypatch.setattr(av, "open", lambda url, **options: device)
    return device


def test_a_camera_that_shows_something(cameras: list[NamedCamera], monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture, then it is switched off."""
    device = plug(monkeypatch, (frames(1)[0], 0.0), lambda: time.sleep(0.05), (frames(1)[0], 0.04))
    found = seen()
    assert (found.verdict, found.text) == ("ok", "'FaceTime HD Camera' shows pictures of 6 x 4.")
    assert found.figures == {"name": "FaceTime HD Camera", "width": 6, "height": 4}
    assert device.closed


@pytest.mark.parametrize(
    ("platform", "remedy"),
    [
        (
            "darwin",
            "Uncover it, or allow it in System Settings > Privacy & Security > Camera, then start the terminal anew.",
        ),
        ("linux", "Uncover it, or close programs that use it."),
    ],
)
def test_a_black_camera(
    cameras: list[NamedCamera], monkeypatch: pytest.MonkeyPatch, platform: str, remedy: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    black = np.zeros((4, 6, 3), np.uint8)
    pictures = [step for index in range(200) for step in ((black, index / 30), lambda: time.sleep(0.01))]
    device = plug(monkeypatch, *pictures)
    found = look("0", "FaceTime HD Camera", seconds=0.2)
    assert (found.verdict, found.text) == ("problem", "'FaceTime HD Camera' showed only black pictures.")
    assert found.remedy == remedy and device.closed


@pytest.mark.parametrize(
    ("opens", "text"),
    [
        (True, "There are no pictures from camera 0: none came for 0.2 s."),
        (False, "'FaceTime HD Camera' showed no picture."),
    ],
)
def test_a_camera_that_hangs(
    cameras: list[NamedCamera], monkeypatch: pytest.MonkeyPatch, opens: bool, text: str
) -> None:
    """While it opens, or afterwards: it is not waited for."""
    released = threading.Event()
    plug(monkeypatch, lambda: released.wait(10))
    if not opens:
        monkeypatch.setattr(av, "open", lambda url, **options: released.wait(10))
    began = time.monotonic()
    found = look("0", "FaceTime HD Camera", seconds=0.2)
    released.set()
    assert time.monotonic() - began < 5
    assert (found.verdict, found.text) == ("problem", text) and found.remedy


@pytest.mark.parametrize(
    ("error", "text", "remedy"),
    [
        (
            av.error.OSError(5, "Input/output error"),
            "Cannot open camera 0: Input/output error.",
            "Unplugged, used by another program, or not allowed (System Settings > Privacy & Security > Camera; then "
            "start the terminal anew).",
        ),
    ],
)
def test_a_camera_that_cannot_be_opened(
    cameras: list[NamedCamera], monkeypatch: pytest.MonkeyPatch, error: Exception, text: str, remedy: str
) -> None:
    def refuse(url: str, **options: Any) -> None:
        raise error

    monkeypatch.setattr(av, "open", refuse)
    found = seen()
    assert (found.verdict, found.text, found.remedy) == ("problem", text, remedy)


def test_no_camera(cameras: list[NamedCamera]) -> None:
    cameras.clear()
    found = seen()
    assert (found.verdict, found.text, found.remedy) == (
        "warning",
        "There is no camera.",
        "Connect one; watch also takes videos and addresses, and live --no-camera needs none.",
    )


def test_cameras_that_cannot_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "av.device", SimpleNamespace())
    found = seen()
    text = "The installed PyAV cannot list cameras: pip install --upgrade av."
    assert (found.verdict, found.text) == ("not tested", text)


def test_the_camera_that_is_asked_for(tmp_path: Path) -> None:
    """Anything that watch takes."""
    assert seen("lavfi:testsrc=size=96x64").text == "'lavfi:testsrc=size=96x64' shows pictures of 96 x 64."
    found = seen("nobody's camera")
    assert (found.verdict, found.text) == (
        "problem",
        'There is no video file or camera called "nobody\'s camera".',
    )
    assert found.remedy == "There is no camera (mlx_gemma4 watch --list-cameras lists them)."


# a device that is real, but for its sound

ALONE = """
from mlx_gemma4.measure.checks.apart import run_apart
for finding in run_apart("mlx_gemma4.measure.checks.microphone", "microphone", 30.0, {}):
    print(finding.verdict, finding.text)
"""


@pytest.mark.skipif(bool(missing()), reason=f"a virtual microphone needs {', '.join(missing())}")
def test_a_real_device(tmp_path: Path) -> None:
    """Idle it gives exact zeros, and the least noise is a sound."""
    with virtual_microphone(tmp_path) as virtual:
        said = []
        for _ in range(2):
            command = [sys.executable, "-c", ALONE]
            said.append(subprocess.run(command, env=virtual.environment, capture_output=True, text=True).stdout)
            virtual.hum()
    assert said[0].startswith("problem The microphone has delivered only zeros for 2 s: ")
    assert re.fullmatch(r"ok '.+' delivers sound, at -9\d dBFS\.\n", said[1])
