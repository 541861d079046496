"""Say what happens in a video of any length, stretch by stretch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from mlx_gemma4.cli.shared.notes import note, note_broken
from mlx_gemma4.cli.shared.options import add_model, add_sampling, add_selection, load_model, sampling, selection
from mlx_gemma4.cli.shared.outputs import add_overwrite, text_output
from mlx_gemma4.cli.shared.signals import Session, starting
from mlx_gemma4.printable import for_terminal

if TYPE_CHECKING:
    from mlx_gemma4.inputs.vision.video_file import VideoFile
    from mlx_gemma4.programs.describe import Description


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a video")
    add_model(parser)
    parser.add_argument("--prompt", "-p", help="what is asked about each stretch, instead of what happens in it")
    parser.add_argument(
        "--segment", type=float, default=30.0, metavar="SECONDS", help="length of a stretch (default: 30)"
    )
    parser.add_argument("--image-tokens", type=int, help="budget of each frame: 70, 140, 280, 560 or 1120")
    parser.add_argument("--max-tokens", "-m", type=int, default=256, help="length of each answer (default: 256)")
    parser.add_argument("--format", choices=("txt", "jsonl", "srt", "vtt"), default="txt", help="default: txt")
    parser.add_argument("--output", metavar="FILE", help="write there instead of stdout")
    add_overwrite(parser)
    add_selection(parser, fps=1.0).add_argument(
        "--with-audio", action="store_true", help="hear each stretch, too, behind the prompt (at most 30 s)"
    )
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> int:
    from mlx_gemma4.inputs.vision.video_file import VideoFile

    file = VideoFile(arguments.file, sound=arguments.with_audio)
    with ExitStack() as stack:
        with starting():
            stream = stack.enter_context(
                text_output(arguments.output, overwrite=arguments.overwrite, inputs=[arguments.file])
            )
            descriptions = describe(arguments, file)
        session = stack.enter_context(Session(patience=0.0))
        write = writer(for_terminal(stream), arguments.format)
        for each in session.events(descriptions):
            write(each)
            note(progress(each, file.length))
    note_broken(file)
    return session.code


def describe(arguments: argparse.Namespace, file: VideoFile) -> Generator[Description, None, None]:
    """The model's descriptions, as the options say."""
    model, processor = load_model(arguments)

    from mlx_gemma4.programs.describe import DESCRIBE, describe_video

    return describe_video(
        model,
        processor,
        file,
        text=arguments.prompt or DESCRIBE,
        segment=arguments.segment,
        selection=selection(arguments, processor.limits),
        sound=arguments.with_audio,
        image_tokens=arguments.image_tokens,
        max_tokens=arguments.max_tokens,
        sampling=sampling(arguments, processor.generation),
    )


def progress(each: Description, length: float | None) -> str:
    from mlx_gemma4.inputs.vision.video import timestamp

    told = timestamp(each.end) if length is None else f"{timestamp(each.end)} of {timestamp(length)}"
    return f"{told} described" if each.complete else f"{told} described, in an answer cut at {each.tokens} tokens"


def writer(stream: TextIO, layout: str) -> Callable[[Description], None]:
    """What writes each description when it is there: a line of text or JSON, or a subtitle."""
    from mlx_gemma4.inputs.vision.video import timestamp
    from mlx_gemma4.programs.subtitles import CueWriter

    def line(each: Description) -> None:
        if layout == "jsonl":
            print(json.dumps(asdict(each), ensure_ascii=False), file=stream, flush=True)
        elif each.text:
            times = f"{timestamp(each.start)}–{timestamp(each.end)}"
            print(times, *each.text.split(), file=stream, flush=True)

    if layout in ("txt", "jsonl"):
        return line
    cues = CueWriter(stream, layout)
    return lambda each: cues.write(each.start, each.end, each.text)
