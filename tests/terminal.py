"""What users see: a command on a terminal of its own, and the lines that it leaves there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def on_terminal(*arguments: str, **environment: str) -> str:
    """All that ``mlx_gemma4`` writes to a terminal, 100 columns wide; it has to succeed."""
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "mlx_gemma4", *arguments]
    surroundings = {**os.environ, "COLUMNS": "100", **environment}
    with subprocess.Popen(command, stdout=end, cwd=ROOT, env=surroundings) as process:
        os.close(end)
        data = b""
        try:
            while more := os.read(terminal, 65536):
                data += more
        except OSError:  # what Linux says at the end of a terminal
            pass
    os.close(terminal)
    assert process.returncode == 0
    return data.decode()


def screen(data: str) -> list[str]:
    """The lines that a terminal shows after ``data``: text, new lines, "up" and "erase line" are all that is used."""
    lines, row, column = [""], 0, 0
    for code, text in re.findall(r"\x1b\[([0-9;?]*[A-Za-z])|([^\x1b])", data):
        if code == "1A":
            row -= 1
        elif code == "2K":
            lines[row] = ""
        elif text == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text == "\r":
            column = 0
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
    return [line for line in lines if line.strip()]
