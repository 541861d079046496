"""Runs the calls of one answer at once, each in a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.execution import redirected
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.outputs.tools.sources import Tools

STOPPED = "the user stopped it"
LOOK_EVERY = 0.1
"""Seconds of one wait: another thread may get the signal of Ctrl-C, which does not end a wait of this one."""


@dataclass(frozen=True)
class Returned:
    """A call has its result."""

    call: ToolCall
    result: ToolResult
    seconds: float
    """How long it took."""


def run_calls(tools: Tools, calls: Sequence[ToolCall], seconds: float | None = None) -> tuple[list[Returned], bool]:
    """Run calls, and wait for all of them.

    A call that takes longer than the time is an error, and so is one that Ctrl-C stopped; they go on in their threads.

    Args:
        seconds: How long to wait for all; None: as long as they take.

    Returns:
        The results in the order of the calls, and whether Ctrl-C was pressed.
    """
    started = time.monotonic()
    done: queue.SimpleQueue[tuple[int, ToolResult, float]] = queue.SimpleQueue()

    def work(index: int, call: ToolCall) -> None:
        try:
            result = tools.call(call)
        except Exception as error:  # of a source that breaks its promise
            result = ToolResult.error(f"{type(error).__name__}: {error}")
        done.put((index, result, time.monotonic() - started))

    results: dict[int, tuple[ToolResult, float]] = {}
    problem, is_stopped = "", False
    with redirected():
        try:
            for index, call in enumerate(calls):
                threading.Thread(target=work, args=(index, call), daemon=True).start()
            while len(results) < len(calls):
                if seconds is not None and time.monotonic() >= started + seconds:
                    problem = f"no result within {seconds:g} s"
                    break
                with suppress(queue.Empty):
                    index, result, taken = done.get(timeout=LOOK_EVERY)
                    results[index] = result, taken
        except KeyboardInterrupt:
            problem, is_stopped = STOPPED, True
    missing = ToolResult.error(problem), time.monotonic() - started
    return [Returned(call, *results.get(index, missing)) for index, call in enumerate(calls)], is_stopped
