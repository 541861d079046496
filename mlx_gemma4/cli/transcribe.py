"""``mlx_gemma4 transcribe``: recordings to text."""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.errors import Failed
from mlx_gemma4.cli.shared.notes import note, note_gated, warn_incomplete
from mlx_gemma4.cli.shared.options import (
    add_endpointing,
    add_format,
    add_model,
    add_sound,
    add_speech,
    add_translation,
    channel,
    endpointing,
    load_model,
    raw_format,
    speech_instruction,
    speech_use,
    text_style,
)
from mlx_gemma4.cli.shared.outputs import STDOUT, add_overwrite, check_output, output_folder, text_output
from mlx_gemma4.cli.shared.progress import Progress, duration
from mlx_gemma4.cli.shared.signals import Session
from mlx_gemma4.printable import for_terminal

if TYPE_CHECKING:
    import numpy as np

    from mlx_gemma4.inputs.audio.endpoint import Endpointer, Endpointing
    from mlx_gemma4.inputs.audio.recording import AudioStream
    from mlx_gemma4.programs.formats import SegmentWriter
    from mlx_gemma4.programs.transcribe import Segment, Transcriber

FILE_HELP = "a recording (WAV, FLAC, OGG, MP3, M4A, …) or a pipe; - is stdin"

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--language",
    "--translate-to",
    "--terms",
    "--format",
    "--max-line",
    "--output",
    "--output-dir",
    "--overwrite",
    "--stats",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    "mlx_gemma4 transcribe talk.m4a --format srt --max-line 42",
    "mlx_gemma4 transcribe *.wav --output-dir texts",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help=FILE_HELP)
    add_model(parser)
    add_speech(parser)
    add_translation(parser)
    add_endpointing(parser)
    add_sound(parser)
    add_format(parser, "segment")
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of stdout")
    parser.add_argument("--output-dir", metavar="DIR", help="write one file for each FILE into DIR instead of stdout")
    add_overwrite(parser)
    parser.add_argument("--stats", action="store_true", help="print the work done and its time on stderr")
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> int:
    check_names(arguments)
    # everything that can be wrong is reported before the model is loaded
    text_style(arguments)
    check_drafts(arguments)
    instruction, settings = speech_instruction(arguments), endpointing(arguments)
    targets = check_targets(arguments)
    failed = Failed(len(arguments.files))
    for path in arguments.files:
        check_sound(path, arguments, failed)
    if all(path in failed for path in arguments.files):
        failed.raise_all()
    model, processor = load_model(arguments, speech_use(arguments.max_segment))
    drafter = open_drafter(arguments)

    from mlx_gemma4.programs.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=instruction, max_segment=arguments.max_segment, drafter=drafter)
    readable = {target: [path for path in paths if path not in failed] for target, paths in targets.items()}
    with Session(patience=0.0) as session:
        Work(arguments, session, transcriber, settings, failed).write(readable)
    if not session.code:
        failed.raise_all()
    return session.code


