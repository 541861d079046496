"""Show what this is: speech written down as it arrives, and pictures named, by the embedded checkpoint."""

from __future__ import annotations

import argparse

from mlx_gemma4.cli.options import note
from mlx_gemma4.hub import DEMO, demo_folder

RECORDING = "joe-04.wav"
PICTURES = ("picture-01.png", "picture-02.png")
QUESTION = "Describe the image."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fast", action="store_true", help="do not wait for the recording's own pace")


def run(arguments: argparse.Namespace) -> None:
    from mlx_gemma4.checkpoint import load
    from mlx_gemma4.generation import generate
    from mlx_gemma4.live.endpoint import Endpointer
    from mlx_gemma4.live.events import Final, Partial
    from mlx_gemma4.live.listen import listen
    from mlx_gemma4.live.listener import Listener
    from mlx_gemma4.live.sources import FileSource
    from mlx_gemma4.live.voice import Voice
    from mlx_gemma4.transcribe import Transcriber

    media = demo_folder() / "media"
    model, processor = load(DEMO)

    note(f"Listening to {RECORDING}, in 40 ms frames, each in the cache when it arrives:")
    source = FileSource(media / RECORDING, fast=arguments.fast)
    for event in listen(source, Listener(Transcriber(model, processor), Endpointer(Voice()))):
        if isinstance(event, Partial):
            note(f"  {event.end:.2f} s  {event.committed}[{event.draft}]")
        elif isinstance(event, Final):
            print(event.text, flush=True)
            note(f"  {1000 * event.delay:.0f} ms after the end of speech, in {event.forwards} forwards")

    for picture in PICTURES:
        content = [{"type": "image", "image": media / picture}, {"type": "text", "text": QUESTION}]
        note(f"Looking at {picture}:")
        print(generate(model, processor, processor.prompt([{"role": "user", "content": content}])))
