"""From the end of speech to its text: this server, and mlx-vlm's server of whole clips. Run it by hand.

    python tests/compare_servers.py --peer PYTHON

PYTHON is the interpreter of an environment with mlx-vlm, which this project does not depend on. Both serve the demo in
bfloat16 on this machine, and are asked in turn. This server gets the sound at the pace at which it is spoken, over
Realtime with commits. A server of clips can be asked only when somebody has stopped speaking, so mlx-vlm's gets the
whole clip then, as ``input_audio`` of a chat; so does this one, for the third column.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from load_server import commit, dial, request, say
from reference_cases import media_file

from mlx_gemma4 import load_audio

SPEECH, RATE = "hibari-03.wav", 16_000
PATIENCE = 120.0
"""Seconds until a server listens."""


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[None]:
    """A server that listens."""
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not listens(port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"This server does not start: {' '.join(command)}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(30)


def listens(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def ask(port: int, model: str, samples: np.ndarray) -> tuple[float, str]:
    """Seconds until the answer about a whole clip, and the answer."""
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, "PCM_16", format="WAV")
    sound = {"data": base64.b64encode(file.getvalue()).decode(), "format": "wav"}
    content = [{"type": "text", "text": "Transcribe the audio."}, {"type": "input_audio", "input_audio": sound}]
    messages = [{"role": "user", "content": content}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 200, "temperature": 0})
    began = time.monotonic()
    reply = json.loads(request(port, "POST", "/v1/chat/completions", body))
    return time.monotonic() - began, reply["choices"][0]["message"]["content"]


def compare(own: int, other: int, model: str, lengths: Sequence[float], rounds: int) -> None:
    speech = load_audio(media_file(SPEECH))[: 3 * RATE]
    print("speech | Realtime, while it is spoken | mlx-vlm, whole clip | this server, whole clip (medians of seconds)")
    with dial(own) as socket:
        for seconds in lengths:
            samples = np.resize(speech, round(seconds * RATE))
            found: list[tuple[float, float, float]] = []
            for number in range(rounds + 1):  # the first one of each warms up
                say(socket, samples, pace=1)
                live, clip = commit(socket), ask(other, model, samples)
                shift = 640 * (number + 1)  # a clip that was asked about before is found in the cache
                own_clip = ask(own, Path(model).name, np.roll(samples, shift))
                found.append((live[0], clip[0], own_clip[0]))
            medians = [statistics.median(column) for column in zip(*found[1:], strict=True)]
            print(f"{seconds:g} s | " + " | ".join(f"{each:.3f}" for each in medians), flush=True)
            print(f"     heard: {live[1]!r}, {clip[1]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", required=True, help="the Python of an environment with mlx-vlm")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3, 10, 28])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=8470, help="this one and the next one are used")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = str(Path(work) / "demo")
        program = [sys.executable, "-m", "mlx_gemma4"]
        subprocess.run([*program, "convert", "--hf-path", "demo", "--mlx-path", folder, "--recipe", "bf16"], check=True)
        own = [*program, "serve", "--model", folder]
        other = [given.peer, "-m", "mlx_vlm.server", "--model", folder, "--host", "127.0.0.1"]
        with running(own, given.port), running(other, given.port + 1):
            compare(given.port, given.port + 1, folder, given.seconds, given.rounds)


if __name__ == "__main__":
    main()
