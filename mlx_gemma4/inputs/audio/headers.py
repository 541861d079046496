"""Headers of uncompressed sound: WAV, RF64, W64, AIFF, CAF and AU. They give the format of the samples and their place.

A writer to a pipe does not know the length, and leaves a placeholder. Such lengths are recognised and ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mlx_gemma4.inputs.audio.byte_input import AudioInput
from mlx_gemma4.inputs.audio.pcm import ENCODINGS

UNKNOWN_SIZE = 0x7FFF_0000
"""A header with this many bytes of sound or more, or with 0, was written to a pipe.

sox leaves 0x7FFFF000, arecord 0x7FFFFF00, ffmpeg 0xFFFFFFFF.
"""
EXTENSIBLE = 0xFFFE
"""WAV's number for a format that stands further on in the header."""
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""What follows the four letters of a chunk's name in a W64."""


class Layout(NamedTuple):
    """Uncompressed samples, interleaved."""

    encoding: str
    rate: int
    channels: int
    begin: int
    """Where the samples begin, in bytes."""
    length: int | None
    """Their bytes, by the header; None if it does not say."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return ENCODINGS[self.encoding].width * self.channels


class _Chunk(NamedTuple):
    name: bytes
    begin: int
    length: int


class _Chunks(NamedTuple):
    """A file made of chunks, each a name, a length and that many bytes."""

    begin: int
    heading: struct.Struct
    align: int
    counts_heading: bool = False

    def walk(self, source: AudioInput) -> Iterator[_Chunk]:
        at = self.begin
        while len(head := source.peek(at + self.heading.size)[at:]) == self.heading.size:
            name, length = self.heading.unpack(head)
            length -= self.heading.size * self.counts_heading
            at += self.heading.size
            yield _Chunk(name[:4], at, length)
            if length < 0:
                return
            at += length + -length % self.align


def uncompressed(source: AudioInput) -> Layout | None:
    """The layout of the samples in ``source``; None if they are compressed.

    Raises:
        ValueError: The header is damaged or ends early, or the file is shorter than its header says.
    """
    head = source.peek(12)
    return _READERS[head[:4]](source)


def _wav(source: AudioInput) -> Layout | None:
    chunks, size = _Chunks(12, struct.Struct("<4sI"), 2), None
    layout: tuple[str, int, int] | None = None
    for chunk in chunks.walk(source):
        if chunk.name == b"ds64":
            size = struct.unpack("<8xQ", _body(source, chunk, 16)[:16])[0]
        elif chunk.name == b"fmt ":
            layout = _wav_format(_body(source, chunk, 16))
            if layout is None:
                return None
        elif chunk.name == b"data" and layout is not None:
            length = size if size is not None and chunk.length == 0xFFFF_FFFF else chunk.length
            known = 0 < length < (UNKNOWN_SIZE if size is None else 1 << 62)
            return _checked(source, Layout(*layout, chunk.begin, length if known else None))
    raise _ends_early(source)


def _wav_format(body: bytes) -> tuple[str, int, int] | None:
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == EXTENSIBLE:
        tag = int.from_bytes(body[24:26], "little")
    encoding = {
        1: {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"},
        3: {4: "f32le", 8: "f64le"},
        6: {1: "alaw"},
        7: {1: "mulaw"},
    }
    found = encoding.get(tag, {}).get(-(-bits // 8))
    return None if found is None else (found, rate, channels)


def _w64(source: AudioInput) -> Layout | None:
    layout: tuple[str, int, int] | None = None
    for chunk in _Chunks(40, struct.Struct("<16sq"), 8, counts_heading=True).walk(source):
        if chunk.name == b"fmt ":
            layout = _wav_format(_body(source, chunk, 16))
            if layout is None:
                return None
        elif chunk.name == b"data" and layout is not None:
            length = chunk.length if 0 < chunk.length < 1 << 62 else None
            return _checked(source, Layout(*layout, chunk.begin, length))
    raise _ends_early(source)


def _aiff(source: AudioInput) -> Layout | None:
    layout: tuple[str, int, int] | None = None
    for chunk in _Chunks(12, struct.Struct(">4sI"), 2).walk(source):
        if chunk.name == b"COMM":
            layout = _aiff_format(_body(source, chunk, 18))
            if layout is None:
                return None
        elif chunk.name == b"SSND" and layout is not None:
            offset = struct.unpack(">I", _body(source, chunk._replace(length=8), 8)[:4])[0]
            length = chunk.length - 8 - offset if 0 < chunk.length < UNKNOWN_SIZE else None
            return _checked(source, Layout(*layout, chunk.begin + 8 + offset, length))
    raise _ends_early(source)


def _aiff_format(body: bytes) -> tuple[str, int, int] | None:
    channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", body[:18])
    rate = mantissa * 2.0 ** (exponent - 16446) if exponent < 17000 else float("inf")
    width = -(-bits // 8)
    big = {1: "s8", 2: "s16be", 3: "s24be", 4: "s32be"}.get(width)
    found = {
        b"": big,
        b"NONE": big,
        b"twos": big,
        b"in24": "s24be",
        b"in32": "s32be",
        b"sowt": {1: "s8", 2: "s16le", 3: "s24le", 4: "s32le"}.get(width),
        b"raw ": "u8",
        b"fl32": "f32be",
        b"FL32": "f32be",
        b"fl64": "f64be",
        b"FL64": "f64be",
        b"alaw": "alaw",
        b"ALAW": "alaw",
        b"ulaw": "mulaw",
        b"ULAW": "mulaw",
    }.get(body[18:22])
    return None if found is None else (found, int(min(rate, 1e12)), channels)


def _caf(source: AudioInput) -> Layout | None:
    layout: tuple[str, int, int] | None = None
    for chunk in _Chunks(8, struct.Struct(">4sq"), 1).walk(source):
        if chunk.name == b"desc":
            layout = _caf_format(_body(source, chunk, 32))
            if layout is None:
                return None
        elif chunk.name == b"data" and layout is not None:  # an edit count comes first
            length = chunk.length - 4 if 4 < chunk.length < 1 << 62 else None
            return _checked(source, Layout(*layout, chunk.begin + 4, length))
    raise _ends_early(source)


def _caf_format(body: bytes) -> tuple[str, int, int] | None:
    rate, kind, flags, packet, _, channels, _ = struct.unpack(">d4sIIIII", body[:32])
    is_float, little = flags & 1, flags & 2
    width = packet // channels if channels else 0
    end = "le" if little else "be"
    found = {b"alaw": "alaw", b"ulaw": "mulaw"}.get(kind)
    if kind == b"lpcm":
        sizes = {4: "f32", 8: "f64"} if is_float else {1: "s8", 2: "s16", 3: "s24", 4: "s32"}
        found = sizes.get(width) if width == 1 else sizes.get(width, "") + end
    if found not in ENCODINGS:
        return None
    return found, int(min(max(rate, 0), 1e12)) if rate == rate else 0, channels


def _au(source: AudioInput) -> Layout | None:
    head = source.peek(24)
    if len(head) < 24:
        raise _ends_early(source)
    begin, length, number, rate, channels = struct.unpack(">IIIII", head[4:])
    numbers = {1: "mulaw", 2: "s8", 3: "s16be", 4: "s24be", 5: "s32be", 6: "f32be", 7: "f64be", 27: "alaw"}
    if number not in numbers:
        return None
    known = length if 0 < length < 0xFFFF_FFFF else None
    return _checked(source, Layout(numbers[number], rate, channels, begin, known))


_READERS: dict[bytes, Callable[[AudioInput], Layout | None]] = {
    b"RIFF": _wav,
    b"RF64": _wav,
    b"BW64": _wav,
    b"riff": _w64,
    b"FORM": _aiff,
    b"caff": _caf,
    b".snd": _au,
}
"""By the first four bytes."""


def _checked(source: AudioInput, layout: Layout) -> Layout:
    """Return the layout, or raise a ValueError if the file is known to be shorter."""
    if source.left is not None and layout.length is not None and (held := source.left - layout.begin) < layout.length:
        raise ValueError(
            f"{source.name} holds {max(0, held)} of the {layout.length} bytes of sound that its header says: "
            "the file is cut short; record or fetch it again"
        )
    return layout


def _body(source: AudioInput, chunk: _Chunk, least: int) -> bytes:
    body = source.peek(chunk.begin + chunk.length)[chunk.begin :]
    if len(body) < least:
        raise _ends_early(source)
    return body


def _ends_early(source: AudioInput) -> ValueError:
    return ValueError(f"{source.name} ends before its audio data; record or fetch it again")
