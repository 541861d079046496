"""Progress of a recording on stderr: a line that is redrawn on a terminal, a line every few minutes elsewhere."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.printable import printable, show

if TYPE_CHECKING:
    import numpy as np

EVERY = 300.0
"""Seconds of sound between two lines, if stderr is not a terminal."""
SHORTEST = 1.0
"""Seconds of sound between two refreshes on a terminal."""


class Progress:
    """The sound of one recording, block by block, counted and shown.

    A recording that turns out to be damaged ends there, and ``problem`` says why.

    Args:
        total: Seconds of the recording, if they are known.
    """

    def __init__(self, blocks: Iterable[np.ndarray], name: str, total: float | None) -> None:
        self.seconds = 0.0
        """Seconds of sound that were read."""
        self.problem: ValueError | None = None
        self._blocks, self._name, self._total = blocks, name, total
        self._is_terminal = sys.stderr.isatty()
        self._shown = 0.0
        self._is_drawn = False

    def __iter__(self) -> Iterator[np.ndarray]:
        from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE

        try:
            for block in self._blocks:
                yield block
                self.seconds += len(block) / SAMPLE_RATE
                self._tell()
        except ValueError as error:
            self.problem = error
        self.clear()

    def clear(self) -> None:
        """Clear the line for other output."""
        if self._is_drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self._is_drawn = False

    def _tell(self) -> None:
        if self.seconds - self._shown < (SHORTEST if self._is_terminal else EVERY):
            return
        self._shown = self.seconds
        of = "" if self._total is None else f" of {_clock(self._total)}"
        line = f"{self._name}: {_clock(self.seconds)}{of}"
        if self._is_terminal:
            sys.stderr.write(f"\r\033[K{printable(line)}")
            sys.stderr.flush()
            self._is_drawn = True
        else:
            show(line, sys.stderr)


def duration(path: str) -> float | None:
    """Length of a recording in seconds, if its header has it. A pipe is not read."""
    import soundfile

    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return None
        return float(soundfile.info(path).duration)
    except (OSError, soundfile.LibsndfileError):  # standard input, or a format of FFmpeg's
        return None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
