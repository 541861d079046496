"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do: one owner for all commands.

    time ──▶  starting            command                   session                            ended
    signal    exit at once:       SIGINT: KeyboardInterrupt stop the sources, compute what     nothing
              nothing was         others: Terminated        was heard, exit
              computed yet
    second    -                   the same again            do not wait for the model any
    signal                                                  more: write what is known, exit

A session also gives up when PATIENCE is over. A thread watches too: Python runs signal handlers between two of its own
steps only, so a device or a library that does not return would keep the command alive forever.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import NoReturn, Protocol, TypeVar

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 1.2
"""Seconds after a signal in which a session computes what was heard."""
LAST = 0.4
"""Further seconds in which it has to end by itself."""
AT_ONCE = 0.3
"""Seconds in which a starting command has to end by itself."""

PROBLEM = 1
"""Exit code of a session that ended before it should have."""

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """A session has no time left. Raised while it computes or waits for sound, never while it writes."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP. Not an Exception, so that nothing but the end of the command handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(number: int) -> int:
    """The exit code of a shell for a signal: 130, 143 or 129."""
    return 128 + number


class Policy(Protocol):
    """What signals do in the current phase."""

    def handle(self, number: int) -> None:
        """Handle a signal, in the main thread."""

    def last_resort(self, number: int, over: threading.Event) -> None:
        """Wait for the end, but not forever. In the watching thread; returns when ``over`` is set."""


class _Starting:
    def handle(self, number: int) -> None:
        _leave(number)

    def last_resort(self, number: int, over: threading.Event) -> None:
        if not over.wait(AT_ONCE):
            _leave(number)


class _Command:
    def handle(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)

    def last_resort(self, number: int, over: threading.Event) -> None:
        """A command may take its time to end."""


class _Keeping(_Command):
    """A closed terminal ends standard input, and sends SIGHUP twice: from the kernel and from the shell."""

    def __init__(self) -> None:
        self.is_over = False
        self.late: int | None = None

    def handle(self, number: int) -> None:
        if number != signal.SIGINT:
            if self.is_over:
                self.late = number
                return
            self.is_over = True
        super().handle(number)


class _Ended:
    def __init__(self, code: int) -> None:
        self._code = code

    def handle(self, number: int) -> None:
        os._exit(self._code)

    def last_resort(self, number: int, over: threading.Event) -> None:
        os._exit(self._code)


class Session:
    """Signals end a session, and what was heard is written. Use it as a context manager.

    Args:
        stop: Ends the sources. Called from a signal handler.
        last_words: Writes what is known of sound that was not computed. Called from the watching thread if the main
            thread does not return from computing or waiting. May be replaced during the session.
        patience: Seconds to compute sound that was heard; 0 if nothing is heard live.

    Attributes:
        number: The first signal, or None.
        hurried: There was no time to compute everything that was heard.
    """

    def __init__(
        self,
        stop: Callable[[], None] = lambda: None,
        last_words: Callable[[], None] = lambda: None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.number: int | None = None
        self.hurried = False
        self._stop, self.last_words, self._patience = stop, last_words, patience
        self._waits = False
        self._raised = False
        self._pen = threading.Lock()
        """Held by whoever writes: the main thread, except while it computes or waits."""

    def __enter__(self) -> Session:
        self._pen.acquire()
        self._before = _owner.policy
        self._alarm = signal.getsignal(signal.SIGALRM)
        if _owner.is_on:
            signal.signal(signal.SIGALRM, lambda number, frame: self._hurry())
        _owner.policy = self
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> bool:
        if _owner.is_on:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)
        _owner.policy = self._before if self.number is None else self
        self.last_words, self._waits = (lambda: None), False
        if self._pen.locked():
            self._pen.release()
        return isinstance(value, Interrupted) and self.hurried

    @property
    def code(self) -> int:
        """The exit code: 0 if Ctrl-C ended the session and everything that was heard is written."""
        if self.number is None or (self.number == signal.SIGINT and not self.hurried):
            return 0
        return exit_code(self.number)

    @contextmanager
    def working(self) -> Iterator[None]:
        """A block that computes or waits. It raises Interrupted, once, if no time is left."""
        try:
            self._pen.release()
            self._waits = True
            if self.hurried and not self._raised:
                self._raised = True
                raise Interrupted
            yield
        finally:
            self._waits = False
            self._pen.acquire()

    def uncut(self, write: Callable[[T], None] | None) -> Callable[[T], None] | None:
        """The same function, which is not interrupted inside of ``working``."""
        if write is None:
            return None

        def whole(data: T) -> None:
            self._waits = False
            self._pen.acquire()
            try:
                write(data)
            finally:
                self._pen.release()
                self._waits = True

        return whole

    def events(self, events: Generator[T, None, None]) -> Iterator[T]:
        """The events of a generator. Computing them is interrupted, handling them is not.

        Interrupted is raised inside of the generator, which may yield last events before it raises it again.
        """
        while True:
            try:
                with self.working():
                    event = next(events, None)
            except Interrupted as interrupted:
                event = events.throw(interrupted)  # raised at once if the generator has ended
            if event is None:
                return
            yield event

    def handle(self, number: int) -> None:
        if self.number is not None:
            self._hurry()
            return
        self.number = number
        if self._patience <= 0:
            self._stop()
            self._hurry()
            return
        signal.setitimer(signal.ITIMER_REAL, self._patience)
        self._stop()

    def _hurry(self) -> None:
        self.hurried = True
        if self._waits and not self._raised:
            self._raised = True
            raise Interrupted

    def last_resort(self, number: int, over: threading.Event) -> None:
        if over.wait((self._patience or PATIENCE) + LAST):
            return
        self._pen.acquire()  # taken from the main thread, which computes or waits and never gets it back
        try:
            self.last_words()
        finally:
            _leave(number)


class Owner:
    """Owns the signals while it is entered, in the main thread. SIGHUP stays ignored under nohup."""

    def __init__(self) -> None:
        self.policy: Policy = _Starting()
        self.is_on = False

    def __enter__(self) -> Owner:
        self.policy = _Starting()
        if threading.current_thread() is not threading.main_thread() or self.is_on:
            return self
        self.is_on = True
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, before in self._before.items():
            if number != signal.SIGHUP or before is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watching, name="signals", daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_on:
            return
        self.is_on = False
        self._over.set()
        signal.set_wakeup_fd(self._wakeup)
        os.write(self._write, b"\0")
        self._watch.join()
        os.close(self._read)
        os.close(self._write)
        for number, before in self._before.items():
            signal.signal(number, before)

    def started(self) -> None:
        """A command runs from here on."""
        self.policy = _Command()

    def ended(self, code: int) -> None:
        """Everything is done: signals no longer change the exit code."""
        self.policy = _Ended(code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.policy.handle(number)

    def _watching(self) -> None:
        while not self._over.is_set():
            number = os.read(self._read, 1)[0]
            if number in SIGNALS:
                self.policy.last_resort(number, self._over)


_owner = Owner()
_discards: list[Callable[[], None]] = []


def owner() -> Owner:
    """The owner of this process."""
    return _owner


@contextmanager
def starting() -> Iterator[None]:
    """A block that loads or opens things before there is any result: a signal exits at once."""
    before, _owner.policy = _owner.policy, _Starting()
    try:
        yield
    finally:
        _owner.policy = before


@contextmanager
def keeping(save: Callable[[], None]) -> Iterator[None]:
    """A block after which something is saved, however it ends. Only Ctrl-C interrupts the saving."""
    policy = _Keeping()
    before, _owner.policy = _owner.policy, policy
    try:
        try:
            yield
        finally:
            policy.is_over = True
    finally:  # of its own: a signal may come in the line above
        try:
            save()
        finally:
            _owner.policy = before
    if policy.late is not None:
        raise Terminated(policy.late)


@contextmanager
def on_exit(discard: Callable[[], None]) -> Iterator[None]:
    """What to do if a signal makes the command exit at once."""
    _discards.append(discard)
    try:
        yield
    finally:
        _discards.remove(discard)


def _leave(number: int) -> NoReturn:
    for discard in reversed(_discards):
        discard()
    os._exit(exit_code(number))
