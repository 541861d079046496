"""``mlx_gemma4 transcribe``: recordings to text."""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

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
    text_style,
)
from mlx_gemma4.cli.shared.outputs import STDOUT, add_overwrite, check_output, output_folder, text_output
from mlx_gemma4.cli.shared.progress import Progress, duration
from mlx_gemma4.cli.shared.signals import Session
from mlx_gemma4.printable import for_terminal

if TYPE_CHECKING:
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


def run(arguments: argparse.Namespace) -> int:
    check_names(arguments)
    # everything that can be wrong is reported before the model is loaded
    text_style(arguments)
    instruction, settings = speech_instruction(arguments), endpointing(arguments)
    targets = check_targets(arguments)
    failed = Failed(len(arguments.files))
    for path in arguments.files:
        check_sound(path, arguments, failed)
    if all(path in failed for path in arguments.files):
        failed.raise_all()
    model, processor = load_model(arguments)

    from mlx_gemma4.programs.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=instruction, max_segment=arguments.max_segment)
    with Session(patience=0.0) as session:
        work = Work(arguments, session, transcriber, settings, failed)
        for target, paths in targets.items():
            work.write([path for path in paths if path not in failed], target)
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


class Work:
    """Transcribes recordings and writes each segment when it is known."""

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

    def write(self, paths: list[str], target: str | None) -> None:
        """Write recordings to one output. After a signal or an error, what is known is written."""
        with suppress(Nothing), self._output(target) as stream:
            from mlx_gemma4.programs.formats import SegmentWriter

            writer = SegmentWriter(for_terminal(stream), self._arguments.format, text_style(self._arguments))
            self._session.last_words = lambda: writer.finish(complete=False)
            whole = False
            try:
                for path in paths:
                    self._write_file(path, writer)
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

    def _write_file(self, path: str, writer: SegmentWriter) -> None:
        from mlx_gemma4.programs.segments import make_endpointer

        began = time.perf_counter()
        try:
            stream = open_sound(path, self._arguments)
        except (ValueError, OSError) as problem:
            self._failed.add(path, problem)
            return
        with stream:
            sound = Progress(stream, stream.name, duration(path))
            endpointer = make_endpointer(self._transcriber, self._settings)
            for segment in self._session.events(self._segments(sound, endpointer, path)):
                sound.clear()
                writer.write(segment)
                warn_incomplete([segment], path)
        if sound.problem is not None:
            self._failed.add(path, sound.problem)
        note_gated(endpointer, path)
        if self._arguments.stats:
            note(statistics(path, sound.seconds, endpointer, time.perf_counter() - began))

    def _segments(self, sound: Progress, endpointer: Endpointer, path: str) -> Generator[Segment, None, None]:
        from mlx_gemma4.outputs.batch import BATCH_SIZE
        from mlx_gemma4.programs.segments import transcribe

        # whoever writes to a pipe waits for the text
        batch_size = BATCH_SIZE if Path(path).is_file() else 1
        try:
            yield from transcribe(sound, self._transcriber, endpointer, batch_size=batch_size)
        finally:
            sound.clear()


def statistics(path: str, seconds: float, endpointer: Endpointer, work: float) -> str:
    """The work for a recording in a line."""
    speech = endpointer.spoken * endpointer.frame_seconds
    return (
        f"{path}: {seconds:.2f} s of sound, {speech:.2f} s of it given to the model; "
        f"transcribed in {work:.2f} s ({work / max(seconds, 0.001):.2f} of its length)"
    )
