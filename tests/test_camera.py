"""Cameras: files and graphs, and how they end."""

from __future__ import annotations

import re
import signal
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from camera_parts import drain, frames
from video_writer import write_video

from mlx_gemma4.live.see import camera as module
from mlx_gemma4.live.see.camera import Camera


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