def check_names(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if files and outputs do not fit together."""
    files = arguments.files
    if arguments.output is not None and arguments.output_dir is not None:
        raise ValueError("--output and --output-dir exclude each other; name one of them")
    if files.count(STDOUT) > 1:
        raise ValueError("Standard input can be read once; name - once")
    if len(files) > 1 and arguments.format != "txt" and arguments.output_dir is None:
        where = "stdout" if arguments.output in (None, STDOUT) else arguments.output
        raise ValueError(
            f"--format {arguments.format} writes one recording to {where}, but there are {len(files)}; "
            "name an --output-dir"
        )
    stems = [stem(path) for path in files]
    repeated = sorted({name for name in stems if stems.count(name) > 1})
    if arguments.output_dir is not None and repeated:
        raise ValueError(f"Two recordings would have the same name {repeated[0]!r} in --output-dir; rename one of them")


def stem(path: str) -> str:
    """The name of the text of a recording."""
    return "stdin" if path == STDOUT else Path(path).stem


def check_targets(arguments: argparse.Namespace) -> dict[str | None, list[str]]:
    """The recordings of each output file; None is stdout. Raises a ValueError if one cannot be written."""
    files = list(dict.fromkeys(arguments.files))
    if arguments.output_dir is None:
        if arguments.output not in (None, STDOUT):
            check_output(Path(arguments.output), "--output", overwrite=arguments.overwrite, inputs=files)
        return {arguments.output: arguments.files}
    with output_folder(arguments.output_dir, "--output-dir") as folder:
        targets = {path: folder / f"{stem(path)}.{arguments.format}" for path in files}
        for target in targets.values():
            check_output(target, "--output-dir", overwrite=arguments.overwrite, inputs=files)
    return {str(target): [path] for path, target in targets.items()}


def check_sound(path: str, arguments: argparse.Namespace, failed: Failed) -> None:
    """Check that a file is a recording. A pipe is not read: its beginning would be lost."""
    if path == STDOUT or (Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir()):
        return
    try:
        open_sound(path, arguments).close()
    except (ValueError, OSError) as problem:
        failed.add(path, problem)


def open_sound(path: str, arguments: argparse.Namespace) -> AudioStream:
    from mlx_gemma4.inputs.audio.recording import stream_audio

    return stream_audio(path, channel=channel(arguments), raw=raw_format(arguments))


class Nothing(Exception):
    """Raised if no recording of an output can be read."""


class Sound:
    """A recording while it is read.

    Attributes:
        problem: Why it could not be read, or not to its end.
    """

    def __init__(self, path: str, endpointer: Endpointer) -> None:
        self.path, self.endpointer = path, endpointer
        self.problem: Exception | None = None
        self._blocks: Progress | None = None

    def blocks(self, arguments: argparse.Namespace) -> Iterator[np.ndarray]:
        """Its samples."""
        try:
            stream = open_sound(self.path, arguments)
        except (ValueError, OSError) as problem:
            self.problem = problem
            return
        with stream:
            self._blocks = Progress(stream, stream.name, duration(self.path))
            yield from self._blocks
        self.problem = self._blocks.problem

    @property
    def seconds(self) -> float:
        return 0.0 if self._blocks is None else self._blocks.seconds

    def clear(self) -> None:
        """Clear the line of its progress."""
        if self._blocks is not None:
            self._blocks.clear()


class Work:
    """Transcribes recordings side by side, and writes each segment when it and those before it are known."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        session: Session,
        transcriber: Transcriber,
        settings: Endpointing,
        failed: Failed,
    ) -> None:
        self._arguments, self._session, self._failed = arguments, session, failed
        self._transcriber, self._settings = transcriber, settings
        self._reading: Sound | None = None
        self._seconds = self._speech = 0.0

    def write(self, targets: dict[str | None, list[str]]) -> None:
        """Write recordings to their outputs. After a signal or an error, what is known is written."""
        segments = self._session.events(self._segments([path for paths in targets.values() for path in paths]))
        began = time.perf_counter()
        for target, paths in targets.items():
            self._write_target(target, paths, segments)
        count = sum(map(len, targets.values()))
        if self._arguments.stats and count > 1:
            note(statistics(f"{count} recordings", self._seconds, self._speech, time.perf_counter() - began))

    def _write_target(
        self, target: str | None, paths: list[str], segments: Iterator[tuple[Sound, Segment | None]]
    ) -> None:
        with suppress(Nothing), self._output(target) as stream:
            from mlx_gemma4.programs.formats import SegmentWriter

            writer = SegmentWriter(for_terminal(stream), self._arguments.format, text_style(self._arguments))
            self._session.last_words = lambda: writer.finish(complete=False)
            whole = False
            try:
                for _ in paths:
                    self._write_recording(segments, writer)
                whole = not any(path in self._failed for path in paths)
                if not writer.count and all(path in self._failed for path in paths):
                    raise Nothing
            finally:
                writer.finish(complete=whole)
                self._session.last_words = lambda: None
            if self._arguments.output_dir is not None:
                note(f"{', '.join(paths)} → {target}")

    def _output(self, target: str | None) -> AbstractContextManager[TextIO]:
        option = "--output" if self._arguments.output_dir is None else "--output-dir"
        if self._arguments.output_dir is not None and target is not None:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        return text_output(target, option, overwrite=self._arguments.overwrite, inputs=self._arguments.files)

    def _write_recording(self, segments: Iterator[tuple[Sound, Segment | None]], writer: SegmentWriter) -> None:
        began = time.perf_counter()
        for sound, segment in segments:
            self._clear()
            if segment is None:
                break
            writer.write(segment)
            warn_incomplete([segment], sound.path)
        if sound.problem is not None:
            self._failed.add(sound.path, sound.problem)
        note_gated(sound.endpointer, sound.path)
        speech = sound.endpointer.spoken * sound.endpointer.frame_seconds
        self._seconds, self._speech = self._seconds + sound.seconds, self._speech + speech
        if self._arguments.stats:
            # the time of one among several has no meaning: they are decoded side by side
            work = time.perf_counter() - began if len(self._arguments.files) == 1 else None
            note(statistics(sound.path, sound.seconds, speech, work))

    def _segments(self, paths: list[str]) -> Generator[tuple[Sound, Segment | None], None, None]:
        """The segments of each recording, and None at its end."""
        from mlx_gemma4.outputs.batch import BATCH_SIZE
        from mlx_gemma4.programs.segments import transcribe_all

        # whoever writes to a pipe waits for the text: it neither waits for the next sound, nor for another recording
        for is_file, group in groupby(paths, lambda path: Path(path).is_file()):
            sounds: dict[int, Sound] = {}
            recordings = self._recordings(group, sounds)
            batch_size = BATCH_SIZE if is_file and self._arguments.draft_model is None else 1
            try:
                for number, segment in transcribe_all(recordings, self._transcriber, batch_size=batch_size):
                    yield sounds[number], segment
                    if segment is None:
                        del sounds[number]
            finally:
                self._clear()

    def _recordings(
        self, paths: Iterable[str], sounds: dict[int, Sound]
    ) -> Iterator[tuple[Iterator[np.ndarray], Endpointer]]:
        from mlx_gemma4.programs.segments import make_endpointer

        for number, path in enumerate(paths):
            sound = Sound(path, make_endpointer(self._transcriber, self._settings))
            sounds[number] = self._reading = sound
            yield sound.blocks(self._arguments), sound.endpointer

    def _clear(self) -> None:
        if self._reading is not None:
            self._reading.clear()


def statistics(name: str, seconds: float, speech: float, work: float | None) -> str:
    """The work for a recording in a line."""
    line = f"{name}: {seconds:.2f} s of sound, {speech:.2f} s of it given to the model"
    if work is None:
        return line
    return f"{line}; transcribed in {work:.2f} s ({work / max(seconds, 0.001):.2f} of its length)"
