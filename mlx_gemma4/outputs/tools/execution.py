"""Runs a user's function so that it can neither end nor block the session. Its result, or its error, is a ToolResult.

It runs in its own thread with a time limit. What it prints goes to stderr, since stdout is for answers. Its stdin is
empty. Several functions may run at once.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from mlx_gemma4.outputs.tools.result import ToolResult, result_of

STDOUT, STDERR = 1, 2


def run(function: Callable[..., Any], arguments: Mapping[str, Any], seconds: float) -> ToolResult:
    """The result of a function; an error if it fails or takes longer than ``seconds``.

    A function that takes longer keeps running in its thread: Python cannot stop it.
    """
    results: list[ToolResult] = []
    thread = threading.Thread(target=lambda: results.append(_outcome(function, arguments)), daemon=True)
    with redirected(thread):
        thread.start()
        thread.join(seconds)
    if results:
        return results[0]
    return ToolResult.error(f"no result within {seconds:g} s")


def _outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> ToolResult:
    try:
        result = function(**arguments)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            return ToolResult.error("the function returned a generator instead of a result")
        return result_of(result)
    except BaseException as error:  # from the user's function: sys.exit and KeyboardInterrupt count as errors, too
        return ToolResult.error(f"{type(error).__name__}: {_message(error)}")


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's exception cannot be written as text
        return "(no message)"


class _Streams:
    """Stdin and stdout of this process, while functions run: from the first that begins to the last that ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        """Of functions that run, or did not end in time."""
        self._count = 0
        self._stdin: Any = None
        self._stdout: Any = None
        self._descriptor: int | None = None

    def begin(self, thread: threading.Thread | None) -> None:
        with self._lock:
            if self._count == 0:
                self._redirect()
            self._count += 1
            if thread is not None:
                self._threads.append(thread)

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            if self._count == 0:
                self._restore()

    def _redirect(self) -> None:
        self._stdin, self._stdout = sys.stdin, sys.stdout
        sys.stdin, sys.stdout = io.StringIO(), cast(TextIO, _Output(self._stdout))
        with suppress(AttributeError, OSError, ValueError):  # stdout may be closed, or not a file
            sys.stdout.flush()
        # programs that a function starts inherit the descriptor, not Python's stream
        with suppress(OSError):
            self._descriptor = os.dup(STDOUT)
            os.dup2(STDERR, STDOUT)

    def _restore(self) -> None:
        if self._descriptor is not None:
            os.dup2(self._descriptor, STDOUT)
            os.close(self._descriptor)
            self._descriptor = None
        sys.stdin = self._stdin
        if not self._threads:  # what one prints that did not end in time goes to stderr, for as long as it runs
            sys.stdout = self._stdout


_STREAMS = _Streams()


@contextmanager
def redirected(thread: threading.Thread | None = None) -> Iterator[None]:
    """Send what functions print to stderr. May be entered again, by any thread.

    Args:
        thread: The function's; its output goes to stderr for as long as it runs.
    """
    _STREAMS.begin(thread)
    try:
        yield
    finally:
        _STREAMS.end()


class _Output:
    """Stdout for the thread that created this object, stderr for all other threads. It cannot be closed."""

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout
        self._owner = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout if threading.get_ident() == self._owner else sys.stderr, name)

    def close(self) -> None: ...
