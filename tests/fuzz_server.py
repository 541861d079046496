"""Random requests and event sequences for a server: no 5xx, no traceback, no session that is stuck.

    python tests/fuzz_server.py --requests 3000 --sequences 5000 --seed 1
    python tests/fuzz_server.py --port 8091 --only realtime

It starts a server with the demo, unless ``--port`` names one. Number N of a seed is always the same: ``--first N``.
Where the package ``openai`` is installed, each event of the server is read by its types.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from socket import SHUT_RDWR
from typing import Any, get_args

from fuzz_events import QUERIES, sequence
from fuzz_requests import Request, make_request
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
"""Seconds for an answer."""
BUSY = 1013
Check = Callable[[dict[str, Any]], None]


class Wrong(Exception):
    """What a server must not do."""


def check_request(port: int, request: Request) -> str:
    """Send a request; what came back, in a word.

    Raises:
        Wrong: A status from 500 on that does not ask to come later, an error without a message, or a stream that fails
            for a reason that is not the client's.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        response = connection.getresponse()
        data = response.read()
    except (http.client.HTTPException, OSError) as error:
        raise Wrong(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if response.status >= 500 and response.headers.get("Retry-After") is None:
        raise Wrong(f"{response.status}: {data[:300]!r}")
    if b"internal_error" in data or b"The server failed" in data:
        raise Wrong(f"{data[-300:]!r}")
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    if response.status >= 400 and is_json and data and not json.loads(data)["error"]["message"]:
        raise Wrong(f"{response.status} without a message")
    return str(response.status)


def check_sequence(port: int, number: int, seed: int, check: Check) -> str:
    """Send a sequence of events, read what comes, and see that the session still answers; how it ended, in a word.

    While the sessions before it end, and all places are taken, it is sent again.

    Raises:
        Wrong: An event that the protocol does not have, or a session that does not answer.
    """
    began = time.monotonic()
    while (end := _send_sequence(port, number, seed, check)) == "busy":
        if time.monotonic() - began > PATIENCE:
            raise Wrong("All sessions are in use")
        time.sleep(0.02)
    return end


def _send_sequence(port: int, number: int, seed: int, check: Check) -> str:
    random = Random(f"{seed} realtime {number}")
    query, manner = random.choice(QUERIES), random.random()
    try:
        with connect(f"ws://127.0.0.1:{port}/v1/realtime{query}", proxy=None, max_size=None) as socket:
            for message in sequence(random):
                socket.send(message)
                if manner < 0.3:  # reads as it goes
                    _read_what_is_there(socket, check)
            if manner > 0.8:
                socket.socket.shutdown(SHUT_RDWR)
                return "vanished"
            return _probe(socket, check)
    except ConnectionClosed as error:
        code = error.rcvd.code if error.rcvd is not None else None
        if code != BUSY:
            raise Wrong(f"The server has closed with {code}") from error
        return "busy"


def _probe(socket: ClientConnection, check: Check) -> str:
    """Ask something whose answer is an error that names the question."""
    socket.send('{"type": "probe", "event_id": "probe"}')
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            event = _checked(socket.recv(timeout=PATIENCE), check)
        except TimeoutError:
            break
        if event["type"] == "error" and (isinstance(event["error"], str) or event["error"].get("event_id") == "probe"):
            return "answered"
    raise Wrong("The session does not answer any more")


def _read_what_is_there(socket: ClientConnection, check: Check) -> None:
    with suppress(TimeoutError):
        while True:
            _checked(socket.recv(timeout=0.001), check)


def _checked(message: str | bytes, check: Check) -> dict[str, Any]:
    event = json.loads(message)
    error = event.get("error")
    if isinstance(error, dict) and error.get("code") == "internal_error":
        raise Wrong(f"{event}")
    check(event)
    return dict(event)


def event_check() -> Check:
    """What checks events of OpenAI's protocol: the client's types, or their ids at least."""
    try:
        from openai.types.realtime import RealtimeServerEvent
    except ImportError:
        return has_id
    known = {get_args(form.model_fields["type"].annotation)[0]: form for form in _members(RealtimeServerEvent)}

    def is_valid(event: dict[str, Any]) -> None:
        if is_vllm(event) or event["type"].endswith(".hypothesis"):
            return
        if "session" in event:  # what is this server's own: other rates, and guesses
            event["session"].pop("include", None)
            event["session"].get("audio", {}).get("input", {}).pop("format", None)
        if event["type"] not in known:
            raise Wrong(f"{event['type']} is no event of the client's")
        try:
            known[event["type"]].model_validate(event)
        except ValueError as error:
            raise Wrong(f"{event['type']} is not the client's: {str(error)[:400]}") from error

    return is_valid


def has_id(event: dict[str, Any]) -> None:
    if not is_vllm(event) and not isinstance(event.get("event_id"), str):
        raise Wrong(f"No id: {event}")


def _members(union: Any) -> list[Any]:
    """The classes of a union, which may be annotated."""
    found = [each for part in get_args(union) for each in (part, *get_args(part))]
    return [each for each in found if hasattr(each, "model_fields")]


def is_vllm(event: dict[str, Any]) -> bool:
    kind = event["type"]
    return kind in ("transcription.delta", "transcription.done") or (kind == "error" and "event_id" not in event)


@contextmanager
def server() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server with the demo in a process of its own; its port."""
    command = [sys.executable, "-m", "mlx_gemma4", "serve", "--model", "demo", "--dtype", "float32", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r":(\d+)/v1", process.stderr.readline())
    assert found is not None, process.stderr.read()
    try:
        yield int(found[1]), process
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
        problems = [line for line in said.splitlines() if "failed with" in line or "Traceback" in line]
        for line, count in Counter(problems).most_common(10):
            print(f"{count} times on the terminal: {line}")


def figures(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


def idle(port: int) -> float:
    """Seconds until no session is left.

    Raises:
        Wrong: One is.
    """
    began = time.monotonic()
    while figures(port)["mlx_gemma4_sessions"]:
        if time.monotonic() - began > PATIENCE:
            raise Wrong("A session is left")
        time.sleep(0.2)
    return time.monotonic() - began


def fuzz(port: int, seed: int, only: str | None, requests: range, sequences: range) -> int:
    """Send all; the number of findings."""
    check, counts, wrong = event_check(), Counter[str](), 0
    work: list[tuple[str, range, Callable[[int], str]]] = [
        ("http", requests, lambda number: check_request(port, make_request(Random(f"{seed} http {number}")))),
        ("realtime", sequences, lambda number: check_sequence(port, number, seed, check)),
    ]
    for kind, numbers, send in work:
        if only not in (None, kind):
            continue
        for number in numbers:
            try:
                counts[f"{kind} {send(number)}"] += 1
            except Wrong as problem:
                wrong += 1
                print(f"{kind} {number}: {problem}", flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    print(
        f"no session after {idle(port):.1f} s, {figures(port)['mlx_gemma4_memory_bytes'] / 1e6:.0f} MB, {wrong} wrong"
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int)
    parser.add_argument("--only", choices=("http", "realtime"))
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--sequences", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it tells of connections that this program has cut
    ranges = [range(given.first, given.first + count) for count in (given.requests, given.sequences)]
    if given.port is not None:
        return min(1, fuzz(given.port, given.seed, given.only, *ranges))
    with server() as (port, process):
        wrong = fuzz(port, given.seed, given.only, *ranges)
        return 1 if wrong or process.poll() is not None else 0


if __name__ == "__main__":
    sys.exit(main())
