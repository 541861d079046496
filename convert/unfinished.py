"""A folder that appears complete or not at all, and whose making can be gone on with after it was cut off.

It grows beside its place in ``NAME.partial``, with a file that says how far it is, and is moved when it is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

from mlx_gemma4.json_file import read_json

_PROGRESS = "progress.json"


class Unfinished:
    """The growing folder of ``target``, locked against a second writer.

    Args:
        plan: What is being written, as a text that is the same when, and only when, the result is.

    Raises:
        ValueError: The target exists and may not be replaced, or another process is writing it.
    """

    def __init__(self, target: Path, plan: str, *, overwrite: bool = False) -> None:
        self.target = target
        self._plan = plan
        self._replaced = target.with_name(f"{target.name}.replaced")
        self._root = partial_of(target)
        self.folder = self._root / "checkpoint"
        self._mend()
        check_target(target, overwrite)
        self._root.mkdir(parents=True, exist_ok=True)
        self._lock = (self._root / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(f"Expected to be alone in writing {target}, another conversion is at it") from error
        self.done = self._steps_done()
        self.folder.mkdir(exist_ok=True)

    def _mend(self) -> None:
        """A run may have been cut off while it put the old folder away, or when it had only to tidy up."""
        if self._replaced.is_dir() and not self.target.exists():
            self._replaced.rename(self.target)
        shutil.rmtree(self._replaced, ignore_errors=True)
        if self.target.exists() and self._root.is_dir() and not self.folder.exists():
            shutil.rmtree(self._root)

    def _steps_done(self) -> int:
        """How many steps an earlier run of the same plan has finished; what another plan has left is removed."""
        path = self._root / _PROGRESS
        told = read_json(path) if path.is_file() else {}
        if told.get("plan") == self._plan:
            return int(told["done"])
        shutil.rmtree(self.folder, ignore_errors=True)
        path.unlink(missing_ok=True)
        return 0

    def record(self, done: int) -> None:
        """Note that so many steps are finished, and on the disk."""
        path = self._root / f"{_PROGRESS}.new"
        path.write_text(json.dumps({"plan": self._plan, "done": done}), encoding="utf-8")
        path.replace(self._root / _PROGRESS)

    def complete(self) -> None:
        """Put the folder in its place."""
        for path in self.folder.iterdir():
            _sync(path)
        if self.target.exists():
            self.target.rename(self._replaced)
        self.folder.rename(self.target)
        _sync(self.target.parent)
        self.discard()
        shutil.rmtree(self._replaced, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was written and is not in its place."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._lock.close()


def partial_of(target: Path) -> Path:
    """Where a folder grows."""
    return target.with_name(f"{target.name}.partial")


def check_target(target: Path, overwrite: bool) -> None:
    """Raise a ValueError if a folder may not be put there."""
    if not target.exists():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    if not overwrite:
        raise ValueError(f"Expected a folder to make, {target} exists already; --overwrite replaces it")
    if not (target.is_dir() and (target / "config.json").is_file()):
        raise ValueError(f"Expected a checkpoint to replace at {target}, got something else: remove it yourself")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
