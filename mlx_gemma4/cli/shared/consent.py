"""Whether a function may run: asked on the terminal for each call, or said beforehand by ``--yes`` for some."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.tools import described

if TYPE_CHECKING:
    from mlx_gemma4.outputs.tools.calls import ToolCall
    from mlx_gemma4.outputs.tools.sources import Tools

NOBODY = "Nobody could be asked whether it may run, so it was not run."


def allowed_names(arguments: argparse.Namespace, tools: Tools | None) -> frozenset[str]:
    """The functions that ``--yes`` names.

    Raises:
        ValueError: There is no such function.
    """
    from mlx_gemma4.outputs.tools.sources import names

    wanted = [name.strip() for option in arguments.yes for name in option.split(",") if name.strip()]
    known = [] if tools is None else names(tools)
    for name in wanted:
        if name not in known:
            raise ValueError(f"--yes names {name!r}, and there is no such function, only {', '.join(known) or 'none'}")
    return frozenset(wanted)


class Consent:
    """Asks whether calls may run.

    Args:
        names: Functions that need no asking.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = names

    def __call__(self, call: ToolCall) -> str | None:
        """None if a call may run; otherwise why not, for the model.

        Raises:
            KeyboardInterrupt: Ctrl-C was the answer.
        """
        from mlx_gemma4.outputs.tools.calls import DECLINED

        written = described(call.name, call.arguments)
        if call.name in self._names:
            note(f"Running {written} (--yes)")
            return None
        if not sys.stdin.isatty():
            note(f"{written} was not run: there is no terminal to ask on.")
            return NOBODY
        _forget_typed()
        note(f"Run {written}? [y/N]")
        try:
            return None if input().strip().lower() in ("y", "yes") else DECLINED
        except EOFError:
            return DECLINED


def _forget_typed() -> None:
    """Discard what was typed before a question was shown: it does not answer it."""
    try:
        import termios
    except ImportError:  # not a POSIX terminal
        return
    with suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
