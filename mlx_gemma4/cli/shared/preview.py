"""Live watching in a terminal: answers go into the scrollback, a small picture of the camera stands below them."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import numpy as np
from rich.color import Color
from rich.console import Console, Group
from rich.style import Style
from rich.text import Text

from mlx_gemma4.cli.shared.terminal_area import TerminalArea
from mlx_gemma4.inputs.vision.video import timestamp
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.see.scene import block_means
from mlx_gemma4.live.see.watcher import Sighting
from mlx_gemma4.printable import printable

COLUMNS, LINES = 32, 16
"""Characters of the picture, at most. Each shows two pixels, one above the other."""


class Preview:
    """Shows pictures and answers; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = TerminalArea(console)

    def __enter__(self) -> Preview:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, shot: Shot, answer: Sighting | None, age: float) -> None:
        """Show a picture that is ``age`` seconds old, and its answer."""
        if answer is not None:
            line = Text(f"{timestamp(answer.time)}  ", style="dim")
            line.append(printable(answer.text), style="not dim").append(
                f"  {1000 * answer.age:.0f} ms, {answer.reason}"
            )
            self._console.print(line)
        self._live.update(_Look(shot, age))


@dataclass(frozen=True)
class _Look:
    """Drawn when the terminal is refreshed, not for every picture."""

    shot: Shot
    age: float

    def __rich__(self) -> Group:
        status = f"{timestamp(self.shot.time)}  {1000 * self.age:.0f} ms old  {self.shot.dropped} dropped"
        return Group(half_blocks(self.shot.pixels), Text(status, style="dim"))


def half_blocks(pixels: np.ndarray) -> Text:
    """A picture in characters whose upper and lower halves have different colours."""
    height, width = pixels.shape[:2]
    scale = min(COLUMNS / width, 2 * LINES / height)
    columns, lines = max(1, round(width * scale)), max(1, round(height * scale / 2))
    colours = (255 * block_means(pixels, 2 * lines, columns)).round()
    text = Text()
    for upper, lower in zip(colours[::2], colours[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        text.append("\n")
    return text
