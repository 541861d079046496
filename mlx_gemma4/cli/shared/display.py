"""Live transcription in a terminal: final text goes into the scrollback, the draft stands dimmed below it."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.text import Text

from mlx_gemma4.cli.shared.terminal_area import TerminalArea
from mlx_gemma4.live.hear.events import DroppedAudio, Final, ListenerEvent, Partial
from mlx_gemma4.printable import printable

FLOOR = -60.0
"""dBFS at which the level meter is empty."""
METER = 12
"""Characters of the level meter."""


class Display:
    """Shows events; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = TerminalArea(console)
        self._words = Text()
        self._delay: float | None = None

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def show(self, event: ListenerEvent) -> None:
        """Show an event."""
        if isinstance(event, Partial):
            self._words = Text(printable(event.committed)) + Text(printable(event.draft), style="dim")
        elif isinstance(event, Final):
            self._words = Text()
            self._delay = event.after_speech
            line = Text(printable(event.text))
            if event.revised:
                line.append(f"  ({event.revised} of the words shown were corrected)", style="dim")
            if line.plain:
                self._console.print(line)
        elif isinstance(event, DroppedAudio):
            self._console.print(Text(f"[{event.seconds:.2f} s of sound were lost]", style="red"))

    def status(self, *, speaking: bool, level: float, behind: float) -> None:
        """Refresh the bottom line: the level, how long the last text took, and how much sound waits (``behind``) while
        the listener is late; otherwise 0."""
        filled = round(METER * min(1.0, max(0.0, 1 - level / FLOOR)))
        line = Text("● " if speaking else "○ ", style="red" if speaking else "dim")
        line.append("▮" * filled, style="green").append("▯" * (METER - filled), style="dim")
        if self._delay is not None:
            line.append(f"  text {1000 * self._delay:.0f} ms after speech", style="dim")
        if behind:
            line.append(f"  {behind:.1f} s behind", style="yellow")
        self._live.update(Group(self._words, line) if self._words.plain else line)
