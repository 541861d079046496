"""What an agent does, on stderr while it happens."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.tools import described, note_shortened
from mlx_gemma4.printable import printable, show

if TYPE_CHECKING:
    from mlx_gemma4.outputs.tools.result import ToolResult
    from mlx_gemma4.programs.agent_events import AgentEvent

SHOWN = 100
"""Characters of a result that are shown."""


class Steps:
    """Shows the events of a run: calls, results, and what the model says beside calls.

    Args:
        thoughts: Show thoughts, too.
    """

    def __init__(self, thoughts: bool = False) -> None:
        self._thoughts = thoughts
        self._is_open = False
        """A line of thoughts is not ended."""

    def show(self, event: AgentEvent) -> None:
        from mlx_gemma4.outputs.tools.parallel import Returned
        from mlx_gemma4.programs.agent_events import Stepped, Told, Wrote

        if isinstance(event, Wrote):
            if event.kind == "thought" and self._thoughts:
                self._is_open = True
                show(event.text, sys.stderr, end="")
            return
        if self._is_open:
            self._is_open = False
            note("")
        if isinstance(event, Stepped) and event.calls:
            if event.text.strip():
                note(event.text.strip())
            for call in event.calls:
                note(f"[{event.step}] {described(call.name, call.arguments)}")
        elif isinstance(event, Returned):
            note(f"    {event.call.name}: {shown(event.result)}")
            note_shortened(event.call.name, event.result)
        elif isinstance(event, Told):
            note(f"(the model is told: {event.text})")


def shown(result: ToolResult) -> str:
    """The beginning of a result, in one line."""
    text = printable(" ".join(result.text.split()))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(result.text):,} characters)"
