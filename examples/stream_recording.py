"""Transcribe a recording while it plays: every 40 ms frame is computed when it arrives.

    python examples/stream_recording.py [RECORDING] [MODEL]

Without arguments: a recording of the demo, and the demo's checkpoint.
"""

import sys
import time

from mlx_gemma4 import Transcriber, demo_folder, load, load_audio

FRAME_SECONDS = 0.04


def main(recording: str, name: str) -> None:
    model, processor = load(name)
    frames = processor.frames(load_audio(recording))  # [F, 640]
    transcriber = Transcriber(model, processor)

    started = time.monotonic()
    for number, frame in enumerate(frames, 1):
        time.sleep(max(0.0, started + number * FRAME_SECONDS - time.monotonic()))  # until it has been played
        for segment in transcriber.feed(frame[None]):
            print(segment.text)

    ended = time.monotonic()
    last = transcriber.finish()
    if last is not None:
        print(last.text)
        print(f"{1000 * (time.monotonic() - ended):.0f} ms after the last frame, in {last.forwards} forwards")


if __name__ == "__main__":
    arguments = sys.argv[1:] + [str(demo_folder() / "media" / "hibari-03.wav"), "demo"][len(sys.argv) - 1 :]
    main(*arguments)
