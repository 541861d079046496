"""The lines at the bottom of a terminal that are redrawn."""

from __future__ import annotations

from rich.console import Console, ConsoleRenderable, RenderableType
from rich.live import Live
from rich.segment import Segment


class TerminalArea(Live):
    """rich's Live, which also erases what it drew after the terminal was made narrower.

    A narrower terminal wraps the lines that stand there, so they take more rows than when they were drawn:

        ● ▮▮▮▮▯▯▯▯  text after 80 ms          ● ▮▮▮▮▯▯▯▯
                                       →        text after 80 ms
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, refresh_per_second=12, transient=True)
        self._drawn: RenderableType = ""
        self._drawn_width = console.width

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Called by rich before anything is printed."""
        with self._lock:
            width = self.console.width
            if width < self._drawn_width and self._live_render._shape is not None:
                self._live_render._shape = (width, self._rows(width))
            self._drawn, self._drawn_width = self.get_renderable(), width
        return super().process_renderables(renderables)

    def _rows(self, width: int) -> int:
        """How many rows the drawn lines take at this width."""
        options = self.console.options.update(width=self._drawn_width)
        lines = self.console.render_lines(self._drawn, options, pad=False)
        return sum(max(1, -(-Segment.get_line_length(line) // width)) for line in lines)
