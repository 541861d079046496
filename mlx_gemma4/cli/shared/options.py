"""Options that several commands share."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from mlx_gemma4.checkpoint.hub import DEFAULT_MODEL, MODEL_VARIABLE, default_model
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.signals import starting

if TYPE_CHECKING:
    from mlx_gemma4.decoder.config import GenerationConfig
    from mlx_gemma4.decoder.memory import Use
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.audio.endpoint import Endpointing
    from mlx_gemma4.inputs.audio.pcm import RawFormat
    from mlx_gemma4.inputs.processor import Limits, Processor
    from mlx_gemma4.inputs.vision.video import Selection
    from mlx_gemma4.outputs.sample import Sampling
    from mlx_gemma4.programs.formats import Style


INSTRUCTION, MARKERS = 512, 64
"""Positions of an instruction, and of the markers around sound and turns, at most."""
SHORTEST = 0.04
"""Seconds of a frame, the shortest segment."""


def add_model(
    parser: argparse.ArgumentParser, dtype: str | None = None, *, context: str | None = "as many as fit"
) -> None:
    """Add the options of the checkpoint, of the type to compute in, and of memory.

    Args:
        dtype: The default type; None: the checkpoint's own.
        context: What the default of ``--context`` is, for its help; None leaves out the options of memory.
    """
    parser.add_argument(
        "--model",
        help=f"checkpoint folder, Hugging Face repo id, or 'demo' (default: ${MODEL_VARIABLE}, or {DEFAULT_MODEL})",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the repo")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default=dtype,
        help="compute in this type (default: the checkpoint's)"
        if dtype is None
        else f"compare in this type (default: {dtype})",
    )
    if context is not None:
        _add_memory(parser, context)


def _add_memory(parser: argparse.ArgumentParser, context: str) -> None:
    group = parser.add_argument_group("memory", "What does not fit is refused before anything is loaded.")
    group.add_argument(
        "--context", type=int, metavar="N", help=f"positions that a sequence may have (default: {context})"
    )
    group.add_argument(
        "--memory", type=float, metavar="GB", help="memory that this program may use (default: what the machine has)"
    )
    add_kv_bits(group)


def add_kv_bits(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option of the type of stored keys and values."""
    parser.add_argument(
        "--kv-bits",
        type=int,
        choices=(4, 8),
        help="store the keys and values of full layers in so many bits (default: as they are computed, in 16)",
    )


def load_model(arguments: argparse.Namespace, use: Use | None = None) -> tuple[Model, Processor]:
    """Load the checkpoint that the options name, if it fits.

    Args:
        use: What the command does with it; None: nothing out of the ordinary.
    """
    with starting():
        from mlx_gemma4.decoder.snapshots import Snapshots
        from mlx_gemma4.loading import ANY, load

        model, processor = load(
            arguments.model or default_model(),
            revision=arguments.revision,
            dtype=arguments.dtype,
            context=arguments.context,
            memory=arguments.memory,
            kv_bits=arguments.kv_bits,
            drafter=getattr(arguments, "draft_model", None),
            use=use or ANY,
        )
        model.snapshots = Snapshots(memory=model.snapshots.memory, say=note)
        return model, processor


