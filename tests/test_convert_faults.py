"""What goes wrong in a conversion: a line, exit code 2, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import Refused, beside, interrupted, put
from demo_sizes import DEMO, PARAMETERS, four_bits, megabytes
from hub_server import contents
from make_random_checkpoint import RELEASED

from mlx_gemma4.cli import main
from mlx_gemma4.convert import convert, folder, run, tensors, write
from mlx_gemma4.convert.tensor_file import read_entries

SMALL = sum(path.stat().st_size for path in DEMO.iterdir() if path.name not in ("config.json", "model.safetensors"))
"""Bytes of the files that are copied."""


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
        (folder, "sync"),
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
