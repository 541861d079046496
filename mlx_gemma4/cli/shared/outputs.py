"""Files that a command writes, by one rule.

A target must not exist, or ``--overwrite`` must be given. It is opened before anything is computed, so that a bad path
is reported at once. A command that fails before its first result leaves no empty file behind, and an old file as it
was. A record is written completely or not at all, even on a full disk.
"""

from __future__ import annotations

import argparse
import io
import os
import stat
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from mlx_gemma4.cli.shared.signals import on_exit
from mlx_gemma4.cli.shared.streams import ClosedStream

if TYPE_CHECKING:
    import numpy as np

STDOUT = "-"
LARGEST = 0xFFFFFFFF
"""The size in a WAV header that is too large to count: the sound reaches to the end of the file."""
HEADER = 44
"""Bytes before the samples."""


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files")


class OutputFile:
    """A file that a command writes, until it is closed.

    Args:
        option: The option that named it, for messages.
        overwrite: Replace an existing file. Its content stays until the first byte is written.
        inputs: Files that the command reads, which the target must not be.

    Raises:
        ValueError: The target exists, is a folder or an input, or cannot be written.
    """

    def __init__(
        self, path: str | Path, option: str, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()
    ) -> None:
        self.path = Path(path)
        check_output(self.path, option, overwrite=overwrite, inputs=inputs)
        self._is_new = not self.path.exists()
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | (os.O_EXCL if self._is_new else 0), 0o666)
        except OSError as error:
            raise ValueError(f"{option}: cannot write {self.path}: {error.strerror}") from error
        self.is_regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self.size = 0
        self.begun = False

    def append(self, data: bytes) -> None:
        """Append a record, completely or not at all.

        Raises:
            OSError: It cannot be written, for example because the disk is full.
        """
        self._begin()
        try:
            self._write(data, self.size)
        except OSError as error:
            if self.is_regular:
                os.ftruncate(self._fd, self.size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.size += len(data)

    def patch(self, data: bytes, position: int) -> None:
        """Replace bytes that were written."""
        self._write(data, position)

    def close(self, *, failed: bool) -> None:
        """Keep what was written. After a failure, an empty new file is removed and an old one stays."""
        if self._fd < 0:
            return
        if not failed:
            self._begin()
        elif self._is_new and self.is_regular and not self.begun:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._fd)
        self._fd = -1

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            if self.is_regular:
                os.ftruncate(self._fd, 0)

    def _write(self, data: bytes, position: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, position) if self.is_regular else os.write(self._fd, view)
            view, position = view[done:], position + done


class TextFile(io.TextIOBase):
    """Text in an output file. What is written between two flushes is one record."""

    encoding = "utf-8"

    def __init__(self, file: OutputFile) -> None:
        self._file = file
        self._record: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._record.append(text)
        return len(text)

    def flush(self) -> None:
        record, self._record = "".join(self._record), []
        if record:
            self._file.append(record.encode())


class WavFile:
    """A 16 kHz mono 16-bit WAV that is valid after every block: its header is kept up to date."""

    def __init__(self, file: OutputFile) -> None:
        self._file = file

    def write(self, samples: np.ndarray) -> None:
        """Append float32 [n] at 16 kHz."""
        import numpy as np

        pcm = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2").tobytes()
        if not self._file.begun:
            self._file.append(_header(0 if self._file.is_regular else LARGEST))
        self._file.append(pcm)
        self.finish()

    def finish(self) -> None:
        """Write the sizes into the header."""
        if not self._file.begun:
            self._file.append(_header(0))
        elif self._file.is_regular:
            self._file.patch(_header(self._file.size - HEADER), 0)


def _header(size: int) -> bytes:
    from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE

    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    sizes = min(size + HEADER - 8, LARGEST), min(size, LARGEST)
    return struct.pack("<4sI4s", b"RIFF", sizes[0], b"WAVE") + layout + struct.pack("<4sI", b"data", sizes[1])


@contextmanager
def output_file(
    path: str | Path, option: str, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()
) -> Iterator[OutputFile]:
    """A new file, closed at the end. An empty one stays only if nothing failed."""
    file = OutputFile(path, option, overwrite=overwrite, inputs=inputs)
    with on_exit(lambda: file.close(failed=True)):
        try:
            yield file
        except BaseException:
            file.close(failed=True)
            raise
        file.close(failed=False)


@contextmanager
def text_output(
    path: str | None, option: str = "--output", *, overwrite: bool = False, inputs: Iterable[str | Path] = ()
) -> Iterator[TextIO]:
    """Where results go: a new file, or stdout (None or "-").

    Raises:
        ValueError: See ``OutputFile``; or stdout is closed.
    """
    if path is None or path == STDOUT:
        if isinstance(sys.stdout, ClosedStream):
            raise ValueError(f"Standard output is closed; write to a file with {option} FILE")
        yield sys.stdout
        return
    with output_file(path, option, overwrite=overwrite, inputs=inputs) as file:
        stream = TextFile(file)
        try:
            yield cast(TextIO, stream)
        finally:
            stream.flush()


@contextmanager
def wav_output(
    path: str | None, option: str = "--save-audio", *, overwrite: bool = False, inputs: Iterable[str | Path] = ()
) -> Iterator[Callable[[np.ndarray], None] | None]:
    """A function that appends sound, float32 [n] at 16 kHz, to a WAV file; None without a path.

    Raises:
        ValueError: See ``OutputFile``.
    """
    if path is None:
        yield None
        return
    with output_file(path, option, overwrite=overwrite, inputs=inputs) as file:
        wav = WavFile(file)
        yield wav.write
        wav.finish()


@contextmanager
def output_folder(path: str | Path, option: str) -> Iterator[Path]:
    """A folder for results, created with its parents. Folders that stay empty are removed again.

    Raises:
        ValueError: It is not a folder, or cannot be created or written.
    """
    folder = Path(path)
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option}: cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: cannot write into {folder}: Permission denied")

    def tidy() -> None:
        with suppress(OSError):  # not empty
            for created in missing:
                created.rmdir()

    with on_exit(tidy):
        try:
            yield folder
        finally:
            tidy()


def check_output(path: Path, option: str, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """Raise a ValueError if a file must not or cannot be written.

    A device or a pipe needs no ``overwrite``: nothing in it can be lost.
    """
    if path.is_dir():
        raise ValueError(f"{option} needs a file, but {path} is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent} for {path.name}; create it first")
    for source in inputs:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise ValueError(f"{option} would replace the input {path}; name another file")
    if not overwrite and (path.is_file() or (path.is_symlink() and not path.exists())):
        raise ValueError(f"{option}: {path} exists; name another file, or replace it with --overwrite")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{option}: cannot write {path}: Permission denied")
