"""Conversions that are cut off, go wrong or may not be: what is left, and what the next run makes of it."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_sizes import DEMO, FOUR_BITS, PARAMETERS, four_bits, megabytes
from hub_server import contents
from make_random_checkpoint import RELEASED, make, tensor_shapes

from mlx_gemma4.cli import main
from mlx_gemma4.convert import convert, folder, run, tensors, write
from mlx_gemma4.convert.folder import PartialFolder, check_target
from mlx_gemma4.convert.plan import Plan
from mlx_gemma4.convert.tensor_file import read_entries

SMALL = sum(path.stat().st_size for path in DEMO.iterdir() if path.name not in ("config.json", "model.safetensors"))
"""Bytes of the files that are copied."""
DOWN = "language_model.model.layers.1.mlp.down_proj"
KILLS, REPLACING_KILLS = 20, 6
SHARD_BYTES = 3 << 20
DRIVER = f"""
import signal, sys
from mlx_gemma4.cli import main
from mlx_gemma4.convert import tensors, write
from mlx_gemma4.convert.plan import Plan

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without
tensors.BLOCK_BYTES, write._RECORD_BYTES, Plan.shards.__defaults__ = 1 << 16, 1 << 18, ({SHARD_BYTES},)
sys.exit(main(["convert", *sys.argv[1:]]))
"""
"""A conversion in many small pieces and files."""

Refused = Callable[..., str]


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
def source(tmp_path: Path) -> Path:
    """A copy of the demo that may be broken."""
    return Path(shutil.copytree(DEMO, tmp_path / "source"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A place that does not exist, in a folder that holds nothing else."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "made"


def beside(target: Path) -> set[str]:
    """All that lies where the target is to be."""
    return {path.name for path in target.parent.iterdir()}


# killed at any moment


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of 40 MB, converted in small pieces."""
    config = json.loads((RELEASED / "config.json").read_text())
    config["text_config"] |= {"hidden_size": 320, "intermediate_size": 1280, "vocab_size": 8192}
    folder = tmp_path_factory.mktemp("large") / "source"
    make(folder, config, shard_bytes=10_000_000)
    return folder


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> float:
    """When the path was there, or the process had ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.001)
    return time.monotonic()


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


def finished(source: Path, target: Path, *, overwrite: bool = False) -> int:
    """A conversion that is not killed; how many tensors an earlier one had left to it."""
    said: list[str] = []
    convert(source, target, overwrite=overwrite, note=said.append)
    return int(said[0].partition("run: ")[2].partition(" of ")[0]) if said else 0


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


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


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


# gone on with


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


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, *arguments: str | Path) -> None:
    """Convert up to that many tensors, and press Ctrl-C."""
    compute, count = write._compute_block, iter(range(after))

    def pressed(step: Any, rows: Any) -> Any:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return compute(step, rows)

    with monkeypatch.context() as patch:
        patch.setattr(write, "_compute_block", pressed)
        assert main(["convert", *map(str, arguments)]) == 130


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


# what goes wrong: a line, exit code 2, and nothing left


def test_truncated_source(source: Path, target: Path, refused: Refused) -> None:
    """The file is named, with its length."""
    path = source / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert refused("--hf-path", source, "--mlx-path", target, "-q") == (
        f"Expected {len(whole)} bytes in {path}, got {len(whole) - 1}: the file is cut short; download it again"
    )
    assert beside(target) == set()


def test_source_that_is_cut_meanwhile(
    source: Path, target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that another program shortens while it is read."""
    path = source / "model.safetensors"
    last = read_entries(path)[-1]
    write_checkpoint = run.write_checkpoint

    def cut(*arguments: Any) -> None:
        os.truncate(path, path.stat().st_size - 1)
        write_checkpoint(*arguments)

    monkeypatch.setattr(run, "write_checkpoint", cut)
    assert refused("--hf-path", source, "--mlx-path", target, "-q") == (
        f"{last.name} in {path} ends before its {last.nbytes} bytes: the file was cut meanwhile"
    )
    assert beside(target) == set()


