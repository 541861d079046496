"""Cameras: devices that hang, stay black, or are opened again."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from camera_parts import Broken, Device, Plugged, drain, frames, message, opened
from video_writer import write_video

from mlx_gemma4.inputs.vision.video_container import address_options
from mlx_gemma4.live.see import camera as module
from mlx_gemma4.live.see import stream as run
from mlx_gemma4.live.see.camera import Camera
from mlx_gemma4.live.see.stream import BROKEN_PACKETS


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Plugged:
    """Let every source open as a device with this script."""

    def plug(*script: Any) -> Device:
        device = Device(script)

        def opened(url: str, **options: Any) -> Device:
            device.calls.append((url, options))
            return device

        monkeypatch.setattr(av, "open", opened)
        return device

    return plug


@pytest.mark.parametrize(
    ("platform", "source", "call"),
    [
        ("darwin", 0, ("0", opened("avfoundation", framerate="30"))),
        ("darwin", "2", ("2", opened("avfoundation", framerate="30"))),
        ("linux", 0, ("/dev/video0", opened("v4l2"))),
        ("linux", "/dev/video3", ("/dev/video3", opened("v4l2"))),
        ("linux", "lavfi:testsrc2", ("testsrc2", opened("lavfi"))),
        ("linux", "http://cam/a", ("http://cam/a", opened(None, **address_options()) | {"timeout": (10.0, 20.0)})),
        (
            "linux",
            "rtsp://me:secret@cam/a",
            (
                "rtsp://me:secret@cam/a",
                opened(None, rtsp_transport="tcp", **address_options()) | {"timeout": (10.0, 20.0)},
            ),
        ),
    ],
)
def test_how_sources_are_opened(
    plug: Plugged, monkeypatch: pytest.MonkeyPatch, platform: str, source: int | str, call: tuple[str, dict[str, Any]]
) -> None:
    """As FFmpeg wants it."""
    monkeypatch.setattr(sys, "platform", platform)
    device = plug((frames(1)[0], 0.0))
    with Camera(source) as camera:
        assert camera.read() is not None
    assert device.calls == [call]
    assert device.closed


def test_a_device_hands_out_frames_while_it_runs(plug: Plugged) -> None:
    """It is asked again when it has none yet; times start at 0, whatever its clock says."""
    pictures = frames(3)
    waiting = av.error.BlockingIOError(11, "Resource temporarily unavailable")
    read = threading.Semaphore(0)
    plug(
        (pictures[0], 500.0), read.acquire, waiting, waiting, (pictures[1], 500.04), read.acquire, (pictures[2], 501.0)
    )
    naps: list[float] = []
    with Camera(0, sleep=naps.append) as camera:
        shots = []
        for _ in pictures:
            shots.append(camera.read())
            read.release()
        assert camera.read() is None
    assert [shot.time for shot in shots] == pytest.approx([0.0, 0.04, 1.0])
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures)
    assert naps == [0.005, 0.005]
    assert re.fullmatch(r"The pictures from camera .+ ended\.", camera.problem or "")


def test_times_of_frames_that_have_none_or_begin_anew(plug: Plugged) -> None:
    """By count, at the stream's rate; never back."""
    [pixels] = frames(1)
    for told, expected in (
        ((None, None, None, None), (0, 1 / 30, 2 / 30, 3 / 30)),
        ((7.0, 7.5, 0.0, 0.5), (0, 0.5, 0.5 + 1 / 30, 1.0 + 1 / 30)),
        ((3.0, 3.0, 4.0, 4.0), (0, 0, 1, 1)),
    ):
        read = threading.Semaphore(0)
        plug(*(step for seconds in told for step in ((pixels, seconds), read.acquire)))
        with Camera(0) as camera:
            times = []
            for _ in told:
                times.append(camera.read().time)
                read.release()
        assert times == pytest.approx(expected)


