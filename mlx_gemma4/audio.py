"""Sound in: files and arrays to 16 kHz mono float32, and into frames of raw samples. numpy only.

A frame is 640 samples (40 ms) in the 12B; its size comes from the checkpoint and is passed in.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

SAMPLE_RATE = 16_000
PAUSE_FRAMES = 3
"""A pause is at least this long: 120 ms at 40 ms a frame. One quiet frame can lie inside a word."""
SEARCH_SECONDS = 2.0
"""How far before the longest length a cut is looked for."""
UNKNOWN_SIZE = 0x7FFF_0000
"""A WAV that says it has this many bytes of sound or more, or 0, was written to a pipe: its size promises nothing.

sox leaves 0x7FFFF000, arecord 0x7FFFFF00, ffmpeg 0xFFFFFFFF.
"""
MP3_FRAME = 1441
"""Bytes of an MP3's frame, at most. A last one that is all padding may stay unread."""
CONVERT = "Convert it first, for example: ffmpeg -i INPUT out.wav"


def load_audio(source: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    """Read sound as float32 [n] at 16 kHz, mono, in [-1, 1].

    Args:
        source: A path to anything libsndfile reads, at any rate and channel count; or samples [n] that already
            are at 16 kHz, float in [-1, 1] or int16.

    Raises:
        ValueError: No such file, no audio in it, cut short, or samples that are no sound (NaN, infinite, none).
    """
    if isinstance(source, np.ndarray):
        return check_samples(source, "the array")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"Expected an audio file, found none at {path}")
    samples, rate = _read(path)
    _check_sound(samples, str(path))
    return check_samples(to_mono_16k(samples, rate), str(path))


def check_samples(samples: np.ndarray, name: str) -> np.ndarray:
    """Return ``samples`` as float32 [n], or raise a ValueError that says why they are no sound."""
    if samples.ndim != 1 or not (samples.dtype == np.int16 or np.issubdtype(samples.dtype, np.floating)):
        raise ValueError(
            f"Expected float or int16 samples [n] at {SAMPLE_RATE} Hz in {name}, "
            f"got {samples.dtype} {list(samples.shape)}"
        )
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    with np.errstate(over="ignore"):  # float64 that becomes infinite is reported below
        samples = samples.astype(np.float32, copy=False)
    _check_sound(samples, name)
    return samples


def _check_sound(samples: np.ndarray, name: str) -> None:
    if samples.size == 0:
        raise ValueError(f"Expected sound in {name}, it holds 0 samples")
    finite = np.isfinite(samples)
    if not finite.all():
        bad = tuple(np.argwhere(~finite)[0])
        raise ValueError(f"Expected finite samples in {name}, got {samples[bad]} at sample {bad[0]}")


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """[n, channels] at ``rate`` Hz → [n'] at 16 kHz: the mean of the channels, resampled by soxr."""
    mono = samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return mono
    import soxr

    return soxr.resample(mono, rate, SAMPLE_RATE)


def frames(samples: np.ndarray, frame_samples: int) -> np.ndarray:
    """[n] → [ceil(n / frame_samples), frame_samples], the last frame padded with zeros.

    transformers ``Gemma4UnifiedAudioFeatureExtractor``.
    """
    count = -(-len(samples) // frame_samples)
    padded = np.zeros(count * frame_samples, dtype=np.float32)
    padded[: len(samples)] = samples
    return padded.reshape(count, frame_samples)


class Framer:
    """Blocks of any length in, whole frames out, as they become complete."""

    def __init__(self, frame_samples: int) -> None:
        self.frame_samples = frame_samples
        self._rest = np.zeros(0, dtype=np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take [n] samples, return the frames [F, frame_samples] that are complete."""
        joined = np.concatenate([self._rest, samples.astype(np.float32, copy=False)])
        whole = len(joined) // self.frame_samples * self.frame_samples
        self._rest = joined[whole:]
        return frames(joined[:whole], self.frame_samples)

    def flush(self) -> np.ndarray:
        """Return the last, padded frame [1, frame_samples], or [0, frame_samples] if nothing is left."""
        rest, self._rest = self._rest, self._rest[:0]
        return frames(rest, self.frame_samples)


def cut_point(speech: np.ndarray) -> int:
    """Where to cut a stretch that has become too long: after how many of its frames.

    The middle of the quietest pause (120 ms) within the last two seconds. What follows belongs to the next stretch.

    Args:
        speech: [F, frame_samples], at least one frame.
    """
    energy = np.square(speech, dtype=np.float64).sum(axis=1)
    frame_seconds = speech.shape[1] / SAMPLE_RATE
    first = max(0, len(speech) - round(SEARCH_SECONDS / frame_seconds))
    if len(speech) - first < PAUSE_FRAMES:
        return len(speech)
    pauses = np.convolve(energy[first:], np.ones(PAUSE_FRAMES), mode="valid")
    return first + int(pauses.argmin()) + PAUSE_FRAMES // 2 + 1


def split_audio(samples: np.ndarray, frame_samples: int, max_frames: int) -> Iterator[tuple[int, int]]:
    """Cut sound that is too long for one segment, at pauses; nothing is lost.

    Args:
        samples: [n] at 16 kHz.

    Yields:
        (start, end) in samples. Every segment has at most ``max_frames`` frames.
    """
    if max_frames < 1:
        raise ValueError(f"Expected at least 1 frame in a segment, got {max_frames}")
    all_frames = frames(samples, frame_samples)
    start = 0
    while len(all_frames) - start > max_frames:
        end = start + cut_point(all_frames[start : start + max_frames])
        yield start * frame_samples, end * frame_samples
        start = end
    yield start * frame_samples, len(samples)


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


def _read(path: Path) -> tuple[np.ndarray, int]:
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
