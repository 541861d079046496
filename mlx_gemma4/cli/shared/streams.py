"""stdin, stdout and stderr: each may be closed when a command starts, and stdout may end before it."""

from __future__ import annotations

import io
import os
import sys


class ClosedStream(io.TextIOBase):
    """Replaces a standard output that was closed when the command started."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise ValueError("Standard output is closed")


def open_streams() -> None:
    """Replace standard streams that are closed.

    Their numbers must be taken too: otherwise the next opened file would get them, and everything that is printed.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = ClosedStream()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def close_stdout(code: int) -> int:
    """Flush stdout. What cannot be written is dropped, because Python would try again when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if code == 0 and not isinstance(error, BrokenPipeError):
            print(f"mlx_gemma4: error: cannot write to standard output: {error}", file=sys.stderr)
            return 2
        return code or 141
    return code
