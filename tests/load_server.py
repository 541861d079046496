"""Many clients at once on a server that runs: texts, delays and memory. Run it by hand.

    mlx_gemma4 serve --model demo --dtype float32 --port 8091 --max-sessions 20
    python tests/load_server.py 8091 load --speakers 8 --chats 4 --hostile --pid PID --seconds 600
    python tests/load_server.py 8091 delay

``load``: each speaker sends a recording at the pace at which it is spoken, over and over, and commits; each chat asks
about a picture, over and over. Every text must be the one of the reference. With ``--hostile``, other clients send too
fast, read nothing, vanish, and send garbage (``hostile_clients.py``).
``delay``: from a commit to the text, behind short and long sound, sent at its own pace and all at once.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import hostile_clients
import numpy as np
from golden import named, utterances
from reference_cases import DESCRIBE, media_file
from websockets.sync.client import ClientConnection, connect

from mlx_gemma4 import load_audio

RECORDINGS, PICTURE = ("hibari-03.wav", "pico-04.wav", "espeak-00.wav"), "picture-02.png"
BLOCK = 1600
"""Samples of an append: 0.1 s."""
COMPLETED = "conversation.item.input_audio_transcription.completed"


class Figures:
    """What all clients have seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.delays: list[float] = []
        self.answers: list[float] = []
        self.wrong: list[str] = []

    def add(self, kind: list[float], seconds: float, found: str, expected: str) -> None:
        with self._lock:
            kind.append(seconds)
            if found != expected:
                self.wrong.append(f"{found!r} instead of {expected!r}")


@contextmanager
def dial(port: int) -> Iterator[ClientConnection]:
    form = {"type": "audio/pcm", "rate": 16_000}
    settings = {"type": "transcription", "audio": {"input": {"format": form, "turn_detection": None}}}
    with connect(f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription", proxy=None, max_size=None) as socket:
        socket.send(json.dumps({"type": "session.update", "session": settings}))
        yield socket


def say(socket: ClientConnection, samples: np.ndarray, *, pace: float) -> None:
    """Append sound; ``pace`` 1 is as it is spoken, 0 all at once."""
    started = time.monotonic()
    for start in range(0, len(samples), BLOCK):
        data = (samples[start : start + BLOCK] * 32767).astype("<i2").tobytes()
        socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}))
        time.sleep(max(0.0, pace * (start + BLOCK) / 16_000 - (time.monotonic() - started)))


def commit(socket: ClientConnection) -> tuple[float, str]:
    """Seconds until the text, and the text."""
    began = time.monotonic()
    socket.send('{"type": "input_audio_buffer.commit"}')
    while True:
        event: dict[str, Any] = json.loads(socket.recv(timeout=120))
        if event["type"] == COMPLETED:
            return time.monotonic() - began, event["transcript"]
        if event["type"] == "error":
            raise AssertionError(event["error"]["message"])


def speak(port: int, number: int, end: float, figures: Figures) -> None:
    with dial(port) as socket:
        turn = number
        while time.monotonic() < end:
            name = RECORDINGS[turn % len(RECORDINGS)]
            say(socket, load_audio(media_file(name)), pace=1)
            figures.add(figures.delays, *commit(socket), " ".join(utterances(name)))
            turn += 1


def ask(port: int, end: float, figures: Figures) -> None:
    url = f"data:image/png;base64,{base64.b64encode(media_file(PICTURE).read_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": DESCRIBE}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]})
    while time.monotonic() < end:
        began = time.monotonic()
        answer = json.loads(request(port, "POST", "/v1/chat/completions", body))
        text = answer["choices"][0]["message"]["content"]
        figures.add(figures.answers, time.monotonic() - began, text, named(PICTURE))


def request(port: int, method: str, path: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    data = connection.getresponse().read()
    connection.close()
    return data


def memory(port: int) -> float:
    """MB that the model holds, as the server counts it."""
    lines = request(port, "GET", "/metrics").decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("mlx_gemma4_memory_bytes ")) / 1e6


def resident(pid: int | None) -> float:
    """MB of a process."""
    if pid is None:
        return 0.0
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3


def load(port: int, speakers: int, chats: int, seconds: float, *, hostile: bool, pid: int | None) -> bool:
    """Whether all was well."""
    figures, end = Figures(), time.monotonic() + seconds
    problems: list[BaseException] = []

    def guarded(client: Callable[..., None], *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                client(*arguments)
            except BaseException as error:
                problems.append(error)

        return threading.Thread(target=run)

    threads = [guarded(speak, port, number, end, figures) for number in range(speakers)]
    threads += [guarded(ask, port, end, figures) for _ in range(chats)]
    beside = hostile_clients.ALL if hostile else ()
    for number, client in enumerate(beside):
        threading.Thread(target=client, args=(port, end, Random(number)), daemon=True).start()
    for thread in threads:
        thread.start()
    held, whole, loads = [], [], []
    while any(thread.is_alive() for thread in threads):
        held.append(memory(port))
        whole.append(resident(pid))
        loads.append(os.getloadavg()[0])
        time.sleep(5)
    for name, values in (("texts after commits", figures.delays), ("answers", figures.answers)):
        if len(values) > 1:
            cuts = statistics.quantiles(values, n=100)
            most = f"95 % within {cuts[94]:.2f} s, 99 % within {cuts[98]:.2f} s, at most {max(values):.2f} s"
            print(f"{len(values)} {name}: median {cuts[49]:.2f} s, {most}")
    for name, values in (("MLX", held), ("process", whole)):
        cuts = [len(values) * part // 4 for part in range(5)]
        parts = [statistics.median(values[start:end] or [0.0]) for start, end in pairwise(cuts)]
        print(f"memory ({name}): medians of quarters {', '.join(f'{part:.0f}' for part in parts)} MB")
    print(f"load of this machine ({os.cpu_count()} cores): {min(loads):.1f} to {max(loads):.1f}")
    print(f"{len(figures.wrong)} wrong texts, {len(problems)} clients failed")
    for each in (*figures.wrong[:5], *map(repr, problems[:5])):
        print(f"  {each}")
    return not figures.wrong and not problems


def delays(port: int, rounds: int = 5) -> None:
    """Rounds of all cases in turn; medians."""
    short = load_audio(media_file(RECORDINGS[0]))[: 3 * 16_000]
    sounds = {"3 s": short, "28 s": np.resize(short, 28 * 16_000)}
    cases = [(name, pace) for name in sounds for pace in (1.0, 0.0)]
    found: dict[tuple[str, float], list[float]] = {case: [] for case in cases}
    with dial(port) as socket:
        for _ in range(rounds):
            for name, pace in cases:
                began = time.monotonic()
                say(socket, sounds[name], pace=pace)
                waited = commit(socket)[0]
                # all at once: from the first append on, since that is when the speaker has stopped
                found[name, pace].append(waited if pace else time.monotonic() - began)
    for (name, pace), values in found.items():
        print(f"{name}, {'as it is spoken' if pace else 'all at once'}: {statistics.median(values):.3f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("what", choices=("load", "delay"))
    parser.add_argument("--speakers", type=int, default=8)
    parser.add_argument("--chats", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--pid", type=int, help="the server's process, for its memory")
    arguments = parser.parse_args()
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # hostile clients cut their connections
    if arguments.what == "delay":
        delays(arguments.port)
        return 0
    options = {"hostile": arguments.hostile, "pid": arguments.pid}
    return 0 if load(arguments.port, arguments.speakers, arguments.chats, arguments.seconds, **options) else 1


if __name__ == "__main__":
    sys.exit(main())
