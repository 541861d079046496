"""``chat --resume``, what is typed in a chat, and ``generate --prompt-cache``, as users run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from golden import named
from reference_cases import media_file
from test_chat_tools import typing

from mlx_gemma4 import Conversation, Model, Processor
from mlx_gemma4.cli import main
from mlx_gemma4.cli.chat_loop import Chat
from mlx_gemma4.cli.kept_chat import KeptChat
from mlx_gemma4.decoder.budget import Budget
from mlx_gemma4.inputs.messages import message_text
from mlx_gemma4.outputs.sample import Sampler

ROOT = Path(__file__).parent.parent
PICTURE = str(media_file("picture-01.png"))
DESCRIBED = named("picture-01.png")
DEMO = ["--model", "demo", "--dtype", "float32", "--temp", "0"]

Refused = Callable[..., str]


@pytest.fixture
def spoken(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Conversation, str, str]]:
    """Type lines into a chat: the conversation, stdout and stderr."""

    def run(*lines: str, conversation: Conversation | None = None, **options: int) -> tuple[Conversation, str, str]:
        chat = conversation or Conversation(*demo)
        typing(monkeypatch, *lines)
        Chat(chat, demo[1], options, tools=None, stats=False).loop()  # type: ignore[arg-type]
        return chat, *capsys.readouterr()

    return run


# what is typed


def test_statistics(spoken: Callable[..., tuple[Conversation, str, str]]) -> None:
    """What a turn computed, as the session counts it."""
    chat, _, err = spoken("/stats", f"{PICTURE} Describe the image.", "/stats")
    assert re.search(r"held: 0 turns, 0 of [\d,]+ tokens; 0\.0 MB of keys and values", err)
    assert re.search(
        rf"held: 1 turn, {chat.session.position} of [\d,]+ tokens; 1\.\d MB of keys and values, 0\.0 MB of", err
    )
    assert "last turn: 0 tokens reused; computed 79 for the message, 6 for the answer, 0 for the history\n" in err


def test_another_answer_an_edit_and_an_undo(spoken: Callable[..., tuple[Conversation, str, str]]) -> None:
    """The files of an edited message stay with it."""
    chat, out, err = spoken(f"{PICTURE} What?", "/regen", "/edit Describe the image.", "Go on " + "x" * 60, "/undo")
    assert out.splitlines()[2] == DESCRIBED and len(out.splitlines()) == 4
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    assert message_text(chat.messages[0]) == "Describe the image." and len(chat.messages[0]["content"]) == 2
    assert f"(removed: Go on {'x' * 54}…)\n" in err


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/regen", "The conversation has no turn yet: ask something first"),
        ("/undo", "The conversation has no turn yet: ask something first"),
        ("/edit Hello", "The conversation has no turn yet: ask something first"),
        ("/edit", "Type the new message after /edit"),
        ("/save", "Type the name of a file after /save"),
        ("/save README.md", "README.md exists; name another file"),
        ("/save nowhere/x", "There is no folder nowhere for x; create it first"),
    ],
)
def test_commands_that_cannot_be_done(
    spoken: Callable[..., tuple[Conversation, str, str]], line: str, error: str
) -> None:
    assert spoken(line)[1:] == ("", f"error: {error}\n")


def test_turns_that_leave_are_reported(
    demo: tuple[Model, Processor],
    spoken: Callable[..., tuple[Conversation, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo[0], "budget", Budget(context=64))
    chat, out, err = spoken(*["Go back."] * 6, "x" * 90, max_tokens=8)
    assert chat.forgotten > 2 and chat.turns + chat.forgotten == 6 and len(out.splitlines()) == 6
    counts = re.findall(r"\(the oldest (\d+ turns|turn) left: the context of 64 tokens is full\)\n", err)
    assert sum(1 if count == "turn" else int(count.split()[0]) for count in counts) == chat.forgotten
    assert "error: The message takes" in err and "(the message is not in the conversation)" in err


def test_answers_that_are_stopped_say_why(
    demo: tuple[Model, Processor],
    spoken: Callable[..., tuple[Conversation, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = f"{PICTURE} Describe the image."
    assert "(the answer was stopped at --max-tokens 2)\n" in spoken(line, max_tokens=2)[2]
    monkeypatch.setattr(demo[0], "budget", Budget(context=81))
    assert "(the answer was stopped: the context is full)\n" in spoken(line, max_tokens=90)[2]


# --resume


def resumed(path: Path, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlx_gemma4", "chat", *DEMO, "--resume", str(path), "-m", "8", *options],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_a_chat_goes_on_in_another_process(tmp_path: Path) -> None:
    """With its picture, and nothing is computed again."""
    path = tmp_path / "trip.chat"
    first = resumed(path, f"{PICTURE} Describe the image.")
    assert (first.returncode, first.stdout) == (0, f"{DESCRIBED}\n") and path.exists()
    second = resumed(path, "/stats", "What do you see?", "/stats")
    assert f"Continuing {path}: 1 turn; 84 tokens are computed.\n" in second.stderr
    assert re.search(r"last turn: 8\d tokens reused; computed 1\d for the message", second.stderr)
    before = path.read_bytes()
    third = resumed(path, "/stats")
    assert f"Continuing {path}: 2 turns;" in third.stderr and path.read_bytes() == before
    other = resumed(path, "Hello?", options=("--system", "Be short."))
    message = f"mlx_gemma4: error: {path} has another system message; leave out --system, or name another file\n"
    assert (other.returncode, other.stderr) == (2, message)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_a_chat_that_is_ended_by_a_signal(number: int, code: int, tmp_path: Path) -> None:
    """Its messages are kept; if there is time to end, also what was computed."""
    path = tmp_path / "x"
    with subprocess.Popen(
        [sys.executable, "-m", "mlx_gemma4", "chat", *DEMO, "--resume", str(path), "-m", "8"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(f"{PICTURE} Describe the image.\n/help\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{DESCRIBED}\n"
        while "/exit" not in process.stderr.readline():  # of the help: the turn is over
            pass
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    tokens = "they will be computed with the next message" if number == signal.SIGKILL else "84 tokens are computed"
    assert f"Continuing {path}: 1 turn; {tokens}.\n" in resumed(path).stderr
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_of_something_else_is_refused(tmp_path: Path, refused: Refused) -> None:
    """Before the model is loaded."""
    path = tmp_path / "diary.txt"
    path.write_text("Dear diary")
    for command, kind in ((["chat", "--resume"], "file"), (["generate", "-p", "x", "--prompt-cache"], "session")):
        message = refused(*command, path, "--model", "nowhere")
        assert message == f"{path} is not a {kind} that mlx_gemma4 saved; name another file"
    assert path.read_text() == "Dear diary"


def test_a_conversation_without_turns_does_not_replace_one(
    demo: tuple[Model, Processor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """/reset, and nothing said after it."""
    path = tmp_path / "x"
    chat = Conversation(*demo)
    kept = KeptChat(str(path), chat)
    kept.at_end()
    assert not path.exists()
    list(chat.ask("Hello", max_tokens=2))
    kept.at_end()
    assert capsys.readouterr().err == f"The conversation is saved in {path}.\n"
    chat.reset()
    kept.after_turn()
    kept.at_end()
    assert Conversation.load(*demo, path).turns == 1


def test_two_chats_with_one_file(
    demo: tuple[Model, Processor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second one to write takes another name, and nothing is lost."""
    path = tmp_path / "x"
    chats = [Conversation(*demo) for _ in range(2)]
    kept = [KeptChat(str(path), chat) for chat in chats]
    for number, (chat, each) in enumerate(zip(chats, kept, strict=True)):
        list(chat.ask(f"Hello {number}", max_tokens=2))
        each.after_turn()
        each.at_end()
    assert f"(another program has changed the file; this conversation is kept in {path}.2)\n" in capsys.readouterr().err
    for number, name in enumerate(("x", "x.2")):
        assert message_text(Conversation.load(*demo, tmp_path / name).messages[0]) == f"Hello {number}"


