"""Error messages: one line of bounded length, without control characters, with the name of the file."""

from __future__ import annotations

from mlx_gemma4.printable import printable

LONGEST = 1000
"""Characters of a message; a hostile file could make longer ones."""


def message(error: BaseException) -> str:
    """The text of an error, with the name of the file."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return one_line(text) or type(error).__name__


def one_line(text: str) -> str:
    """Text in one line, cut in the middle if it is too long."""
    shown = printable(" ".join(text.split()))
    if len(shown) > LONGEST:
        shown = f"{shown[: LONGEST // 2]} … {shown[-LONGEST // 2 :]}"
    return shown
