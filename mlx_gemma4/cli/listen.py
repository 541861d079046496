"""Write down speech while it is being spoken."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlx_gemma4.cli.options import add_model, add_speech, load_model, note, speech_instruction
from mlx_gemma4.cli.transcribe import warn_incomplete

if TYPE_CHECKING:
    from mlx_gemma4.live.sources import Source
    from mlx_gemma4.transcribe import Transcriber


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_speech(parser)
    parser.add_argument(
        "--input",
        metavar="SOURCE",
        help="a recording, played at its own pace; - for standard input (WAV, or raw s16le at 16 kHz); "
        "otherwise part of a microphone's name (default: the system's microphone)",
    )
    parser.add_argument("--fast", action="store_true", help="do not wait for a recording's own pace")


def run(arguments: argparse.Namespace) -> None:
    with open_source(arguments.input, fast=arguments.fast) as source:
        model, processor = load_model(arguments)

        from mlx_gemma4.transcribe import Transcriber

        transcriber = Transcriber(
            model, processor, text=speech_instruction(arguments), max_segment=arguments.max_segment
        )
        with stops_on_interrupt(source):
            print_heard(source, transcriber, processor.frame_samples)


def print_heard(source: Source, transcriber: Transcriber, frame_samples: int) -> None:
    """Text on stdout; how long it took, and how much work, on stderr."""
    from mlx_gemma4.audio import Framer
    from mlx_gemma4.live.listen import listen

    for heard in listen(source, transcriber, Framer(frame_samples)):
        segment = heard.segment
        print(segment.text, flush=True)
        note(
            f"{segment.start:.2f}–{segment.end:.2f} s · text {1000 * heard.delay:.0f} ms after the last frame, "
            f"in {segment.forwards} forwards ({segment.tokens} tokens)"
        )
        warn_incomplete([segment], "the sound")


@contextmanager
def open_source(name: str | None, *, fast: bool) -> Iterator[Source]:
    """The source that ``--input`` names."""
    from pathlib import Path

    from mlx_gemma4.live.sources import FileSource, Microphone, PipeSource

    if name == "-":
        yield PipeSource(sys.stdin.buffer)
    elif name is not None and (Path(name).exists() or Path(name).suffix):
        yield FileSource(name, fast=fast)
    else:
        with Microphone(name) as microphone:
            note("Listening; Ctrl-C ends the speech.")
            yield microphone


@contextmanager
def stops_on_interrupt(source: Source) -> Iterator[None]:
    """Ctrl-C ends the sound, and what was heard is still written down; a second one interrupts."""

    def stop(number: int, frame: object) -> None:
        source.stop()
        signal.signal(signal.SIGINT, before)

    before: Callable[..., object] | int | None = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
