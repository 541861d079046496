"""Recognises the format of a recording by its first bytes, whatever its name. Files that are not sound are named."""

from __future__ import annotations

from typing import NamedTuple

from mlx_gemma4.inputs.audio.byte_input import AudioInput
from mlx_gemma4.inputs.audio.mpeg import mpeg_audio

UNCOMPRESSED, LIBSNDFILE = "uncompressed", "libsndfile"
"""Decoders other than FFmpeg's."""
LONGEST_PREFIX = 20
"""Bytes that tell most formats apart. A quiet pipe may have sent no more than its header, so these must do."""
SEARCHED = 8192
"""Bytes in which MPEG frames are searched for: a live stream may begin in the middle of one."""


class Format(NamedTuple):
    """How a recording is decoded."""

    decoder: str
    """FFmpeg's demuxer, or one of the decoders above."""
    seeks: bool = False
    """Whether the whole file is needed: its description of the sound may stand at the end."""


_PREFIXES: dict[bytes, Format] = {
    b"RF64": Format(UNCOMPRESSED),
    b"BW64": Format(UNCOMPRESSED),
    b"riff\x2e\x91\xcf\x11": Format(UNCOMPRESSED),
    b"caff": Format(UNCOMPRESSED),
    b".snd": Format(UNCOMPRESSED),
    b"fLaC": Format("flac"),
    b"OggS": Format("ogg"),
    b"\x1aE\xdf\xa3": Format("matroska"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Format("asf"),
    b"FLV\x01": Format("flv"),
    b"\x00\x00\x01\xba": Format("mpeg"),
    b"#!AMR": Format("amr"),
    b"\x0b\x77": Format("ac3"),
    b"wvpk": Format("wv", seeks=True),
    b"TTA1": Format("tta", seeks=True),
    b"MAC ": Format("ape", seeks=True),
    b"MPCK": Format("mpc8", seeks=True),
    b"MP+": Format("mpc", seeks=True),
    b"DSD ": Format("dsf", seeks=True),
    b"NIST_1A": Format(LIBSNDFILE, seeks=True),
    b"Creative Voice File": Format(LIBSNDFILE, seeks=True),
    b"dns.": Format(LIBSNDFILE, seeks=True),
    b"2BIT": Format(LIBSNDFILE, seeks=True),
    b" paf": Format(LIBSNDFILE, seeks=True),
    b"fap ": Format(LIBSNDFILE, seeks=True),
    b"PVF1\n": Format(LIBSNDFILE, seeks=True),
    b"Extended Instrument": Format(LIBSNDFILE, seeks=True),
    b"MATLAB 5.0": Format(LIBSNDFILE, seeks=True),
    b"\x64\xa3": Format(LIBSNDFILE, seeks=True),
    b"\xf0\x7e": Format(LIBSNDFILE, seeks=True),
}
_KINDS: dict[tuple[bytes, bytes], Format] = {
    (b"RIFF", b"WAVE"): Format(UNCOMPRESSED),
    (b"RIFF", b"AVI "): Format("avi", seeks=True),
    (b"FORM", b"AIFF"): Format(UNCOMPRESSED),
    (b"FORM", b"AIFC"): Format(UNCOMPRESSED),
    (b"FORM", b"8SVX"): Format(LIBSNDFILE, seeks=True),
    (b"FORM", b"16SV"): Format(LIBSNDFILE, seeks=True),
}
"""By bytes 0 to 3 and 8 to 11."""
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""What an MP4 or QuickTime file begins with."""
_NO_SOUND: dict[bytes, str] = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"PK\x03\x04": "a ZIP archive (or an office document)",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"BZh": "bzip2-compressed; unpack it first",
    b"\xfd7zXZ": "xz-compressed; unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; unpack it first",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"MThd": "a MIDI file: notes",
    b"#EXTM3U": "a playlist: a list of files",
    b"SQLite format 3": "a database",
    b"\x93NUMPY": "a NumPy array",
}
RAW_HINT = "raw samples need --raw and their encoding, for example --raw s16le (from Python: raw=RawFormat())"


def recognise(source: AudioInput) -> Format:
    """The format of ``source``; tags in front of the sound are skipped.

    Raises:
        ValueError: It is empty, or not sound.
    """
    while (head := source.peek(LONGEST_PREFIX))[:3] == b"ID3" and len(head) >= 10:
        source.skip(_id3_bytes(head))
    if not head:
        raise ValueError(f"{source.name} is empty, not a recording")
    found = _by_prefix(head) or (_mp4(source) if head[4:8] in _BOXES else None) or _mpeg(source)
    if found is None:
        raise ValueError(f"{source.name} {_looks_like(source.peek(SEARCHED))}")
    return found


def _by_prefix(head: bytes) -> Format | None:
    found = _KINDS.get((head[:4], head[8:12]))
    return found or next((each for prefix, each in _PREFIXES.items() if head.startswith(prefix)), None)


def _id3_bytes(head: bytes) -> int:
    """How long an ID3v2 tag is: ten bytes, four times seven bits, and ten more if it has a footer."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 127
    return 10 + size + 10 * bool(head[5] & 16)


def _mp4(source: AudioInput) -> Format:
    """The format of an MP4. It is read as a stream if its table, or that of its fragments, comes before the sound."""
    at = 0
    while len(head := source.peek(at + 8)[at:]) == 8:
        if head[4:] in (b"moov", b"mdat"):
            return Format("mov", seeks=head[4:] == b"mdat")
        at += int.from_bytes(head[:4], "big")
        if int.from_bytes(head[:4], "big") < 8:
            break
    return Format("mov", seeks=True)


def _mpeg(source: AudioInput) -> Format | None:
    """MP3, AAC and transport streams have no header. As few bytes as possible are read: streams may be slow."""
    for count in (SEARCHED // 8, SEARCHED // 4, SEARCHED // 2, SEARCHED):
        head = source.peek(count)
        if head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G":
            return Format("mpegts")
        found = mpeg_audio(head, is_whole=len(head) < count)
        if found is not None:
            return Format(found)
    return None


def _looks_like(head: bytes) -> str:
    """What the bytes look like instead, as the end of a sentence."""
    for prefix, what in _NO_SOUND.items():
        if head.startswith(prefix):
            return f"is not a recording; it looks like {what}"
    if not head.strip(b"\0"):
        return f"begins with zeros: {RAW_HINT}"
    if _is_text(head):
        return "is not a recording; it looks like text"
    return f"is in no known audio format: {RAW_HINT}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < SEARCHED else "ignore")
    except UnicodeDecodeError:
        return False
    return len(text) > len(head) // 4 and all(each.isprintable() or each in "\t\r\n\f\ufeff" for each in text)
