"""The budget of snapshots: what is in memory, on disk and lost, and that what comes back is equal to the last bit."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4 import Snapshots
from mlx_gemma4.decoder import snapshots
from mlx_gemma4.decoder.snapshots import State

SIZE = 960
"""Bytes of a snapshot here."""


def arrays(seed: int, dtype: mx.Dtype = mx.bfloat16) -> list[mx.array]:
    """Two layers' worth, together SIZE bytes."""
    bits = np.random.default_rng(seed).integers(0, 256, SIZE, dtype=np.uint8)
    whole = mx.array(bits).view(dtype)
    half = len(whole) // 2
    return [whole[:half].reshape(2, 1, 1, 5, -1), whole[half:].reshape(2, 1, 1, 5, -1)]


def bits(state: list[mx.array]) -> list[bytes]:
    return [bytes(memoryview(mx.contiguous(array).reshape(-1).view(mx.uint8))) for array in state]  # type: ignore[arg-type]


def places(states: list[State]) -> str:
    """Of each state: m in memory, d on disk, - lost."""
    return "".join("m" if state.in_memory else "d" if state.on_disk else "-" for state in states)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
@pytest.mark.parametrize("memory", [0, SIZE])
def test_what_comes_back_is_equal_to_the_bit(dtype: mx.Dtype, memory: int) -> None:
    """Also NaN and -0.0, from memory and from disk, twice."""
    budget = Snapshots(memory=memory, disk=SIZE)
    state = budget.take(0, 7, arrays(1, dtype))
    assert places([state]) == ("m" if memory else "d")
    for _ in range(2):
        back = list(budget.read(state))
        assert bits(back) == bits(arrays(1, dtype))
        assert [array.dtype for array in back] == [dtype, dtype]
        assert [array.shape for array in back] == [array.shape for array in arrays(1, dtype)]


def test_the_least_recently_used_goes_to_disk_and_is_lost() -> None:
    budget = Snapshots(memory=2 * SIZE, disk=2 * SIZE)
    states = [budget.take(0, position, arrays(position)) for position in range(4)]
    assert places(states) == "ddmm"
    assert bits(list(budget.read(states[0]))) == bits(arrays(0))
    states.append(budget.take(0, 4, arrays(4)))
    assert places(states) == "d-dmm"
    list(budget.read(states[3]))
    states.append(budget.take(0, 5, arrays(5)))
    assert places(states) == "d--mdm"
    assert (budget.memory_used, budget.disk_used) == (2 * SIZE, 2 * SIZE)


def test_one_that_is_larger_than_the_memory_goes_to_disk() -> None:
    budget = Snapshots(memory=SIZE - 1, disk=SIZE)
    states = [budget.take(0, 0, arrays(0))]
    assert places(states) == "d"
    states.append(budget.take(0, 1, arrays(1)))
    assert places(states) == "-d"
    nothing = Snapshots(memory=0, disk=0)
    assert places([nothing.take(0, 0, arrays(0))]) == "-"


def test_less_memory_moves_snapshots_to_disk_at_once() -> None:
    budget = Snapshots(memory=3 * SIZE, disk=9 * SIZE)
    states = [budget.take(0, position, arrays(position)) for position in range(3)]
    budget.memory = SIZE
    assert places(states) == "ddm"
    assert [bits(list(budget.read(state))) for state in states] == [bits(arrays(seed)) for seed in range(3)]


def test_what_others_need_is_not_held() -> None:
    """Until they need less; never more than the budget."""
    budget = Snapshots(memory=3 * SIZE, disk=9 * SIZE)
    states = [budget.take(0, position, arrays(position)) for position in range(3)]
    budget.allow(-1)
    assert places(states) == "dmm"
    budget.allow(0)
    states.append(budget.take(0, 3, arrays(3)))
    assert places(states) == "ddmm"
    budget.allow(-9 * SIZE)
    assert places(states) == "dddd"
    states.append(budget.take(0, 4, arrays(4)))
    budget.allow(9 * SIZE)
    states += [budget.take(0, position, arrays(position)) for position in range(5, 9)]
    assert places(states) == "ddddddmmm"
    assert [bits(list(budget.read(state))) for state in states] == [bits(arrays(seed)) for seed in range(9)]


def test_a_snapshot_that_nobody_holds_takes_no_room() -> None:
    """Neither bytes nor an open file."""
    budget = Snapshots(memory=SIZE, disk=9 * SIZE)
    states = [budget.take(0, position, arrays(position)) for position in range(3)]
    gc.collect()  # files of others
    before = len(os.listdir("/dev/fd"))
    assert (budget.memory_used, budget.disk_used) == (SIZE, 2 * SIZE)
    states.clear()
    gc.collect()
    assert (budget.memory_used, budget.disk_used) == (0, 0)
    assert len(os.listdir("/dev/fd")) == before - 2


def test_files_have_no_name(tmp_path: Path) -> None:
    """So nothing stays after a crash, and nothing is used again."""
    budget = Snapshots(memory=0, disk=SIZE, folder=str(tmp_path))
    state = budget.take(0, 0, arrays(0))
    assert places([state]) == "d" and list(tmp_path.iterdir()) == []


def test_only_so_many_files_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_FILES", 3)
    budget = Snapshots(memory=0, disk=99 * SIZE)
    states = [budget.take(0, position, arrays(position)) for position in range(5)]
    assert places(states) == "--ddd"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("full", "Snapshots are not written to FOLDER: only 1.9 GB are free there"),
        ("missing", "Snapshots cannot be written to disk: [Errno 2] No such file or directory: 'FOLDER'"),
        ("breaks", "Snapshots cannot be written to disk: [Errno 28] No space left on device"),
    ],
)
def test_a_disk_that_takes_nothing_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    """And what it would have held is lost."""

    def breaks(array: mx.array) -> memoryview:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "missing" if fault == "missing" else tmp_path
    if fault == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 1_900_000_000))
    if fault == "breaks":
        monkeypatch.setattr(snapshots, "raw_bytes", breaks)
    said: list[str] = []
    budget = Snapshots(memory=SIZE, disk=9 * SIZE, folder=str(folder), say=said.append)
    states = [budget.take(0, position, arrays(position)) for position in range(4)]
    assert places(states) == "---m"
    remedy = ". What they hold is computed again where it is needed; set TMPDIR to another folder"
    assert said == [message.replace("FOLDER", str(folder)) + remedy]


def test_without_anybody_to_say_it_to_it_is_a_warning(tmp_path: Path) -> None:
    budget = Snapshots(memory=0, disk=SIZE, folder=str(tmp_path / "missing"))
    with pytest.warns(RuntimeWarning, match="Snapshots cannot be written to disk"):
        budget.take(0, 0, arrays(0))


def test_a_file_that_is_cut_is_lost() -> None:
    said: list[str] = []
    budget = Snapshots(memory=0, disk=SIZE, say=said.append)
    state = budget.take(0, 0, arrays(0))
    assert state._file is not None
    state._file.truncate(SIZE - 1)
    with pytest.raises(OSError, match="the file is shorter than what was written to it"):
        list(budget.read(state))
    assert places([state]) == "-" and budget.disk_used == 0
    assert said[0].startswith("A snapshot cannot be read back: the file is shorter than what was written to it.")
