"""Runs a check in a process of its own, so that one that hangs or crashes costs its own lines only.

    parent    start ── figures so far ──▶ child
              ◀── findings, a line of JSON each ──
              time is over: kill it

A library that aborts, as MLX does when the GPU fails, takes the child with it and nothing else. A driver that does not
return is killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from typing import IO

from mlx_gemma4.measure.checks.finding import Check, Finding, Findings, Known

GRACE = 5
"""Seconds after which a child whose parent is gone ends by itself, on top of its time."""
KEPT = 2000
"""Characters of a child's stderr that are kept."""
REPORT = "Report this line."
REINSTALL = "Install mlx_gemma4 again, in a new virtual environment."
START = """
import sys
sys.path[:] = {path!r}
from mlx_gemma4.measure.checks.apart import child
child({module!r}, {limit})
"""


class _TooLong(Exception):
    """The time of a check is over."""


def run_apart(module: str, subject: str, seconds: float, known: Known) -> Findings:
    """The findings of ``check`` in a module; a problem if it fails, crashes or takes too long.

    Args:
        subject: What the check is about, for a finding that it cannot make itself.
        seconds: Time that the check may take.
        known: Figures of the findings so far.
    """
    code = START.format(path=sys.path, module=module, limit=int(seconds) + GRACE)
    try:
        process = _start([sys.executable, "-c", code])
    except OSError as error:
        text = f"The check cannot be started: {error.strerror}."
        yield Finding(subject, "problem", text, "Close other programs, or install Python again.")
        return
    stderr = _Tail(process.stderr)
    try:
        _send(process.stdin, known)
        yield from _findings(process, time.monotonic() + seconds)
        status = process.wait(timeout=GRACE)
    except (_TooLong, subprocess.TimeoutExpired):
        yield Finding(subject, "problem", f"The check did not end within {seconds:g} s.", "Run it again, alone.")
    else:
        if status:
            yield Finding(subject, "problem", _crash(status, stderr.text()), REPORT)
    finally:
        _kill(process)


def child(module: str, limit: int) -> None:
    """Run a check: figures from stdin, findings to stdout. What libraries print goes to stderr."""
    signal.alarm(limit)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    known = json.loads(sys.stdin.readline())
    for finding in caught(lambda known: import_module(module).check(known), module.rpartition(".")[2], known):
        print(json.dumps(finding.to_dict()), file=results, flush=True)
    results.close()
    os._exit(0)  # a library that hangs when it is closed has nothing to add


def caught(check: Check, subject: str, known: Known) -> Findings:
    """The findings of a check; an exception becomes the last of them."""
    try:
        yield from check(known)
    except Exception as error:  # whatever the libraries of a broken installation raise
        text = " ".join(str(error).split()) or "no message"
        remedy = REINSTALL if isinstance(error, ImportError) else REPORT
        yield Finding(subject, "problem", f"The check failed: {type(error).__name__}: {text}", remedy)


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the parent alone
    )


class _Tail(threading.Thread):
    """The last words of a stream, read while it goes on."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(daemon=True)
        assert stream is not None
        self._stream, self._text = stream, ""
        self.start()

    def run(self) -> None:
        with self._stream:
            for line in self._stream:
                self._text = (self._text + line)[-KEPT:]

    def text(self) -> str:
        self.join(timeout=1.0)
        return self._text


def _send(stdin: IO[str] | None, known: Known) -> None:
    assert stdin is not None
    with suppress(BrokenPipeError), stdin:  # it crashed; its exit code says how
        stdin.write(json.dumps(known) + "\n")


def _findings(process: subprocess.Popen[str], deadline: float) -> Findings:
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := _next(lines, deadline)) is not None:
        yield Finding.from_dict(json.loads(line))


def _next(lines: queue.SimpleQueue[str | None], deadline: float) -> str | None:
    try:
        return lines.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise _TooLong from None


def _crash(status: int, stderr: str) -> str:
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"The check {how}" + (f": {' '.join(last.split())}" if last else ".")


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
