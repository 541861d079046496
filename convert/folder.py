"""A folder that appears complete or not at all, and whose writing can be resumed.

NAME.partial/              beside the target, on its disk
  lock                     held by the process that writes; another one is refused
  progress.json            the plan, and how many of its steps are on the disk
  checkpoint/              grows, step by step
  replaced/                the old folder, for a moment, where the file system cannot exchange two

interrupted     NAME.partial stays; the same plan resumes, another plan starts again
failed          NAME.partial is removed, unless a resumed run or a failed --verify can still use it
complete        checkpoint/ becomes NAME in one rename or exchange, then NAME.partial is removed
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from mlx_gemma4.checkpoint.json_file import read_json
from mlx_gemma4.checkpoint.replace import sync

_CHECKPOINT, _PROGRESS, _LOCK, _REPLACED = "checkpoint", "progress.json", "lock", "replaced"
"""What lies in ``NAME.partial``."""
_NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
"""What network disks answer that have no locks."""


class PartialFolder:
    """The folder that becomes ``target``, locked against a second writer while the block runs.

    Args:
        plan: Identifies what is written (``write.fingerprint``).

    Attributes:
        is_locked: False on a disk without file locks, as on some network disks.

    Raises:
        ValueError: The target exists and may not be replaced, cannot be written, or another process is writing it.
    """

    def __init__(self, target: Path, plan: str, *, overwrite: bool = False) -> None:
        self.target = target
        self._plan = plan
        check_target(target, overwrite)
        self._place = target.resolve()
        self._root = partial_of(target)
        self.folder = self._root / _CHECKPOINT
        self._lock, self.is_locked = _locked(self._root, target)
        try:
            _check_free(target, overwrite)  # another process may have put it there since
        except ValueError:
            self.discard()
            raise
        self.done = self._steps_done()
        self.folder.mkdir(exist_ok=True)

    def __enter__(self) -> PartialFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _steps_done(self) -> int:
        """How many steps an interrupted run of the same plan has finished. Leftovers of another plan are removed."""
        path = self._root / _PROGRESS
        progress = {}
        with suppress(FileNotFoundError, ValueError):  # none, or not whole after a power failure
            progress = read_json(path)
        if progress.get("plan") == self._plan:
            return int(progress["done"])
        shutil.rmtree(self.folder, ignore_errors=True)
        path.unlink(missing_ok=True)
        return 0

    def record(self, done: int) -> None:
        """Record that so many steps are on the disk."""
        path = self._root / f"{_PROGRESS}.new"
        path.write_text(json.dumps({"plan": self._plan, "done": done}), encoding="utf-8")
        path.replace(self._root / _PROGRESS)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block that leaves nothing behind if it fails.

        Raises:
            ValueError: For an OSError, too: the disk is full, for example.
        """
        try:
            yield
        except OSError as error:
            self.discard()
            raise ValueError(f"Writing {self.target} failed, and what was written is removed: {error}") from error
        except ValueError:
            self.discard()
            raise

    def complete(self) -> None:
        """Move the complete folder to the target."""
        for path in (*self.folder.iterdir(), self.folder):
            sync(path)
        if self._place.exists():
            # from here on, checkpoint/ may be the old folder, which must not be resumed
            (self._root / _PROGRESS).unlink(missing_ok=True)
            if not exchange(self.folder, self._place):
                self._place.rename(self._root / _REPLACED)
                self.folder.rename(self._place)
        else:
            self.folder.rename(self._place)
        with suppress(OSError):  # it is in its place, whatever happens
            sync(self._place.parent)
        self.discard()

    def discard(self) -> None:
        """Remove everything that is not at the target."""
        _remove(self._root)
        self._lock.close()


def partial_of(target: Path) -> Path:
    """``NAME.partial``: on the disk of the target, links resolved."""
    place = target.resolve()
    return place.with_name(f"{place.name}.partial")


def check_target(target: Path, overwrite: bool) -> None:
    """Raise a ValueError if nothing may be written there. Finishes first what an interrupted run had begun to move."""
    place = target.resolve()
    if Path.cwd().is_relative_to(place):
        raise ValueError(f"Cannot replace {target}, the current folder; name another --mlx-path")
    ground = next(folder for folder in place.parents if folder.exists())
    if not (ground.is_dir() and os.access(ground, os.W_OK | os.X_OK)):
        raise ValueError(
            f"Cannot write {target}: {ground} is not a folder that can be written to; name another --mlx-path"
        )
    _mend(target)
    _check_free(target, overwrite)


def _check_free(target: Path, overwrite: bool) -> None:
    place = target.resolve()
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not overwrite:
        raise ValueError(f"{target} exists already; pass --overwrite to replace it")
    if not ((place / "config.json").is_file() and any(place.glob("*.safetensors"))):
        raise ValueError(f"{target} is not a checkpoint, so --overwrite does not replace it; remove it yourself")


def _mend(target: Path) -> None:
    """Repair what a run left that was interrupted while it moved folders, or before there was anything to resume."""
    root, place = partial_of(target), target.resolve()
    if not root.is_dir():
        return
    with _locked(root, target)[0]:
        if (root / _REPLACED).exists() and not place.exists():
            (root / _CHECKPOINT).rename(place)
        if not ((root / _PROGRESS).is_file() and (root / _CHECKPOINT).is_dir()):
            _remove(root)


def _locked(root: Path, target: Path) -> tuple[TextIO, bool]:
    """The lock of a growing folder, held until it is closed; and whether the disk has locks."""
    path = root / _LOCK
    while True:
        root.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ValueError(f"Another conversion is writing {target}; wait for it or name another folder") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return lock, False
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock, True
        lock.close()  # its owner has ended, and removed it, since it was opened


def _remove(root: Path) -> None:
    """Remove a partial folder, its lock last: until then, no other process can begin."""
    for name in (_CHECKPOINT, _REPLACED):
        shutil.rmtree(root / name, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


_SWAP = 2  # RENAME_SWAP on macOS, RENAME_EXCHANGE on Linux
_HERE = -100  # AT_FDCWD on Linux


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step. False if the file system cannot, as exFAT and most network disks."""
    libc = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        return bool(libc.renamex_np(*names, _SWAP) == 0)
    if not hasattr(libc, "renameat2"):  # an older C library
        return False
    return bool(libc.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0)
