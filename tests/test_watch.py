"""``mlx_gemma4 watch``: JSON lines for programs, a picture for eyes, snapshots, and what is refused."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import named, seen
from PIL import Image
from reference_cases import media_file
from rich.console import Console
from terminal import ROOT, on_terminal, screen
from test_cli import DEMO
from video_writer import write_video

from mlx_gemma4 import Watcher
from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared.preview import Preview, half_blocks
from mlx_gemma4.cli.watch import snapshots
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.see.watcher import Sighting

NAMES = ("picture-01.png", "picture-02.png")
PIXELS = [load_image(media_file(name)) for name in NAMES]
LINES = ["time", "age", "begun", "reason", "answer", "tokens", "forwards", "dropped", "complete"]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Two pictures of the demo, a second each at four frames a second, and the first one again."""
    return write_video(tmp_path / "film.mkv", [*[PIXELS[0]] * 4, *[PIXELS[1]] * 4, PIXELS[0]], rate=4)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def watch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "mlx_gemma4", "watch", *map(str, arguments), *DEMO]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_each_change_is_a_line(film: Path) -> None:
    """JSON on stdout, what was done on stderr."""
    done = watch(film, "--fast", "--settle", "0", "--stats")
    told = lines(done.stdout)
    assert [list(each) for each in told] == [LINES] * 3
    assert [(each["time"], each["reason"], each["answer"], each["dropped"]) for each in told] == [
        (0.0, "change", named(NAMES[0]), 0),
        (1.0, "change", named(NAMES[1]), 0),
        (2.0, "change", named(NAMES[0]), 0),
    ]
    assert [each["tokens"] for each in told] == [len(seen(name).tokens) for name in (*NAMES, NAMES[0])]
    assert all(each["complete"] and 0 <= each["begun"] <= each["age"] for each in told)
    # one more forward than the questions': what stands before the picture
    assert re.fullmatch(
        rf"frames 9 · dropped 0 · looked at 9 · changes 3 · asked 3 · told 3 · "
        rf"forwards {1 + sum(each['forwards'] for each in told)}\n"
        r"age of a frame at the first forward: p50 \d+ ms, p95 \d+ ms\n"
        r"age of a frame at the answer: p50 \d+ ms, p95 \d+ ms\n",
        done.stderr,
    )
    assert done.returncode == 0


def test_a_film_at_its_own_pace(film: Path) -> None:
    """However slow the model is, the last picture is seen, and each frame was looked at or counted as dropped."""
    done = watch(film, "--stats", "--only-new")
    told = lines(done.stdout)
    assert told[0]["answer"] == named(NAMES[0])
    [(came, dropped, looked)] = re.findall(r"frames (\d+) · dropped (\d+) · looked at (\d+)", done.stderr)
    assert int(came) == int(dropped) + int(looked) == 9


def test_asked_every_so_often(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what is new is told; the time is the film's, which goes on in a loop and ends after its duration."""
    options = ["--fast", "--loop", "--duration", "3", "--every", "0.75", "--only-new", "--stats"]
    assert main(["watch", str(film), *DEMO, *options]) == 0
    out, err = capsys.readouterr()
    assert [(each["time"], each["reason"], each["answer"]) for each in lines(out)] == [
        (0.0, "every", named(NAMES[0])),
        (1.5, "every", named(NAMES[1])),
        (2.25, "every", named(NAMES[0])),
    ]
    assert "looked at 12 · changes 0 · asked 4 · told 3 ·" in err


def test_options_and_the_environment(
    film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat, a sensitivity to nothing, a length."""
    for name, value in {"FAST": "1", "SENSITIVITY": "0", "HEARTBEAT": "1.25", "MAX_TOKENS": "2"}.items():
        monkeypatch.setenv(f"MLX_GEMMA4_{name}", value)
    assert main(["watch", str(film), *DEMO]) == 0
    out, err = capsys.readouterr()
    assert [(each["time"], each["reason"], each["tokens"]) for each in lines(out)] == [
        (0.0, "change", 2),
        (1.25, "heartbeat", 2),
    ]
    assert err == "The answer at 0.00 s was cut at 2 tokens\nThe answer at 1.25 s was cut at 2 tokens\n"


def test_pictures_with_an_answer_are_kept(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their times, pixel by pixel; a folder with anything in it is not written into."""
    folder = tmp_path / "new" / "pictures"
    assert main(["watch", str(film), "--fast", "--settle", "0", "--save", str(folder), *DEMO]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "00-00-00.000.png",
        "00-00-01.000.png",
        "00-00-02.000.png",
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "00-00-01.000.png")), PIXELS[1])
    capsys.readouterr()
    assert main(["watch", str(film), "--fast", "--save", str(folder), "--model", "nowhere"]) == 2
    expected = f"--save: {folder} is not empty; name a new or an empty folder"
    assert capsys.readouterr() == ("", f"mlx_gemma4: error: {expected}\n")


