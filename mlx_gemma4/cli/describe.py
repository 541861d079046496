"""``mlx_gemma4 describe``: a video of any length in words, segment by segment."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import note, note_broken
from mlx_gemma4.cli.shared.options import add_model, add_sampling, add_selection, load_model, sampling, selection
from mlx_gemma4.cli.shared.outputs import add_overwrite, text_output
from mlx_gemma4.cli.shared.signals import Session, starting
from mlx_gemma4.printable import for_terminal

if TYPE_CHECKING:
    from mlx_gemma4.inputs.vision.video_file import VideoFile
    from mlx_gemma4.programs.describe import Description
    from mlx_gemma4.programs.formats import SegmentWriter

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--prompt",
    "--segment",
    "--with-audio",
    "--fps",
    "--start",
    "--end",
    "--format",
    "--output",
    "--max-tokens",
)
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 describe film.mp4 --with-audio --format srt",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="video")
    add_model(parser)
    parser.add_argument("--prompt", "-p", help="question about each segment (default: what happens in it)")
    parser.add_argument(
        "--segment", type=float, default=30.0, metavar="SECONDS", help="length of a segment (default: 30)"
    )
    parser.add_argument("--image-tokens", type=int, help="soft tokens of each video frame: 70, 140, 280, 560 or 1120")
    parser.add_argument(
        "--max-tokens", "-m", type=int, default=256, help="maximum length of each answer (default: 256)"
    )
    parser.add_argument(
        "--format",
        choices=("txt", "jsonl", "srt", "vtt"),
        default="txt",
        help="format of the descriptions (default: txt)",
    )
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of stdout")
    add_overwrite(parser)
    add_selection(parser, fps=1.0).add_argument(
        "--with-audio", action="store_true", help="use the sound of each segment too (at most 30 s)"
    )
    add_sampling(parser)
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> int:
    from mlx_gemma4.inputs.vision.video_file import VideoFile

    check_drafts(arguments)
    file = VideoFile(arguments.file, sound=arguments.with_audio)
    with ExitStack() as stack:
        with starting():
            stream = stack.enter_context(
                text_output(arguments.output, overwrite=arguments.overwrite, inputs=[arguments.file])
            )
            descriptions = describe(arguments, file)
        session = stack.enter_context(Session(patience=0.0))
        from mlx_gemma4.programs.formats import SegmentWriter

        writer = SegmentWriter(for_terminal(stream), arguments.format)
        stack.callback(writer.finish)
        for description in session.events(descriptions):
            write(writer, description, arguments.format)
            note(progress(description, file.length))
    note_broken(file)
    return session.code


def describe(arguments: argparse.Namespace, file: VideoFile) -> Generator[Description, None, None]:
    """The descriptions that the options ask for."""
    model, processor = load_model(arguments)

    from mlx_gemma4.programs.describe import DESCRIBE, Describing, describe_video

    settings = Describing(
        text=arguments.prompt or DESCRIBE,
        segment=arguments.segment,
        selection=selection(arguments, processor.limits),
        sound=arguments.with_audio,
        image_tokens=arguments.image_tokens,
        max_tokens=arguments.max_tokens,
        sampling=sampling(arguments, processor.generation),
    )
    return describe_video(model, processor, file, settings, drafter=open_drafter(arguments))


def progress(description: Description, length: float | None) -> str:
    """How much of the video is described, for stderr."""
    from mlx_gemma4.inputs.vision.video import timestamp

    reached = timestamp(description.end)
    reached = reached if length is None else f"{reached} of {timestamp(length)}"
    cut = "" if description.complete else f", in an answer cut at {description.tokens} tokens"
    return f"{reached} described{cut}"


def write(writer: SegmentWriter, description: Description, layout: str) -> None:
    """Write a description: a line of text with its times, a line of JSON, or a subtitle."""
    from mlx_gemma4.inputs.vision.video import timestamp
    from mlx_gemma4.outputs.word_times import Line

    text = description.text
    if layout == "jsonl":
        writer.write_record(asdict(description))
    elif text:
        if layout == "txt":
            text = " ".join([f"{timestamp(description.start)}–{timestamp(description.end)}", *text.split()])
        writer.write_lines([Line(description.start, description.end, text)])
