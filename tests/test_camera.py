"""Cameras: which frames are handed out, when, and why they end. Devices are faked; all other sources are real."""

from __future__ import annotations

import re
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from video_writer import write_video

from mlx_gemma4.inputs.vision.video_container import address_options
from mlx_gemma4.live.see import camera as module
from mlx_gemma4.live.see import stream as run
from mlx_gemma4.live.see.camera import Camera, Shot
from mlx_gemma4.live.see.stream import BROKEN_PACKETS


class Clock:
    """Time that passes only when it is told to; a camera's thread sleeps until then."""

    def __init__(self) -> None:
        self.now = self.until = 1000.0
        self._changed = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._changed:
            self.until = self.now + seconds
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.now >= self.until)

    def pass_to(self, now: float, camera: Camera) -> None:
        """Let it be ``now`` seconds after the start, and the camera's thread do all that is then to be done."""
        with self._changed:
            self.now = 1000.0 + now
            self._changed.notify_all()
            while self.until <= self.now and not camera._stream.ended:
                self._changed.wait(0.01)


def never(seconds: float) -> None:
    pytest.fail(f"slept for {seconds} s")


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


# a file


def test_every_frame_of_a_file_when_it_is_read(tmp_path: Path) -> None:
    """Fast: in order, at their own times, exactly as they were filmed, none dropped, and nobody waits."""
    pictures, times = frames(4), (0.0, 1.0, 1.5, 4.0)
    path = write_video(tmp_path / "a.mkv", pictures, times=times)
    with Camera(path, fast=True, clock=lambda: 5.0, sleep=never) as camera:
        shots = drain(camera)
    assert [shot.time for shot in shots] == list(times)
    assert [(shot.arrived, shot.dropped) for shot in shots] == [(5.0, 0)] * 4
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures)
    assert (camera.seen, camera.dropped, camera.broken, camera.problem) == (4, 0, 0, None)


def test_a_file_is_played_at_its_own_pace(tmp_path: Path) -> None:
    """Each frame arrives when its time has come; the clock starts with the first read."""
    pictures, times = frames(4), (0.0, 1.0, 1.5, 4.0)
    clock = Clock()
    with Camera(write_video(tmp_path / "a.mkv", pictures, times=times), clock=clock, sleep=clock.sleep) as camera:
        shots = [camera.read()]
        for seconds in times[1:]:
            clock.pass_to(seconds, camera)
            shots.append(camera.read())
        assert camera.read() is None
    assert [(shot.time, shot.arrived - 1000, shot.dropped) for shot in shots] == [(each, each, 0) for each in times]
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures)


def test_the_newest_frame_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader gets the newest frame; the others are counted, and never became pixels."""
    made: list[float] = []
    upright = module.upright
    monkeypatch.setattr(module, "upright", lambda picture, *size: made.append(picture.time) or upright(picture, *size))
    pictures = frames(9)
    clock = Clock()
    with Camera(write_video(tmp_path / "a.mkv", pictures, rate=2), clock=clock, sleep=clock.sleep) as camera:
        shots = [camera.read()]
        for seconds in (1.6, 1.9, 4.0):
            clock.pass_to(seconds, camera)
            shots += [camera.read()] if seconds != 1.9 else []
        assert camera.read() is None
    assert [(shot.time, shot.dropped) for shot in shots] == [(0.0, 0), (1.5, 2), (4.0, 6)]
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures[[0, 3, 8]])
    assert made == [0.0, 1.5, 4.0]
    assert (camera.seen, camera.dropped) == (9, 6)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_a_loop_goes_on(tmp_path: Path, name: str) -> None:
    """Times go on where the last frame ends."""
    pictures = frames(3)
    with Camera(
        write_video(tmp_path / name, pictures, rate=2, codec="png" if name == "a.avi" else "ffv1"), fast=True, loop=True
    ) as camera:
        shots = [camera.read() for _ in range(8)]
    assert [shot.time for shot in shots] == pytest.approx([index / 2 for index in range(8)], abs=1e-3)
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures[np.arange(8) % 3])


def test_a_picture_is_a_film_of_one_frame(tmp_path: Path) -> None:
    """And in a loop one of many."""
    from PIL import Image

    [pixels] = frames(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with Camera(tmp_path / "a.png", fast=True) as camera:
        [shot] = drain(camera)
    np.testing.assert_array_equal(shot.pixels, pixels)
    with Camera(tmp_path / "a.png", fast=True, loop=True) as camera:
        assert [camera.read().time for _ in range(3)] == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize(
    ("matrix", "turns"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)]
)
def test_frames_are_upright(tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    """Whichever way the phone was held."""
    pictures = frames(1, 48, 64)
    path = write_video(tmp_path / "a.mov", pictures, codec="qtrle")
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with Camera(path, fast=True) as camera:
        np.testing.assert_array_equal(camera.read().pixels, np.rot90(pictures[0], turns))


def test_broken_packets_are_passed_over(tmp_path: Path) -> None:
    """And counted; what decodes is handed out at its own time."""
    pictures = frames(5)
    path = write_video(tmp_path / "a.mov", pictures, codec="png")
    data = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(b"\x89PNG", data)]
    for index in (1, 3):
        data[starts[index] : starts[index] + 10] = bytes(10)
    path.write_bytes(data)
    with Camera(path, fast=True) as camera:
        shots = drain(camera)
    assert [shot.time for shot in shots] == pytest.approx([0.0, 1.0, 2.0])
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures[::2])
    assert (camera.seen, camera.broken, camera.problem) == (3, 2, None)


# a graph


@pytest.mark.parametrize("size", ["1x1", "3x2", "7680x4320"])
def test_frames_of_any_size(size: str) -> None:
    """From one pixel to 8K."""
    with Camera(f"lavfi:color=c=0x102030:size={size}:rate=4,format=rgb24", fast=True) as camera:
        shots = [camera.read() for _ in range(2)]
    width, height = map(int, size.split("x"))
    assert [shot.time for shot in shots] == [0.0, 0.25]
    for shot in shots:
        assert shot.pixels.shape == (height, width, 3) and (shot.pixels == (0x10, 0x20, 0x30)).all()


def test_a_graph_runs_in_real_time() -> None:
    """Frames come in order and on time, by the machine's own clock; those that were missed are counted."""
    with Camera("lavfi:testsrc2=size=64x48:rate=100:duration=0.3,realtime") as camera:
        shots = drain(camera)
    times = [shot.time for shot in shots]
    assert times == sorted(set(times)) and times[-1] == pytest.approx(0.29)
    assert all(shot.arrived >= camera._stream._started + shot.time for shot in shots)
    assert len(shots) + camera.dropped == camera.seen == 30


