"""``mlx_gemma4 generate``: one answer to text, pictures, sound or video."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.prompt_cache import PromptCache
from mlx_gemma4.cli.shared.constraints import add_constraints, cut, open_constraint
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, drafted, open_drafter
from mlx_gemma4.cli.shared.notes import LOOPED, note, note_broken, statistics
from mlx_gemma4.cli.shared.options import (
    add_loops,
    add_model,
    add_sampling,
    add_selection,
    load_model,
    sampling,
    selection,
)
from mlx_gemma4.cli.shared.tools import add_tools, note_unbound, note_unwritten, opened_tools
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.inputs.prompt import Prompt
    from mlx_gemma4.inputs.vision.video import Selection
    from mlx_gemma4.outputs.grammar.constraint import Constraint
    from mlx_gemma4.outputs.tools.sources import Tools

STRETCH = 10.0
"""Seconds of pictures before their sound, with ``--with-audio``."""

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--prompt",
    "--system",
    "--image",
    "--audio",
    "--video",
    "--tools",
    "--json-schema",
    "--prompt-cache",
    "--thinking",
    "--max-tokens",
    "--stats",
    "--temp",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    'mlx_gemma4 generate --prompt "What is this?" --image photo.jpg',
    "mlx_gemma4 generate -p - --audio talk.wav < question.txt",
    "mlx_gemma4 generate -p Read. --image receipt.jpg --json-schema receipt.json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--prompt", "-p", required=True, help="text of the user's message; - reads stdin")
    parser.add_argument("--system", help="system message")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="picture; can be repeated")
    parser.add_argument("--audio", action="append", default=[], metavar="FILE", help="recording; can be repeated")
    parser.add_argument("--video", action="append", default=[], metavar="FILE", help="video; can be repeated")
    parser.add_argument("--image-tokens", type=int, help="soft tokens of each picture: 70, 140, 280, 560 or 1120")
    add_tools(parser, runs=False)
    parser.add_argument(
        "--ignore-chat-template", action="store_true", help="continue the text of --prompt, without the chat template"
    )
    parser.add_argument(
        "--prompt-cache",
        metavar="FILE",
        help="do not compute again what FILE holds of the prompt; if there is no FILE, save the computed prompt there",
    )
    parser.add_argument("--thinking", action="store_true", help="let the model think before it answers")
    parser.add_argument(
        "--thoughts",
        choices=("drop", "keep", "show"),
        default="drop",
        help="thoughts of the model: drop, keep in the text, or show on stderr (default: drop)",
    )
    parser.add_argument("--max-tokens", "-m", type=int, default=256, help="maximum length of the answer (default: 256)")
    parser.add_argument("--stats", action="store_true", help="print speed and memory on stderr")
    add_selection(parser).add_argument(
        "--with-audio",
        action="store_true",
        help=f"use the sound of videos too, after every {STRETCH:g} s of pictures",
    )
    add_constraints(parser)
    add_loops(parser)
    add_sampling(parser)
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> None:
    check_videos(arguments)
    check_plain(arguments)
    check_drafts(arguments)
    constraint = open_constraint(arguments)
    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    with opened_tools(arguments) as tools:
        _generate(arguments, text, tools, constraint)


def _generate(arguments: argparse.Namespace, text: str, tools: Tools | None, constraint: Constraint | None) -> None:
    cache = PromptCache(arguments.prompt_cache)
    model, processor = load_model(arguments)
    drafter = open_drafter(arguments)
    if arguments.ignore_chat_template:
        prompt = processor.completion(text)
    else:
        prompt = chat_prompt(arguments, processor, text, tools)

    from mlx_gemma4.outputs.generate import marked, stream_generate
    from mlx_gemma4.outputs.grammar.calls import bound_calls

    response = None
    with cache.opened(model, processor, prompt):
        for response in stream_generate(
            model,
            processor,
            prompt[cache.kept :],
            max_tokens=arguments.max_tokens,
            sampling=sampling(arguments, processor.generation),
            thoughts=arguments.thoughts,
            session=cache.session,
            before=prompt[: cache.kept].token_ids.tolist(),
            drafter=drafter,
            constraint=constraint or bound_calls(None if tools is None else tools.schemas, processor),
            snapshots=cache.snapshots,
            stop_loops=not arguments.allow_loops,
        ):
            show(marked(response), sys.stderr if response.kind == "thought" else sys.stdout, end="")
        print()
    if response is not None and response.finish_reason == "length":
        is_full = response.generation_tokens < arguments.max_tokens
        where = "the end of the context (--context)" if is_full else f"{arguments.max_tokens} tokens (--max-tokens)"
        note(f"The answer was stopped at {where}{cut(constraint)}.")
    if response is not None and response.finish_reason == "loop":
        note(LOOPED)
    if response is not None and arguments.stats:
        note(statistics(response) + drafted(drafter))


def chat_prompt(arguments: argparse.Namespace, processor: Processor, text: str, tools: Tools | None) -> Prompt:
    """The prompt that the options describe."""
    from mlx_gemma4.inputs.messages import user_content

    schemas = None if tools is None else tools.schemas
    if schemas is not None:
        note_unwritten(processor, schemas)
        note_unbound(processor, schemas)
    videos = video_parts(
        arguments.video, processor, selection(arguments, processor.limits), with_audio=arguments.with_audio
    )
    messages: list[dict[str, Any]] = [{"role": "system", "content": arguments.system}] if arguments.system else []
    media = [{"type": kind, kind: path} for kind in ("image", "audio") for path in getattr(arguments, kind)]
    messages.append({"role": "user", "content": user_content(text, media, films=videos)})
    return processor.prompt(
        messages, enable_thinking=arguments.thinking, tools=schemas, image_tokens=arguments.image_tokens
    )


def check_plain(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if parts of a chat are given with ``--ignore-chat-template``."""
    names = ("system", "image", "audio", "video", "tools", "thinking")
    options = [f"--{name}" for name in names if getattr(arguments, name)]
    if arguments.ignore_chat_template and options:
        raise ValueError(f"--ignore-chat-template continues the text of --prompt alone: leave out {', '.join(options)}")


def check_videos(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if options of videos are given without a video."""
    options = (arguments.fps, arguments.max_frames, arguments.start, arguments.end, arguments.with_audio or None)
    if not arguments.video and any(option is not None for option in options):
        raise ValueError("--fps, --max-frames, --start, --end and --with-audio need a --video")


def video_parts(
    paths: list[str], processor: Processor, selected: Selection, *, with_audio: bool
) -> list[dict[str, Any]]:
    """The parts of a message with videos: each as a whole, or with its sound, stretch by stretch."""
    from mlx_gemma4.inputs.vision.video_file import VideoFile

    parts: list[dict[str, Any]] = []
    for path in paths:
        file = VideoFile(path, sound=with_audio)
        if with_audio:
            stretches = list(processor.stretches(file, STRETCH, selected))
            selected.check(sum(len(stretch.film) for stretch in stretches if stretch.film is not None))
            parts += [part for stretch in stretches for part in stretch.content]
        else:
            parts.append({"type": "video", "video": processor.film(file, selected)})
        note_broken(file)
    return parts
