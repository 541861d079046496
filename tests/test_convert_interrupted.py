"""Conversions that are killed or interrupted at any moment: nothing is left, or all of it, or a run that resumes."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conversions import SHARD_BYTES, Refused, beside, finished, interrupted, put, start, wait_for
from demo_sizes import DEMO, FOUR_BITS
from hub_server import contents
from make_random_checkpoint import RELEASED, make, tensor_shapes

from mlx_gemma4.cli import main
from mlx_gemma4.convert import convert, folder, write
from mlx_gemma4.convert.folder import PartialFolder, check_target
from mlx_gemma4.convert.plan import Plan
from mlx_gemma4.convert.tensor_file import read_entries

KILLS, REPLACING_KILLS = 10, 4


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


DOWN = "language_model.model.layers.1.mlp.down_proj"


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Convert, which must fail; return its message."""

    def run(*arguments: str | Path) -> str:
        assert main(["convert", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mlx_gemma4: error: ") and err.count("\n") == 1 and err.endswith("\n")
        return err.removeprefix("mlx_gemma4: error: ").removesuffix("\n")

    return run


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tensors that are computed, each of which is recorded when it is done."""
    names: list[str] = []
    compute = write._compute_block

    def counted(step: Any, rows: Any) -> Any:
        names.append(step.tensor.name)
        return compute(step, rows)

    monkeypatch.setattr(write, "_compute_block", counted)
    monkeypatch.setattr(write, "_RECORD_BYTES", 0)
    return names


def test_nothing_is_computed_twice(
    source: Path,
    target: Path,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run that goes on says so, and computes what is missing; the bytes are those of a single run."""
    command = ["--hf-path", str(source), "--mlx-path", str(target), "-q"]
    convert(source, target.with_name("whole"), recipe="4bit")
    every = list(computed)
    interrupted(monkeypatch, 30, *command)
    assert beside(target) == {"whole", "made.partial"}
    assert capsys.readouterr() == (
        "",
        f"Interrupted: run the same command to resume, or delete {target}.partial\n",
    )
    computed.clear()
    assert main(["convert", *command]) == 0
    assert computed == every[30:]
    assert len(set(every)) == len(every) == len(read_entries(source / "model.safetensors"))
    out, err = capsys.readouterr()
    assert out == f"{target}: 4bit, {FOUR_BITS}\n"
    assert err == f"Resuming an interrupted run: 30 of {len(every)} tensors are written\n"
    assert contents(target) == contents(target.with_name("whole"))
    assert beside(target) == {"whole", "made"}


def touched(source: Path) -> list[str]:
    os.utime(source / "model.safetensors", ns=(1, 1))
    return ["-q"]


def longer(source: Path) -> list[str]:
    path = source / "model.safetensors"
    stat = path.stat()
    with path.open("ab") as file:
        file.write(b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return ["-q"]


@pytest.mark.parametrize(
    "change",
    [
        lambda source: ["--recipe", "8bit"],
        lambda source: ["--q-bits", "4", "--q-group-size", "32"],
        lambda source: ["-q", "--q-module", f"{DOWN}=8"],
        lambda source: ["-q", "--dtype", "float32"],
        touched,
        longer,
    ],
    ids=["recipe", "group size", "module", "dtype", "time", "length"],
)
def test_something_else_starts_afresh(
    source: Path,
    target: Path,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], list[str]],
) -> None:
    """Another recipe, or a source that is another: nothing of what lies there is used."""
    command = ["--hf-path", str(source), "--mlx-path", str(target)]
    interrupted(monkeypatch, 30, *command, "-q")
    command += change(source)
    capsys.readouterr()
    computed.clear()
    assert main(["convert", *command]) == 0
    assert "Going on" not in capsys.readouterr().err
    assert len(computed) == len(read_entries(source / "model.safetensors"))
    assert main(["convert", *command[:3], str(target.with_name("whole")), *command[4:]]) == 0
    assert contents(target) == contents(target.with_name("whole"))


@pytest.mark.usefixtures("shards")
def test_interrupted_for_real(large: Path, undisturbed: tuple[dict[str, bytes], float], target: Path) -> None:
    """Ctrl-C in a terminal: a line on how to go on, exit code 130, and the same command finishes."""
    command = ("--hf-path", large, "--mlx-path", target, "-q")
    process = start(*command)
    wait_for(target.with_name("made.partial") / "progress.json", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err == f"Interrupted: run the same command to resume, or delete {target}.partial\n"
    assert beside(target) == {"made.partial"}
    assert finished(large, target) > 0
    assert contents(target) == undisturbed[0]


def test_two_at_once(large: Path, undisturbed: tuple[dict[str, bytes], float], target: Path, refused: Refused) -> None:
    """The second is refused, and the first one is not disturbed."""
    command = ("--hf-path", large, "--mlx-path", target, "-q")
    process = start(*command)
    wait_for(target.with_name("made.partial") / "progress.json", process)
    process.send_signal(signal.SIGSTOP)
    for overwrite in ([], ["--overwrite"]):
        message = refused(*command, *overwrite)
        assert message == f"Another conversion is writing {target}; wait for it or name another folder"
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert contents(target) == undisturbed[0]
    assert beside(target) == {"made"}


def test_disk_without_locks(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network disks have no file locks: the conversion runs, and the user is told what not to do."""

    def flock(lock: object, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(folder.fcntl, "flock", flock)
    said: list[str] = []
    assert convert("demo", target, recipe="4bit", note=said.append).recipe == "4bit"
    assert f"The disk of {target} has no file locks: do not start a second conversion to the same folder" in said


def test_locks_end_with_the_call(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook, which keeps the last error and all it refers to, the call can be made again."""
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_index", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt) as kept:
            convert("demo", target, recipe="4bit", note=lambda _: None)
    said: list[str] = []
    assert convert("demo", target, recipe="4bit", note=said.append).recipe == "4bit"
    assert len(said) == 1 and said[0].startswith("Resuming an interrupted run")
    assert kept.type is KeyboardInterrupt


def test_in_another_thread(tmp_path: Path) -> None:
    """Conversions one after another, in threads of their own."""
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            convert("demo", tmp_path / name, recipe="4bit")
        except BaseException as error:
            failures.append(error)

    work("here")
    for name in ("there", "elsewhere"):
        thread = threading.Thread(target=work, args=(name,))
        thread.start()
        thread.join()
    assert failures == []
    assert contents(tmp_path / "here") == contents(tmp_path / "there") == contents(tmp_path / "elsewhere")
