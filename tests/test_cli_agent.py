"""``mlx_gemma4 agent``: what it prints, its exit codes, its transcript, and a transcript that is run again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import loaded
from light_tools import BATH, CALL, LIGHTS
from reference_cases import media_file
from test_chat_tools import WRITES_TOOLS, scripted

from mlx_gemma4 import Model, Processor
from mlx_gemma4.cli import main
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.result import result_of
from mlx_gemma4.programs.agent_events import Stepped
from mlx_gemma4.programs.agent_replay import key, read_transcript

Refused = Callable[..., str]
Piece = tuple[Kind, str]
DONE: Sequence[Piece] = [("text", "Done.")]
LOOK: Piece = ("tool_call", "call:look{}")
LOOKS = f'''
import numpy as np
from pathlib import Path

def look():
    """Look."""
    return "Seen:", Path({str(media_file("picture-01.png"))!r}), {{"type": "audio", "audio": np.zeros(800, np.float32)}}
'''


@pytest.fixture
def tools(tmp_path: Path) -> str:
    path = tmp_path / "tools.py"
    path.write_text(LIGHTS + LOOKS)
    return str(path)


@pytest.fixture
def asked() -> list[str]:
    """The prompts that scripted answers were given to."""
    return []


@pytest.fixture(autouse=True)
def writing(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    load_writing(demo, monkeypatch)


def load_writing(demo: tuple[Model, Processor], patch: pytest.MonkeyPatch) -> None:
    """Let the command load the demo with a template that writes tools."""
    model, processor = demo
    writes = Processor(processor.config, processor.tokenizer, ChatTemplate(WRITES_TOOLS, {}))
    patch.setattr("mlx_gemma4.cli.agent.load_model", lambda arguments: (model, writes))


def typing(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException], terminal: bool = True) -> None:
    left = list(lines)

    def read(prompt: str = "") -> str:
        line = left.pop(0) if left else EOFError
        if not isinstance(line, str):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)


def agent(*words: str) -> int:
    return main(["agent", *words, "--model", "demo"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_steps_go_to_stderr_and_the_answer_to_stdout(
    monkeypatch: pytest.MonkeyPatch, tools: str, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call is asked about; those of --yes are not."""
    scripted(monkeypatch, asked, [("text", "Wait."), CALL, LOOK], [BATH], DONE)
    typing(monkeypatch, "y", "n")
    assert agent("Lights on!", "--tools", tools, "--yes", "look,", "--yes", " look") == 0
    out, err = capsys.readouterr()
    assert out == "Done.\n"
    assert err.splitlines() == [
        "Wait.",
        "[1] lights(room='hall')",
        "[1] look()",
        "Run lights(room='hall')? [y/N]",
        "Running look() (--yes)",
        "    lights: hall on",
        "    look: Seen: [image 1] [audio 1]",
        "[2] lights(room='bath')",
        "Run lights(room='bath')? [y/N]",
        "    lights: The user did not allow it.",
    ]


