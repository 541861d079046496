"""``mlx_gemma4 live``: a recording and a clip together, a terminal, and what cannot be asked for."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import loaded
from reference_cases import media_file, utterances

from mlx_gemma4 import Model, Processor, Transcriber, generate, load_audio
from mlx_gemma4.cli import main
from mlx_gemma4.cli.live import Talk
from mlx_gemma4.live.talk.events import Looked, SightLost

ROOT = Path(__file__).parent.parent
PICTURE, RECORDING = str(media_file("picture-02.png")), str(media_file("hibari-03.wav"))
DEMO = ["--model", "demo", "--dtype", "float32", "--temp", "0"]
REPLAY = ["live", *DEMO, "--camera", PICTURE, "--input", RECORDING, "--fast"]


@pytest.fixture(scope="module")
def expected() -> str:
    """The answer to the one utterance of the recording, asked about the picture."""
    model, processor = loaded("demo")
    samples = load_audio(RECORDING)
    ((start, end),) = utterances(samples)
    parts = [{"type": "image", "image": PICTURE}, {"type": "audio", "audio": samples[start * 640 : end * 640]}]
    return generate(model, processor, processor.prompt([{"role": "user", "content": parts}]), max_tokens=256)


def test_a_recording_and_a_picture(expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer on stdout is the offline one; ages, delays and work on stderr."""
    assert main([*REPLAY, "--stats"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{expected}\n"
    assert re.search(r"^\(\d+\.\d\d–\d+\.\d\d s\)$", err, re.MULTILINE)
    statistics = (
        r"pictures looked at 1, age p50 \d+ ms, at most \d+ ms · answers 1, first token after p50 \d+ ms, "
        r"at most \d+ ms · forwards \d+, positions computed \d+, held \d+"
    )
    assert re.search(statistics, err)


def test_events_as_json(expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REPLAY, "--format", "jsonl"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["looked", "heard", "answered"]
    assert (events[0]["time"], events[0]["forwards"]) == (0.0, 1)
    assert (events[2]["text"], events[2]["reason"]) == (expected, "stop")


def test_a_typed_question_on_a_terminal(demo: tuple[Model, Processor]) -> None:
    """Without sound, the end of what is typed is the end."""
    terminal, end = os.openpty()
    command = ["-m", "mlx_gemma4", "live", *DEMO, "--camera", PICTURE, "--no-sound", "--format", "jsonl"]
    with subprocess.Popen([sys.executable, *command], stdin=end, stdout=subprocess.PIPE, cwd=ROOT) as process:
        os.close(end)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "looked"
        os.write(terminal, b"\nDescribe the image.\n\x04")
        (answered,) = process.stdout.read().splitlines()
    os.close(terminal)
    parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": "Describe the image."}]
    assert process.returncode == 0
    assert json.loads(answered)["text"] == generate(*demo, demo[1].prompt([{"role": "user", "content": parts}]))


def test_piped_questions_are_answered_one_after_the_other(demo: tuple[Model, Processor]) -> None:
    """About the picture, though they stand in the pipe before it is seen; the end of the pipe is the end."""
    command = [sys.executable, "-m", "mlx_gemma4", "live", *DEMO, "--camera", PICTURE, "--no-sound"]
    questions = "Describe the image.\nWhat is it?\n"
    done = subprocess.run(command, input=questions, capture_output=True, text=True, cwd=ROOT, check=True, timeout=300)
    conversation: list[dict[str, object]] = []
    answers = []
    for question in questions.splitlines():
        parts = [{"type": "image", "image": PICTURE}, {"type": "text", "text": question}]
        conversation.append({"role": "user", "content": parts})
        answers.append(generate(*demo, demo[1].prompt(conversation)))
        conversation.append({"role": "assistant", "content": answers[-1]})
    assert done.stdout.splitlines() == answers


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_pipe_asks_nothing_and_is_told(text: str) -> None:
    command = [sys.executable, "-m", "mlx_gemma4", "live", *DEMO, "--camera", PICTURE, "--no-sound"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT, check=True, timeout=300)
    told = "No question was asked: with --no-sound, questions come from stdin, which was empty."
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("", told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-sound", "--no-camera"], "--no-sound and --no-camera leave nothing to hear or see; use mlx_gemma4 chat"),
        (
            ["--fast", "--no-sound", "--camera", PICTURE],
            "--fast needs a recording: leave out --no-sound",
        ),
        (["--camera", "absent.mp4", "--input", RECORDING], "absent.mp4"),
        (["--camera", PICTURE, "--input", RECORDING, "--context", "10"], "Expected a context of "),
        (
            ["--camera", PICTURE, "--input", RECORDING, "--tools", "absent.py"],
            "There is no Python file of functions at absent.py",
        ),
        (
            ["--camera", PICTURE, "--input", RECORDING, "--sensitivity", "2"],
            "--sensitivity must be from 0 to 1, got 2",
        ),
    ],
)
def test_what_cannot_be_asked_for(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", *DEMO, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_transcript_in_a_file(
    demo: tuple[Model, Processor], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was said, as transcribing its sound gives it, and what was answered; nothing on stdout."""
    path = tmp_path / "talk.jsonl"
    assert main([*REPLAY, "--format", "jsonl", "--transcript", "--output", str(path)]) == 0
    events = {event["event"]: event for event in map(json.loads, path.read_text().splitlines())}
    heard, written = events["heard"], events["transcribed"]
    sound = load_audio(RECORDING)[round(heard["start"] * 16_000) : round(heard["end"] * 16_000)]
    [segment] = Transcriber(*demo).transcribe(sound)
    assert (written["start"], written["end"], written["text"]) == (heard["start"], heard["end"], segment.text)
    assert events["answered"]["text"] == expected
    assert capsys.readouterr().out == ""
    assert main([*REPLAY, "--output", str(path)]) == 2
    assert "talk.jsonl exists; name another file, or replace it with --overwrite" in capsys.readouterr().err
    assert main([*REPLAY, "--transcript", "--output", str(path), "--overwrite"]) == 0
    line = f"[{heard['start']:.2f}–{heard['end']:.2f} s] {segment.text}"
    assert sorted(path.read_text().splitlines()) == sorted([expected, line])


def test_lost_sight_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr when it is lost and when pictures come back; in JSON it is an event."""
    arguments = argparse.Namespace(format="txt", fast=True, input=None)
    stream = io.StringIO()
    assistant = SimpleNamespace(overload=None)
    talk = Talk(assistant, arguments, None, stream)  # type: ignore[arg-type]
    for event in (SightLost("The pictures from camera 0 ended."), Looked(9.0, 0.1, 1), Looked(10.0, 0.1, 1)):
        talk.show(event)
    lost = "The pictures from camera 0 ended. Answers are about what is heard and typed until pictures come.\n"
    assert capsys.readouterr().err == f"{lost}Pictures come again.\n" and not stream.getvalue()
    arguments.format = "jsonl"
    Talk(assistant, arguments, None, stream).show(SightLost("It stalls."))  # type: ignore[arg-type]
    assert json.loads(stream.getvalue()) == {"event": "sightlost", "problem": "It stalls."}
