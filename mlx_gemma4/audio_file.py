"""Sound files, by libsndfile; and what it lets pass in silence: files cut short, and lengths that promise nothing."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

UNKNOWN_SIZE = 0x7FFF_0000
"""A WAV that says it has this many bytes of sound or more, or 0, was written to a pipe: its size promises nothing.

sox leaves 0x7FFFF000, arecord 0x7FFFFF00, ffmpeg 0xFFFFFFFF.
"""
MP3_FRAME = 1441
"""Bytes of an MP3's frame, at most. A last one that is all padding may stay unread."""
CONVERT = "Convert it first, for example: ffmpeg -i INPUT out.wav"


class Container(NamedTuple):
    """A file made of chunks, each a name, a length and that many bytes."""

    begin: int
    """Where the first chunk is."""
    heading: struct.Struct
    """How name and length are written."""
    align: int
    """Every chunk is padded to a multiple of this many bytes."""
    sound: bytes
    """The name of the chunk that holds the samples."""


CONTAINERS = {
    (b"RIFF", b"WAVE"): Container(12, struct.Struct("<4sI"), 2, b"data"),
    (b"FORM", b"AIFF"): Container(12, struct.Struct(">4sI"), 2, b"SSND"),
    (b"FORM", b"AIFC"): Container(12, struct.Struct(">4sI"), 2, b"SSND"),
    (b"caff", b"desc"): Container(8, struct.Struct(">4sq"), 1, b"data"),
}
"""By bytes 0 to 3 and 8 to 11 of the file."""


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """All samples [n, channels] float32 of a file, and their rate in Hz.

    Raises:
        ValueError: The file is empty, cut short, or nothing that libsndfile reads.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"Expected sound in {path}, the file is empty")
    with path.open("rb", buffering=0) as raw:
        container = CONTAINERS.get((raw.read(4), raw.read(8)[4:]))
        if container is not None:
            begin, length, held = _find_sound(raw, container, path)
            if held < length < UNKNOWN_SIZE:
                raise ValueError(
                    f"Expected {length} bytes of sound in {path}, found {held}: the file is cut short; "
                    "record or fetch it again"
                )
            if length == 0 < held:  # its writer never came to fill it in, and libsndfile would read nothing
                raw.seek(0)
                whole = bytearray(raw.read())
                container.heading.pack_into(whole, begin - container.heading.size, container.sound, held)
                return _decode(io.BytesIO(whole), path)
        raw.seek(0)
        return _decode(raw, path)


def _find_sound(raw: BinaryIO, container: Container, path: Path) -> tuple[int, int, int]:
    """Where the samples begin, how many bytes of them are announced, and how many there are to the file's end."""
    size = path.stat().st_size
    raw.seek(container.begin)
    while len(head := raw.read(container.heading.size)) == container.heading.size:
        name, length = container.heading.unpack(head)
        held = size - raw.tell()
        if name == container.sound:
            return raw.tell(), length, held
        if not 0 <= length < held:
            break
        raw.seek(length + -length % container.align, os.SEEK_CUR)
    raise ValueError(f"Expected sound in {path}, the file ends before it")


def _decode(raw: BinaryIO, path: Path) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        # by its number: a file object would be called back from C, where its errors cannot be raised
        source = raw if isinstance(raw, io.BytesIO) else raw.fileno()
        with soundfile.SoundFile(source, closefd=False) as file:
            promised, rate, mp3 = file.frames, file.samplerate, file.format == "MP3"
            # all at once: soundfile seeks after each read, and the MP3 decoder stumbles over that
            samples = file.read(promised, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"Expected a format that libsndfile reads (WAV, FLAC, OGG, MP3, …) in {path}, "
            f"got: {error.error_string} {CONVERT}"
        ) from error
    except (MemoryError, ValueError) as error:
        raise ValueError(
            f"Expected sound that fits into memory in {path}, its header promises {promised} samples. {CONVERT}"
        ) from error
    if mp3:
        promised = _mp3_promise(raw, path, promised)
    if len(samples) < promised:
        raise ValueError(
            f"Expected {promised / rate:.2f} s of sound in {path}, found {len(samples) / rate:.2f} s: "
            "the file is cut short"
        )
    return samples, rate


def _mp3_promise(raw: BinaryIO, path: Path, promised: int) -> int:
    """The samples that an MP3 announces, 0 for one that does not: then libsndfile guesses, and may end too early."""
    left = path.stat().st_size - raw.tell()
    after = raw.read(3)
    announced = _has_length(raw)
    more = after == b"ID3" or (after[:1] == b"\xff" and after[1:2] >= b"\xe0")  # another MP3, or a frame
    if more and left > (MP3_FRAME if announced else 0):
        raise ValueError(
            f"Expected a header that tells how long {path} is, found {left} bytes after its end. {CONVERT}"
        )
    return promised if announced else 0


def _has_length(raw: BinaryIO) -> bool:
    """Whether an MP3's first frame is the one that counts the others."""
    raw.seek(0)
    tag = raw.read(10)
    raw.seek(10 + int("".join(f"{byte:07b}" for byte in tag[6:]), 2) if tag[:3] == b"ID3" else 0)
    frame = raw.read(200)
    return b"Xing" in frame or b"Info" in frame
