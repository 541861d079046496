"""What commands write to stderr: everything that is not a result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.signals import PROBLEM, Session
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.inputs.audio.endpoint import Endpointer
    from mlx_gemma4.inputs.vision.video_file import VideoFile
    from mlx_gemma4.live.hear.listener import Listener
    from mlx_gemma4.live.talk.assistant import Assistant
    from mlx_gemma4.outputs.generate import GenerationResponse
    from mlx_gemma4.programs.transcribe import Segment


FEW_BITS = 4
"""Bits of a weight in the smallest checkpoints."""
LOOPED = "(the answer was stopped: it repeats itself; --allow-loops lets it go on)"


def note(text: str) -> None:
    """Write a line to stderr."""
    show(text, sys.stderr)


def plural(count: int, noun: str) -> str:
    """``1 turn``, ``1,200 turns``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def note_gated(endpointer: Endpointer, name: str) -> None:
    """Report how much speech --level has dropped, if any."""
    if endpointer.gated:
        seconds = endpointer.gated * endpointer.frame_seconds
        note(f"{name}: {seconds:.2f} s of speech were below --level {endpointer.settings.level:g} and left out")


def note_overload(listener: Listener | Assistant) -> bool:
    """Report that the machine is too slow for live transcription, if it is; return whether it is."""
    overload = listener.overload
    if overload is None:
        return False
    remedies = []
    if getattr(listener.model.language_model.model.layers[0].mlp.down_proj, "bits", 16) > FEW_BITS:
        remedies.append(f"a checkpoint with {FEW_BITS} bits a weight")
    if overload.rarer_guesses:
        remedies.append("a larger --guess-every, or none")
    if overload.shorter_segments:
        remedies.append("a shorter --max-segment")
    remedies.append("closing other programs that use the GPU or much memory")
    note(
        f"The text falls behind: the model needs {overload.load:.1f} s for each second of speech. "
        f"What may help: {', '.join(remedies)}"
    )
    return True


def note_broken(file: VideoFile) -> None:
    """Report the packets of a video that could not be decoded, if any."""
    if file.broken:
        note(f"{file.path}: {file.broken} packets could not be decoded and were skipped")


def warn_incomplete(segments: list[Segment], name: str) -> None:
    """Report the segments that were stopped at their limit: their text may be incomplete."""
    for segment in segments:
        if not segment.complete:
            note(f"{name}: the text of {segment.start:.2f}–{segment.end:.2f} s was stopped at {segment.tokens} tokens")


def statistics(response: GenerationResponse) -> str:
    """Speed and memory of an answer, in a line."""
    return (
        f"prompt {response.prompt_tokens} tokens, {response.prompt_tps:.1f} tokens/s · "
        f"answer {response.generation_tokens} tokens, {response.generation_tps:.1f} tokens/s · "
        f"first token after {response.time_to_first_token:.3f} s · peak memory {response.peak_memory:.2f} GB"
    )


def end_code(session: Session, *problems: str | None) -> int:
    """Report why sources ended early; the exit code."""
    reasons = [problem for problem in problems if problem is not None]
    for problem in reasons:
        note(problem)
    return session.code or (PROBLEM if reasons else 0)
