"""Write down the speech in recordings."""

from __future__ import annotations

import argparse
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
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.transcribe import Segment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording (WAV, FLAC, OGG, MP3, …)")
    add_model(parser)
    add_speech(parser)
    add_translation(parser)
    add_endpointing(parser)
    add_sound(parser)
    parser.add_argument("--format", choices=("txt", "json", "srt", "vtt"), default="txt", help="default: txt")
    parser.add_argument("--output-dir", metavar="DIR", help="write FILE's text to DIR instead of stdout")


def run(arguments: argparse.Namespace) -> None:
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
    folder = None if arguments.output_dir is None else Path(arguments.output_dir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    model, processor = load_model(arguments)

    from mlx_gemma4.live.segments import transcribe
    from mlx_gemma4.subtitles import write
    from mlx_gemma4.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=instruction, max_segment=arguments.max_segment)
    for path, samples in zip(arguments.files, recordings, strict=True):
        segments = transcribe(samples, transcriber, settings)
        warn_incomplete(segments, path)
        text = write(segments, arguments.format)
        if folder is None:
            show(text, end="")
        else:
            target = folder / f"{Path(path).stem}.{arguments.format}"
            target.write_text(text, encoding="utf-8")
            note(f"{path} → {target}")


def warn_incomplete(segments: list[Segment], name: str) -> None:
    """Say which answers ran into their limit: their text may lack its end."""
    for segment in segments:
        if not segment.complete:
            note(f"{name}: the text of {segment.start:.2f}–{segment.end:.2f} s was stopped at {segment.tokens} tokens")
