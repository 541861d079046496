"""Write down speech while it is being spoken."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from mlx_gemma4.cli.options import (
    add_endpointing,
    add_model,
    add_speech,
    add_translation,
    endpointing,
    from_environment,
    load_model,
    note,
    speech_instruction,
)
from mlx_gemma4.printable import for_terminal

if TYPE_CHECKING:
    import numpy as np

    from mlx_gemma4.live.events import Event
    from mlx_gemma4.live.listener import Listener
    from mlx_gemma4.live.sources import Source


class Stoppable(Protocol):
    """What goes on until it is stopped."""

    def stop(self) -> None:
        """Safe to call from a signal handler."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_speech(parser)
    add_translation(parser)
    add_endpointing(parser)
    parser.add_argument(
        "--input", metavar="FILE", help="a recording, played at its own pace; - for stdin (WAV, or raw s16le at 16 kHz)"
    )
    parser.add_argument("--device", help="a microphone's number or part of its name (default: the system's)")
    parser.add_argument("--list-devices", action="store_true", help="list the microphones and leave")
    parser.add_argument("--fast", action="store_true", help="do not wait for a recording's own pace")
    parser.add_argument(
        "--guess-every", type=float, default=0.5, metavar="SECONDS", help="speech between two guesses (default: 0.5)"
    )
    parser.add_argument("--format", choices=("txt", "json", "srt", "vtt"), default="txt", help="default: txt")
    parser.add_argument("--output", metavar="FILE", help="write there instead of stdout")
    parser.add_argument("--save-audio", metavar="FILE", help="keep what was heard, as a 16 kHz WAV")
    parser.add_argument("--stats", action="store_true", help="print delays and work on stderr")
    from_environment(parser)


def run(arguments: argparse.Namespace) -> None:
    if arguments.list_devices:
        from mlx_gemma4.live.microphone import describe, list_devices

        devices = list_devices()
        for device in devices:
            print(describe(device))
        if not devices:
            note("There is no microphone.")
        return
    with ExitStack() as stack:
        source = stack.enter_context(open_source(arguments))
        hear = stack.enter_context(recording(arguments.save_audio))
        stream = stack.enter_context(output(arguments.output))
        listener = make_listener(arguments)
        if arguments.input is None:
            note("Listening; Ctrl-C ends.")
        with stops_on_interrupt(source):
            show(source, listener, stream, arguments, hear)
        problem = source.problem
        if problem is not None:
            note(problem)


def make_listener(arguments: argparse.Namespace) -> Listener:
    """Model, voice activity and endpointing, as the options say."""
    model, processor = load_model(arguments)

    from mlx_gemma4.live.endpoint import Endpointer
    from mlx_gemma4.live.listener import Listener
    from mlx_gemma4.live.voice import Voice
    from mlx_gemma4.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=speech_instruction(arguments), max_segment=arguments.max_segment)
    endpointer = Endpointer(Voice(), endpointing(arguments), frame_seconds=transcriber.frame_seconds)
    return Listener(transcriber, endpointer, guess_every=arguments.guess_every)


def show(
    source: Source,
    listener: Listener,
    stream: TextIO,
    arguments: argparse.Namespace,
    hear: Callable[[np.ndarray], None] | None,
) -> None:
    """Run the loop: on a terminal as a display, elsewhere as lines; statistics at the end."""
    from mlx_gemma4.live.listen import listen
    from mlx_gemma4.live.stats import Delays
    from mlx_gemma4.live.writers import Writer

    writer = Writer(for_terminal(stream), arguments.format)
    delays = Delays()
    to_stdout = stream is sys.stdout
    with display(stream, arguments) as draw:
        for event in listen(source, listener, hear=hear):
            if draw is None or not to_stdout:
                writer.write(event)
            if draw is not None:
                draw(event, listener)
            delays.add(event)
            tell(event, shown=draw is not None)
    if arguments.stats:
        note(delays.report(listener.work))


def tell(event: Event, *, shown: bool) -> None:
    """What went wrong, on stderr; a display that has ``shown`` the event tells of lost sound by itself."""
    from mlx_gemma4.live.events import Final, Lost

    if isinstance(event, Lost) and not shown:
        note(f"{event.seconds:.2f} s of sound were lost")
    elif isinstance(event, Final) and not event.complete:
        note(f"The text of {event.start:.2f}–{event.end:.2f} s was cut at {event.tokens} tokens")


@contextmanager
def display(stream: TextIO, arguments: argparse.Namespace) -> Iterator[Callable[[Event, Listener], None] | None]:
    """A picture of what is going on, where stdout is a terminal and the text is meant for eyes; else None."""
    if not sys.stdout.isatty() or (stream is sys.stdout and arguments.format != "txt"):
        yield None
        return
    from rich.console import Console

    from mlx_gemma4.live.display import Display

    with Display(Console()) as picture:

        def draw(event: Event, listener: Listener) -> None:
            picture.show(event)
            picture.status(
                speaking=listener.endpointer.speaking, level=listener.endpointer.level, behind=listener.behind
            )

        yield draw


@contextmanager
def open_source(arguments: argparse.Namespace) -> Iterator[Source]:
    """The recording, the pipe or the microphone that the options name."""
    if arguments.input is not None and arguments.device is not None:
        raise ValueError(f"Expected --input or --device, got both ({arguments.input}, {arguments.device})")
    if arguments.input == "-":
        from mlx_gemma4.live.sources import PipeSource

        yield PipeSource(sys.stdin.buffer)
    elif arguments.input is not None:
        from mlx_gemma4.live.sources import FileSource

        yield FileSource(arguments.input, fast=arguments.fast)
    else:
        from mlx_gemma4.live.microphone import Microphone

        with Microphone(arguments.device) as microphone:
            yield microphone


@contextmanager
def recording(path: str | None) -> Iterator[Callable[[np.ndarray], None] | None]:
    """A WAV file that is written while sound arrives."""
    if path is None:
        yield None
        return
    import soundfile

    from mlx_gemma4.audio import SAMPLE_RATE

    with soundfile.SoundFile(path, "w", samplerate=SAMPLE_RATE, channels=1, subtype="PCM_16", format="WAV") as file:
        yield file.write


@contextmanager
def output(path: str | None) -> Iterator[TextIO]:
    """Where results go: a new file, or stdout."""
    if path is None:
        yield sys.stdout
    else:
        with open(path, "x", encoding="utf-8") as file:
            yield file


@contextmanager
def stops_on_interrupt(source: Stoppable) -> Iterator[None]:
    """Ctrl-C ends the source, and what has come from it is still worked off; a second one interrupts."""

    def stop(number: int, frame: object) -> None:
        source.stop()
        signal.signal(signal.SIGINT, before)

    before: Callable[..., object] | int | None = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