def test_a_device_that_is_unplugged(plug: Plugged, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last frame is still handed out; why it ended is told."""
    monkeypatch.setattr(sys, "platform", "linux")
    plug((frames(1)[0], 0.0), av.error.OSError(19, "No such device"))
    with Camera(0) as camera:
        assert len(drain(camera)) == 1
    assert camera.problem == "The pictures from camera /dev/video0 broke off: No such device."


def test_a_device_that_stalls(plug: Plugged, monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame for 10 s, by the clock."""
    monkeypatch.setattr(sys, "platform", "linux")
    unplugged = threading.Event()
    plug((frames(1)[0], 0.0), unplugged.wait)
    now = [1000.0]
    with Camera(0, clock=lambda: now[0]) as camera:
        assert camera.read() is not None
        now[0] += 10
        assert camera.read() is None
        unplugged.set()
    assert camera.problem == "The pictures from camera /dev/video0 stalled: none came for 10 s."


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        (
            "darwin",
            "There are no pictures from camera 0: none came for 3 s; unplugged, used by another program, or not "
            "allowed (System Settings > Privacy & Security > Camera; then start the terminal anew)",
        ),
        (
            "linux",
            "There are no pictures from camera /dev/video0: none came for 3 s; unplugged, or used by another program",
        ),
    ],
)
def test_a_device_that_never_hands_out_a_frame(
    plug: Plugged, monkeypatch: pytest.MonkeyPatch, platform: str, expected: str
) -> None:
    """What macOS does when the camera is not allowed."""
    monkeypatch.setattr(sys, "platform", platform)
    denied = threading.Event()
    plug(denied.wait)
    now = [1000.0]
    with Camera(0, stall_seconds=3, clock=lambda: now[0]) as camera:
        now[0] += 3
        with pytest.raises(ValueError, match=message(expected)):
            camera.read()
        denied.set()


def test_a_device_that_hands_out_only_broken_packets(plug: Plugged) -> None:
    """A hundred in a row end it; fewer, with frames in between, do not."""
    good, broken = (frames(1)[0], 0.0), [Broken()] * (BROKEN_PACKETS - 1)
    plug(*broken, good, *broken, good, *broken, Broken())
    with Camera(0) as camera:
        drain(camera)
    assert (camera.seen, camera.broken) == (2, 3 * BROKEN_PACKETS - 2)
    assert "broke off: Invalid data found when processing input." in (camera.problem or "")


def test_a_failure_of_another_kind_reaches_the_reader(plug: Plugged) -> None:
    """It is not swallowed by the thread."""
    plug(ZeroDivisionError("a mistake"))
    with Camera(0) as camera, pytest.raises(ZeroDivisionError, match="a mistake"):
        camera.read()


PRIVACY = (
    "unplugged, used by another program, or not allowed "
    "(System Settings > Privacy & Security > Camera; then start the terminal anew)"
)


@pytest.mark.parametrize(
    ("platform", "error", "expected"),
    [
        (
            "darwin",
            av.error.OSError(5, "Input/output error"),
            f"Cannot open camera 0: Input/output error; {PRIVACY}",
        ),
        (
            "darwin",
            av.error.PermissionError(1, "Operation not permitted"),
            f"Cannot open camera 0: Operation not permitted; {PRIVACY}",
        ),
        (
            "darwin",
            ValueError("no container format 'avfoundation'"),
            f"Cannot open camera 0: no container format 'avfoundation'; {PRIVACY}",
        ),
        (
            "linux",
            av.error.FileNotFoundError(2, "No such file or directory"),
            "Cannot open camera /dev/video0: No such file or directory; "
            "connect it, or name another number, a file or an address",
        ),
        (
            "linux",
            av.error.PermissionError(13, "Permission denied"),
            "Cannot open camera /dev/video0: Permission denied; join the group video, then log in anew",
        ),
        (
            "linux",
            av.error.OSError(16, "Device or resource busy"),
            "Cannot open camera /dev/video0: Device or resource busy; unplugged, or used by another program",
        ),
    ],
)
def test_a_device_that_does_not_open(
    monkeypatch: pytest.MonkeyPatch, platform: str, error: Exception, expected: str
) -> None:
    """Missing, in use, not allowed: what it is and what to do."""

    def refuse(url: str, **options: Any) -> None:
        raise error

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(ValueError, match=message(expected)), Camera(0):
        pass