def speech_use(max_segment: float, max_tokens: int = 256) -> Use:
    """What a command does that hears segments of so many seconds and writes so many tokens."""
    from mlx_gemma4.decoder.memory import SNAPSHOTS, Use

    frames = math.ceil(min(max_segment, 30.0) / SHORTEST) if max_segment > 0 else 0
    return Use(room=frames + max_tokens + MARKERS, least=INSTRUCTION + frames + max_tokens, snapshots=SNAPSHOTS)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add the options of sampling."""
    group = parser.add_argument_group("sampling", "Defaults come from the checkpoint's generation_config.json.")
    group.add_argument("--temp", type=float, help="temperature; 0 always takes the most likely token")
    group.add_argument("--top-k", type=int, metavar="K", help="sample from the K most likely tokens only")
    group.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the most likely tokens whose probabilities add up to P"
    )
    group.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        default=0.0,
        help="drop tokens less likely than this fraction of the most likely one (default: 0)",
    )
    group.add_argument("--repetition-penalty", type=float, help="make recent tokens less likely; 1.1 is mild")
    group.add_argument("--seed", type=int, help="seed of the random number generator")


def add_loops(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-loops", action="store_true", help="do not stop an answer that repeats itself over 512 tokens"
    )


def sampling(arguments: argparse.Namespace, config: GenerationConfig) -> Sampling:
    """The Sampling that the options describe."""
    from mlx_gemma4.outputs.sample import Sampling

    return Sampling(
        temperature=config.temperature if arguments.temp is None else arguments.temp,
        top_k=config.top_k if arguments.top_k is None else arguments.top_k,
        top_p=config.top_p if arguments.top_p is None else arguments.top_p,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
    )


def add_selection(parser: argparse.ArgumentParser, fps: float | None = None) -> argparse._ArgumentGroup:
    """Add the options of video frames; with a default ``fps``, for each segment."""
    where = "" if fps is None else " of a segment"
    group = parser.add_argument_group("video", "Times are seconds, mm:ss or hh:mm:ss from the video's first frame on.")
    group.add_argument(
        "--fps",
        type=float,
        default=fps,
        help="video frames per second (default: --max-frames in all, evenly spaced)"
        if fps is None
        else f"video frames per second (default: {fps:g})",
    )
    group.add_argument(
        "--max-frames", type=int, metavar="N", help=f"video frames{where}, at most (default: the checkpoint's)"
    )
    group.add_argument("--start", type=moment, metavar="TIME", help="leave out everything before")
    group.add_argument("--end", type=moment, metavar="TIME", help="leave out everything from here on")
    return group


def selection(arguments: argparse.Namespace, limits: Limits) -> Selection:
    """The Selection that the options describe."""
    from mlx_gemma4.inputs.vision.video import Selection

    return Selection(
        max_video_frames=limits.video_frames if arguments.max_frames is None else arguments.max_frames,
        fps=arguments.fps,
        start=arguments.start or 0.0,
        end=arguments.end,
    )


def moment(text: str) -> float:
    """Seconds, mm:ss or hh:mm:ss → seconds."""
    *larger, seconds = text.split(":")
    try:
        larger_units = [int(part) for part in larger]
        total = float(seconds) + sum(count * 60**power for power, count in enumerate(reversed(larger_units), 1))
        if (
            len(larger) > 2
            or (larger and not 0 <= float(seconds) < 60)
            or any(count > 59 for count in larger_units[1:])
        ):
            raise ValueError
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected seconds, mm:ss or hh:mm:ss, got {text!r}") from error
    return total


def add_speech(parser: argparse.ArgumentParser) -> None:
    """Add the options of transcription."""
    parser.add_argument(
        "--language", default="English", help="spoken language, as an English name or a code (default: English)"
    )
    parser.add_argument("--prompt", help="instruction, instead of Google's transcription prompt")
    parser.add_argument("--terms", metavar="A,B,…", help="names and words that the model should expect")
    parser.add_argument(
        "--max-segment", type=float, default=15.0, metavar="SECONDS", help="longest segment, at most 30 (default: 15)"
    )


def add_sound(parser: argparse.ArgumentParser) -> None:
    """Add the options of channels, and of recordings without a header."""
    group = parser.add_argument_group("sound")
    group.add_argument(
        "--channel",
        type=_channel,
        default="mix",
        metavar="N",
        help="channel to use: a number from 1 on, left, right, or mix for the mean of all (default: mix)",
    )
    group.add_argument(
        "--raw",
        metavar="ENCODING",
        help="encoding of a recording without a header: s16le, s24le, s32le, f32le, u8, alaw or mulaw, as in FFmpeg",
    )
    group.add_argument("--raw-rate", type=int, metavar="HZ", help="with --raw: sample rate (default: 16000)")
    group.add_argument(
        "--raw-channels", type=int, metavar="N", help="with --raw: number of interleaved channels (default: 1)"
    )


def _channel(text: str) -> int:
    """The number of a channel from 1 on; 0 is the mean of all."""
    names = {"mix": 0, "left": 1, "right": 2}
    if text not in names and not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, left, right or mix, got {text!r}")
    return names[text] if text in names else int(text)


def channel(arguments: argparse.Namespace) -> int | None:
    """The channel that the options name, from 1 on; None is the mean of all."""
    return arguments.channel or None


def raw_format(arguments: argparse.Namespace) -> RawFormat | None:
    """The format of a recording without a header; None if it has one."""
    from mlx_gemma4.inputs.audio.pcm import RawFormat

    if arguments.raw is None:
        if arguments.raw_rate is not None or arguments.raw_channels is not None:
            raise ValueError("--raw-rate and --raw-channels need --raw and an encoding, for example --raw s16le")
        return None
    rate, channels = arguments.raw_rate, arguments.raw_channels
    return RawFormat(arguments.raw, 16_000 if rate is None else rate, 1 if channels is None else channels)


def add_format(parser: argparse.ArgumentParser, jsonl: str) -> None:
    """Add the options of the output format; ``jsonl`` names what a line is."""
    parser.add_argument(
        "--format",
        choices=("txt", "json", "jsonl", "srt", "vtt"),
        default="txt",
        help=f"json: one document; jsonl: one JSON line for each {jsonl} (default: txt)",
    )
    parser.add_argument(
        "--word-times",
        action="store_true",
        help="write the times of words in json and jsonl, interpolated between the speech found",
    )
    parser.add_argument(
        "--max-line",
        type=int,
        metavar="N",
        help="break lines after at most N characters; srt and vtt split longer texts into cues",
    )


def text_style(arguments: argparse.Namespace) -> Style:
    """The Style that the options describe.

    Raises:
        ValueError: The format cannot express it, or the text is a translation, whose words have no times.
    """
    from mlx_gemma4.programs.formats import Style

    style = Style(word_times=arguments.word_times, max_line=arguments.max_line)
    style.check(arguments.format)
    for option, is_set in (("--word-times", arguments.word_times), ("--max-line", arguments.max_line is not None)):
        if is_set and arguments.translate_to is not None:
            raise ValueError(f"{option} does not work with --translate-to: words of a translation have no times")
    return style


def add_translation(parser: argparse.ArgumentParser) -> None:
    """Add the option of translation."""
    parser.add_argument(
        "--translate-to", metavar="LANGUAGE", help="also translate into this language, a name or a code"
    )


def speech_instruction(arguments: argparse.Namespace) -> str:
    """The instruction that the options describe."""
    from mlx_gemma4.programs.transcribe import instruction, with_terms

    text = arguments.prompt
    if text is None:
        text = instruction(arguments.language, arguments.translate_to)
    return text if arguments.terms is None else with_terms(text, arguments.terms.split(","))


def add_endpointing(parser: argparse.ArgumentParser) -> None:
    """Add the options of endpointing."""
    group = parser.add_argument_group("endpointing")
    group.add_argument(
        "--silence",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="silence that ends an utterance (default: 0.5)",
    )
    group.add_argument(
        "--pre-roll",
        type=float,
        default=0.5,
        metavar="SECONDS",
        help="sound to keep from before speech (default: 0.5)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="probability above which a frame is speech (default: 0.5)",
    )
    group.add_argument(
        "--level",
        type=float,
        default=-math.inf,
        metavar="DBFS",
        help="level below which everything is silence (default: the detector decides)",
    )


def endpointing(arguments: argparse.Namespace) -> Endpointing:
    """The Endpointing that the options describe."""
    from mlx_gemma4.inputs.audio.endpoint import LONGEST, Endpointing

    if not SHORTEST <= arguments.max_segment <= LONGEST:
        raise ValueError(
            f"--max-segment must be from {SHORTEST:g} to {LONGEST:g} seconds, got {arguments.max_segment:g}"
        )
    settings = Endpointing(
        threshold=arguments.threshold,
        release=min(arguments.threshold, Endpointing.release),
        level=arguments.level,
        silence=arguments.silence,
        pre_roll=arguments.pre_roll,
        tail=min(arguments.silence, Endpointing.tail),
    )
    settings.check_longest(arguments.max_segment)  # checked before the model is loaded; the endpointer checks it again
    return settings


def add_sensitivity(parser: argparse.ArgumentParser) -> None:
    """Add the option of how small a change counts."""
    parser.add_argument(
        "--sensitivity",
        type=float,
        default=0.5,
        help="how small a change counts, from 0 to 1; 1 notices the smallest (default: 0.5)",
    )


def threshold(arguments: argparse.Namespace) -> float:
    """The threshold of a Scene for ``--sensitivity``."""
    if not 0 <= arguments.sensitivity <= 1:
        raise ValueError(f"--sensitivity must be from 0 to 1, got {arguments.sensitivity:g}")
    return 2 ** (-8 * float(arguments.sensitivity))
