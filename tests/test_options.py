"""Options that are typed and those of the environment; standard streams that are closed; one-line messages."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from golden import said
from reference_cases import media_file

from mlx_gemma4.cli import main, parse
from mlx_gemma4.cli.shared.errors import LONGEST, message
from mlx_gemma4.cli.shared.parsing import Parser

ROOT = Path(__file__).parent.parent
SPEECH = str(media_file("hibari-03.wav"))
DEMO = ["--model", "demo", "--dtype", "float32"]

Refused = Callable[..., str]


def set_all(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"MLX_GEMMA4_{name}", value)


@pytest.mark.parametrize(
    ("command", "variables", "expected"),
    [
        (["generate"], {"PROMPT": "Hello", "TEMP": "0.5", "IMAGE": "a.png"}, ("prompt", "Hello")),
        (["generate", "-p", "Hi"], {"PROMPT": "Hello"}, ("prompt", "Hi")),
        (["generate", "-p", "Hi"], {"IMAGE": "a.png"}, ("image", ["a.png"])),
        (["chat"], {"THINKING": "on"}, ("thinking", True)),
        (["chat"], {"THINKING": "No"}, ("thinking", False)),
        (["chat"], {"MAX_TOKENS": ""}, ("max_tokens", 1024)),
        (["eval", "wer", "m.jsonl"], {"LIMIT": "3"}, ("limit", 3)),
        (["eval", "wer", "m.jsonl", "--limit", "2"], {"LIMIT": "3"}, ("limit", 2)),
        (["convert"], {"Q_BITS": "4"}, ("q_bits", 4)),
        (["listen", "--input", "a.wav"], {"DEVICE": "USB"}, ("device", None)),
        (["listen"], {"DEVICE": "USB"}, ("device", "USB")),
        (["listen", "--device", "USB"], {"INPUT": "a.wav"}, ("input", None)),
        (["live", "--no-sound"], {"DEVICE": "USB", "INPUT": "a.wav"}, ("device", None)),
        (["live", "--camera", "1"], {"NO_CAMERA": "1"}, ("no_camera", False)),
    ],
)
def test_every_command_reads_the_environment(
    command: list[str], variables: dict[str, str], expected: tuple[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed wins, also over variables that it excludes; an empty variable is none."""
    set_all(monkeypatch, **variables)
    assert getattr(parse(command), expected[0]) == expected[1]


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"MAX_TOKENS": "many"}, "MLX_GEMMA4_MAX_TOKENS is wrong: invalid int value: 'many'"),
        ({"DTYPE": "int8"}, "MLX_GEMMA4_DTYPE is 'int8', but must be one of bfloat16, float16, float32"),
        (
            {"THINKING": "maybe"},
            "MLX_GEMMA4_THINKING is 'maybe', but must be one of 1, true, yes, on, 0, false, no, off",
        ),
    ],
)
def test_wrong_values_name_their_variable(
    variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    set_all(monkeypatch, **variables)
    assert refused("chat", "--model", "nowhere") == f"The environment variable {text}"


def test_variables_of_other_commands_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, Q_BITS="no number", EVERY="never")
    assert parse(["chat"]).command == "chat"


def test_a_variable_that_means_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_all(monkeypatch, MAX_TOKEN="3", TRACEBACK="", MODEL="demo")
    parse(["chat"])
    expected = "The environment variable MLX_GEMMA4_MAX_TOKEN belongs to no option of any command.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", [["transcribe", SPEECH, "--outp", "x"], ["eval", "wer", "m.jsonl", "--lim", "3"]])
def test_options_are_not_abbreviated(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert f"unrecognized arguments: {' '.join(command[-2:])}\n" in capsys.readouterr().err


def test_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "Exit codes: 0 done; 1 the session ended early" in " ".join(capsys.readouterr().out.split())


# messages


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\nlines\t of  text"), "two lines of text"),
        (ValueError("\x1b[31mred\x07"), r"\x1b[31mred\x07"),
        (ValueError(), "ValueError"),
        (FileNotFoundError(2, "No such file or directory", "a\nb"), "No such file or directory: a b"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("said by a library"), "said by a library"),
    ],
)
def test_a_message_is_one_line(error: Exception, text: str) -> None:
    assert message(error) == text


def test_a_long_message_is_cut_in_the_middle() -> None:
    text = message(ValueError(f"begin {'x' * 5000} end"))
    assert len(text) == LONGEST + 3 and text.startswith("begin x") and text.endswith("x end") and " … " in text


def test_what_is_typed_wrong_is_shown_safely(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        Parser(prog="p").parse_args(["\x1b[2J"])
    assert capsys.readouterr().err.endswith("p: error: unrecognized arguments: \\x1b[2J\n")


# standard streams


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell's line; $RUN is the command line's program."""
    run = f"{sys.executable} -m mlx_gemma4"
    surroundings = {**os.environ, "RUN": run, **environment}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, env=surroundings)


def test_closed_stdin() -> None:
    """A chat ends, and files that are opened do not become standard input."""
    done = shell("$RUN chat --model demo <&-")
    assert (done.returncode, done.stdout) == (0, "")
    done = shell(f"$RUN transcribe {SPEECH} --model demo --dtype float32 <&-")
    assert (done.returncode, done.stdout) == (0, f"{said('hibari-03.wav')}\n")


def test_closed_stdout(tmp_path: Path) -> None:
    """Told before the model is looked for; with --output nothing is missing."""
    listen = f"$RUN listen --input {SPEECH} --fast"
    done = shell(f"{listen} --model nowhere >&-")
    message = "mlx_gemma4: error: Standard output is closed; write to a file with --output FILE\n"
    assert (done.returncode, done.stderr) == (2, message)
    done = shell(f"{listen} {' '.join(DEMO)} --output {tmp_path / 'out'} >&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == f"{said('hibari-03.wav')}\n"
    done = shell(f"$RUN transcribe {SPEECH} --model demo >&-")
    assert (done.returncode, done.stderr) == (2, message)


def test_closed_stderr() -> None:
    """Notes are not mixed into the results."""
    done = shell(f"$RUN listen --input {SPEECH} --fast --stats {' '.join(DEMO)} 2>&-")
    assert (done.returncode, done.stdout) == (0, f"{said('hibari-03.wav')}\n")


def test_a_full_disk_behind_stdout() -> None:
    done = shell(f"$RUN listen --input {SPEECH} --fast --model demo > /dev/full")
    assert (done.returncode, done.stderr) == (2, "mlx_gemma4: error: No space left on device\n")


def test_a_reader_that_leaves() -> None:
    done = shell(f"$RUN listen --input {SPEECH} --fast --model demo | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (141, "")


def test_without_docstrings() -> None:
    """python -OO."""
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "mlx_gemma4", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "Transcribe recordings of any length and format." in done.stdout
    assert isinstance(parse(["chat"]), argparse.Namespace)


def test_a_checkout_that_hides_the_installed_package() -> None:
    """The converter is found beside it."""
    code = (
        "import sys; sys.meta_path = [each for each in sys.meta_path if 'Editable' not in repr(each)]\n"
        "from mlx_gemma4.cli import main; sys.exit(main(['convert', '--list-recipes']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "") and "8bit" in done.stdout
