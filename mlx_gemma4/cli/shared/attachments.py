"""Files that are attached to a message of a chat: their names as typed, pasted or dropped on a terminal."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mlx_gemma4.inputs.messages import kind_of

if TYPE_CHECKING:
    import numpy as np

    from mlx_gemma4.inputs.processor import Processor

_BEGINNINGS = ("/", "~", "./", "../", "file://", "'", '"')
"""Characters of a line that may begin with the name of a file."""
_SPACES = 64
"""Unescaped spaces in the name of a file, at most."""


def files(text: str) -> list[str]:
    r"""The files that are named: bare, in quotes, with ``\ `` for spaces, with ``~``, or as ``file://`` addresses.

    Raises:
        ValueError: There is no such file.
    """
    text = text.strip()
    if whole := _file(text):
        return [whole]
    try:
        words = shlex.split(text)
    except ValueError:  # an apostrophe that is part of a name
        words = text.split()
    paths = [_file(word) for word in words]
    for word, path in zip(words, paths, strict=True):
        if path is None:
            raise ValueError(f"There is no file at {text if len(words) == 1 else word!r}")
    if not paths:
        raise ValueError("Type the name of a file after the command")
    return [path for path in paths if path is not None]


def leading_file(line: str) -> tuple[str, str] | None:
    """The file whose name a line begins with, and the rest of the line; None if there is none."""
    if line.startswith(_BEGINNINGS):
        for name, rest in _leading_names(line):
            if (path := _file(name)) is not None and kind_of(path) is not None:
                return path, rest.strip()
    return None


def _leading_names(line: str) -> Iterator[tuple[str, str]]:
    """A word as a shell reads it; then the line up to its first space, its second, and so on."""
    stream = io.StringIO(line)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    with suppress(ValueError):  # of an apostrophe that is part of a name
        yield lexer.get_token() or "", stream.read()
    words = line.split(" ")
    for count in range(1, min(len(words), _SPACES) + 1):
        yield " ".join(words[:count]), " ".join(words[count:])


def _file(name: str) -> str | None:
    if name.startswith("file://"):
        name = unquote(urlsplit(name).path)
    try:
        path = os.path.expanduser(name)
        return path if name and Path(path).is_file() else None
    except (OSError, ValueError):  # too long, or with a NUL
        return None


def attachment(processor: Processor, kind: str, path: str) -> dict[str, Any]:
    """Read a file and check that it fits into a prompt.

    Raises:
        ValueError: It does not fit, or cannot be read.
    """
    part = {"type": kind, kind: _prepared(processor, kind, path)}
    processor.prompt([{"role": "user", "content": [part, {"type": "text", "text": "?"}]}])
    return part | ({kind: _loaded(path)} if kind == "audio" else {})


def _prepared(processor: Processor, kind: str, path: str) -> Any:
    """Pictures as the model takes them; sound is checked as a file first, whose length is known."""
    if kind == "audio":
        return path
    return processor.patches(path) if kind == "image" else processor.film(path)


def _loaded(path: str) -> np.ndarray:
    """Read now: the recording may be moved or changed later."""
    from mlx_gemma4.inputs.audio.recording import load_audio

    return load_audio(path)
