"""``mlx_gemma4 listen``: transcribe speech while it is spoken."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TextIO

from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import end_code, note, note_gated, note_overload
from mlx_gemma4.cli.shared.options import (
    add_endpointing,
    add_format,
    add_model,
    add_sound,
    add_speech,
    add_translation,
    endpointing,
    load_model,
    speech_instruction,
    speech_use,
    text_style,
)
from mlx_gemma4.cli.shared.outputs import add_overwrite, text_output, wav_output
from mlx_gemma4.cli.shared.signals import Session, starting
from mlx_gemma4.cli.shared.sound import INPUT_HELP, open_source
from mlx_gemma4.printable import for_terminal

if TYPE_CHECKING:
    import numpy as np

    from mlx_gemma4.live.hear.events import ListenerEvent
    from mlx_gemma4.live.hear.listener import Listener
    from mlx_gemma4.live.hear.sources import Source

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--language",
    "--translate-to",
    "--input",
    "--device",
    "--list-devices",
    "--format",
    "--output",
    "--save-audio",
    "--stats",
    "--silence",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    "mlx_gemma4 listen --language de",
    "mlx_gemma4 listen --input talk.wav --stats",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_speech(parser)
    add_translation(parser)
    add_endpointing(parser)
    add_sound(parser)
    parser.add_argument("--input", metavar="FILE", help=INPUT_HELP)
    parser.add_argument("--device", help="microphone, by number or part of its name (default: the system's)")
    parser.add_argument("--list-devices", action="store_true", help="list the microphones and exit")
    parser.add_argument("--fast", action="store_true", help="read a recording as fast as the model can")
    parser.add_argument(
        "--guess-every",
        type=float,
        metavar="SECONDS",
        help="seconds of speech between two guesses (default: as few as the machine can do, at least 0.5)",
    )
    add_format(parser, "event")
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of stdout")
    parser.add_argument("--save-audio", metavar="FILE", help="save the sound as a 16 kHz WAV")
    add_overwrite(parser)
    parser.add_argument("--stats", action="store_true", help="print delays and work on stderr")
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.list_devices:
        from mlx_gemma4.live.hear.microphone import describe, list_devices

        devices = list_devices()
        for device in devices:
            print(describe(device))
        if not devices:
            note("There is no microphone.")
        return 0
    with ExitStack() as stack:
        with starting():
            text_style(arguments)
            check_drafts(arguments)
            stream, hear = stack.enter_context(open_outputs(arguments))
            source = stack.enter_context(open_source(arguments))
            listener = make_listener(arguments)
        if arguments.input is None:
            note("Listening; Ctrl-C ends.")
        session = show(source, listener, stream, arguments, hear)
        return end_code(session, source.problem)


@contextmanager
def open_outputs(arguments: argparse.Namespace) -> Iterator[tuple[TextIO, Callable[[np.ndarray], None] | None]]:
    """Open the outputs for text and sound."""
    overwrite = arguments.overwrite
    inputs = [arguments.input] if arguments.input is not None else []
    with text_output(arguments.output, overwrite=overwrite, inputs=inputs) as stream:
        written = [arguments.output] if arguments.output is not None else []
        with wav_output(arguments.save_audio, overwrite=overwrite, inputs=[*inputs, *written]) as hear:
            yield stream, hear


def make_listener(arguments: argparse.Namespace) -> Listener:
    """The listener that the options describe."""
    from mlx_gemma4.live.hear.plan import check_guess_every

    instruction, settings = speech_instruction(arguments), endpointing(arguments)
    check_guess_every(arguments.guess_every)
    model, processor = load_model(arguments, speech_use(arguments.max_segment))
    drafter = open_drafter(arguments)

    from mlx_gemma4.live.hear.listener import Listener
    from mlx_gemma4.programs.transcribe import Transcriber

    transcriber = Transcriber(model, processor, text=instruction, max_segment=arguments.max_segment, drafter=drafter)
    return Listener(transcriber, settings, guess_every=arguments.guess_every)


def show(
    source: Source,
    listener: Listener,
    stream: TextIO,
    arguments: argparse.Namespace,
    hear: Callable[[np.ndarray], None] | None,
) -> Session:
    """Run the loop: a display on a terminal, lines elsewhere, statistics at the end."""
    from mlx_gemma4.cli.shared.writers import Writer
    from mlx_gemma4.live.hear.delays import Delays
    from mlx_gemma4.live.hear.loop import listen

    writer = Writer(for_terminal(stream), arguments.format, text_style(arguments))
    delays = Delays()
    to_stdout = stream is sys.stdout

    def last_words() -> None:
        for event in listener.abandon():
            writer.write(event)
        writer.finish(complete=False)

    whole = is_told = False
    with Session(source.stop, last_words) as session, display(stream, arguments) as draw:
        try:
            for event in session.events(listen(source, listener, hear=session.uncut(hear))):
                if draw is None or not to_stdout:
                    writer.write(event)
                if draw is not None:
                    draw(event, listener)
                delays.add(event)
                tell(event, shown=draw is not None)
                is_told = is_told or note_overload(listener)
            whole = session.code == 0
        finally:
            writer.finish(complete=whole)
    if arguments.stats:
        note(delays.report(listener.work))
    note_gated(listener.endpointer, "the sound")
    return session


def tell(event: ListenerEvent, *, shown: bool) -> None:
    """Say on stderr what went wrong. A display that has ``shown`` the event reports lost sound itself."""
    from mlx_gemma4.live.hear.events import DroppedAudio, Final

    if isinstance(event, DroppedAudio) and not shown:
        note(f"{event.seconds:.2f} s of sound were lost")
    elif isinstance(event, Final) and not event.complete:
        note(f"The text of {event.start:.2f}–{event.end:.2f} s was cut at {event.tokens} tokens")


@contextmanager
def display(
    stream: TextIO, arguments: argparse.Namespace
) -> Iterator[Callable[[ListenerEvent, Listener], None] | None]:
    """A live display if stdout is a terminal and the output is text; otherwise None."""
    if not sys.stdout.isatty() or (stream is sys.stdout and arguments.format != "txt"):
        yield None
        return
    from rich.console import Console

    from mlx_gemma4.cli.shared.display import Display

    with Display(Console()) as picture:

        def draw(event: ListenerEvent, listener: Listener) -> None:
            picture.show(event)
            picture.status(
                speaking=listener.endpointer.speaking,
                level=listener.endpointer.level,
                behind=listener.behind if listener.is_late else 0.0,
            )

        yield draw