def test_a_full_disk_does_not_end_a_chat(
    demo: tuple[Model, Processor], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Conversation(*demo)
    kept = KeptChat(str(tmp_path / "x"), chat)
    list(chat.ask("Hello", max_tokens=2))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        kept.after_turn()
        assert capsys.readouterr().err == f"error: Cannot write {tmp_path / 'x'}: No space left on device\n"
        with pytest.raises(ValueError, match="No space left on device"):
            kept.at_end()
    kept.after_turn()
    assert Conversation.load(*demo, tmp_path / "x").turns == 1


# --prompt-cache


def asked(question: str, path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    command = ["generate", *DEMO, "-p", question, "--prompt-cache", str(path), *options]
    assert main(command) in (0, None)
    out, err = capsys.readouterr()
    return out, err


def test_a_second_question_computes_only_the_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """About the same picture. The answers are those without the file, which stays as it is."""
    path = tmp_path / "picture.cache"
    image = ("--image", PICTURE)
    assert asked("Describe the image.", path, capsys, *image) == (
        f"{DESCRIBED}\n",
        f"79 prompt tokens were saved to {path}.\n",
    )
    before = path.read_bytes()
    assert main(["generate", *DEMO, "-p", "What do you see?", *image]) in (0, None)
    expected, _ = capsys.readouterr()
    out, err = asked("What do you see?", path, capsys, *image)
    assert (out, err) == (expected, f"70 of 80 prompt tokens were reused from {path}.\n")
    assert asked("Describe the image.", path, capsys, *image)[1] == f"78 of 79 prompt tokens were reused from {path}.\n"
    other = ("--image", str(media_file("picture-02.png")))
    assert re.match(r"\d of \d+ prompt tokens were reused", asked("Describe the image.", path, capsys, *other)[1])
    assert path.read_bytes() == before


def test_a_long_first_question_does_not_hide_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is longer than the room, and the document is longer than the window."""
    path, system = tmp_path / "x", ("--system", "go back seven meters " * 60, "-m", "2")
    asked("go on " * 400, path, capsys, *system)
    err = asked("What?", path, capsys, *system)[1]
    reused, whole = map(int, re.findall(r"(\d+) of (\d+) prompt tokens", err)[0])
    assert whole > 250 and reused >= whole - 20


def test_the_repetition_penalty_counts_what_was_reused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if everything had been computed."""
    histories = []

    class Spy(Sampler):
        def __init__(self, *arguments: Any, history: Sequence[int], **options: Any) -> None:
            histories.append(list(history))
            super().__init__(*arguments, history=history, **options)

    monkeypatch.setattr("mlx_gemma4.outputs.generate.Sampler", Spy)
    for _ in range(2):
        asked("Go back seven meters.", tmp_path / "x", capsys, "-m", "1")
    assert histories[0] == histories[1] and len(histories[0]) > 10


def test_a_cache_of_another_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    asked("Go back.", path, capsys, "-m", "1")
    assert main(["generate", "--model", "demo", "-p", "Go back.", "--prompt-cache", str(path)]) == 2
    assert "was computed in float32, and the model computes in bfloat16" in capsys.readouterr().err
    assert main(["chat", *DEMO, "--resume", str(path)]) == 2
    message = f"{path} is a session that mlx_gemma4 saved, not a conversation; name another file\n"
    assert capsys.readouterr().err == f"mlx_gemma4: error: {message}"


# the keyboard


def test_keys_are_noticed_and_kept() -> None:
    """On a terminal: what is typed while the history is computed is not shown then, and is read afterwards."""
    code = """
import readline, sys, time
from mlx_gemma4.cli.shared.keyboard import key_pressed
with key_pressed() as is_pressed:
    print("ready" if not is_pressed() else "typed too early", flush=True)
    while not is_pressed():
        time.sleep(0.01)
print("read", input())
"""
    terminal, end = os.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stdin=end, stdout=subprocess.PIPE, cwd=ROOT) as process:
        os.close(end)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.write(terminal, b"he")
        time.sleep(0.1)
        os.write(terminal, b"llo\n")
        assert process.stdout.read().endswith(b"read hello\n")
    os.close(terminal)