def test_what_is_live_is_neither_fast_nor_a_loop(plug: Plugged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for options in ({"fast": True}, {"loop": True}):
        device = plug((frames(1)[0], 0.0))
        expected = "Only a file can be read fast or in a loop, not camera /dev/video0, which is live"
        with pytest.raises(ValueError, match=message(expected)), Camera(0, **options):
            pass
        assert device.closed


def test_a_device_that_never_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg waits for ever for a first frame that is not allowed: the reader does not."""
    monkeypatch.setattr(sys, "platform", "linux")
    over = threading.Event()
    monkeypatch.setattr(av, "open", lambda url, **options: over.wait())
    monkeypatch.setattr(run, "CLOSE_SECONDS", 0.0)
    ticks = iter([0.0, 0.0, 15.0])
    expected = "camera /dev/video0 did not open within 15 s; unplugged, or used by another program"
    with pytest.raises(ValueError, match=message(expected)), Camera(0, clock=lambda: next(ticks, 15.0)):
        pass
    over.set()


def test_macos_may_be_asking_whether_the_camera_is_allowed(plug: Plugged, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, and said once; when it is allowed, pictures come."""
    monkeypatch.setattr(sys, "platform", "darwin")
    device = plug((frames(1)[0], 0.0))
    allowed = threading.Event()
    opened = av.open
    monkeypatch.setattr(av, "open", lambda url, **options: allowed.wait() and opened(url, **options))
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        allowed.set()

    ticks = iter([0.0, 0.0, 0.0, 3.0])
    with Camera(0, tell=tell, clock=lambda: next(ticks, 3.0)) as camera:
        assert camera.read() is not None
    assert device.closed
    pane = "System Settings > Privacy & Security > Camera"
    symptom = "No picture has come for 2 s from camera 0"
    assert told == [f"{symptom}: it may be covered, or not allowed yet ({pane}). Waiting for it."]


def test_a_device_that_never_opens_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a signal handler, while it is opened."""
    over = threading.Event()
    monkeypatch.setattr(av, "open", lambda url, **options: over.wait())
    monkeypatch.setattr(run, "CLOSE_SECONDS", 0.0)
    camera = Camera(0)
    before = signal.signal(signal.SIGALRM, lambda number, frame: camera.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with camera:
            assert camera.read() is None
    finally:
        signal.signal(signal.SIGALRM, before)
        over.set()
    assert camera.problem is None


@pytest.mark.parametrize("fast", [True, False])
def test_a_graph_that_never_gives_a_frame(plug: Plugged, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg looks for one for ever, deep in C."""
    monkeypatch.setattr(run, "CLOSE_SECONDS", 0.0)
    over = threading.Event()
    plug(over.wait)
    expected = "There are no pictures from lavfi:color: none came for 0.1 s"
    with Camera("lavfi:color", fast=fast, stall_seconds=0.1) as camera:
        with pytest.raises(ValueError, match=message(expected)):
            camera.read()
        over.set()


def test_the_first_picture_of_a_film_is_waited_for_from_the_first_read_on(plug: Plugged) -> None:
    """However long the model took to load before."""
    now = [1000.0]
    plug((frames(1)[0], 0.0))
    with Camera("lavfi:color", clock=lambda: now[0]) as camera:
        now[0] += 3600
        assert camera.read() is not None


@pytest.mark.parametrize(
    ("platform", "told"),
    [
        (
            "darwin",
            "Only black pictures have come for 2 s from camera 0: it may be covered, or not allowed yet "
            "(System Settings > Privacy & Security > Camera). Waiting for it.",
        ),
        ("linux", "Only black pictures have come for 2 s from camera /dev/video0: it may be covered. Waiting for it."),
    ],
)
def test_black_pictures_are_waited_out(
    plug: Plugged, monkeypatch: pytest.MonkeyPatch, platform: str, told: str
) -> None:
    """They are not handed out; from the first light on, black is a picture like any other."""
    monkeypatch.setattr(sys, "platform", platform)
    black, lit = np.zeros((4, 6, 3), np.uint8), frames(1)[0]
    now = [1000.0]
    taken = threading.Semaphore(0)
    notes: list[str] = []

    def later(seconds: float) -> Callable[[], None]:
        def step() -> None:
            taken.acquire()
            now[0] += seconds

        return step

    script = [(black, 0.0), later(1.9), (black, 1.9), later(0.1), (black, 2.0), later(1.0), (black, 3.0)]
    plug(*script, later(1.0), (lit, 4.0), taken.acquire, (black, 5.0))
    made = module.upright

    def upright(picture: av.VideoFrame, *size: int) -> np.ndarray:
        taken.release()
        return made(picture, *size)

    monkeypatch.setattr(module, "upright", upright)
    with Camera(0, clock=lambda: now[0], tell=notes.append) as camera:
        shots = drain(camera)
    assert [shot.time for shot in shots] == [4.0, 5.0]
    assert notes == [told]


def test_a_black_film_is_a_film(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", np.zeros((2, 4, 6, 3), np.uint8))
    with Camera(path, fast=True) as camera:
        assert len(drain(camera)) == 2


class Devices:
    """Devices that are there one after the other; an error is one that does not open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *runs: Sequence[Any] | Exception) -> None:
        self.opened: list[Device] = []
        self._runs = list(runs)
        monkeypatch.setattr(av, "open", self._open)

    def _open(self, url: str, **options: Any) -> Device:
        run = self._runs.pop(0)
        if isinstance(run, Exception):
            raise run
        self.opened.append(Device(run))
        return self.opened[-1]


GONE = av.error.OSError(19, "No such device")


def test_a_device_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told; frames are counted on, and times go on by the clock."""
    monkeypatch.setattr(sys, "platform", "linux")
    pictures = frames(2)
    now = [1000.0]
    notes: list[str] = []

    def tell(text: str) -> None:
        notes.append(text)
        now[0] += 7

    hold = threading.Event()
    devices = Devices(monkeypatch, [(pictures[0], 500.0), GONE], GONE, [(pictures[1], 3.0), hold.wait])
    with Camera(0, tries=(0.0, 0.0, 0.0), tell=tell, clock=lambda: now[0]) as camera:
        shots = [camera.read(), camera.read()]
        hold.set()
    assert [shot.time for shot in shots] == [0.0, 14.0]
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures)
    assert (camera.seen, camera.dropped, camera.problem) == (2, 0, None)
    assert notes == [
        "The pictures from camera /dev/video0 broke off: No such device. Opening it again in 0 s.",
        "Cannot open camera /dev/video0: No such device; unplugged, or used by another program. "
        "Opening it again in 0 s.",
    ]
    assert all(device.closed for device in devices.opened)


def test_a_device_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After all tries it has ended, with what it ended with first."""
    monkeypatch.setattr(sys, "platform", "linux")
    notes: list[str] = []
    Devices(monkeypatch, [(frames(1)[0], 0.0), GONE], GONE, GONE)
    with Camera(0, tries=(0.0, 0.0), tell=notes.append) as camera:
        assert len(drain(camera)) == 1
    gone = "The pictures from camera /dev/video0 broke off: No such device."
    assert camera.problem == f"{gone} Opening it again did not help (tries: 2)."
    assert len(notes) == 2


def test_a_device_that_stalls_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hangs is left behind."""
    monkeypatch.setattr(sys, "platform", "linux")
    pictures = frames(3)
    unplugged, notes = threading.Event(), list[str]()
    now = [1000.0]
    Devices(monkeypatch, [(pictures[0], 0.0), unplugged.wait, (pictures[1], 9.0)], [(pictures[2], 0.0)])
    with Camera(0, tries=(0.0,), tell=notes.append, clock=lambda: now[0]) as camera:
        shots = [camera.read()]
        now[0] += 10
        shots.append(camera.read())
        unplugged.set()
        assert camera.read() is None
    assert [shot.time for shot in shots] == [0.0, 10.0]
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures[[0, 2]])
    stalled = "The pictures from camera /dev/video0 stalled: none came for 10 s."
    assert notes == [f"{stalled} Opening it again in 0 s."]
    assert camera.problem == f"{stalled} Opening it again did not help (tries: 1)."


def test_what_has_run_for_long_gets_its_tries_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that breaks off once a minute goes on; times are by the clock."""
    now = [1000.0]

    def a_minute() -> None:
        now[0] += 60

    Devices(monkeypatch, *[[a_minute, (frames(1)[0], 0.0), GONE]] * 4, *[GONE] * 2)
    with Camera(0, tries=(0.0,), clock=lambda: now[0], stall_seconds=99) as camera:
        assert len(drain(camera)) == 4
    assert (camera.problem or "").endswith("Opening it again did not help (tries: 1).")


def test_a_camera_can_be_stopped_while_it_waits_to_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Devices(monkeypatch, [(frames(1)[0], 0.0)])
    with Camera(0, tries=(3600.0,), tell=lambda text: camera.stop()) as camera:
        assert camera.read() is not None and camera.read() is None
    assert camera.problem is None


def test_a_file_that_is_not_read_is_closed(plug: Plugged) -> None:
    """And nothing was decoded."""
    device = plug((frames(1)[0], 0.0))
    with Camera("lavfi:color") as camera:
        assert not device.closed
    assert device.closed and camera.seen == 0