def test_without_a_terminal_a_call_is_declined(
    monkeypatch: pytest.MonkeyPatch, tools: str, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The model reads why."""
    scripted(monkeypatch, asked, [CALL], DONE)
    typing(monkeypatch, "y", terminal=False)
    assert agent("Lights on!", "--tools", tools, "--yes", "look") == 0
    assert "lights(room='hall') was not run: there is no terminal to ask on." in capsys.readouterr().err
    assert "lights=Nobody could be asked whether it may run, so it was not run.<tool_response|>" in asked[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-steps", "1"], "The run was stopped after 1 step (--max-steps)."),
        (["-m", "2"], "The run was stopped at 2 tokens (--max-tokens)."),
        ([], "The run was stopped: the model repeats itself (--max-repeats)."),
    ],
)
def test_limits_are_told(
    monkeypatch: pytest.MonkeyPatch,
    tools: str,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    scripted(monkeypatch, asked, *[[CALL]] * 8)
    assert agent("Lights on!", "--tools", tools, "--yes", "lights", *options) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == words


def test_a_task_from_stdin(
    monkeypatch: pytest.MonkeyPatch, tools: str, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, asked, DONE)
    monkeypatch.setattr(sys.stdin, "read", lambda: "Lights\non!", raising=False)
    picture = str(media_file("picture-01.png"))
    assert agent("-", "--tools", tools, "--image", picture, "--system", "Be short.", "--stats") == 0
    assert asked[0].count("<|image|>") > 10 and "Lights\non!" in asked[0] and "Be short." in asked[0]
    assert "1 step: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], r'There is no task; write mlx_gemma4 agent "what to do" --tools FILE'),
        (["Go!"], "An agent needs functions: name a file of them with --tools FILE"),
        ([" ", "--tools", "TOOLS"], "The task is empty; write what to do"),
        (
            ["Go!", "--tools", "TOOLS", "--yes", "all"],
            "--yes names 'all', and there is no such function, only lights, look",
        ),
        (["Go!", "--tools", "TOOLS", "--transcript", "-"], "--transcript needs a file: the answer goes to stdout"),
        (["Go!", "--tools", "TOOLS", "--max-steps", "0"], "An agent needs at least 1 of its steps, got 0"),
        (
            ["Go!", "--tools", "TOOLS", "--replay", "x"],
            "--replay takes the task and the functions from its file: leave out task, --tools",
        ),
        (["--replay", "absent.jsonl"], "There is no transcript at absent.jsonl"),
    ],
)
def test_what_an_agent_cannot_do(words: list[str], problem: str, tools: str, refused: Refused) -> None:
    assert refused("agent", *[tools if word == "TOOLS" else word for word in words]) == problem


def test_two_files_of_functions(tmp_path: Path, tools: str, refused: Refused) -> None:
    other = shutil.copy(tools, tmp_path / "other.py")
    problem = refused("agent", "Go!", "--tools", tools, "--tools", str(other))
    assert problem.startswith(f"{tools} and {other} both have a function called lights: rename one")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The transcript of a run with consent, a refusal and media; and the prompts."""
    folder, asked = tmp_path_factory.mktemp("original"), list[str]()
    path, tools, picture = folder / "run.jsonl", folder / "tools.py", folder / "door.png"
    tools.write_text(LIGHTS + LOOKS)
    shutil.copy(media_file("picture-02.png"), picture)
    with pytest.MonkeyPatch.context() as patch:
        load_writing(loaded("demo"), patch)
        scripted(patch, asked, [("thought", "Hm."), CALL, LOOK], [BATH], DONE)
        typing(patch, "y", "y", "n")
        options = ["--tools", str(tools), "--image", str(picture), "--transcript", str(path), "--seed", "1"]
        assert agent("Go!", *options) == 0
    tools.unlink()
    return path, asked


@pytest.fixture
def recorded(original: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(f"{original[0]}.media", tmp_path / "run.jsonl.media")
    return Path(shutil.copy(original[0], tmp_path))


def test_a_transcript(original: tuple[Path, list[str]], recorded: Path, tmp_path: Path) -> None:
    began, *events = lines(recorded)
    assert began["event"] == "began" and began["model"] == "demo" and began["sampling"]["seed"] == 1
    image, text = began["task"]
    assert image["path"] == str(original[0].with_name("door.png")) and len(image["sha256"]) == 64
    assert text == {"type": "text", "text": "Go!"}
    assert [tool["function"]["name"] for tool in began["tools"]] == ["lights", "look"]
    assert [event["event"] for event in events] == [
        *["step", "decided", "decided", "returned", "returned"],
        *["step", "decided", "returned", "step", "ended"],
    ]
    assert (events[0]["thought"], events[0]["calls"][0]["arguments"]) == ("Hm.", {"room": "hall"})
    assert [(event["name"], event["allowed"], event["reason"]) for event in events if event["event"] == "decided"] == [
        ("lights", True, None),
        ("look", True, None),
        ("lights", False, "The user did not allow it."),
    ]
    seen = events[4]["parts"]
    assert [part["type"] for part in seen] == ["text", "image", "audio"]
    files = sorted(file.name for file in (tmp_path / "run.jsonl.media").iterdir())
    assert files == sorted(f"{part['sha256']}{suffix}" for part, suffix in zip(seen[1:], (".png", ".wav"), strict=True))
    assert (events[-1]["reason"], events[-1]["answer"], events[-1]["steps"]) == ("done", "Done.", 3)


def test_a_run_is_run_again(
    original: tuple[Path, list[str]],
    recorded: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the same results, media included; nothing is asked and nothing is run."""
    scripted(monkeypatch, asked, [("thought", "Hm."), CALL, LOOK], [BATH], DONE)
    typing(monkeypatch)
    assert main(["agent", "--replay", str(recorded)]) == 0
    out, err = capsys.readouterr()
    assert out == "Done.\n" and err.splitlines()[-1] == "As recorded: 3 steps."
    assert asked == original[1]


def test_media_of_results_come_back(recorded: Path) -> None:
    recording = read_transcript(recorded)
    ((reason, result),) = recording.results[key("look", {})]
    expected = result_of(Path(media_file("picture-01.png"))).media[0]["image"]
    assert reason is None and (result.media[0]["image"] == expected).all() and len(result.media[1]["audio"]) == 800
    assert recording.results[key("lights", {"room": "bath"})][0][0] == "The user did not allow it."


def step(text: str, **rooms: str) -> Stepped:
    calls = tuple(ToolCall("x", name, {"room": room} if room else {}) for name, room in rooms.items())
    return Stepped(1, text, calls, "stop", 1, 1)


@pytest.mark.parametrize(
    ("steps", "difference"),
    [
        ([step("", lights="hall", look=""), step("", lights="bath"), step("Done.")], None),
        ([step("", look="", lights="hall")], "step 1 calls other functions, or with other arguments"),
        ([step("", lights="hall", look=""), step("", lights="attic")], "step 2 calls other functions, or with other "),
        ([step("", lights="hall", look=""), step("", lights="bath"), step("No.")], "step 3 has another text"),
        ([step("", lights="hall", look="")], "there are 1 steps instead of 3"),
    ],
)
def test_where_a_run_differs(recorded: Path, steps: list[Stepped], difference: str | None) -> None:
    told = read_transcript(recorded).difference(steps)
    assert (told is None) == (difference is None) and (told or "").startswith(difference or "")


def test_a_call_that_the_recording_lacks(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs, the model is told, and a result serves once."""
    text = recorded.read_text().replace('"type": "image", "path"', '"type": "text", "text"')  # a short task
    recorded.write_text(text)
    scripted(monkeypatch, asked, [CALL], [CALL], DONE)
    assert main(["agent", "--replay", str(recorded)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("Not as recorded: step 1 calls other functions")
    assert "lights=hall on<tool_response|>" in asked[1]
    assert asked[2].endswith("lights=The recording has no such call.<tool_response|>")


def test_a_transcript_that_broke_off(recorded: Path) -> None:
    """Its last line is left out, and said so; what came before serves."""
    text = recorded.read_text()
    recorded.write_text(text[: text.index('{"event": "ended"') - 20])
    recording = read_transcript(recorded)
    assert recording.problem == f"line 10 of {recorded} is cut short, and was left out"
    assert (len(recording.steps), recording.reason) == (2, None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: "", "FILE is empty: it is no transcript of an agent"),
        (
            lambda text: text.replace('"began"', '"x"'),
            "line 1 of FILE cannot be read: it does not say how the run began; is it a transcript of an agent?",
        ),
        (
            lambda text: text.replace('"version": 1', '"version": 9'),
            "line 1 of FILE cannot be read: it has the version 9, and 1 is known; is it a transcript of an agent?",
        ),
        (
            lambda text: text.replace('"text": "Done."', '"txt": "Done."'),
            "line 10 of FILE cannot be read: 'text' is missing; is it a transcript of an agent?",
        ),
        (
            lambda text: text.replace("door.png", "window.png"),
            "The image of the task is missing: there is no file at FOLDER/window.png",
        ),
        (
            lambda text: text.replace('"sha256": "', '"sha256": "0', 1),
            "The image of the task has changed: FOLDER/door.png is not the file that the run had",
        ),
        (
            lambda text: text.replace('"limits"', '"limit"'),
            "line 1 of FILE cannot be read: 'limits'; is it a transcript?",
        ),
    ],
)
def test_files_that_are_no_transcript(
    original: tuple[Path, list[str]], recorded: Path, refused: Refused, change: Callable[[str], str], problem: str
) -> None:
    recorded.write_text(change(recorded.read_text()))
    problem = problem.replace("FILE", str(recorded)).replace("FOLDER", str(original[0].parent))
    assert refused("agent", "--replay", str(recorded)) == problem


def test_media_that_are_missing(recorded: Path, refused: Refused) -> None:
    shutil.rmtree(f"{recorded}.media")
    problem = refused("agent", "--replay", str(recorded))
    assert "line 6 of" in problem and "the image" in problem and problem.endswith("is it a transcript of an agent?")


def test_an_existing_transcript_is_kept(recorded: Path, tools: str, refused: Refused) -> None:
    before = recorded.read_text()
    assert "exists; name another file" in refused("agent", "Go!", "--tools", tools, "--transcript", str(recorded))
    assert recorded.read_text() == before


@pytest.mark.parametrize("when", ["answer", "question"])
def test_ctrl_c_keeps_the_transcript(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tools: str,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    when: str,
) -> None:
    if when == "answer":
        scripted(monkeypatch, asked, [CALL], KeyboardInterrupt())
        typing(monkeypatch, "y")
    else:
        scripted(monkeypatch, asked, [CALL])
        typing(monkeypatch, KeyboardInterrupt)
    path = tmp_path / "run.jsonl"
    assert agent("Go!", "--tools", tools, "--transcript", str(path)) == 130
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == "The run was interrupted."
    events = lines(path)
    assert (events[-1]["event"], events[-1]["reason"], events[-1]["steps"]) == ("ended", "interrupted", 1)
    assert [event["event"] for event in events[1:-1]] == (
        ["step", "decided", "returned"] if when == "answer" else ["step"]
    )


def test_a_long_result_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """To the user, and to the model."""
    path = tmp_path / "long.py"
    path.write_text('def long():\n    "x"\n    return "a" * 9000\n')
    monkeypatch.setattr("mlx_gemma4.outputs.tools.result.RESULT_LENGTH", 200)
    scripted(monkeypatch, asked, [("tool_call", "call:long{}")], DONE)
    assert agent("Go!", "--tools", str(path), "--yes", "long") == 0
    err = capsys.readouterr().err
    assert f"    long: {'a' * 100}… (251 characters)\n" in err
    assert "(long returned a long text; the model does not read 8,800 characters in its middle)\n" in err
    assert "[… 8,800 of 9,000 characters are left out here …]" in asked[1]
