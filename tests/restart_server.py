"""Restarts of a server under load: nothing that it has acknowledged is lost, and it ends soon. Run it by hand.

    python tests/restart_server.py --rounds 10
    python tests/restart_server.py --rounds 10 --kill

Speakers commit speech, chats stream answers about a picture, and conversations ask about one, until the server is told
to end at a random moment. Then the next one starts on the same port. Acknowledged are a commit once ``committed`` has
come, an answer once its stream has begun, and a response once ``response.created`` has come: each must be told to its
end, with the text of the reference. With ``--kill`` the server has no time for that (SIGKILL): the next one must start
at once and be right, and no file may be left.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from client_parts import DESCRIBE, PICTURE, SPEECH, named, pcm, picture_url, pieces, said
from load_server import dial
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from mlx_gemma4.serve.engine import CLOSING

SPEAKERS, CHATS, CONVERSATIONS = 4, 3, 3
BLOCK = 3200
"""Bytes of an append: 0.1 s."""


class Refused(Exception):
    """The server has answered with an error."""


class Seen:
    """What all clients of a round have seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.told = 0
        self.problems: list[str] = []
        self.last = time.monotonic()
        """When something that was acknowledged has last been told to its end."""
        self.is_over = threading.Event()

    @contextmanager
    def acknowledged(self, what: str, expected: str) -> Iterator[Callable[[str], None]]:
        """A block that tells the text of something; a connection that ends before is a loss."""
        texts: list[str] = []
        try:
            yield texts.append
        except (Refused, ConnectionClosed, OSError, http.client.HTTPException) as error:
            if not texts:
                with self._lock:
                    self.problems.append(f"{what} was lost: {type(error).__name__}: {error}")
                raise
        with self._lock:
            self.told += 1
            self.last = time.monotonic()
            if texts != [expected]:
                self.problems.append(f"{what}: {texts!r} instead of {expected!r}")


def speak(port: int, seen: Seen, random: Random) -> None:
    with dial(port) as client:
        while not seen.is_over.is_set():
            for block in pieces(pcm(SPEECH), BLOCK):
                client.send(
                    json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(block).decode()})
                )
                time.sleep(random.uniform(0, 0.1))
            client.send('{"type": "input_audio_buffer.commit"}')
            until(client, "input_audio_buffer.committed")
            with seen.acknowledged("a commit", said(SPEECH)) as tell:
                tell(until(client, "conversation.item.input_audio_transcription.completed")["transcript"])


def converse(port: int, seen: Seen, random: Random) -> None:
    content = [{"type": "input_image", "image_url": picture_url()}, {"type": "input_text", "text": DESCRIBE}]
    while not seen.is_over.is_set():
        with connect(f"ws://127.0.0.1:{port}/v1/realtime?model=demo", proxy=None, max_size=None) as client:
            item = {"type": "message", "role": "user", "content": content}
            client.send(json.dumps({"type": "conversation.item.create", "item": item}))
            client.send('{"type": "response.create"}')
            until(client, "response.created")
            with seen.acknowledged("a response", named(PICTURE)) as tell:
                done = until(client, "response.done")["response"]
                tell(done["output"][0]["content"][0]["text"] if done["status"] == "completed" else done["status"])
        time.sleep(random.uniform(0, 0.2))


def chat(port: int, seen: Seen, random: Random) -> None:
    content = [{"type": "image_url", "image_url": {"url": picture_url()}}, {"type": "text", "text": DESCRIBE}]
    body = json.dumps({"messages": [{"role": "user", "content": content}], "stream": True})
    while not seen.is_over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/v1/chat/completions", body)
            response = connection.getresponse()
            with seen.acknowledged("a stream", named(PICTURE)) as tell:
                tell(streamed(response.read().decode()))
        finally:
            connection.close()
        time.sleep(random.uniform(0, 0.2))


def streamed(data: str) -> str:
    """The text of a stream that has its end, or the whole stream."""
    lines = [line.removeprefix("data: ") for line in data.split("\n\n") if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        return data
    return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1])


def until(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    while (event := json.loads(client.recv(timeout=60)))["type"] != kind:
        if event["type"] == "error":
            raise Refused(event["error"]["message"])
    return dict(event)


def start(port: int, folder: str) -> tuple[subprocess.Popen[bytes], float]:
    """A server that listens, and the seconds until it did."""
    began = time.monotonic()
    command = [sys.executable, "-m", "mlx_gemma4", "serve", "--model", "demo", "--dtype", "float32"]
    options = ["--port", str(port), "--max-sessions", "20"]
    process = subprocess.Popen([*command, *options], env={**os.environ, "TMPDIR": folder}, stderr=subprocess.PIPE)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith(b"Serving"), line
    return process, time.monotonic() - began


def play(port: int, process: subprocess.Popen[bytes], random: Random, *, kills: bool) -> tuple[Seen, float]:
    """Load a server until a random moment, then end it; what was seen, and seconds from the last text to its end."""
    seen = Seen()

    def guarded(client: Callable[[int, Seen, Random], None], seed: float) -> None:
        try:
            with suppress(OSError, WebSocketException, http.client.HTTPException):  # ended with nothing acknowledged
                client(port, seen, Random(seed))
        except Refused as error:
            if CLOSING not in str(error):
                seen.problems.append(repr(error))
        except Exception as error:
            seen.problems.append(repr(error))

    clients = [speak] * SPEAKERS + [chat] * CHATS + [converse] * CONVERSATIONS
    threads = [threading.Thread(target=guarded, args=[client, random.random()]) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(random.uniform(1, 8))
    process.send_signal(signal.SIGKILL if kills else signal.SIGTERM)
    code = process.wait(60)
    ended = time.monotonic()
    seen.is_over.set()
    for thread in threads:
        thread.join(60)
    if kills:
        seen.problems = [each for each in seen.problems if "was lost" not in each]
    elif code != 128 + signal.SIGTERM:
        seen.problems.append(f"it has ended with {code}")
    return seen, ended - seen.last


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    random, problems, told = Random(given.seed), 0, 0
    starts, ends = [], []
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        for number in range(given.rounds):
            process, seconds = start(port, folder)
            seen, after = play(port, process, random, kills=given.kill)
            left = [each.name for each in Path(folder).iterdir()]
            seen.problems += [f"{name} is left" for name in left]
            starts.append(seconds)
            ends.append(after)
            told += seen.told
            problems += len(seen.problems)
            for problem in seen.problems:
                print(f"round {number}: {problem}", flush=True)
    print(f"{given.rounds} rounds: {told} texts were told to their end, {problems} problems")
    print(f"listening after {statistics.median(starts):.2f} s in the median, {max(starts):.2f} s at most")
    if not given.kill:
        print(f"ended {statistics.median(ends):.2f} s after the last text in the median, {max(ends):.2f} s at most")
    return min(1, problems)


if __name__ == "__main__":
    sys.exit(main())
