"""Microphone and camera in one session: ask about what the camera sees, and speak again to interrupt the answer.

    python examples/live_assistant.py [MODEL] [CAMERA] [RECORDING]

CAMERA is a device's number, a file, an address or lavfi:GRAPH. A RECORDING replaces the microphone, and is played with
the camera as fast as possible. Ctrl-C ends.
"""

import sys

from mlx_gemma4 import (
    Answered,
    Assistant,
    Camera,
    FileSource,
    Heard,
    Inbox,
    Microphone,
    Replay,
    Said,
    Scene,
    converse,
    load,
)


def main(name: str = "demo", source: str = "0", recording: str | None = None) -> None:
    model, processor = load(name)
    assistant = Assistant(model, processor)
    with Camera(source, fast=recording is not None) as camera:
        if recording is not None:
            talk(assistant, Replay(FileSource(recording, fast=True), camera))
        else:
            with Microphone() as microphone, Inbox(microphone, camera) as arrivals:
                talk(assistant, arrivals)


def talk(assistant: Assistant, arrivals: Inbox | Replay) -> None:
    # patches and frames are computed when they arrive; a scene that does not change costs nothing
    for event in converse(assistant, arrivals, scene=Scene()):
        if isinstance(event, Heard):
            print(f"\033[2m{event.start:.1f}–{event.end:.1f} s\033[0m")
        elif isinstance(event, Said):
            print(event.text, end="", flush=True)
        elif isinstance(event, Answered):
            print(f"  \033[2m({1000 * event.delay:.0f} ms, {event.reason})\033[0m")


if __name__ == "__main__":
    main(*sys.argv[1:])
