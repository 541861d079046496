"""Text from a model, a file or a tool, made safe for a terminal."""

from __future__ import annotations

import re
import sys
from typing import TextIO, cast

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters other than tab and newline, marks that reorder text, and surrogates, which no stream can write."""


def printable(text: str) -> str:
    r"""Control characters as ``\x1b`` and the like: they move the cursor, change colours and titles, and hide text."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


def show(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Print text to a stream (stdout): ``printable`` on a terminal, unchanged to pipes and files."""
    print(text, end=end, file=for_terminal(stream or sys.stdout), flush=True)


def for_terminal(stream: TextIO) -> TextIO:
    """The stream, or if it is a terminal, one that writes ``printable`` text to it."""
    is_terminal = stream is not None and stream.isatty()  # without a stdout, Python has None there
    return cast(TextIO, _Printable(stream)) if is_terminal else stream


class _Printable:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
