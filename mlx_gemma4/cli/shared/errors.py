"""Errors in messages of one line, and problems with single recordings that are reported at the end."""

from __future__ import annotations

from mlx_gemma4.cli.shared.notes import note
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


class Failed:
    """The problems with recordings so far.

    Args:
        count: Number of recordings. If there are several, each problem is reported when it is found.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._problems: dict[str, Exception] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._problems

    def add(self, path: str, problem: Exception) -> None:
        if self._count > 1 and path not in self._problems:
            note(message(problem))
        self._problems.setdefault(path, problem)

    def raise_all(self) -> None:
        """Raise the problems, if there are any."""
        problems = list(self._problems.values())
        if problems and self._count == 1:
            raise problems[0]
        if problems:
            raise ValueError(
                f"{len(problems)} of {self._count} recordings could not be read whole: {', '.join(self._problems)}"
            )
