"""``transcribe``: segments when they are known, several files of which one is broken, pipes, and how cues are cut."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from golden import said, utterances
from reference_cases import media_file

from mlx_gemma4 import Model
from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared.progress import Progress, duration

SPEECH, OTHER, DIALOGUE = (str(media_file(name)) for name in ("hibari-03.wav", "pico-04.wav", "dialogue.wav"))
DEMO = ["--model", "demo", "--dtype", "float32"]

Refused = Callable[..., str]


def damaged(folder: Path) -> Path:
    """A recording of a sentence, and behind it a sample that is no number."""
    path = folder / "damaged.wav"
    samples, _ = soundfile.read(SPEECH, dtype="float32")
    soundfile.write(path, np.concatenate([samples, np.zeros(16_000, np.float32), [np.nan]]), 16_000, subtype="FLOAT")
    return path


def test_cues_are_those_of_listening(tmp_path: Path) -> None:
    """To the last character: times, texts and all else that is told of them."""
    for layout in ("srt", "json"):
        files = [tmp_path / f"{command}.{layout}" for command in ("transcribe", "listen")]
        assert main(["transcribe", DIALOGUE, *DEMO, "--format", layout, "--output", str(files[0])]) == 0
        listen = ["listen", "--fast", "--input", DIALOGUE, *DEMO, "--format", layout, "--output", str(files[1])]
        assert main(listen) == 0
        texts = [file.read_text() for file in files]
        if layout == "json":
            texts = [re.sub(r'"forwards": \d+', "", text) for text in texts]
        assert texts[0] == texts[1] and texts[0]


def test_several_files_of_which_one_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are written, the broken ones as far as they go; each is told, and the exit code says so."""
    absent, bad = tmp_path / "absent.wav", damaged(tmp_path)
    assert main(["transcribe", SPEECH, str(absent), str(bad), OTHER, *DEMO]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines() == [said("hibari-03.wav"), said("hibari-03.wav"), said("pico-04.wav")]
    first, second, last = err.splitlines()
    assert first == f"There is no audio file {absent}"
    assert second.startswith(f"Expected finite samples in {bad}, got nan")
    assert last == f"mlx_gemma4: error: 2 of 4 recordings could not be read whole: {absent}, {bad}"


def test_a_file_that_cannot_be_read_leaves_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that is damaged leaves what it has, in a document that says that it is not whole."""
    zero = tmp_path / "zero.wav"
    soundfile.write(zero, np.zeros(0), 16_000)
    out = tmp_path / "out"
    command = ["transcribe", str(zero), str(damaged(tmp_path)), *DEMO, "--format", "json", "--output-dir", str(out)]
    assert main(command) == 2
    assert [path.name for path in out.iterdir()] == ["damaged.json"]
    told = json.loads((out / "damaged.json").read_text())
    assert [each["text"] for each in told["segments"]] == [said("hibari-03.wav")]
    assert told["complete"] is False
    assert f"{zero} holds no sound: 0 samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "a", "--output-dir", "b"], "--output and --output-dir exclude each other; name one of them"),
        (["--max-line", "0"], "--max-line must be at least 1 character, got 0"),
        (["--word-times"], "--word-times is for json and jsonl; for txt there is --max-line"),
        (
            ["--format", "json", "--word-times", "--translate-to", "de"],
            "--word-times does not work with --translate-to: words of a translation have no times",
        ),
        (
            ["--max-line", "9", "--translate-to", "de"],
            "--max-line does not work with --translate-to: words of a translation have no times",
        ),
        (["-", "-"], "Standard input can be read once; name - once"),
    ],
)
def test_options_that_do_not_fit(refused: Refused, options: list[str], message: str) -> None:
    """Told before the model is read."""
    assert refused("transcribe", SPEECH, *options, "--model", "nowhere") == message


def test_an_output_that_exists_is_kept(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    message = f"--output: {path} exists; name another file, or replace it with --overwrite"
    assert refused("transcribe", SPEECH, "--output", path, "--model", "nowhere") == message
    assert main(["transcribe", SPEECH, *DEMO, "--output", str(path), "--overwrite"]) == 0
    assert path.read_text() == f"{said('hibari-03.wav')}\n"


def test_standard_input_and_named_pipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "mlx_gemma4", "transcribe", "-", *DEMO]
    done = subprocess.run(command, input=Path(SPEECH).read_bytes(), capture_output=True, check=True)
    assert done.stdout.decode() == f"{said('hibari-03.wav')}\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(Path(OTHER).read_bytes()))
    writer.start()
    assert main(["transcribe", str(pipe), *DEMO]) == 0
    writer.join()
    assert capsys.readouterr().out == f"{said('pico-04.wav')}\n"


def test_recordings_share_a_batch_and_pipes_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is read when everything before it is written, and nothing behind it is read before its text is written:
    whoever writes to it may wait for that. Every document is whole."""
    pipe, out, sizes = tmp_path / "pipe", tmp_path / "out", list[int]()
    os.mkfifo(pipe)
    before = [str(tmp_path / f"{name}.wav") for name in ("one", "two", "three")]
    for path, source in zip(before, (SPEECH, OTHER, SPEECH), strict=True):
        Path(path).write_bytes(Path(source).read_bytes())
    files = [*before, str(pipe), DIALOGUE]
    texts = [*(said(Path(name).name) for name in (SPEECH, OTHER, SPEECH, OTHER)), *utterances("dialogue.wav")]
    known: list[list[str]] = []

    def write() -> None:
        with pipe.open("wb") as stream:  # waits for a reader
            known.append(sorted(path.name for path in out.iterdir() if path.stat().st_size))
            stream.write(Path(OTHER).read_bytes())

    forward = Model.__call__

    def counted(model: Model, h: mx.array, *arguments: Any, **options: Any) -> mx.array:
        sizes.append(h.shape[0])
        return forward(model, h, *arguments, **options)

    monkeypatch.setattr(Model, "__call__", counted)
    writer = threading.Thread(target=write)
    writer.start()
    assert main(["transcribe", *files, *DEMO, "--format", "json", "--output-dir", str(out)]) == 0
    writer.join()
    documents = [json.loads((out / f"{Path(path).stem}.json").read_text()) for path in files]
    assert [each["text"] for document in documents for each in document["segments"]] == texts
    assert not any("complete" in document for document in documents)
    assert known == [["one.json", "three.json", "two.json"]]
    assert max(sizes) >= 2


def test_words_have_times(capsys: pytest.CaptureFixture[str]) -> None:
    """Within their segment, in order; it is said that they are interpolated."""
    assert main(["transcribe", DIALOGUE, *DEMO, "--format", "jsonl", "--word-times"]) == 0
    segments = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["text"] for each in segments] == utterances("dialogue.wav")
    for each in segments:
        assert each["times"] == "interpolated" and each["event"] == "final"
        assert [word["word"] for word in each["words"]] == each["text"].split()
        moments = [word[edge] for word in each["words"] for edge in ("start", "end")]
        assert moments == sorted(moments)
        assert not moments or each["start"] <= moments[0] < moments[-1] <= each["end"] + 1e-6


