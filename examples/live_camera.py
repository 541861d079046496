"""A standing question about a camera: an answer when the scene changes, no forward pass while it does not.

    python examples/live_camera.py [MODEL] [SOURCE] [QUESTION]

SOURCE is a camera's number (default: 0), a video, an rtsp:// or http:// address, or lavfi:GRAPH; Ctrl-C ends.
"""

import sys

from mlx_gemma4 import Camera, Watcher, Watching, load


def main(name: str = "demo", source: str = "0", question: str = "Describe the image.") -> None:
    model, processor = load(name)
    watcher = Watcher(model, processor, Watching(question, heartbeat=30))
    with Camera(source) as camera:
        try:
            while (shot := camera.read()) is not None:  # the newest frame: older ones were dropped
                answer = watcher.see(shot)
                if answer is not None:
                    print(f"{answer.time:7.2f} s  {answer.text}  ({1000 * answer.age:.0f} ms old)")
        except KeyboardInterrupt:
            pass
        if camera.problem is not None:
            print(camera.problem, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