# the end


def test_a_stopped_file_ends(tmp_path: Path) -> None:
    """Also while its next frame is far off; what waits in the slot is not handed out."""
    path = write_video(tmp_path / "a.mkv", frames(3), times=(0.0, 1.0, 3600.0))
    clock = Clock()
    with Camera(path, clock=clock, sleep=clock.sleep) as camera:
        assert camera.read().time == 0.0
        clock.pass_to(1.0, camera)
        camera.stop()
        assert camera.read() is None
        clock.pass_to(2.0, camera)
    assert camera.problem is None


@pytest.mark.parametrize("fast", [True, False])
def test_a_file_stopped_before_it_began(tmp_path: Path, fast: bool) -> None:
    with Camera(write_video(tmp_path / "a.mkv", frames(3)), fast=fast) as camera:
        camera.stop()
        assert camera.read() is None
    assert camera.problem is None


def test_a_gap_of_an_hour_is_not_waited_for(tmp_path: Path) -> None:
    """At its own pace a film waits for ten seconds at most; times stay what they are, and what was cut is known."""
    path = write_video(tmp_path / "a.mkv", frames(3), times=(0.0, 3600.0, 3601.0))
    clock = Clock()
    with Camera(path, clock=clock, sleep=clock.sleep) as camera:
        shots = [camera.read()]
        for seconds in (10.0, 11.0):
            clock.pass_to(seconds, camera)
            shots.append(camera.read())
        assert camera.read() is None
        assert camera.skipped_seconds == 3590
    assert [(shot.time, shot.arrived - 1000) for shot in shots] == [(0, 0), (3600, 10), (3601, 11)]


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_broadcast_whose_clock_is_set_anew(tmp_path: Path, jump: int) -> None:
    """Recordings of television that were joined: the second one follows the first."""
    path = tmp_path / "joined.ts"
    for start in (4000, 4000 + jump):
        options = {"output_ts_offset": str(start)}
        pixels = np.stack([np.full((48, 64, 3), value, np.uint8) for value in (0, 80, 160, 240)])
        half = write_video(tmp_path / "a.ts", pixels, rate=25, codec="mpeg2video", container_options=options)
        path.write_bytes((path.read_bytes() if path.exists() else b"") + half.read_bytes())
    with Camera(path, fast=True) as camera:
        times = [shot.time for shot in drain(camera)]
    assert times == sorted(times) and len(times) >= 6 and times[-1] < 1


def test_a_signal_handler_may_stop_it(tmp_path: Path) -> None:
    """While the reader waits for a frame that is an hour away."""
    path = write_video(tmp_path / "a.mkv", frames(2), times=(0.0, 3600.0))
    with Camera(path) as camera:
        before = signal.signal(signal.SIGALRM, lambda number, frame: camera.stop())
        try:
            assert camera.read().time == 0.0
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert camera.read() is None
        finally:
            signal.signal(signal.SIGALRM, before)


