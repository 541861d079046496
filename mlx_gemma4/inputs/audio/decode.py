"""Recordings of every format to samples, piece by piece, in memory that does not grow with their length.

Uncompressed sound is read here; PyAV (FFmpeg) decodes compressed sound, libsndfile a few rare formats. All sound before
a damaged place is returned before the error is raised.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlx_gemma4.inputs.audio.byte_input import AudioInput
from mlx_gemma4.inputs.audio.formats import LIBSNDFILE, UNCOMPRESSED, Format, recognise
from mlx_gemma4.inputs.audio.headers import Layout, uncompressed
from mlx_gemma4.inputs.audio.mpeg import mp3_samples
from mlx_gemma4.inputs.audio.pcm import RawFormat, SampleStream, check_layout
from mlx_gemma4.inputs.audio.pyav_frame import samples_of

if TYPE_CHECKING:
    import av

PIECE_BYTES = 1 << 16
"""Bytes that are read at once, at most."""
PIECE_SAMPLES = 1 << 14
PROBED_BYTES = 1 << 16
"""Bytes that FFmpeg may read to recognise a stream: more would delay a live one."""
SHORT_SECONDS = 0.1
"""Codecs round lengths to their frames: less than this may be missing; more means that the file was cut short."""
MP3_HEADER = 2048
"""Bytes at the beginning of an MP3 in which its length may stand."""
MP3_PADDING = 4096
"""Samples of padding that an encoder and a decoder add at the end, at most."""
TAIL_BYTES = 1 << 17
"""Bytes in which the last page of an OGG is looked for: it has at most 65,307."""
BROKEN_PACKETS = 500
"""After this many packets in a row that do not decode, decoding stops: the rest will not decode either."""
CONVERT = "convert it first, for example: ffmpeg -i INPUT out.wav"


class Piece(NamedTuple):
    """Sound that was decoded."""

    samples: np.ndarray
    """float32 [n, channels]."""
    rate: int
    """Hz."""


def pieces(source: AudioInput, raw: RawFormat | None = None, channel: int | None = None) -> Iterator[Piece]:
    """All sound of ``source``, in order. The format is recognised at once; the sound is decoded during iteration.

    Args:
        raw: The format of the samples, if there is no header.
        channel: A channel that must exist, from 1 on; all channels are decoded.

    Raises:
        ValueError: It is not sound, its header makes no sense, or the channel is missing; during iteration, it is
            damaged or cut short.
    """
    if raw is not None:
        return _uncompressed(source, Layout(raw.encoding, raw.rate, raw.channels, 0, None), channel)
    found = recognise(source)
    if found.decoder == UNCOMPRESSED:
        layout = uncompressed(source)
        if layout is not None:
            return _uncompressed(source, layout, channel)
        found = Format(_COMPRESSED[source.peek(4)])
    if found.decoder == LIBSNDFILE:
        return _by_libsndfile(source, channel)
    return _by_ffmpeg(source, found, channel)


_COMPRESSED = {
    b"RIFF": "wav",
    b"RF64": "wav",
    b"BW64": "wav",
    b"riff": "w64",
    b"FORM": "aiff",
    b"caff": "caf",
    b".snd": "au",
}
"""FFmpeg's demuxers for compressed sound in these containers."""


def _uncompressed(source: AudioInput, layout: Layout, channel: int | None) -> Iterator[Piece]:
    check_layout(layout.rate, layout.channels, source.name, channel)
    source.skip(layout.begin)
    return _samples_of(source, layout)