def test_statistics_and_what_the_level_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", SPEECH, *DEMO, "--stats", "--level", "0"]) == 0
    out, err = capsys.readouterr()
    gated, stats = err.splitlines()
    assert out == ""
    found = re.fullmatch(rf"{SPEECH}: (\d\.\d\d) s of speech were below --level 0 and left out", gated)
    assert found is not None and 1 < float(found[1]) < duration(SPEECH)  # type: ignore[operator]
    assert re.fullmatch(
        rf"{SPEECH}: {duration(SPEECH):.2f} s of sound, 0.00 s of it given to the model; "
        r"transcribed in \d+\.\d\d s \(\d+\.\d\d of its length\)",
        stats,
    )


def test_statistics_of_several_have_one_time(capsys: pytest.CaptureFixture[str]) -> None:
    """They are decoded side by side."""
    assert main(["transcribe", SPEECH, OTHER, *DEMO, "--stats"]) == 0
    first, second, both = capsys.readouterr().err.splitlines()
    lengths = [duration(path) for path in (SPEECH, OTHER)]
    for line, path, length in zip((first, second), (SPEECH, OTHER), lengths, strict=True):
        assert re.fullmatch(rf"{path}: {length:.2f} s of sound, \d\.\d\d s of it given to the model", line)
    assert re.fullmatch(
        rf"2 recordings: {sum(lengths):.2f} s of sound, \d\.\d\d s of it given to the model; "  # type: ignore[arg-type]
        r"transcribed in \d+\.\d\d s \(\d+\.\d\d of its length\)",
        both,
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def blocks(seconds: int) -> Iterator[np.ndarray]:
    yield from (np.zeros(16_000, np.float32) for _ in range(seconds))


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redrawn, and gone at the end; control characters of a name are not written."""
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    for _ in Progress(blocks(2), "a\x1b.wav", 3725.0):
        pass
    clear = "\r\033[K"
    assert shown.getvalue() == f"{clear}a\\x1b.wav: 0:00:01 of 1:02:05{clear}a\\x1b.wav: 0:00:02 of 1:02:05{clear}"


def test_progress_elsewhere_is_for_long_recordings(capsys: pytest.CaptureFixture[str]) -> None:
    """A line every five minutes."""
    for _ in Progress(blocks(601), "a.wav", None):
        pass
    assert capsys.readouterr().err.splitlines() == ["a.wav: 0:05:00", "a.wav: 0:10:00"]


def test_a_recording_that_is_damaged_ends_there() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from blocks(3)
        raise ValueError("it is cut short")

    sound = Progress(broken(), "a.wav", None)
    assert len(list(sound)) == 3
    assert (sound.seconds, str(sound.problem)) == (3.0, "it is cut short")