def test_a_file_that_is_not_read_is_closed(plug: Plugged) -> None:
    """And nothing was decoded."""
    device = plug((frames(1)[0], 0.0))
    with Camera("lavfi:color") as camera:
        assert not device.closed
    assert device.closed and camera.seen == 0


# a device


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


def opened(format: str | None, **options: str) -> dict[str, Any]:
    return {"format": format, "options": options, "timeout": None}


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


# what hangs


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


# black


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


# again


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


# an address


Served = Callable[[bytes, str], str]


@pytest.fixture
def serve() -> Iterator[Served]:
    """Serve bytes at an address; those without a length are followed by silence until the test ends."""
    over = threading.Event()
    servers: list[ThreadingHTTPServer] = []

    def serve(data: bytes, kind: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                if kind == "video/x-matroska":
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()
                if kind.endswith("stalls"):
                    over.wait()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/camera"

    yield serve
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def motion_jpeg(pictures: np.ndarray) -> bytes:
    """What cheap network cameras send."""
    import io

    from PIL import Image

    data = b""
    for pixels in pictures:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=95)
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(stream.getvalue())}\r\n\r\n"
        data += head.encode() + stream.getvalue() + b"\r\n"
    return data


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full((48, 64, 3), colour, np.uint8) for colour in colours])


def test_a_file_at_an_address(tmp_path: Path, serve: Served) -> None:
    """It knows its length: it is no live stream, and can be read fast."""
    pictures = frames(3)
    address = serve(write_video(tmp_path / "a.mkv", pictures).read_bytes(), "video/x-matroska")
    with Camera(address, fast=True) as camera:
        shots = drain(camera)
    assert [shot.time for shot in shots] == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal([shot.pixels for shot in shots], pictures)
    assert (camera.is_live, camera.problem) == (False, None)


def test_a_network_camera_that_goes_away(serve: Served) -> None:
    """Its last frame is still handed out."""
    pictures = plain((200, 40, 40), (40, 200, 40), (40, 40, 200))
    address = serve(motion_jpeg(pictures), "multipart/x-mixed-replace; boundary=frame")
    with Camera(address) as camera:
        shots = drain(camera)
    assert camera.is_live and camera.seen == len(shots) + camera.dropped
    assert np.abs(shots[-1].pixels.astype(int) - pictures[camera.seen - 1]).max() < 8
    assert re.match(rf"The pictures from {address} (ended|broke off: Input/output error)\.", camera.problem or "")


def test_a_network_camera_that_stalls(serve: Served) -> None:
    """Half a second of silence, here."""
    address = serve(motion_jpeg(plain(*[(200, 40, 40)] * 5)), "multipart/x-mixed-replace; boundary=frame; it stalls")
    with Camera(address, stall_seconds=0.5) as camera:
        assert drain(camera)
    assert camera.problem == f"The pictures from {address} stalled: none came for 0.5 s."


def test_an_address_where_nothing_answers() -> None:
    """Passwords are not told."""
    expected = "FFmpeg cannot read the video http://127.0.0.1:9/a: Connection refused"
    with pytest.raises(ValueError, match=message(expected)), Camera("http://me:secret@127.0.0.1:9/a"):
        pass


# what is no camera


def test_no_such_file(tmp_path: Path) -> None:
    """A folder is no file either. Told before anything is opened."""
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(ValueError, match=message(f"There is no video file at {path}")):
            Camera(path)


@pytest.mark.parametrize("content", ["", "This is no video.\n" * 50])
def test_a_file_that_is_no_video(tmp_path: Path, content: str) -> None:
    """0 bytes, and text."""
    path = tmp_path / "a.mp4"
    path.write_text(content)
    expected = f"FFmpeg cannot read the video {path}: Invalid data found when processing input"
    with pytest.raises(ValueError, match=message(expected)), Camera(path):
        pass


def test_sound_is_nothing_to_see(tmp_path: Path) -> None:
    """A file, and a graph."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 16_000)
    for source in (str(path), "lavfi:sine"):
        expected = f"There are no pictures from {source}: it has no video stream"
        with pytest.raises(ValueError, match=message(expected)), Camera(source):
            pass


@pytest.mark.parametrize(("fast", "loop"), [(True, False), (False, False), (True, True)])
def test_a_file_without_frames(tmp_path: Path, fast: bool, loop: bool) -> None:
    """It opens, and has nothing to hand out; a loop of nothing ends as well."""
    path = write_video(tmp_path / "a.avi", [], codec="png")
    expected = f"There are no pictures from {path}: it has 0 video frames"
    with Camera(path, fast=fast, loop=loop) as camera, pytest.raises(ValueError, match=message(expected)):
        camera.read()


def test_a_graph_that_is_none() -> None:
    expected = "^FFmpeg cannot read the video lavfi:nonsense: (Invalid argument|Filter not found)$"
    with pytest.raises(ValueError, match=expected), Camera("lavfi:nonsense"):
        pass
