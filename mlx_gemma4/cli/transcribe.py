"""Write down the speech in recordings."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.cli.options import (
    add_endpointing,
    add_model,
    add_sound,
    add_speech,
    add_translation,
    channel,
    endpointing,
    load_model,
    note,
    raw_format,
    speech_instruction,
)
from mlx_gemma4.cli.outputs import add_overwrite, check_output, output_file, output_folder
from mlx_gemma4.cli.signals import Session
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    import numpy as np

    from mlx_gemma4.live.endpoint import Endpointing
    from mlx_gemma4.transcribe import Segment, Transcriber


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording (WAV, FLAC, OGG, MP3, …)")
    add_model(parser)
    add_speech(parser)
    add_translation(parser)
    add_endpointing(parser)
    add_sound(parser)
    parser.add_argument("--format", choices=("txt", "json", "srt", "vtt"), default="txt", help="default: txt")
    parser.add_argument("--output-dir", metavar="DIR", help="write FILE's text to DIR instead of stdout")
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    if len(arguments.files) > 1 and arguments.format != "txt" and arguments.output_dir is None:
        raise ValueError(
            f"Expected one file for {arguments.format} on stdout, got {len(arguments.files)}; name an --output-dir"
        )
    stems = [Path(path).stem for path in arguments.files]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if arguments.output_dir is not None and twice:
        raise ValueError(f"Expected files of different names for one --output-dir, got two called {twice[0]!r}")
    instruction, settings = speech_instruction(arguments), endpointing(arguments)
    from mlx_gemma4.audio import load_audio

    # all are read before the model is: a missing file costs no wait, and no half of the work
    raw = raw_format(arguments)
    recordings = [load_audio(path, channel=channel(arguments), raw=raw) for path in arguments.files]
    targets = check_targets(arguments)
    model, processor = load_model(arguments)

    from mlx_gemma4.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=instruction, max_segment=arguments.max_segment)
    with Session(patience=0.0) as session:
        for path, samples, target in zip(arguments.files, recordings, targets, strict=True):
            write_segments(session, transcribed(samples, transcriber, settings), arguments, path, target)
    return session.code


def check_targets(arguments: argparse.Namespace) -> list[Path | None]:
    """The file for each recording's text; None is stdout. What is wrong with one is said before the model is loaded."""
    if arguments.output_dir is None:
        return [None] * len(arguments.files)
    with output_folder(arguments.output_dir, "--output-dir") as folder:
        targets = [folder / f"{Path(path).stem}.{arguments.format}" for path in arguments.files]
        for target in targets:
            check_output(target, "--output-dir", overwrite=arguments.overwrite, inputs=arguments.files)
    return [*targets]


def transcribed(samples: np.ndarray, transcriber: Transcriber, settings: Endpointing) -> Generator[Segment, None, None]:
    """The segments of a recording."""
    from mlx_gemma4.live.segments import transcribe

    yield from transcribe([samples], transcriber, settings)


def write_segments(
    session: Session,
    segments: Generator[Segment, None, None],
    arguments: argparse.Namespace,
    path: str,
    target: Path | None,
) -> None:
    """Write a recording's text; where a signal or an error cuts it, what there is of it."""
    found: list[Segment] = []

    def write_found() -> None:
        if found:
            write_text(found, arguments, target)

    session.last_words = write_found
    try:
        for segment in session.events(segments):
            found.append(segment)
    except BaseException:
        write_found()
        raise
    warn_incomplete(found, path)
    write_text(found, arguments, target)
    if target is not None:
        note(f"{path} → {target}")


def write_text(segments: list[Segment], arguments: argparse.Namespace, target: Path | None) -> None:
    from mlx_gemma4.subtitles import write

    text = write(segments, arguments.format)
    if target is None:
        show(text, end="")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with output_file(target, "--output-dir", overwrite=arguments.overwrite) as file:
        file.append(text.encode())


def warn_incomplete(segments: list[Segment], name: str) -> None:
    """Say which answers ran into their limit: their text may lack its end."""
    for segment in segments:
        if not segment.complete:
            note(f"{name}: the text of {segment.start:.2f}–{segment.end:.2f} s was stopped at {segment.tokens} tokens")
