"""The states of snapshots, within a budget: in memory, then on disk, then lost. Least recently used goes first.

    memory   [ turn 9 | turn 8 ]                a snapshot of the 12B is 335 MB in bfloat16
    disk     [ turn 7 | turn 6 | … | turn 3 ]   bytes as they were: what comes back is equal to the last bit
    lost     turn 2, turn 1                     computed again, if they are needed

A file has no name (``tempfile.TemporaryFile``): it vanishes with the snapshot, with the program, and after a crash.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.buffers import raw_bytes
from mlx_gemma4.decoder.memory import SNAPSHOTS

DISK = 8_000_000_000
"""Bytes of snapshots on disk by default: 23 of the 12B."""
LEFT_FREE = 2_000_000_000
"""Bytes that stay free on the disk: the system swaps there."""
MOST_FILES = 64
"""Files that are open at once. macOS allows a program 256."""


class State:
    """Arrays of one snapshot, in memory, in a file, or lost."""

    def __init__(self, start: int, position: int, arrays: Sequence[mx.array]) -> None:
        self.start = start
        self.position = position
        """What is held are the keys and values from ``start`` to before ``position``."""
        self.nbytes = sum(array.nbytes for array in arrays)
        self._layout = [(array.shape, array.dtype) for array in arrays]
        self._arrays: list[mx.array] | None = None
        self._file: IO[bytes] | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the budget had no room for it any more."""
        return self._arrays is None and self._file is None

    @property
    def in_memory(self) -> bool:
        return self._arrays is not None

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def hold(self, arrays: Sequence[mx.array]) -> None:
        """Keep the arrays in memory. They are computed one by one, and must not be views of others."""
        held = []
        for array in arrays:
            mx.eval(array)
            held.append(array)
        self._arrays = held

    def write(self, arrays: Sequence[mx.array], folder: str | None) -> None:
        """Move the arrays to a file, one by one.

        Raises:
            OSError: The disk is full, or not writable. Nothing is written then.
        """
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as the snapshot lives)
        try:
            for array in arrays:
                file.write(raw_bytes(array))
            file.flush()
        except BaseException:
            file.close()
            raise
        weakref.finalize(self, file.close)
        self._file, self._arrays = file, None

    def spill(self, folder: str | None) -> None:
        """Move from memory to disk.

        Raises:
            OSError: As for ``write``. The arrays stay in memory.
        """
        assert self._arrays is not None
        self.write(self._arrays, folder)

    def lose(self) -> None:
        """Forget the arrays."""
        if self._file is not None:
            self._file.close()
        self._arrays = self._file = None

    def read(self) -> Iterator[mx.array]:
        """The arrays, one by one. They are not to be written to.

        Raises:
            OSError: The file cannot be read.
        """
        if self._arrays is not None:
            yield from self._arrays
            return
        assert self._file is not None
        self._file.seek(0)
        for shape, dtype in self._layout:
            size = math.prod(shape) * dtype.size
            data = self._file.read(size)
            if len(data) != size:
                raise OSError("the file is shorter than what was written to it")
            flat = mx.array(np.frombuffer(data, np.uint8)).view(dtype)
            yield flat.reshape(shape)


class Snapshots:
    """The budget of the snapshots of all sessions on a model (``Model.snapshots``).

    It belongs to the thread of these sessions. A snapshot leaves it with its session.

    Args:
        memory: Bytes in memory.
        disk: Bytes on disk; 0 writes nothing.
        folder: Where files are made; the system's folder for temporary files by default (``$TMPDIR``).
        say: Called once, with a line for the user, when the disk takes no more. A warning by default.
    """

    def __init__(
        self,
        *,
        memory: int = SNAPSHOTS,
        disk: int = DISK,
        folder: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._memory = memory
        self._allowed = memory
        self._disk = disk
        self._folder = folder
        self._say = say or _warn
        self._said = False
        self._states: list[weakref.ref[State]] = []
        """The least recently used first."""

    @property
    def memory(self) -> int:
        """Bytes that snapshots may hold in memory. What does not fit any more goes to disk at once."""
        return self._memory

    @memory.setter
    def memory(self, memory: int) -> None:
        self._memory = self._allowed = memory
        self._free_memory(0)

    def allow(self, more: int) -> None:
        """Hold at most so many bytes more in memory than now, or less if it is negative: others need the rest.

        What does not fit goes to disk at once.
        """
        self._allowed = max(0, min(self._memory, self.memory_used + more))
        self._free_memory(0)

    @property
    def memory_used(self) -> int:
        """Bytes of snapshots in memory."""
        return sum(state.nbytes for state in self._alive() if state.in_memory)

    @property
    def disk_used(self) -> int:
        """Bytes of snapshots on disk."""
        return sum(state.nbytes for state in self._alive() if state.on_disk)

    def capacity(self, nbytes: int) -> int:
        """How many snapshots of so many bytes there can be."""
        return self._allowed // max(nbytes, 1) + min(self._disk // max(nbytes, 1), MOST_FILES)

    def take(self, start: int, position: int, arrays: Sequence[mx.array]) -> State:
        """Keep arrays that nobody else writes to, not evaluated yet; older snapshots make room for them.

        Args:
            start: The first position that they hold; ``position`` is behind the last one.
        """
        state = State(start, position, arrays)
        if state.nbytes <= self._allowed:
            self._free_memory(state.nbytes)
            state.hold(arrays)
        else:
            self._to_disk(state, lambda: state.write(arrays, self._folder))
        self._states.append(weakref.ref(state))
        return state

    def read(self, state: State) -> Iterator[mx.array]:
        """The arrays of a state that is not lost, one by one; it counts as used.

        Raises:
            OSError: A file could not be read. The state is lost.
        """
        self._states = [ref for ref in self._states if ref() is not state]
        self._states.append(weakref.ref(state))
        try:
            yield from state.read()
        except OSError as error:
            state.lose()
            self._report(f"A snapshot cannot be read back: {error}")
            raise

    def _alive(self) -> list[State]:
        """States that are not lost, the least recently used first."""
        states = [state for ref in self._states if (state := ref()) is not None and not state.is_lost]
        self._states = [weakref.ref(state) for state in states]
        return states

    def _free_memory(self, needed: int) -> None:
        for state in self._alive():
            if self.memory_used + needed <= self._allowed:
                return
            if state.in_memory:
                self._to_disk(state, lambda state=state: state.spill(self._folder))  # type: ignore[misc]

    def _to_disk(self, state: State, write: Callable[[], None]) -> None:
        """Write a state to disk, or lose it if the disk does not take it."""
        try:
            if self._free_disk(state.nbytes):
                write()
                return
        except OSError as error:
            self._disk = 0
            self._report(f"Snapshots cannot be written to disk: {error}")
        state.lose()

    def _free_disk(self, needed: int) -> bool:
        """Make room for a file; whether there is room for it at all.

        Raises:
            OSError: There is no such folder.
        """
        if needed > self._disk:
            return False
        on_disk = [state for state in self._alive() if state.on_disk]
        while on_disk and (self.disk_used + needed > self._disk or len(on_disk) >= MOST_FILES):
            on_disk.pop(0).lose()
        place = self._folder or tempfile.gettempdir()
        free = shutil.disk_usage(place).free
        if free - needed < LEFT_FREE:
            self._report(f"Snapshots are not written to {place}: only {free / 1e9:.1f} GB are free there")
            return False
        return True

    def _report(self, problem: str) -> None:
        if not self._said:
            self._said = True
            self._say(f"{problem}. What they hold is computed again where it is needed; set TMPDIR to another folder")


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
