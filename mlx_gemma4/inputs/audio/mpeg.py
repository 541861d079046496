"""Frames of MPEG audio: MP3 and AAC have no file header, so they are recognised by frames that follow each other."""

from __future__ import annotations

import struct
from collections.abc import Iterator

CHAINED = 3
"""Frames in a row that prove a format: any two bytes may look like the beginning of one frame."""


def mpeg_audio(head: bytes, *, is_whole: bool) -> str | None:
    """``"mp3"`` or ``"aac"``, by the first bytes of a stream; None if it is neither.

    Args:
        is_whole: Whether ``head`` is the whole stream: then fewer frames suffice, if they fill it.
    """
    for at in range(len(head) - 1):
        if head[at] == 0xFF and head[at + 1] >= 0xE0:
            for kind in ("mp3", "aac"):
                *begins, end = _frames(head, at, kind)
                if len(begins) >= CHAINED or (begins and is_whole and at == 0 and end >= len(head)):
                    return kind
    return None


def mp3_samples(head: bytes) -> int | None:
    """Samples of each channel by the first frame of an MP3, without the encoder's padding; None if it does not say.

    LAME and FFmpeg write the padding at both ends into Xing's frame.
    """
    at = max(head.find(b"Xing", 0, 200), head.find(b"Info", 0, 200))
    if at < 0 or len(head) < at + 160:
        return None
    flags, count = struct.unpack(">II", head[at + 4 : at + 12])
    if not flags & 1 or not count:
        return None
    lame = at + 12 + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    if head[lame : lame + 3] not in (b"LAM", b"Lav"):
        return None
    padding = int.from_bytes(head[lame + 21 : lame + 24], "big")
    per_frame = 1152 if head[1] >> 3 & 3 == 3 else 576
    return max(0, count * per_frame - (padding >> 12) - (padding & 4095))


def _frames(head: bytes, at: int, kind: str) -> Iterator[int]:
    """Where frames begin, then where the last one ends."""
    size_of = _mp3_frame if kind == "mp3" else _adts_frame
    yield at
    while size := size_of(head[at : at + 6]):
        at += size
        yield at


def _mp3_frame(head: bytes) -> int:
    """Bytes of the MPEG audio frame that begins here, 0 if none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return 0
    kilobits = _KILOBITS[version == 3, layer][bitrate - 1]
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return (12_000 * kilobits // hertz + padding) * 4
    samples = 1152 if version == 3 or layer == 2 else 576
    return samples // 8 * 1000 * kilobits // hertz + padding


def _adts_frame(head: bytes) -> int:
    """Bytes of the AAC frame that begins here, 0 if none does."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return size if size > 7 else 0


_LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KILOBITS = {
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW,
    (False, 3): _LOW,
}
"""By whether it is MPEG 1, and by layer: ISO 11172-3 and 13818-3."""
