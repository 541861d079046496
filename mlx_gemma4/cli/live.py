"""``mlx_gemma4 live``: talk about what a camera sees, in one running session."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from mlx_gemma4.cli.shared.cameras import add_listing, open_camera, print_cameras
from mlx_gemma4.cli.shared.consent import allowed_names
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import end_code, note, note_overload
from mlx_gemma4.cli.shared.options import (
    add_endpointing,
    add_model,
    add_sampling,
    add_sensitivity,
    add_sound,
    endpointing,
    load_model,
    sampling,
    speech_use,
    threshold,
)
from mlx_gemma4.cli.shared.outputs import add_overwrite, text_output
from mlx_gemma4.cli.shared.signals import Session, starting
from mlx_gemma4.cli.shared.sound import INPUT_HELP, open_source
from mlx_gemma4.cli.shared.tools import (
    add_tools,
    described,
    note_shortened,
    note_unbound,
    note_unwritten,
    opened_tools,
)
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.live.hear.sources import Source
    from mlx_gemma4.live.see.camera import Camera
    from mlx_gemma4.live.talk.arrivals import Arrivals
    from mlx_gemma4.live.talk.assistant import Assistant
    from mlx_gemma4.live.talk.events import AssistantEvent, Called
    from mlx_gemma4.live.talk.transcript import Transcript
    from mlx_gemma4.outputs.tools.result import ToolResult
    from mlx_gemma4.outputs.tools.sources import Tools


YES, NO = ("y", "yes"), ("", "n", "no")
REASONS = {
    "length": "stopped at --max-tokens",
    "loop": "stopped: it repeats itself",
    "kept": "interrupted",
    "interrupted": "interrupted",
    "dropped": "interrupted, taken back",
    "calls": "stopped after too many calls",
}

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--camera",
    "--no-camera",
    "--no-sound",
    "--device",
    "--list-cameras",
    "--system",
    "--tools",
    "--barge-in",
    "--transcript",
    "--output",
    "--stats",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    "mlx_gemma4 live --tools lights.py --transcript",
    "mlx_gemma4 live --no-camera",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, context="8192, or as many as fit; the oldest turns are dropped first")
    parser.add_argument(
        "--camera",
        default="0",
        metavar="SOURCE",
        help="camera by number or name, a file, an address or lavfi:GRAPH (default: 0)",
    )
    add_listing(parser)
    parser.add_argument("--no-camera", action="store_true", help="no camera: audio only")
    parser.add_argument("--no-sound", action="store_true", help="no microphone: camera and typed questions")
    parser.add_argument("--input", metavar="FILE", help=INPUT_HELP)
    parser.add_argument("--device", help="microphone, by number or part of its name (default: the system's)")
    parser.add_argument(
        "--fast",
        action="store_true",
        help="play a recording and a video as fast as the model can; stdin is not read",
    )
    parser.add_argument("--system", help="system message")
    add_tools(parser, runs=True)
    parser.add_argument(
        "--barge-in",
        choices=("keep", "drop"),
        default="keep",
        help="when you interrupt an answer: keep what was said, or discard it (default: keep)",
    )
    add_sensitivity(parser)
    parser.add_argument("--image-tokens", type=int, help="soft tokens of a picture: 70, 140, 280, 560 or 1120")
    parser.add_argument("--max-tokens", "-m", type=int, default=256, help="maximum length of an answer (default: 256)")
    parser.add_argument(
        "--max-segment", type=float, default=15.0, metavar="SECONDS", help="longest utterance, at most 30 (default: 15)"
    )
    parser.add_argument(
        "--format", choices=("txt", "jsonl"), default="txt", help="jsonl: one JSON line for each event (default: txt)"
    )
    parser.add_argument("--output", metavar="FILE", help="write to FILE instead of stdout")
    add_overwrite(parser)
    parser.add_argument(
        "--transcript", action="store_true", help="also write what was said, with times, after its answer"
    )
    parser.add_argument("--stats", action="store_true", help="print delays and work on stderr")
    add_sampling(parser)
    add_endpointing(parser)
    add_sound(parser)
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.list_cameras:
        print_cameras()
        return 0
    if arguments.no_sound and arguments.no_camera:
        raise ValueError("--no-sound and --no-camera leave nothing to hear or see; use mlx_gemma4 chat")
    from mlx_gemma4.live.see.scene import Scene
    from mlx_gemma4.live.talk.loop import converse

    scene = Scene(threshold(arguments))
    with ExitStack() as stack:
        tools = stack.enter_context(opened_tools(arguments))
        allowed = allowed_names(arguments, tools)
        with starting():
            check_drafts(arguments)
            inputs = [path for path in (arguments.input, arguments.camera) if path is not None]
            stream = stack.enter_context(text_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs))
            sound = None if arguments.no_sound else stack.enter_context(open_source(arguments))
            camera = (
                None if arguments.no_camera else stack.enter_context(open_camera(arguments.camera, fast=arguments.fast))
            )
            assistant, transcript = make_assistant(arguments, tools)
        arrivals = stack.enter_context(open_arrivals(arguments, sound, camera))
        talk = Talk(assistant, arguments, tools, stream, allowed)
        note("Speak, or type a question; Ctrl-C ends." if is_typed(arguments) else "Ctrl-C ends.")
        with Session(arrivals.stop) as session:
            events = converse(assistant, arrivals, scene=scene, read=talk.read, transcript=transcript)
            for event in session.events(events):
                talk.show(event)
        if arguments.no_sound and not talk.questions and not is_typed(arguments):
            note("No question was asked: with --no-sound, questions come from stdin, which was empty.")
        if arguments.stats:
            note(talk.statistics())
        return end_code(session, *(source.problem for source in (sound, camera) if source is not None))


def make_assistant(arguments: argparse.Namespace, tools: Tools | None) -> tuple[Assistant, Transcript | None]:
    """The assistant that the options describe."""
    model, processor = load_model(arguments, speech_use(arguments.max_segment, arguments.max_tokens))
    drafter = open_drafter(arguments)
    if tools is not None:
        note_unwritten(processor, tools.schemas)
        note_unbound(processor, tools.schemas)

    from mlx_gemma4.inputs.audio.endpoint import Endpointer
    from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
    from mlx_gemma4.inputs.audio.voice import Voice
    from mlx_gemma4.live.talk.assistant import Assistant, Talking
    from mlx_gemma4.live.talk.transcript import Transcript
    from mlx_gemma4.programs.transcribe import Transcriber

    frame_seconds = processor.frame_samples / SAMPLE_RATE
    endpointer = Endpointer(
        (lambda frame: 0.0) if arguments.no_sound else Voice(),
        endpointing(arguments),
        frame_seconds=frame_seconds,
        max_frames=round(arguments.max_segment / frame_seconds),
    )
    settings = Talking(
        system=arguments.system,
        tools=tools.schemas if tools is not None else None,
        image_tokens=arguments.image_tokens,
        max_tokens=arguments.max_tokens,
        context=arguments.context or Talking.context,
        keep_interrupted=arguments.barge_in == "keep",
        sampling=sampling(arguments, processor.generation),
    )
    assistant = Assistant(model, processor, endpointer, settings, drafter=drafter)
    if not arguments.transcript:
        return assistant, None
    return assistant, Transcript(Transcriber(model, processor, max_segment=arguments.max_segment, drafter=drafter))


class Talk:
    """Shows the events of a conversation, and reads typed lines."""

    def __init__(
        self,
        assistant: Assistant,
        arguments: argparse.Namespace,
        tools: Tools | None,
        stream: TextIO,
        allowed: Collection[str] = (),
    ) -> None:
        self._assistant, self._tools, self._stream, self._allowed = assistant, tools, stream, allowed
        self._is_json = arguments.format == "jsonl"
        self._is_asked = is_typed(arguments)
        self.questions = 0
        """Number of typed questions."""
        self._calls: list[Called] = []
        """Calls that wait for permission, the first of which is asked about."""
        self._shown = math.inf
        self._is_blind = self._is_told = False
        self._ages: list[float] = []
        self._delays: list[float] = []

    def read(self, line: str) -> Sequence[AssistantEvent]:
        """Take a typed line: a question, or the answer whether a function may be called.

        A line that was typed before that question was shown does not answer it.
        """
        answer = line.strip().lower()
        if self._calls and answer in YES + NO and getattr(line, "arrived", math.inf) >= self._shown:
            self._reply(allowed=answer in YES)
            return []
        if not answer:
            return []
        self.questions += 1
        return self._assistant.ask(line)

    def show(self, event: AssistantEvent) -> None:
        from mlx_gemma4.live.talk.events import (
            Answered,
            Called,
            Forgot,
            Heard,
            Looked,
            Refused,
            Said,
            SightLost,
            Transcribed,
        )

        if isinstance(event, Looked):
            self._ages.append(event.age)
            self._see_again()
        elif isinstance(event, SightLost):
            self._is_blind = True
            note(f"{event.problem} Answers are about what is heard and typed until pictures come.")
        elif isinstance(event, Answered):
            self._delays.append(event.delay)
            self._calls.clear()  # the calls belonged to this answer
        if isinstance(event, Called):
            self._calls.append(event)
        if self._is_json:
            if not isinstance(event, Said):
                show(json.dumps({"event": type(event).__name__.lower(), **asdict(event)}), self._stream)
        elif isinstance(event, Said):
            show(event.text, self._stream, end="")
        elif isinstance(event, Refused):
            note(f"({event.name} was called in a way that is not declared: {event.problem})")
        elif isinstance(event, Answered):
            show("" if event.reason == "stop" else f" [{REASONS[event.reason]}]", self._stream)
        elif isinstance(event, Transcribed):
            show(f"[{event.start:.2f}–{event.end:.2f} s] {event.text}", self._stream)
        elif isinstance(event, Heard):
            note(f"({event.start:.2f}–{event.end:.2f} s)")
        elif isinstance(event, Forgot):
            note(f"({event.turns} turns have left; {event.positions} positions are held)")
        if isinstance(event, Called) and len(self._calls) == 1:
            self._ask()
        self._is_told = self._is_told or note_overload(self._assistant)

    def _see_again(self) -> None:
        if self._is_blind:
            self._is_blind = False
            note("Pictures come again.")

    def statistics(self) -> str:
        """Delays and work in a line."""
        session = self._assistant.dialogue.session
        return (
            f"pictures looked at {len(self._ages)}, age {_middle(self._ages)} · answers {len(self._delays)}, "
            f"first token after {_middle(self._delays)} · forwards {session.forwards}, positions computed "
            f"{session.computed}, held {session.position}"
        )

    def _ask(self) -> None:
        call = self._calls[0]
        written = described(call.name, call.arguments)
        if self._tools is None or not self._tools.runs(call.name):
            note(f"{written} was not run: it is only declared.")
            self._reply(allowed=True)
        elif call.name in self._allowed:
            note(f"Running {written} (--yes)")
            self._reply(allowed=True)
        elif not self._is_asked:
            note(f"{written} was not run: there is no terminal to ask on.")
            self._reply(allowed=False)
        else:
            note(f"Run {written}? [y/N]")
            self._shown = time.monotonic()

    def _reply(self, *, allowed: bool) -> None:
        from mlx_gemma4.outputs.tools.calls import DECLINED

        call = self._calls.pop(0)
        self._assistant.reply(self._result(call) if allowed else DECLINED, call.id or None)
        if self._calls:
            self._ask()

    def _result(self, call: Called) -> ToolResult:
        from mlx_gemma4.outputs.tools.calls import ToolCall
        from mlx_gemma4.outputs.tools.result import ToolResult

        if self._tools is None:
            return ToolResult.error(f"there is no function {call.name}")
        result = self._tools.call(ToolCall(call.id, call.name, call.arguments))
        note_shortened(call.name, result)
        return result


def reads_lines(arguments: argparse.Namespace) -> bool:
    """Whether questions are read from stdin."""
    return sys.stdin is not None and not arguments.fast and arguments.input != "-"


def is_typed(arguments: argparse.Namespace) -> bool:
    """Whether questions can be typed and permission be given."""
    return reads_lines(arguments) and sys.stdin.isatty()


@contextmanager
def open_arrivals(arguments: argparse.Namespace, sound: Source | None, camera: Camera | None) -> Iterator[Arrivals]:
    """The inputs: as they arrive, or with ``--fast`` in the order of their times."""
    from mlx_gemma4.live.talk.arrivals import Inbox, Replay
    from mlx_gemma4.live.talk.typed import TypedLines

    if arguments.fast:
        if sound is None:
            raise ValueError("--fast needs a recording: leave out --no-sound and name one with --input")
        yield Replay(sound, camera)
        return
    with Inbox(sound, camera, TypedLines(0) if reads_lines(arguments) else None) as inbox:
        yield inbox
        if inbox.dropped:
            note(f"{inbox.dropped} pictures came faster than they were looked at")


def _middle(seconds: list[float]) -> str:
    """The median and the maximum."""
    from mlx_gemma4.live.hear.delays import quantile

    if not seconds:
        return "–"
    return f"p50 {1000 * quantile(seconds, 0.5):.0f} ms, at most {1000 * max(seconds):.0f} ms"
