"""Recordings that cannot be read, or not to their end; the others are transcribed anyway."""

from __future__ import annotations

from mlx_gemma4.cli.shared.messages import message
from mlx_gemma4.cli.shared.notes import note


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
