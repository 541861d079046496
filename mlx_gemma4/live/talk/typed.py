"""Typed or piped lines from a file descriptor. Unlike ``sys.stdin``, reading can be stopped.

A thread that still waits inside ``sys.stdin`` when Python ends is a fatal error.
"""

from __future__ import annotations

import codecs
import os
import select

READ = 65536
"""Bytes per read."""
LONGEST = 1_000_000
"""Characters of a line; a longer one is delivered in parts."""
FINISH, STOP = b"\1", b"\0"
"""Wake the waiting thread and say how to end."""


class TypedLines:
    """The lines of a terminal or a pipe, without line ends."""

    def __init__(self, fd: int) -> None:
        self.can_wait = not os.isatty(fd)
        """Whether a line may be read late. At a terminal somebody expects an answer at once; a pipe keeps its lines."""
        self._fd = fd
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._ended = False
        self._timeout: float | None = None
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def read(self) -> str | None:
        """Wait for a line; None when there are no more."""
        while "\n" not in self._text and len(self._text) < LONGEST and not self._ended:
            self._read()
        if not self._text:
            return None
        line, _, self._text = self._text.partition("\n")
        return line.removesuffix("\r")

    def finish(self) -> None:
        """Let the lines end behind those that have come already."""
        os.write(self._waker, FINISH)

    def stop(self) -> None:
        """Let the lines end here. Safe to call from a signal handler."""
        os.write(self._waker, STOP)

    def _read(self) -> None:
        ready, _, _ = select.select([self._fd, self._wake], [], [], self._timeout)
        if self._wake in ready:
            self._end(os.read(self._wake, 1))
        elif not ready:
            self._ended = True
        else:
            self._take()

    def _end(self, how: bytes) -> None:
        self._timeout = 0.0
        if how == STOP:
            self._ended, self._text = True, ""

    def _take(self) -> None:
        try:
            data = os.read(self._fd, READ)
        except OSError:  # what Linux says when the terminal is gone
            data = b""
        self._ended = not data
        self._text += self._decode(data, self._ended)
