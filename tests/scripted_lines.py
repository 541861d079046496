"""Lines for tests, as typed at a terminal or read from a pipe."""

from __future__ import annotations

import threading


class Lines:
    """Lines that come at once or after an event. A pipe (``can_wait``) may stay open after its last line."""

    def __init__(
        self, *lines: str, can_wait: bool = False, after: threading.Event | None = None, stays_open: bool = False
    ) -> None:
        self._lines, self._after = list(lines), after
        self.can_wait = can_wait
        self._end = threading.Event()
        if not stays_open:
            self._end.set()

    def read(self) -> str | None:
        if self._after is not None:
            self._after.wait(10)
        if not self._lines:
            self._end.wait(10)
        return self._lines.pop(0) if self._lines else None

    def finish(self) -> None:
        self._end.set()

    def stop(self) -> None:
        self._lines = []
        self._end.set()
