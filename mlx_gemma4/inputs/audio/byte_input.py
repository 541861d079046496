"""Bytes of a recording: a file, a named pipe, standard input or a stream, read once and from the beginning.

A reader may look ahead. It gets what has arrived, however little that is, so sound from a pipe is never held up.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO, BinaryIO, Protocol

STDIN = "-"
LOOK_AHEAD = 16 << 20
"""Bytes that may be peeked at, at most: headers, and tags in front of the sound."""
MOST_SPOOLED = 2 << 30
"""Bytes of a pipe that may be copied to a temporary file, at most."""


class _Stream(Protocol):
    def read(self, count: int, /) -> bytes | None: ...


class _Descriptor:
    """An open file. Reads are not buffered: no lock is held while a pipe is silent, and no byte is held back."""

    def __init__(self, number: int, *, owned: bool) -> None:
        self.number = number
        self._owned = owned

    def read(self, count: int, /) -> bytes:
        return os.read(self.number, count)

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self.number)

    def __del__(self) -> None:
        self.close()


class AudioInput:
    """The bytes of a recording, read once from the beginning.

    Args:
        source: A path, of a file or a named pipe; ``"-"`` for standard input; or a binary stream, which stays open.

    Attributes:
        name: Its name in messages.
        left: Bytes that were not read yet; None for pipes and streams.

    Raises:
        ValueError: There is nothing to read there.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        self.left: int | None = None
        self._ahead = b""
        self._stream: _Stream
        self._spooled: IO[bytes] | None = None
        if isinstance(source, str | os.PathLike):
            self.name, self._stream = _open(source)
            found = os.fstat(self._stream.number)
            if stat.S_ISREG(found.st_mode):
                self.left = found.st_size - os.lseek(self._stream.number, 0, os.SEEK_CUR)
        else:
            self.name, self._stream = _name_of(source), _Arriving(source)

    def peek(self, count: int) -> bytes:
        """The next ``count`` bytes, which stay to be read; fewer only at the end."""
        if count > LOOK_AHEAD:
            raise ValueError(f"{self.name} has no sound in its first {LOOK_AHEAD >> 20} MB; its header is damaged")
        while len(self._ahead) < count and (more := self._next(count - len(self._ahead))):
            self._ahead += more
        return self._ahead[:count]

    def read(self, count: int) -> bytes:
        """What has arrived of the next ``count`` bytes, at least one; none at the end."""
        data = self._ahead[:count] or self._next(count)
        self._ahead = self._ahead[len(data) :]
        if self.left is not None:
            self.left -= len(data)
        return data

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        while count > 0 and (data := self.read(min(count, 1 << 16))):
            count -= len(data)

    def whole(self) -> int:
        """A descriptor of all that has not been read, which can be sought in: of the file, or of a copy of the pipe.

        Raises:
            ValueError: The pipe holds more than a temporary file may.
        """
        if isinstance(self._stream, _Descriptor) and self.left is not None:
            os.lseek(self._stream.number, -len(self._ahead), os.SEEK_CUR)
            self._ahead = b""
            return self._stream.number
        self._spooled = self._spooled or self._spool()
        return self._spooled.fileno()

    def close(self) -> None:
        """Close the file; a stream of the caller stays open."""
        if self._spooled is not None:
            self._spooled.close()
        if isinstance(self._stream, _Descriptor):
            self._stream.close()

    def _next(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise ValueError(f"{self.name} cannot be read: {error.strerror or error}") from error
        if data is None:
            raise ValueError(f"{self.name} has no data yet and is in non-blocking mode; open it in blocking mode")
        return data

    def _spool(self) -> IO[bytes]:
        copy = tempfile.TemporaryFile(prefix="mlx_gemma4-")  # noqa: SIM115, closed with the input
        try:
            while data := self.read(1 << 16):
                copy.write(data)
                if copy.tell() > MOST_SPOOLED:
                    raise ValueError(
                        f"{self.name} is in a format that must be read as a whole, but is larger than "
                        f"{MOST_SPOOLED >> 30} GB; save it as a file first"
                    )
            copy.flush()
        except OSError as error:
            copy.close()
            raise ValueError(f"{self.name} cannot be copied to {tempfile.gettempdir()}: {error.strerror}") from error
        except ValueError:
            copy.close()
            raise
        copy.seek(0)
        return copy


def is_pipe(source: str | os.PathLike[str]) -> bool:
    """Whether ``source`` can be read only once: standard input, a named pipe, or ``/dev/fd/N`` from ``<(…)``."""
    if source == STDIN:
        return True
    try:
        return not stat.S_ISREG(os.stat(source).st_mode) and not os.path.isdir(source)
    except OSError:
        return False


class _Arriving:
    """A stream, whose reads return what is there."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = getattr(stream, "read1", stream.read)


def _open(source: str | os.PathLike[str]) -> tuple[str, _Descriptor]:
    if source == STDIN:
        return "standard input", _stdin()
    path = Path(source)
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise ValueError(f"{path} is a folder, not an audio file")
        return str(path), _Descriptor(os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)), owned=True)
    except FileNotFoundError as error:
        raise ValueError(f"There is no audio file {path}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {error.strerror}") from error


def _stdin() -> _Descriptor:
    if sys.stdin is None or sys.stdin.closed:  # number 0 may be another file by now
        raise ValueError("Standard input is closed; pipe a recording into it, or name a file")
    if os.isatty(0):
        raise ValueError("Standard input is a terminal; pipe a recording into it, or name a file")
    return _Descriptor(0, owned=False)


def _name_of(stream: BinaryIO) -> str:
    name = getattr(stream, "name", None)
    if isinstance(name, str) and name != "<stdin>":
        return name
    return "standard input" if name in (0, "<stdin>") else "the stream"
