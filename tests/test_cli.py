"""The command line as users run it: help, results on stdout and the rest on stderr, the README's commands."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import loaded
from golden import is_demo, named, said, seen, spans, utterances
from reference_cases import DESCRIBE, SHORT, media_file, picture_prompt
from terminal import on_terminal, screen

from mlx_gemma4 import Session, __version__, demo_folder, load_audio
from mlx_gemma4.checkpoint.hub import DEFAULT_MODEL
from mlx_gemma4.cli import commands, main, parser
from mlx_gemma4.cli.shared.options import load_model
from mlx_gemma4.cli.shared.parsing import Parser

ROOT = Path(__file__).parent.parent
SPEECH, PACKAGED, PICTURE = (str(media_file(name)) for name in ("hibari-03.wav", "pico-04.wav", "picture-01.png"))
DIALOGUE = str(media_file("dialogue.wav"))
DEMO = ["--model", "demo", "--dtype", "float32"]
"""In the precision that the reference's answers are of."""
LINES = [text for text in utterances("dialogue.wav") if text]
"""What is said in the dialogue; an utterance without text is no line."""


def run(*arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    done = subprocess.run([sys.executable, "-m", "mlx_gemma4", *arguments], input=text, capture_output=True, cwd=ROOT)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def imported(code: str) -> set[str]:
    """Modules in memory after ``code``, in a process of its own."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stderr.splitlines())


COMMANDS = [[], *([name] for name in commands()), ["eval", "wer"], ["eval", "quality"]]


def parser_of(command: list[str]) -> Parser:
    found = parser()
    for name in command:
        below = next(action for action in found._actions if isinstance(action, argparse._SubParsersAction))
        found = below.choices[name]
    assert isinstance(found, Parser)
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one screen, with an example."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    out, err = capsys.readouterr()
    assert err == "" and out.startswith(f"usage: mlx_gemma4 {' '.join(command)}".rstrip())
    assert len(out.splitlines()) <= 40 and max(map(len, out.splitlines())) <= 80
    assert "\nexample" in out and "None" not in out and "positional" not in out


@pytest.mark.parametrize("command", [["generate"], ["live"], ["watch"]], ids=" ".join)
def test_help_keeps_a_repo_id_in_one_piece(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it can be copied."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert DEFAULT_MODEL in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
def test_help_points_to_options_that_it_hides(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit, match="0"):
            main([*command, option])
        shown.append(capsys.readouterr().out)
    short, long = shown
    assert not short.endswith("\n\n") and not long.endswith("\n\n")
    names = [name for action in parser_of(command)._actions for name in action.option_strings]
    hides = any(not re.search(rf"^  .*{name}\b", short, re.MULTILINE) for name in names)
    assert short.endswith("--help-all shows all options.\n") == hides


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_arguments_as_the_usage_does(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\n")
    for name in re.findall(r"[A-Z]{2,}", usage.replace("[OPTIONS]", "")):
        assert re.search(rf"^  {name}\b", rest, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
def test_all_options_are_in_the_long_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each with a text of its own; and those of the short help are options."""
    found = parser_of(command)
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help-all"])
    out, err = capsys.readouterr()
    names = [name for action in found._actions for name in action.option_strings]
    assert err == "" and [name for name in names if name not in out] == []
    assert [name for action in found._actions for name in action.option_strings if not action.help] == []
    assert found._common is not None and sorted(found._common - set(names)) == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_examples_of_the_help_are_commands(command: list[str]) -> None:
    for example in parser_of(command).examples:
        program, *words = shlex.split(example.partition(" < ")[0])
        assert program == "mlx_gemma4"
        if "--help" not in words:
            assert parser().parse_args(words).command == words[0]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mlx_gemma4 {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    """Start-up is a feature."""
    code = "from mlx_gemma4.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not imported(code) & {"numpy", "mlx.core", "jinja2", "tokenizers", "huggingface_hub", "soundfile", "PIL"}


def test_transcribing_imports_no_torch_nor_what_it_does_not_use() -> None:
    code = f"from mlx_gemma4.cli import main\nmain(['transcribe', {SPEECH!r}, '--model', 'demo'])"
    modules = imported(code)
    assert "mlx.core" in modules
    unused = {"torch", "transformers", "mlx_lm", "huggingface_hub", "PIL", "av", "sounddevice", "sentencepiece", "soxr"}
    assert not modules & unused


def test_transcribe_writes_text_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", SPEECH, PACKAGED, *DEMO]) == 0
    assert capsys.readouterr() == (f"{said('hibari-03.wav')}\n{said('pico-04.wav')}\n", "")


def time(frames: int, point: str) -> str:
    """In a subtitle."""
    return f"00:00:{frames * 0.04:06.3f}".replace(".", point)


def test_transcribe_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One beside the other, in any format."""
    out = tmp_path / "new" / "folder"
    for layout in ("json", "srt", "vtt", "txt"):
        assert main(["transcribe", SPEECH, *DEMO, "--format", layout, "--output-dir", str(out)]) == 0
    text, [(start, end)] = said("hibari-03.wav"), spans("hibari-03.wav")
    assert (out / "hibari-03.srt").read_text() == f"1\n{time(start, ',')} --> {time(end, ',')}\n{text}\n\n"
    assert json.loads((out / "hibari-03.json").read_text())["segments"][0]["text"] == text
    assert capsys.readouterr().out == ""


def test_listening_to_a_file_writes_its_utterances(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, nothing else on stdout; the work is told on stderr."""
    assert main(["listen", "--input", DIALOGUE, "--fast", *DEMO, "--stats"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == LINES
    frames, speech = -(-len(load_audio(DIALOGUE)) // 640), sum(end - start for start, end in spans("dialogue.wav"))
    assert f"utterances {len(spans('dialogue.wav'))} · " in err
    assert f"frames of speech {speech} · judged silent {frames - speech}, 0 of them" in err
    assert f"· audio positions computed {speech} (" in err
    assert "(1.00 a frame) · forwards" in err
    assert re.search(r"from the decision .* text: p50 \d+ ms, p95 \d+ ms, at most 0 forwards", err)
    assert re.search(r"from the last sample of speech to its text: p50 \d+ ms, p95 \d+ ms", err)


def test_listening_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into files, with the sound kept beside them."""
    common = ["listen", "--input", DIALOGUE, "--fast", *DEMO]
    for layout in ("jsonl", "srt", "vtt"):
        path, wav = tmp_path / f"out.{layout}", tmp_path / f"{layout}.wav"
        assert main([*common, "--format", layout, "--output", str(path), "--save-audio", str(wav)]) == 0
    assert capsys.readouterr().out == ""
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [event["text"] for event in events if event["event"] == "final"] == utterances("dialogue.wav")
    told = [each for each in zip(spans("dialogue.wav"), utterances("dialogue.wav"), strict=True) if each[1]]
    srt, vtt = (
        [f"{time(start, point)} --> {time(end, point)}\n{text}\n" for (start, end), text in told] for point in ",."
    )
    numbered = [f"{number}\n{cue}\n" for number, cue in enumerate(srt, 1)]
    assert (tmp_path / "out.srt").read_text() == "".join(numbered)
    assert (tmp_path / "out.vtt").read_text() == "WEBVTT\n\n" + "".join(f"{cue}\n" for cue in vtt)
    np.testing.assert_array_equal(load_audio(tmp_path / "srt.wav"), load_audio(DIALOGUE))
    assert main([*common, "--output", str(tmp_path / "out.srt")]) == 2
    assert "out.srt exists; name another file, or replace it with --overwrite" in capsys.readouterr().err


def test_options_come_from_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed comes first."""
    values = {"INPUT": DIALOGUE, "FAST": "1", "MODEL": "demo", "DTYPE": "float32", "FORMAT": "srt", "SILENCE": "0.3"}
    for name, value in values.items():
        monkeypatch.setenv(f"MLX_GEMMA4_{name}", value)
    assert main(["listen", "--format", "txt"]) == 0
    assert capsys.readouterr().out.splitlines() == LINES
    monkeypatch.setenv("MLX_GEMMA4_SILENCE", "long")
    assert main(["listen"]) == 2
    expected = "The environment variable MLX_GEMMA4_SILENCE is wrong: invalid float value: 'long'"
    assert capsys.readouterr().err == f"mlx_gemma4: error: {expected}\n"


def test_a_long_recording_is_cut_at_silences(capsys: pytest.CaptureFixture[str]) -> None:
    """Its utterances, with times."""
    assert main(["transcribe", DIALOGUE, *DEMO, "--max-segment", "10", "--format", "json"]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert [each["text"] for each in segments] == utterances("dialogue.wav")
    times = [(round(each["start"] / 0.04), round(each["end"] / 0.04)) for each in segments]
    assert times == spans("dialogue.wav")


def test_listening_to_a_pipe() -> None:
    """A WAV, and samples without a header."""
    wav = Path(SPEECH).read_bytes()
    for data, raw in ((wav, ()), (wav[44:], ("--raw", "s16le"))):
        done = run("listen", "--input", "-", *raw, *DEMO, text=data)
        assert (done.returncode, done.stdout.splitlines()) == (0, utterances("hibari-03.wav"))


def test_generate_answers_about_pictures_and_sound(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt from the line or from stdin, the model from the environment, statistics on stderr."""
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "demo")
    assert main(["generate", "--prompt", DESCRIBE, "--image", PICTURE, "--dtype", "float32", "--stats"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{named('picture-01.png')}\n"
    counts = (len(picture_prompt(loaded("demo")[1], "picture-01.png")), len(seen("picture-01.png").tokens))
    told = r"prompt {} tokens, [\d.]+ tokens/s · answer {} tokens, .* peak memory [\d.]+ GB\n".format(*counts)
    assert re.match(told, err)
    done = run("generate", "-p", "-", "--audio", SPEECH, *DEMO, text=SHORT.encode())
    assert (done.stdout, done.stderr) == (f"{said('hibari-03.wav', 'short')}\n", "")


def test_an_answer_cut_short_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "-p", DESCRIBE, "--image", PICTURE, *DEMO, "-m", "2"]) == 0
    begun = loaded("demo")[1].decode(seen("picture-01.png").tokens[:2])
    assert capsys.readouterr() == (f"{begun}\n", "The answer was stopped at 2 tokens (--max-tokens).\n")


def test_a_chat_keeps_its_turns() -> None:
    """Media by command, mistakes told without losing the conversation."""
    lines = [
        f"/image {PICTURE}",
        DESCRIBE,
        "/audio nowhere.wav",
        "/nonsense",
        f"/audio {SPEECH}",
        SHORT,
        "/help",
        "/reset",
        "/exit",
        "never read",
    ]
    done = run("chat", *DEMO, text="\n".join(lines).encode())
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == named("picture-01.png") and len(done.stdout.splitlines()) == 2
    assert "error: There is no file at 'nowhere.wav'" in done.stderr
    assert "error: There is no command (/help lists them) called /nonsense" in done.stderr


def test_the_demo_shows_the_main_job() -> None:
    done = run("demo", "--fast")
    assert is_demo(done.stdout)


def test_the_demo_is_a_folder_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in the code knows the demo but its name."""
    assert main(["transcribe", SPEECH, "--model", str(demo_folder() / "checkpoint"), "--dtype", "float32"]) == 0
    assert capsys.readouterr().out == f"{said('hibari-03.wav')}\n"


def test_a_terminal_shows_each_utterance_once() -> None:
    """Guesses and the status line come and go; what is left is the text."""
    data = on_terminal("listen", *DEMO, "--input", DIALOGUE, "--fast")
    assert "○ " in data or "● " in data
    shown = screen(data)
    assert [text for text in (line.split("  (")[0] for line in shown) if text] == LINES


def test_snapshots_have_the_memory_that_was_planned_for_them() -> None:
    command = ["generate", "--model", "demo", "--prompt", "Hi", "--context", "100", "--memory", "0.6"]
    model, _ = load_model(parser().parse_args(command))
    assert model.budget.plan is not None
    assert model.snapshots.memory == model.budget.plan.snapshots < 100_000_000


def test_a_disk_that_takes_no_snapshots_is_reported_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not as a warning of Python's."""
    model, _ = load_model(parser().parse_args(["generate", "--model", "demo", "--prompt", "Hi"]))
    assert not capsys.readouterr().err
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    model.snapshots.memory = 0
    session = Session(model, room=2)
    session.extend(np.arange(30, 230).repeat(3), snapshots=[100])
    err = capsys.readouterr().err
    assert err.startswith("Snapshots cannot be written to disk: [Errno 2] No such file") and err.count("\n") == 1
