"""Typed lines from a file descriptor. Unlike ``sys.stdin``, it can be stopped, and holds no lock while it waits.

A thread that waits inside of ``sys.stdin`` when Python ends is a fatal error.
"""

from __future__ import annotations

import codecs
import os
import select
from collections.abc import Iterator

READ = 65536
"""Bytes taken at once."""
LONGEST = 1_000_000
"""Characters of a line; what is longer is handed over in parts."""


class TypedLines:
    """The lines of a terminal or a pipe, without their ends, until it ends or is stopped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._ended = False
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while "\n" not in self._text and len(self._text) < LONGEST and not self._ended:
            self._read()
        if not self._text:
            raise StopIteration
        line, _, self._text = self._text.partition("\n")
        return line.removesuffix("\r")

    def stop(self) -> None:
        """Let the lines end here. Safe to call from a signal handler."""
        os.write(self._waker, b"\0")

    def _read(self) -> None:
        ready, _, _ = select.select([self._fd, self._wake], [], [])
        if self._wake in ready:
            self._ended, self._text = True, ""
            return
        try:
            data = os.read(self._fd, READ)
        except OSError:  # what Linux says when the terminal is gone
            data = b""
        self._ended = not data
        self._text += self._decode(data, self._ended)
