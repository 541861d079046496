"""Error messages: one line of bounded length, without control characters, with the name of the file."""

from __future__ import annotations

from mlx_gemma4.printable import printable

LONGEST = 1000
"""Characters of a message; a stranger's file may make longer ones."""


def message(error: BaseException) -> str:
    """What an error says, and of which file."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return one_line(text) or type(error).__name__


def one_line(text: str) -> str:
    """Text in a line; one that is too long is cut in its middle."""
    shown = printable(" ".join(text.split()))
    if len(shown) > LONGEST:
        shown = f"{shown[: LONGEST // 2]} … {shown[-LONGEST // 2 :]}"
    return shown