def _samples_of(source: AudioInput, layout: Layout) -> Iterator[Piece]:
    left, stream = layout.length, SampleStream()
    while left is None or left > 0:
        data = source.read(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
        if not data:
            break
        left = left if left is None else left - len(data)
        samples = stream.push(data, layout.encoding, layout.channels)
        if len(samples):
            yield Piece(samples, layout.rate)
    if left and layout.length is not None:
        per_second = layout.frame_bytes * layout.rate
        raise _cut_short(source, (layout.length - left) / per_second, layout.length / per_second)


def _by_libsndfile(source: AudioInput, channel: int | None) -> Iterator[Piece]:
    import soundfile

    try:
        # by its number: a file object would be called back from C, where its errors cannot be raised
        file = soundfile.SoundFile(source.whole(), closefd=False)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{source.name} cannot be decoded: {error.error_string} {CONVERT}") from error
    check_layout(file.samplerate, file.channels, source.name, channel)
    return _blocks_of(file, source)


def _blocks_of(file: Any, source: AudioInput) -> Iterator[Piece]:
    count = 0
    with file:
        while len(samples := file.read(PIECE_SAMPLES, dtype="float32", always_2d=True)):
            count += len(samples)
            yield Piece(samples, file.samplerate)
        if count < file.frames:
            raise _cut_short(source, count / file.samplerate, file.frames / file.samplerate)


def _by_ffmpeg(source: AudioInput, found: Format, channel: int | None) -> Iterator[Piece]:
    import av

    total = mp3_samples(source.peek(MP3_HEADER)) if found.decoder == "mp3" else None
    file = _Seekable(source) if found.seeks else _Arriving(source)
    try:
        container = av.open(file, mode="r", format=found.decoder, options={"probesize": str(PROBED_BYTES)})
    except av.error.EOFError as error:
        raise ValueError(f"{source.name} ends before its audio data; record or fetch it again") from error
    except av.error.FFmpegError as error:
        raise ValueError(f"{source.name} cannot be decoded: {error.strerror}; {CONVERT}") from error
    if container.streams.best("audio") is None:
        container.close()
        raise ValueError(f"{source.name} has no audio track that FFmpeg decodes")
    sound = _Decoder(source, container, total, channel).pieces()
    if total is not None:
        return _without_padding(sound, total)
    return _to_last_page(sound, file, source.name) if isinstance(file, _Arriving) and found.decoder == "ogg" else sound


def _to_last_page(sound: Iterator[Piece], file: _Arriving, name: str) -> Iterator[Piece]:
    """An OGG has no length in its header. Its last page is marked as the last, and has the number of samples."""
    count, last = 0, None
    for piece in sound:
        if last is not None:
            yield last
        count, last = count + len(piece.samples), piece
    page = file.tail[file.tail.rfind(b"OggS") :]
    complete = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    padding = max(0, count - int.from_bytes(page[6:14], "little")) if complete else 0
    if last is not None:
        fits = 0 < padding < len(last.samples)
        yield Piece(last.samples[:-padding], last.rate) if fits else last
    if not complete or not page[5] & 4:
        raise ValueError(f"{name} is cut short: its last page is missing; fetch it again, or {CONVERT}")


def _without_padding(sound: Iterator[Piece], total: int) -> Iterator[Piece]:
    """Drop the padding in the last frame: a little sound after the ``total`` samples.

    If there is more than padding, a second recording follows in the file, and all of it is kept.
    """
    rest: list[Piece] = []
    for piece in sound:
        inside, total = piece.samples[:total], max(0, total - len(piece.samples))
        if len(inside):
            yield Piece(inside, piece.rate)
        if len(inside) < len(piece.samples):
            rest.append(Piece(piece.samples[len(inside) :], piece.rate))
        if sum(len(each.samples) for each in rest) > MP3_PADDING:
            yield from rest
            rest, total = [], 1 << 62


class _Arriving:
    """A file for PyAV that can only be read: no demuxer jumps ahead of what has arrived."""

    def __init__(self, source: AudioInput) -> None:
        self._source = source
        self.tail = b""
        """The last bytes that were read."""

    def read(self, count: int) -> bytes:
        data = self._source.read(count)
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        return data


class _Seekable:
    """A whole file for PyAV."""

    def __init__(self, source: AudioInput) -> None:
        self._file = open(source.whole(), "rb", closefd=False)  # noqa: SIM115, closed by close
        self.read, self.seek, self.tell, self.close = (
            self._file.read,
            self._file.seek,
            self._file.tell,
            self._file.close,
        )


class _Decoder:
    """The best audio track of a container.

    Args:
        total: How many samples it has, if its header says so and FFmpeg does not read that.
    """

    def __init__(
        self, source: AudioInput, container: av.container.InputContainer, total: int | None, channel: int | None
    ) -> None:
        self._source, self._container, self._total, self._channel = source, container, total, channel
        self._stream = container.streams.best("audio")
        self._seconds = 0.0
        self._broken = 0
        self._broken_in_a_row = 0
        self._broken_at = 0.0

    def pieces(self) -> Iterator[Piece]:
        import av

        try:
            for packet in self._packets():
                for frame in self._decoded(packet):
                    check_layout(frame.sample_rate, frame.layout.nb_channels, self._source.name, self._channel)
                    piece = Piece(samples_of(frame), frame.sample_rate)
                    self._seconds += len(piece.samples) / piece.rate
                    yield piece
            self._check_end()
        except av.error.FFmpegError as error:
            raise self._damaged(error.strerror) from error
        finally:
            self._container.close()

    def _packets(self) -> Iterator[av.Packet]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except IndexError as error:  # raised by PyAV, which counts the tracks only when it opens a file
                raise self._damaged("another track begins here") from error
            if packet is None:
                return
            yield packet

    def _decoded(self, packet: av.Packet) -> list[av.AudioFrame]:
        import av

        if packet.stream.codec_context is None:
            raise ValueError(f"{self._source.name} has a codec that FFmpeg does not know here; {CONVERT}")
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            self._pass_over(error)
            return []
        if frames and self._broken_in_a_row and self._seconds:
            self._broken += self._broken_in_a_row
        if frames:
            self._broken_in_a_row = 0
        return frames

    def _pass_over(self, error: av.error.FFmpegError) -> None:
        if not self._broken:
            self._broken_at = self._seconds
        self._broken_in_a_row += 1
        if self._broken_in_a_row >= BROKEN_PACKETS:
            raise self._damaged(error.strerror)

    def _check_end(self) -> None:
        """Raise an error about packets that did not decode or sound that is missing, after all sound was returned."""
        if self._broken:
            raise ValueError(
                f"{self._source.name} is damaged: {self._broken} packets did not decode, the first at "
                f"{self._broken_at:.2f} s; {CONVERT}"
            )
        if not self._seconds and self._broken_in_a_row:
            raise self._damaged("nothing in it decodes")
        promised = self._promised()
        if promised is not None and self._seconds < promised - SHORT_SECONDS:
            raise _cut_short(self._source, self._seconds, promised)

    def _promised(self) -> float | None:
        """Seconds of sound by the header; None if it does not say, or may mean the pictures."""
        stream = self._stream
        if self._total is not None:
            return self._total / stream.rate
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return float(self._container.duration / 1e6)
        return None

    def _damaged(self, problem: str) -> ValueError:
        return ValueError(f"{self._source.name} does not decode at {self._seconds:.2f} s: {problem}; {CONVERT}")


def _cut_short(source: AudioInput, found: float, promised: float) -> ValueError:
    return ValueError(
        f"{source.name} is cut short: its header says {promised:.2f} s of sound, there are {found:.2f} s; "
        "record or fetch it again"
    )