def test_pictures_within_a_millisecond_have_names_of_their_own(tmp_path: Path) -> None:
    """A frame rate above 1000, or a clock that stands still: none is lost."""
    with snapshots(tmp_path) as save:
        for seconds, value in ((1.0, 1), (1.0004, 2), (1.0, 3), (1.001, 4)):
            save(Shot(np.full((2, 2, 3), value, np.uint8), seconds, 0.0))
    kept = {path.name: int(np.asarray(Image.open(path))[0, 0, 0]) for path in tmp_path.iterdir()}
    assert kept == {"00-00-01.000.png": 1, "00-00-01.000-2.png": 2, "00-00-01.000-3.png": 3, "00-00-01.001.png": 4}


def test_broken_packets_are_told(film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.mov", [PIXELS[0]] * 3, codec="png")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x89PNG", data.index(b"\x89PNG") + 1)
    data[at : at + 10] = bytes(10)
    path.write_bytes(data)
    assert main(["watch", str(path), "--fast", *DEMO]) == 0
    out, err = capsys.readouterr()
    assert [each["answer"] for each in lines(out)] == [named(NAMES[0])]
    assert err == "1 packets could not be decoded and were skipped\n"


def test_ctrl_c_ends_it() -> None:
    """With the answers so far, the statistics, and no traceback."""
    command = [sys.executable, "-m", "mlx_gemma4", "watch", "lavfi:testsrc2=size=64x48:rate=30,realtime", "--stats"]
    with subprocess.Popen(
        [*command, *DEMO, "--every", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate()
    assert process.returncode in (0, 130), err  # 130: a slow machine had no time to end the answer
    assert all(each["reason"] == "every" for each in lines(first + rest))
    assert "frames " in err and "Traceback" not in err


def test_a_session_that_has_no_time_left_still_ends(
    film: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C while the model computes: the statistics of what was said until then, and no traceback."""
    see = Watcher.see

    def interrupted(watcher: Watcher, shot: Shot) -> Sighting | None:
        if shot.time == 0:
            return see(watcher, shot)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return None

    monkeypatch.setattr(Watcher, "see", interrupted)
    assert main(["watch", str(film), "--fast", "--stats", *DEMO]) == 130
    out, err = capsys.readouterr()
    assert [each["answer"] for each in lines(out)] == [named(NAMES[0])]
    assert "age of a frame at the answer" in err


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told before a model is loaded."""
    absent = tmp_path / "absent.mp4"
    graph = "lavfi:color"
    for arguments, expected in (
        ([str(absent)], f"There is no video file at {absent}"),
        ([graph, "--duration", "0"], "--duration must be more than 0 seconds, got 0"),
        ([graph, "--sensitivity", "1.5"], "--sensitivity must be from 0 to 1, got 1.5"),
    ):
        assert main(["watch", *arguments, "--model", "nowhere"]) == 2
        assert capsys.readouterr() == ("", f"mlx_gemma4: error: {expected}\n")


def test_no_camera(capsys: pytest.CaptureFixture[str]) -> None:
    """Here there is none."""
    if sys.platform != "linux" or Path("/dev/video0").exists():
        pytest.skip("this machine has a camera")
    assert main(["watch", "--model", "nowhere"]) == 2
    expected = (
        "Cannot open camera /dev/video0: No such file or directory; "
        "connect it, or name another number, a file or an address"
    )
    assert capsys.readouterr() == ("", f"mlx_gemma4: error: {expected}\n")


# a terminal


def test_half_blocks() -> None:
    """Two pixels in a character: the upper one is its colour, the lower one what is behind it."""
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[:, :, 0] = [[10, 20], [30, 40], [50, 60], [70, 80]]
    text = half_blocks(np.repeat(np.repeat(pixels, 16, axis=0), 16, axis=1))
    lines = text.plain.splitlines()
    assert lines == ["▀" * 16] * 16
    styles = {span.start: span.style for span in text.spans}
    corners = [styles[row * 17 + column] for row, column in ((0, 0), (0, 15), (15, 0), (15, 15))]
    assert [(style.color.triplet.red, style.bgcolor.triplet.red) for style in corners] == [
        (10, 10),
        (20, 20),
        (70, 70),
        (80, 80),
    ]
    narrow = half_blocks(np.zeros((1, 500, 3), np.uint8))
    assert narrow.plain == "▀" * 32 + "\n"


def test_a_preview_keeps_the_answers() -> None:
    """The picture and the status line are gone in the end."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="truecolor", width=60)
    answer = Sighting(61.5, "change", "a <b> [c]", 0.01, 0.1234, 5, 5, 2, True)
    with Preview(console) as preview:
        preview.show(Shot(PIXELS[0], 61.5, 0.0, 2), answer, 0.25)
        preview.show(Shot(PIXELS[1], 62.5, 0.0, 7), None, 0.04)
    data = stream.getvalue()
    assert "01:02  40 ms old  7 dropped" in data
    assert [line for line in screen(data) if "▀" not in line] == ["01:01  a <b> [c]  123 ms, change"]


def test_a_terminal_shows_pictures_and_answers(film: Path) -> None:
    """Half blocks come and go; what is left is what was said, with its time."""
    data = on_terminal("watch", str(film), "--fast", *DEMO, COLORTERM="truecolor", TERM="xterm-256color")
    assert "\x1b[38;2;" in data and "▀" in data and " ms old  0 dropped" in data
    said = [line.split("  ")[:2] for line in screen(data)]
    assert said == [["00:00", named(NAMES[0])], ["00:01", named(NAMES[1])], ["00:02", named(NAMES[0])]]
