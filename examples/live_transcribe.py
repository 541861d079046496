"""The microphone to the terminal: words while they are spoken, the last one when the speaker stops.

    python examples/live_transcribe.py [MODEL] [RECORDING]

With a recording, it is played instead of listening to the microphone; Ctrl-C ends.
"""

import sys

from mlx_gemma4 import Endpointer, FileSource, Final, Listener, Microphone, Partial, Transcriber, Voice, listen, load


def main(name: str = "demo", recording: str | None = None) -> None:
    model, processor = load(name)
    listener = Listener(Transcriber(model, processor), Endpointer(Voice()))
    if recording is not None:
        write(listener, FileSource(recording))
    else:
        with Microphone() as microphone:
            try:
                write(listener, microphone)
            except KeyboardInterrupt:
                for event in listener.finish():
                    show(event)


def write(listener: Listener, source: FileSource | Microphone) -> None:
    for event in listen(source, listener):  # each 40 ms frame is computed when it has arrived
        show(event)


def show(event: object) -> None:
    if isinstance(event, Partial):
        print(f"\r\033[K{event.committed}\033[2m{event.draft}\033[0m", end="", flush=True)
    elif isinstance(event, Final):
        print(f"\r\033[K{event.text}  \033[2m({1000 * event.after_speech:.0f} ms after speech)\033[0m")


if __name__ == "__main__":
    main(*sys.argv[1:])
