"""Text on a terminal: nothing in it can move the cursor, hide a word or reorder a line."""

from __future__ import annotations

import io
import sys
from dataclasses import fields
from typing import Any

import pytest
from rich.console import Console

from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared.display import Display
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.live.hear.events import Final, Partial
from mlx_gemma4.printable import for_terminal, printable, show

UNSAFE = "a\x1b[2Jb\x07c\r\x9b1md\u202ee\x7f\x00\ud800"
SHOWN = r"a\x1b[2Jb\x07c\r\x9b1md\u202ee\x7f\x00\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_are_escaped() -> None:
    assert printable(UNSAFE) == SHOWN
    text = "Łódź\t日本\n🙂👩‍👧 é it's \\x1b"
    assert printable(text) == text


def test_only_terminals_get_escapes() -> None:
    """What goes on to other programs stays as it is."""
    terminal, pipe = Terminal(), io.StringIO()
    show(UNSAFE[:-1], terminal)
    show(UNSAFE[:-1], pipe, end="")
    assert (terminal.getvalue(), pipe.getvalue()) == (SHOWN[:-6] + "\n", UNSAFE[:-1])
    assert for_terminal(pipe) is pipe


def test_what_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes and errors too: names of files are in them."""
    for say in (note, lambda text: main(["transcribe", text, "--model", "demo"])):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        say("\x1b[2Jx.wav")
        assert r"\x1b[2Jx.wav" in terminal.getvalue() and "\x1b" not in terminal.getvalue()


HOSTILE = "a\x1b]0;title\x07b"
FINAL: Any = {field.name: HOSTILE if field.name == "text" else 0 for field in fields(Final)}


@pytest.mark.parametrize(
    "event", [Final(**FINAL), Partial(0, 0.0, 1.0, HOSTILE, ""), Partial(0, 0.0, 1.0, "", HOSTILE)]
)
def test_a_display_shows_no_escapes_of_a_model(event: Final | Partial) -> None:
    out = io.StringIO()
    with Display(Console(file=out, force_terminal=True, width=100)) as display:
        display.show(event)
        display.status(speaking=False, level=-60.0, behind=0.0)
    assert r"a\x1b]0;title\x07b" in out.getvalue()