@pytest.mark.parametrize("value", [np.uint16(0x7FC0), np.uint16(0xFF80)], ids=["NaN", "-inf"])
def test_damaged_source(source: Path, target: Path, refused: Refused, value: np.uint16) -> None:
    """NaN and infinity are named, with tensor and row."""
    path = source / "model.safetensors"
    entry = next(entry for entry in read_entries(path) if entry.name.endswith("layers.1.mlp.down_proj.weight"))
    with path.open("r+b") as file:
        file.seek(entry.start + 17 * entry.row_bytes + 6)
        file.write(value.tobytes())
    assert refused("--hf-path", source, "--mlx-path", target, "-q") == (
        f"There is NaN or infinity in {entry.name}, row 17, of {path}; the source is damaged: download it again"
    )
    assert beside(target) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q-mode", "fp4"], "Expected a quantization mode of affine, mxfp4, mxfp8, nvfp4, got 'fp4'"),
        (["--q-bits", "7"], "Expected bits of 2, 3, 4, 5, 6, 8 for mode affine, got 7"),
        (["--q-group-size", "48"], "Expected group size of 32, 64, 128 for mode affine, got 48"),
        (["--q-mode", "mxfp4", "--q-bits", "8"], "Expected bits of 4 for mode mxfp4, got 8"),
        (
            ["--recipe", "5bit"],
            "Expected a recipe of 4bit, mixed, 8bit, bf16, mxfp4, mxfp8, nvfp4, qat, got '5bit'; "
            "--list-recipes describes them",
        ),
        (["--q-module", "*.v_proj"], "Expected PATTERN=FORMAT ('*.v_proj=8'), got '*.v_proj'"),
        (["-d"], f"There is nothing to dequantize: {DEMO} is not quantized; leave out -d"),
        (["--recipe", "qat"], f"Recipe qat needs weights on the Q4_0 grid, but those of {DEMO} are not on it; "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_there_is_not(target: Path, refused: Refused, arguments: list[str], message: str) -> None:
    """Modes, bits, groups and recipes that there are not: the message says which there are."""
    assert refused("--hf-path", "demo", "--mlx-path", target, *arguments).startswith(message)
    assert beside(target) == set()


def test_groups_that_do_not_divide(target: Path, refused: Refused) -> None:
    """The module is named, with what it would take."""
    module = "language_model.model.layers.0.mlp.gate_proj"
    assert refused("--hf-path", RELEASED, "--mlx-path", target, "--q-group-size", "128") == (
        f"Expected a group size that divides the 64 inputs of {module}, got 128; 32, 64 would (--q-group-size); "
        f"--q-module '{module}=none' leaves it as it is"
    )
    assert beside(target) == set()


@pytest.mark.parametrize("place", ["", "inside", "deep/inside"])
def test_source_as_target(source: Path, refused: Refused, place: str) -> None:
    """A source is neither replaced nor written into."""
    before = contents(source)
    target = source / place
    message = f"The target overlaps the source: {target} for {source}; name another --mlx-path"
    assert refused("--hf-path", source, "--mlx-path", target, "-q", "--overwrite") == message
    assert contents(source) == before
    assert beside(source) == {"source"}


def test_source_in_the_target(source: Path, refused: Refused) -> None:
    """A folder that holds the source is not replaced, even if it is a checkpoint."""
    outer = source.parent / "outer"
    shutil.copytree(source, outer)
    source = source.rename(outer / "source")
    message = f"The target overlaps the source: {outer} for {source}; name another --mlx-path"
    assert refused("--hf-path", source, "--mlx-path", outer, "-q", "--overwrite") == message
    assert contents(source) == contents(DEMO)


def test_target_that_is_there(target: Path, refused: Refused) -> None:
    """Nothing is replaced without --overwrite."""
    convert("demo", target, recipe="8bit")
    before = contents(target)
    message = f"{target} exists already; pass --overwrite to replace it"
    assert refused("--hf-path", "demo", "--mlx-path", target, "-q") == message
    assert contents(target) == before
    assert main(["convert", "--hf-path", "demo", "--mlx-path", str(target), "-q", "--overwrite"]) == 0
    assert json.loads((target / "conversion.json").read_text())["recipe"] == "4bit"
    assert beside(target) == {"made"}


@pytest.mark.parametrize(
    "files",
    [{"notes.txt"}, {"config.json", "main.py"}, {"a.safetensors"}, None],
    ids=lambda files: "nothing" if files is None else "+".join(sorted(files)),
)
def test_target_that_is_something_else(target: Path, refused: Refused, files: set[str] | None) -> None:
    """--overwrite replaces checkpoints only."""
    if files is None:
        target.write_text("a file")
    else:
        put(target, dict.fromkeys(files, b"mine"))
    message = f"{target} is not a checkpoint, so --overwrite does not replace it; remove it yourself"
    assert refused("--hf-path", "demo", "--mlx-path", target, "-q", "--overwrite") == message
    assert target.is_file() or contents(target).keys() == files
    assert beside(target) == {"made"}


def test_empty_target(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder is as good as none."""
    target.mkdir()
    assert main(["convert", "--hf-path", "demo", "--mlx-path", str(target), "-q"]) == 0
    assert (target / "conversion.json").is_file()
    assert beside(target) == {"made"}


def test_target_in_folders_that_are_not_there(target: Path) -> None:
    """They are made."""
    deep = target / "a" / "b"
    assert main(["convert", "--hf-path", "demo", "--mlx-path", str(deep), "-q"]) == 0
    assert (deep / "conversion.json").is_file()
    assert beside(deep) == {"b"}


def test_target_through_a_link(target: Path) -> None:
    """A link to a folder stays one: what is made, or replaced, is where it leads."""
    real = target.with_name("real")
    target.symlink_to(real)
    for recipe in ("4bit", "8bit"):
        command = ["convert", "--hf-path", "demo", "--mlx-path", str(target), "--recipe", recipe, "--overwrite"]
        assert main(command) == 0
        assert target.readlink() == real
        assert json.loads((real / "conversion.json").read_text())["recipe"] == recipe
    assert beside(target) == {"made", "real"}


@pytest.mark.parametrize("name", [".", "..", ""])
def test_target_where_one_is(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The current folder is not put away under one's feet."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    message = f"Cannot replace {name or '.'}, the current folder; name another --mlx-path"
    assert refused("--hf-path", "demo", "--mlx-path", name, "-q") == message


def test_target_below_a_file(target: Path, refused: Refused) -> None:
    """Where no folder can be, the message says what is in the way."""
    target.write_text("a file")
    assert refused("--hf-path", "demo", "--mlx-path", target / "a" / "b", "-q") == (
        f"Cannot write {target / 'a' / 'b'}: {target} is not a folder that can be written to; name another --mlx-path"
    )
    assert target.read_text() == "a file"


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, with the options that the test asks for."""
    if shutil.which("mount") is None or not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted: {mounted.stderr.decode()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("disk", ["ro"], indirect=True)
def test_disk_that_cannot_be_written(disk: Path, refused: Refused) -> None:
    """Found out before anything is downloaded or computed."""
    message = f"Cannot write {disk / 'made'}: {disk} is not a folder that can be written to; name another --mlx-path"
    assert refused("--hf-path", "demo", "--mlx-path", disk / "made", "-q") == message


def test_folder_that_cannot_be_written(target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """As others than root find it."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != target.parent)
    message = f"Cannot write {target}: {target.parent} is not a folder that can be written to; name another --mlx-path"
    assert refused("--hf-path", "demo", "--mlx-path", target, "-q") == message
    assert beside(target) == set()


@pytest.mark.parametrize("disk", ["size=2m"], indirect=True)
def test_small_disk(disk: Path, refused: Refused) -> None:
    """What does not fit is not begun."""
    assert refused("--hf-path", "demo", "--mlx-path", disk / "made", "-q") == (
        f"{disk / 'made'} needs {megabytes(four_bits() + SMALL)} of free disk, {disk} has 2.10 MB; free some, "
        "or name another disk with --mlx-path"
    )
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("disk", ["size=2m"], indirect=True)
def test_disk_that_fills_up(disk: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program takes the room that there was."""
    monkeypatch.setattr(run, "check_disk", lambda *_, **__: None)
    assert refused("--hf-path", "demo", "--mlx-path", disk / "made", "-q") == (
        f"Writing {disk / 'made'} failed, and what was written is removed: [Errno 28] No space left on device"
    )
    assert list(disk.iterdir()) == []


def test_no_room(target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how much is needed, and where how much is free."""
    usage = shutil.disk_usage(target.parent)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert refused("--hf-path", "demo", "--mlx-path", target / "deep", "--recipe", "bf16") == (
        f"{target / 'deep'} needs {megabytes(2 * PARAMETERS + SMALL)} of free disk, {target} has 3.00 MB; free "
        "some, or name another disk with --mlx-path"
    )
    assert not (target / "deep.partial").exists()
    assert not (target / "deep").exists()


def test_no_room_to_go_on(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written already needs no more room, and is kept where the rest has none."""
    command = ["--hf-path", source, "--mlx-path", target, "-q"]
    monkeypatch.setattr(write, "_RECORD_BYTES", 0)
    interrupted(monkeypatch, 30, *command)
    capsys.readouterr()
    usage, free = shutil.disk_usage(target.parent), 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    assert main(["convert", *map(str, command)]) == 2
    going_on, error = capsys.readouterr().err.splitlines()
    assert going_on.startswith("Resuming an interrupted run")
    needed = re.match(r"mlx_gemma4: error: \S+ needs (\d+\.\d\d) MB of free disk, ", error)
    assert needed is not None
    assert beside(target) == {"made.partial"}
    free = round(float(needed[1]) * 1e6) + 5000
    assert free < 0.9 * four_bits()
    assert main(["convert", *map(str, command)]) == 0


@pytest.mark.parametrize("before", [0, 1, 40])
def test_full_disk(target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """Where the disk fills up at once, or later, nothing of it is left."""
    pwrite, count = os.pwrite, iter(range(before))

    def full(*arguments: Any) -> int:
        if next(count, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    assert refused("--hf-path", "demo", "--mlx-path", target, "-q") == (
        f"Writing {target} failed, and what was written is removed: [Errno 28] No space left on device"
    )
    assert beside(target) == set()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (write, "write_index"),
        (write, "copy_files"),
        (run, "write_card"),
        (folder, "_sync"),
        (folder, "exchange"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_disk_that_is_full_at_the_end(
    target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """In whatever step: what is there to be replaced stays, and nothing else."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    convert("demo", target, recipe="8bit")
    before = contents(target)
    monkeypatch.setattr(module, name, full)
    assert refused("--hf-path", "demo", "--mlx-path", target, "-q", "--overwrite") == (
        f"Writing {target} failed, and what was written is removed: [Errno 28] No space left on device"
    )
    assert contents(target) == before
    assert beside(target) == {"made"}


def test_loss_that_cannot_be_measured(source: Path, target: Path, refused: Refused) -> None:
    """The conversion itself is kept, and needs no more computing."""
    (source / "tokenizer.json").unlink()
    message = refused("--hf-path", source, "--mlx-path", target, "-q", "--verify")
    assert message.startswith(
        f"What was lost cannot be measured: There is no tokenizer.json or tokenizer.model in {source}"
    )
    assert message.endswith(
        f". The weights are written: run the same command without --verify to finish, or delete {target}.partial"
    )
    assert beside(target) == {"made.partial"}
    assert main(["convert", "--hf-path", str(source), "--mlx-path", str(target), "-q"]) == 0
    assert beside(target) == {"made"}


def test_small_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a tensor is cut into rows, the bytes are the same."""
    convert("demo", tmp_path / "whole", recipe="4bit")
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 5000)
    convert("demo", tmp_path / "rows", recipe="4bit")
    assert contents(tmp_path / "rows") == contents(tmp_path / "whole")
