"""Conversions that are killed at any moment: there is nothing, or all of it."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conversions import SHARD_BYTES, beside, finished, put, start, wait_for
from demo_sizes import DEMO
from hub_server import contents
from make_random_checkpoint import RELEASED, make, tensor_shapes

from mlx_gemma4.convert import convert, folder
from mlx_gemma4.convert.folder import PartialFolder, check_target
from mlx_gemma4.convert.plan import Plan

KILLS, REPLACING_KILLS = 20, 6


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the demo that may be broken."""
    return Path(shutil.copytree(DEMO, tmp_path / "source"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A place that does not exist, in a folder that holds nothing else."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "made"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of 40 MB, converted in small pieces."""
    config = json.loads((RELEASED / "config.json").read_text())
    config["text_config"] |= {"hidden_size": 320, "intermediate_size": 1280, "vocab_size": 8192}
    folder = tmp_path_factory.mktemp("large") / "source"
    make(folder, config, shard_bytes=10_000_000)
    return folder


@pytest.fixture(scope="module")
def undisturbed(large: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a conversion makes, and in how many seconds from its first trace on the disk."""
    target = tmp_path_factory.mktemp("undisturbed") / "made"
    process = start("--hf-path", large, "--mlx-path", target, "-q")
    begin = wait_for(target.with_name("made.partial"), process)
    assert process.communicate()[1] == ""
    return contents(target), time.monotonic() - begin


def killed(target: Path, after: float, *arguments: str | Path) -> None:
    """A conversion that is killed so many seconds after its first trace on the disk."""
    process = start(*arguments)
    time.sleep(max(0, wait_for(target.with_name("made.partial"), process) + after - time.monotonic()))
    process.kill()
    process.communicate()


@pytest.fixture
def shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as small as the driver's."""
    monkeypatch.setattr(Plan.shards, "__defaults__", (SHARD_BYTES,))


@pytest.mark.usefixtures("shards")
def test_killed_at_any_moment(large: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    """Whenever it is killed, there is nothing or all of it; the next run ends it with the same bytes."""
    expected, seconds = undisturbed
    target = tmp_path / "made"
    command = ("--hf-path", large, "--mlx-path", target, "-q")
    moments = random.Random(1)
    resumed = []
    for number in range(KILLS):
        killed(target, seconds * (number + moments.random()) / KILLS, *command)
        if not target.exists():
            assert beside(target) == {"made.partial"}
            resumed.append(finished(large, target))
        assert contents(target) == expected
        assert beside(target) <= {"made", "made.partial"}  # what has only to be tidied up
        with pytest.raises(ValueError, match="exists already"):
            check_target(target, overwrite=False)
        assert beside(target) == {"made"}
        shutil.rmtree(target)
    steps = len(tensor_shapes(json.loads((large / "config.json").read_text())))
    assert sum(0 < count < steps for count in resumed) >= 1


@pytest.mark.usefixtures("shards")
def test_killed_while_replacing(large: Path, undisturbed: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    """Until the new checkpoint is whole, the old one is there, whole."""
    expected, seconds = undisturbed
    old, target = tmp_path / "old", tmp_path / "place" / "made"
    target.parent.mkdir()
    convert("demo", old, recipe="8bit")
    kept = contents(old)
    command = ("--hf-path", large, "--mlx-path", target, "-q", "--overwrite")
    moments = random.Random(2)
    for number in range(REPLACING_KILLS):
        shutil.copytree(old, target)
        # half of them about the end
        share = 0.9 + 0.2 * moments.random() if number % 2 else moments.random()
        killed(target, seconds * share, *command)
        assert contents(target) in (kept, expected)
        finished(large, target, overwrite=True)
        assert contents(target) == expected
        assert beside(target) == {"made"}
        shutil.rmtree(target)


class Killed(BaseException):
    """Nothing handles it: as if the process had ended here."""


class Killer:
    """Ends what runs before its n-th operation on files."""

    def __init__(self) -> None:
        self.left: int | None = None
        sys.addaudithook(self.hook)

    def hook(self, event: str, _: tuple[Any, ...]) -> None:
        if self.left is None or not event.startswith(("os.", "open", "shutil.", "ctypes.")):
            return
        self.left -= 1
        if self.left == 0:
            self.left = None
            raise Killed


@pytest.fixture(scope="session")
def killer() -> Killer:
    return Killer()


OLD, NEW = (dict.fromkeys(("config.json", "a.safetensors"), text) for text in (b"old", b"new"))


def complete(target: Path, *, overwrite: bool) -> int:
    """Write all and put it in its place; how many steps were done before."""
    with PartialFolder(target, "plan", overwrite=overwrite) as growing:
        if growing.done == 0:
            put(growing.folder, NEW)
            growing.record(1)
        growing.complete()
        return growing.done


@pytest.mark.parametrize("replaces", ["nothing", "empty", "old", "old, without an exchange"])
def test_killed_between_any_two_steps(
    tmp_path: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch, replaces: str
) -> None:
    """Killed before any operation of the last step: old or new, whole, and the next run tidies up."""
    if replaces == "old, without an exchange":
        monkeypatch.setattr(folder, "exchange", lambda one, other: False)
    target, before = tmp_path / "made", OLD if replaces.startswith("old") else {}
    seen = []
    for number in range(1, 1000):
        if replaces != "nothing":
            put(target, before)
        growing = PartialFolder(target, "plan", overwrite=True)
        put(growing.folder, NEW)
        growing.record(1)
        killer.left = number
        try:
            with growing:
                growing.complete()
        except Killed:
            ended = False
        else:
            ended, killer.left = True, None
        found = contents(target) if target.exists() else None
        if replaces == "old, without an exchange":
            seen.append(found if found in (before, NEW) else None)
        else:
            assert found in (None if replaces == "nothing" else before, NEW)
            seen.append(found)
        check_target(target, overwrite=True)
        if replaces != "nothing":
            assert contents(target) == (NEW if found is None else found)
        if found == NEW:
            assert beside(target) == {"made"}
        complete(target, overwrite=True)
        assert contents(target) == NEW
        assert beside(target) == {"made"}
        shutil.rmtree(target)
        if ended:
            break
    assert ended
    assert seen[0] == (None if replaces == "nothing" else before)
    assert seen[-1] == seen[-2] == NEW
    if replaces == "old, without an exchange":
        assert seen.count(None) == 1  # where it is not there for a moment, the next run puts the new one there


def test_work_is_kept_until_it_is_in_its_place(tmp_path: Path, killer: Killer) -> None:
    """Killed before the folder is moved, nothing has to be written again."""
    target = tmp_path / "made"
    growing = PartialFolder(target, "plan")
    put(growing.folder, NEW)
    growing.record(1)
    killer.left = 1
    with pytest.raises(Killed), growing:
        growing.complete()
    assert complete(target, overwrite=False) == 1
    assert contents(target) == NEW


@pytest.mark.parametrize("told", ["", "{", '{"plan": "other", "done": 7}', "[]"])
def test_progress_that_cannot_be_read(tmp_path: Path, told: str) -> None:
    """After a power failure, for example: the conversion starts afresh."""
    target = tmp_path / "made"
    with PartialFolder(target, "plan") as growing:
        put(growing.folder, {"left-over": b""})
        growing.record(1)
    (tmp_path / "made.partial" / "progress.json").write_text(told)
    assert complete(target, overwrite=False) == 0
    assert contents(target) == NEW
