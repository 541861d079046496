"""The command line as users run it: help, results on stdout and the rest on stderr, the README's commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from reference_cases import media_file

from mlx_gemma4 import __version__, demo_folder
from mlx_gemma4.cli import COMMANDS, main, parser

ROOT = Path(__file__).parent.parent
SPEECH, PICTURE = str(media_file("hibari-03.wav")), str(media_file("picture-01.png"))
SAID = "five three six zero zero eight zero eight"


def run(*arguments: str, text: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    done = subprocess.run([sys.executable, "-m", "mlx_gemma4", *arguments], input=text, capture_output=True, cwd=ROOT)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def imported(code: str) -> set[str]:
    """Modules in memory after ``code``, in a process of its own."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: mlx_gemma4 {' '.join(command)}".rstrip())


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
    assert main(["transcribe", SPEECH, SPEECH, "--model", "demo"]) == 0
    assert capsys.readouterr() == (f"{SAID}\n{SAID}\n", "")


def test_transcribe_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One beside the other, in any format."""
    out = tmp_path / "new" / "folder"
    for layout in ("json", "srt", "vtt", "txt"):
        assert main(["transcribe", SPEECH, "--model", "demo", "--format", layout, "--output-dir", str(out)]) == 0
    assert (out / "hibari-03.srt").read_text() == f"1\n00:00:00,000 --> 00:00:03,440\n{SAID}\n"
    assert json.loads((out / "hibari-03.json").read_text())["segments"][0]["text"] == SAID
    assert capsys.readouterr().out == ""


def test_listening_to_a_file_is_transcribing_it(capsys: pytest.CaptureFixture[str]) -> None:
    """And the work after the last frame is told."""
    assert main(["listen", "--input", SPEECH, "--fast", "--model", "demo"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{SAID}\n"
    assert re.search(r"0\.00–3\.44 s · text \d+ ms after the last frame, in 10 forwards \(9 tokens\)", err)


def test_listening_to_a_pipe() -> None:
    """A WAV, and raw s16le."""
    wav = Path(SPEECH).read_bytes()
    for data in (wav, wav[44:]):
        done = run("listen", "--input", "-", "--model", "demo", text=data)
        assert (done.returncode, done.stdout) == (0, f"{SAID}\n")


def test_generate_answers_about_pictures_and_sound(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt from the line or from stdin, the model from the environment, statistics on stderr."""
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "demo")
    assert main(["generate", "--prompt", "Describe the image.", "--image", PICTURE, "--stats"]) == 0
    out, err = capsys.readouterr()
    assert out == "green circle on the top\n"
    assert re.match(r"prompt 79 tokens, [\d.]+ tokens/s · answer 6 tokens, .* peak memory [\d.]+ GB\n", err)
    done = run("generate", "-p", "-", "--audio", SPEECH, "--model", "demo", text=b"Transcribe the audio.")
    assert (done.stdout, done.stderr) == (f"{SAID}\n", "")


def test_an_answer_cut_short_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "-p", "Describe.", "--image", PICTURE, "--model", "demo", "-m", "2"]) == 0
    assert capsys.readouterr() == ("green circle\n", "The answer was stopped at 2 tokens (--max-tokens).\n")


def test_a_chat_keeps_its_turns() -> None:
    """Media by command, mistakes told without losing the conversation."""
    lines = [
        f"/image {PICTURE}",
        "Describe the image.",
        "/audio nowhere.wav",
        "/nonsense",
        f"/audio {SPEECH}",
        "Transcribe the audio.",
        "/help",
        "/reset",
        "/exit",
        "never read",
    ]
    done = run("chat", "--model", "demo", text="\n".join(lines).encode())
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "green circle on the top" and len(done.stdout.splitlines()) == 2
    assert "error: Expected a file to add, found none at 'nowhere.wav'" in done.stderr
    assert "error: Expected a command (/help lists them), got /nonsense" in done.stderr


def test_the_demo_shows_the_main_job() -> None:
    done = run("demo", "--fast")
    assert done.stdout.splitlines() == ["go back seven meters", "green circle on the top", "red circle in the center"]


def test_the_demo_is_a_folder_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in the code knows the demo but its name."""
    assert main(["transcribe", SPEECH, "--model", str(demo_folder() / "checkpoint")]) == 0
    assert capsys.readouterr().out == f"{SAID}\n"


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    """Every block, in order, in one process."""
    code = "\n".join(readme_blocks("python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == SAID


def test_the_readmes_commands_are_commands() -> None:
    """Every mlx_gemma4 line in it parses."""
    lines = [line for block in readme_blocks("bash") for line in block.splitlines()]
    commands = [re.split(r"[|<]", line.split("#")[0].partition("mlx_gemma4 ")[2])[0] for line in lines]
    words = [shlex.split(command) for command in commands if command]
    assert len(words) > 7
    for each in words:
        assert parser().parse_args(each).command == each[0]


def test_the_examples_run() -> None:
    """Each on the demo, short, and on public names only."""
    said = {"stream_recording.py": SAID, "ask_about_a_picture.py": "green circle on the top"}
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert [path.name for path in examples] == sorted(said)
    for path in examples:
        assert len(path.read_text().splitlines()) <= 60
        assert not re.search(r"(from|import) mlx_gemma4\.", path.read_text())
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stderr) == (0, "") and said[path.name] in done.stdout
