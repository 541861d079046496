"""What is redrawn at the bottom of a terminal is erased whole, also after the terminal became narrower."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from mlx_gemma4.cli.shared.terminal_area import TerminalArea


@pytest.mark.parametrize(("width", "rows"), [(40, 2), (60, 2), (20, 3), (10, 5)])
def test_a_narrower_terminal_takes_more_rows(width: int, rows: int) -> None:
    """Lines of 35 and 5 characters: each row that they take by now is erased."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=40, color_system=None, legacy_windows=False)
    area = TerminalArea(console)
    area.auto_refresh = False
    with area:
        area.update(Text(f"{'x' * 35}\n{'x' * 5}"), refresh=True)
        out.truncate(0)
        out.seek(0)
        console.width = width
        area.update(Text("y"), refresh=True)
        drawn = out.getvalue()
    assert drawn == "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (rows - 1) + "y"
