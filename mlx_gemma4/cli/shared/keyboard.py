"""Whether somebody has begun to type, while something is computed before the next line is read."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def key_pressed() -> Iterator[Callable[[], bool] | None]:
    """A function that says whether a key was pressed in this block; None where that cannot be known.

    Keys are not shown in the block. They stay for whoever reads the next line, and readline shows them then. Without
    readline they would stay invisible, so None it is, as without a terminal.
    """
    import termios

    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, termios.error):  # it is no terminal, or it is closed
        yield None
        return
    if "readline" not in sys.modules:
        yield None
        return
    silent = [*before[:3], before[3] & ~(termios.ICANON | termios.ECHO), *before[4:]]
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield lambda: bool(select.select([terminal], [], [], 0)[0])
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
