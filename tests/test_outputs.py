"""Output files: new ones or --overwrite, told before anything is computed; whole at any moment."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from reference_cases import media_file

from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared.outputs import OutputFile, output_folder, text_output, wav_output

ROOT = Path(__file__).parent.parent
SPEECH = str(media_file("hibari-03.wav"))
LISTEN = ["listen", "--input", SPEECH, "--fast", "--model", "nowhere"]
OUTPUTS = [
    (LISTEN, "--output"),
    (LISTEN, "--save-audio"),
    (["describe", SPEECH, "--model", "nowhere"], "--output"),
]

Refused = Callable[..., str]


@pytest.mark.parametrize(("command", "option"), OUTPUTS)
def test_an_existing_file_is_refused(command: list[str], option: str, tmp_path: Path, refused: Refused) -> None:
    """Before the model is looked for; with --overwrite, a start that fails leaves it as it was."""
    if command[0] == "describe":
        pytest.importorskip("av")
        command = ["describe", str(film(tmp_path)), "--model", "nowhere"]
    path = tmp_path / "old.txt"
    path.write_text("old")
    expected = f"{option}: {path} exists; name another file, or replace it with --overwrite"
    assert refused(*command, option, path) == expected
    assert "nowhere" in refused(*command, option, path, "--overwrite")
    assert path.read_text() == "old"


@pytest.mark.parametrize("option", ["--output", "--save-audio"])
def test_a_target_that_cannot_be(option: str, tmp_path: Path, refused: Refused) -> None:
    """A folder, no folder, an input."""
    assert refused(*LISTEN, option, tmp_path) == f"{option} needs a file, but {tmp_path} is a folder"
    below = tmp_path / "absent" / "file"
    expected = f"{option}: there is no folder {below.parent} for file; create it first"
    assert refused(*LISTEN, option, below) == expected
    expected = f"{option} would replace the input {SPEECH}; name another file"
    assert refused(*LISTEN, option, SPEECH, "--overwrite") == expected


def test_text_and_sound_in_one_file(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "both"
    message = refused(*LISTEN, "--output", path, "--save-audio", path, "--overwrite")
    assert message == f"--save-audio would replace the input {path}; name another file" and not path.exists()


@pytest.mark.parametrize("option", ["--output", "--save-audio"])
def test_a_run_that_does_not_start_leaves_nothing(option: str, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "new"
    assert "nowhere" in refused(*LISTEN, option, path)
    assert not path.exists()


def test_a_file_that_cannot_be_written(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    path = tmp_path / "new"
    assert refused(*LISTEN, "--output", path) == f"--output: cannot write {path}: Permission denied"


def test_overwriting_replaces_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.txt"
    path.write_text("a long old text" * 1000)
    command = ["listen", "--input", SPEECH, "--fast", "--model", "demo", "--output", str(path), "--overwrite"]
    assert main(command) == 0
    assert "old" not in path.read_text() and path.read_text().count("\n") == 1


def test_text_is_there_after_every_flush(tmp_path: Path) -> None:
    path = tmp_path / "text"
    with text_output(str(path)) as stream:
        print("one", file=stream, flush=True)
        assert path.read_text() == "one\n"
        print("two", file=stream)
        assert path.read_text() == "one\n"
    assert path.read_text() == "one\ntwo\n"


def test_a_wav_is_whole_after_every_block(tmp_path: Path) -> None:
    """A killed process leaves one that every reader takes; samples beyond full scale are clipped."""
    path = tmp_path / "sound.wav"
    blocks = [np.array([0.5, -0.25], np.float32), np.array([2.0, -2.0, 1 / 32768], np.float32)]
    with wav_output(str(path)) as write:
        assert write is not None
        write(blocks[0])
        assert soundfile.read(path, dtype="int16")[0].tolist() == [16384, -8192]
        write(blocks[1])
        samples, rate = soundfile.read(path, dtype="int16")
        assert (samples.tolist(), rate) == ([16384, -8192, 32767, -32768, 1], 16_000)
    assert path.stat().st_size == 44 + 10


def test_a_wav_without_sound_is_one(tmp_path: Path) -> None:
    with wav_output(str(tmp_path / "empty.wav")):
        pass
    assert len(soundfile.read(tmp_path / "empty.wav")[0]) == 0


def test_a_wav_into_a_pipe(tmp_path: Path) -> None:
    """Its header says that it reaches to the end."""
    reader, writer = os.pipe()
    with wav_output(f"/dev/fd/{writer}") as write:
        assert write is not None
        write(np.array([0.5], np.float32))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    assert (data[40:44], data[44:]) == (b"\xff\xff\xff\xff", b"\x00\x40")


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
from mlx_gemma4.cli import main
sys.exit(main({command!r}))
"""


def limited(size: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that can write files of so many bytes: as on a full disk, writing fails in the middle."""
    code = FULL_DISK.format(size=size, command=command)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_no_room_for_the_sound(tmp_path: Path) -> None:
    """The text of what was heard is written, the WAV is whole, and the message names it."""
    path = tmp_path / "sound.wav"
    done = limited(44 + 60_001, ["listen", "--input", SPEECH, "--fast", "--model", "demo", "--save-audio", str(path)])
    assert (done.returncode, done.stderr) == (2, f"mlx_gemma4: error: File too large: {path}\n")
    assert len(done.stdout.splitlines()) == 1
    samples, _ = soundfile.read(path, dtype="int16")
    whole, _ = soundfile.read(SPEECH, dtype="int16")
    assert len(samples) == 60_000 // 1280 * 640
    np.testing.assert_array_equal(samples, whole[: len(samples)])


def test_no_room_for_the_text(tmp_path: Path) -> None:
    """No half record stays."""
    path = tmp_path / "text.jsonl"
    file = OutputFile(path, "--output")
    file.append(b"whole\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(b"does not fit\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.close(failed=True)
    assert path.read_text() == "whole\n"


def test_a_folder_without_results_leaves(tmp_path: Path) -> None:
    with pytest.raises(KeyError), output_folder(tmp_path / "a" / "b", "--save"):
        assert (tmp_path / "a" / "b").is_dir()
        raise KeyError
    assert not (tmp_path / "a").exists()
    with output_folder(tmp_path / "c", "--save") as folder:
        (folder / "kept").touch()
    assert (tmp_path / "c" / "kept").exists()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"^--save: cannot make the folder .*file/below: Not a directory$"
    with pytest.raises(ValueError, match=message), output_folder(tmp_path / "file" / "below", "--save"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    message = r"^--save: cannot write into .*: Permission denied$"
    with pytest.raises(ValueError, match=message), output_folder(tmp_path, "--save"):
        pass


def film(folder: Path) -> Path:
    from PIL import Image

    path = folder / "film.gif"
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500)
    return path


def test_transcripts_are_not_replaced(tmp_path: Path, refused: Refused) -> None:
    """Told before the model is looked for; a folder that was not there is not left empty."""
    old = tmp_path / "hibari-03.txt"
    old.write_text("old")
    command = ["transcribe", SPEECH, "--model", "nowhere", "--output-dir"]
    message = f"--output-dir: {old} exists; name another file, or replace it with --overwrite"
    assert refused(*command, tmp_path) == message
    assert "nowhere" in refused(*command, tmp_path, "--overwrite") and old.read_text() == "old"
    assert "nowhere" in refused(*command, tmp_path / "new") and not (tmp_path / "new").exists()
