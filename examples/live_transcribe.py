"""Transcribe the microphone: words while they are spoken, the whole text when the speaker stops.

    python examples/live_transcribe.py [MODEL] [RECORDING]

With a recording, it is played instead of listening to the microphone; Ctrl-C ends.
"""

import sys
from contextlib import suppress

from mlx_gemma4 import Final, Microphone, Partial, listen, load


def main(name: str = "demo", recording: str | None = None) -> None:
    model, processor = load(name)
    if recording is not None:
        for event in listen(recording, model, processor, fast=False):  # each 40 ms frame is computed when it arrives
            show(event)
        return
    with Microphone() as microphone, suppress(KeyboardInterrupt):
        for event in listen(microphone, model, processor):
            show(event)


def show(event: object) -> None:
    if isinstance(event, Partial):
        print(f"\r\033[K{event.committed}\033[2m{event.draft}\033[0m", end="", flush=True)
    elif isinstance(event, Final):
        print(f"\r\033[K{event.text}  \033[2m({1000 * event.after_speech:.0f} ms after speech)\033[0m")


if __name__ == "__main__":
    main(*sys.argv[1:])
