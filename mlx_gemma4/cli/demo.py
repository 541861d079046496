"""``mlx_gemma4 demo``: the built-in checkpoint transcribes, names pictures and answers spoken questions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.checkpoint.hub import DEMO, demo_folder
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor

RECORDING = "pico-04.wav"
PICTURES = ("picture-01.png", "picture-02.png")
QUESTION = "Describe the image."
ASKED, ASKED_ALOUD = "question.png", "question.wav"
FRAMES, CHANGED = ("before.png", "after.png"), "What changed?"

COMMON = (
    "--help",
    "--help-all",
    "--fast",
)
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 demo",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fast", action="store_true", help="play the recording as fast as the model can")


def run(arguments: argparse.Namespace) -> None:
    import numpy as np

    from mlx_gemma4.inputs.vision.image import load_image
    from mlx_gemma4.loading import load
    from mlx_gemma4.outputs.generate import generate

    media = demo_folder() / "media"
    model, processor = load(DEMO)

    def answer(*content: tuple[str, Any]) -> None:
        parts = [{"type": kind, kind: value} for kind, value in content]
        show(generate(model, processor, processor.prompt([{"role": "user", "content": parts}])))

    note(f"Listening to {RECORDING}, in 40 ms frames, each in the cache when it arrives:")
    transcribe(model, processor, media / RECORDING, fast=arguments.fast)
    for picture in PICTURES:
        note(f"Looking at {picture}:")
        answer(("image", media / picture), ("text", QUESTION))
    note(f"Looking at {ASKED}, asked about it in {ASKED_ALOUD}:")
    answer(("image", media / ASKED), ("audio", media / ASKED_ALOUD))
    note(f"Looking at two frames of a video, {' and '.join(FRAMES)}: {CHANGED}")
    frames = np.stack([load_image(media / frame) for frame in FRAMES])
    answer(("video", (frames, 1.0)), ("text", CHANGED))


def transcribe(model: Model, processor: Processor, recording: Path, *, fast: bool) -> None:
    """Transcribe a recording while it is played."""
    from mlx_gemma4.live.hear.events import Final, Partial
    from mlx_gemma4.live.hear.loop import listen

    for event in listen(recording, model, processor, fast=fast):
        if isinstance(event, Partial):
            note(f"  {event.end:.2f} s  {event.committed}[{event.draft}]")
        elif isinstance(event, Final):
            show(event.text)
            note(f"  {1000 * event.delay:.0f} ms after the silence that ended it, in {event.forwards} forwards")
