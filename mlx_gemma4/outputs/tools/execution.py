"""Runs a user's function so that it can neither end nor block the session. Its result, or its error, becomes text.

It runs in its own thread with a time limit. What it prints goes to stderr, since stdout is for answers. Its stdin is
empty.
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

from mlx_gemma4.outputs.tools.syntax import valid

RESULT_LENGTH = 8000
"""Characters of a result that the model reads; the rest would fill the context."""
STDOUT, STDERR = 1, 2


def run(function: Callable[..., Any], arguments: Mapping[str, Any], seconds: float) -> str:
    """Return the result of a function as text, or "error: …" if it fails or takes longer than ``seconds``.

    A function that takes longer keeps running in its thread: Python cannot stop it.
    """
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(_outcome(function, arguments)), daemon=True)
    with _streams(thread):
        thread.start()
        thread.join(seconds)
    if results:
        return results[0]
    return f"error: no result within {seconds:g} s"


def as_text(result: Any) -> str:
    """A result for the model: valid text of at most RESULT_LENGTH characters, and a note if it was cut."""
    if result is None:
        text = "done"
    elif isinstance(result, (bytes, bytearray)):
        text = result.decode("utf-8", "replace")
    else:
        text = str(result)
    if len(text) <= RESULT_LENGTH:
        return valid(text)
    return f"{valid(text[:RESULT_LENGTH])}\n[cut: the first {RESULT_LENGTH} of {len(text)} characters]"


def _outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    try:
        result = function(**arguments)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            return "error: the function returned a generator instead of a result"
        return as_text(result)
    except BaseException as error:  # from the user's function: sys.exit and KeyboardInterrupt count as errors, too
        return as_text(f"error: {type(error).__name__}: {_message(error)}")


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's exception cannot be written as text
        return "(no message)"


@contextmanager
def _streams(thread: threading.Thread) -> Iterator[None]:
    """Send what ``thread`` prints to stderr, also after the time limit, for as long as it runs."""
    stdin, stdout = sys.stdin, sys.stdout
    sys.stdin, sys.stdout = io.StringIO(), cast(TextIO, _Output(stdout))
    try:
        with _descriptor():
            yield
    finally:
        sys.stdin = stdin
        if not thread.is_alive():
            sys.stdout = stdout


class _Output:
    """Stdout for the thread that created this object, stderr for all other threads. It cannot be closed."""

    def __init__(self, stdout: Any) -> None:
        self._stdout = stdout
        self._owner = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout if threading.get_ident() == self._owner else sys.stderr, name)

    def close(self) -> None: ...


@contextmanager
def _descriptor() -> Iterator[None]:
    """Do the same for programs that the function starts: they inherit the descriptor, not Python's stream."""
    with suppress(AttributeError, OSError, ValueError):  # stdout may be closed, or not a file
        sys.stdout.flush()
    try:
        kept = os.dup(STDOUT)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            os.dup2(STDERR, STDOUT)
        yield
    finally:
        os.dup2(kept, STDOUT)
        os.close(kept)
