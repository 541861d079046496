"""Clients that harm: too fast, deaf, gone, or talking nonsense. Each works until a time, on a server that runs."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from client_parts import base64_of, pcm
from fuzz_events import sequence
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

HASTE = 100
"""Times faster than sound is spoken."""
SPEECH = pcm("hibari-03.wav")
SETTINGS = {
    "type": "transcription",
    "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None}},
    "include": ["item.input_audio_transcription.hypotheses"],
}
Hostile = Callable[[int, float, Random], None]


def rushes(port: int, end: float, random: Random) -> None:
    """Sends speech 100 times faster than it is spoken, and commits now and then."""
    message = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(SPEECH).decode()})
    while time.monotonic() < end:
        with suppress(ConnectionClosed, OSError), connect(address(port), proxy=None, max_size=None) as live:
            live.send(json.dumps({"type": "session.update", "session": SETTINGS}))
            for _ in range(random.randint(5, 60)):
                live.send(message)
                time.sleep(len(SPEECH) / 32_000 / HASTE)
                if random.random() < 0.1:
                    live.send('{"type": "input_audio_buffer.commit"}')
                if time.monotonic() > end:
                    return


def never_reads(port: int, end: float, random: Random) -> None:
    """Asks for long streams and for events, and takes none of them."""
    body = json.dumps(
        {"messages": [{"role": "user", "content": "Go on."}], "stream": True, "temperature": 2, "max_tokens": 8000}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.sendall(head + body)
            time.sleep(min(random.uniform(5, 60), max(0.0, end - time.monotonic())))


def deaf(port: int, end: float, random: Random) -> None:
    """Speaks on a WebSocket as it is spoken, asks for all guesses, and reads nothing."""
    message = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(SPEECH).decode()})
    while time.monotonic() < end:
        with suppress(ConnectionClosed, OSError), connect(address(port), proxy=None, max_queue=1) as live:
            live.send(json.dumps({"type": "session.update", "session": SETTINGS}))
            while time.monotonic() < end:
                live.send(message)
                time.sleep(len(SPEECH) / 32_000)


def vanishes(port: int, end: float, random: Random) -> None:
    """Goes in the middle of a request, an upload, a stream or a session."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_of('picture-02.png')}"}}
    ask = json.dumps({"messages": [{"role": "user", "content": [picture]}], "stream": True}).encode()
    while time.monotonic() < end:
        with suppress(ConnectionClosed, OSError):
            if random.random() < 0.5:
                with connect(address(port), proxy=None) as live:
                    for message in sequence(random):
                        live.send(message)
                    live.socket.shutdown(socket.SHUT_RDWR)
            else:
                path = random.choice(("/v1/chat/completions", "/v1/audio/transcriptions"))
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(ask)}\r\n\r\n".encode()
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall((head + ask)[: random.choice((30, len(head) + 100, len(head) + len(ask)))])
                    time.sleep(random.uniform(0, 0.3))
        time.sleep(0.2)


def babbles(port: int, end: float, random: Random) -> None:
    """Sends what is no HTTP, no WebSocket, and no event."""
    upgrade = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(1)
            if random.random() < 0.5:
                client.sendall(upgrade)
                client.recv(4096)
            for _ in range(random.randint(1, 20)):
                client.sendall(random.randbytes(random.choice((1, 10, 1000, 100_000))))
            client.recv(4096)
        time.sleep(0.3)


def address(port: int) -> str:
    return f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription"


ALL: tuple[Hostile, ...] = (rushes, never_reads, deaf, vanishes, babbles)
