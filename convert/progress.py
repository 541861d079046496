"""Progress on stderr: the current tensor, bytes, speed and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .tensors import Tensor

Tick = Callable[[Tensor, int], None]
"""Called with a tensor and how many of its bytes are done."""


def silent(tensor: Tensor, count: int) -> None:
    """No progress is shown."""


@contextmanager
def shown(total: int, task: str, done: int = 0) -> Iterator[Tick]:
    """A progress bar on a terminal; elsewhere nothing, because lines that overwrite each other are useless in a log.

    Args:
        total: Bytes of all tensors.
        done: Bytes that an interrupted run has done.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[tensor]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(task, total=total, completed=done, tensor="")

        def tick(tensor: Tensor, count: int) -> None:
            progress.update(bar, advance=count, tensor=tensor.name.removesuffix(".weight"))

        yield tick
