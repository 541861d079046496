"""``mlx_gemma4 serve`` as users run it: what is refused before a model is loaded, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from golden import utterances
from reference_cases import media_file
from test_serve_speech import form

from mlx_gemma4 import demo_folder
from mlx_gemma4.cli import parser, serve

ROOT = Path(__file__).parent.parent
SPEECH = "hibari-03.wav"

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--host", "0.0.0.0"],
            "--host 0.0.0.0 lets other computers connect: set an --api-key that clients must send, or leave --host out",
        ),
        (["--api-key", "schlüssel"], "--api-key must be of printable ASCII characters: it is sent in a header"),
        (["--port", "70000"], "--port must be from 0 to 65535, got 70000"),
        (["--max-sessions", "0"], "--max-sessions must be at least 1, got 0"),
        (["--max-waiting", "-1"], "--max-waiting must be at least 0, got -1"),
        (["--memory", "0", "--model", "demo", "--port", "0"], "Expected memory (--memory) of more than 0 and at most "),
        (["--drain", "-1"], "--drain must be at least 0, got -1"),
        (["--drain", "nan"], "--drain must be at least 0, got nan"),
        (["--host", "no.such.host.invalid", "--api-key", "k"], "--host no.such.host.invalid is no address of this "),
        (["--wyoming", "x"], "--wyoming must be PORT or HOST:PORT, with a port up to 65535, got 'x'"),
        (["--wyoming", "::1:"], "--wyoming must be PORT or HOST:PORT, with a port up to 65535, got '::1:'"),
        (["--wyoming", "no.such.host.invalid:1", "--port", "0"], "--wyoming no.such.host.invalid is no address of "),
        (["--language", "Klingon"], "Unknown language 'Klingon'. "),
        (["--port", "0", "--model", "./nowhere"], "Expected a checkpoint folder, "),
    ],
)
def test_options_that_are_wrong(options: list[str], message: str, refused: Refused) -> None:
    assert refused("serve", "--model", "nowhere", *options).startswith(message)


def test_without_the_extra_it_says_how_to_install_it(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    expected = (
        "serve needs the serve extra; install it with pip install 'mlx-gemma4[serve]', or '.[serve]' in a checkout"
    )
    assert refused("serve", "--model", "demo") == expected


def test_without_the_extra_of_wyoming(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "wyoming" else object())
    expected = (
        "--wyoming needs the wyoming extra; install it with pip install 'mlx-gemma4[serve,wyoming]', "
        "or '.[serve,wyoming]' in a checkout"
    )
    assert refused("serve", "--model", "demo", "--wyoming") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:10300", ("0.0.0.0", 10300)),
        ("[::1]:5", ("::1", 5)),
        (":5", ("127.0.0.1", 5)),
    ],
)
def test_the_address_of_wyoming(text: str, expected: tuple[str, int]) -> None:
    """It listens on this machine, also where --host does not."""
    assert serve.wyoming_address(text) == expected
    arguments = parser().parse_args(["serve", "--host", "0.0.0.0", "--wyoming"])
    assert serve.wyoming_address(arguments.wyoming) == ("127.0.0.1", 10300)


def test_what_may_be_fetched() -> None:
    chosen = [parser().parse_args(["serve", *options]).allow_fetch for options in ([], ["--allow-fetch"])]
    assert [serve.SCHEMES.get(each, ()) for each in (*chosen, "http")] == [(), ("https",), ("https", "http")]


def test_a_port_in_use(refused: Refused) -> None:
    """It is noticed before the model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = f"Cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port"
        assert refused("serve", "--model", "nowhere", "--port", str(port)) == expected
        expected = f"Cannot listen on 127.0.0.1:{port}: Address already in use; choose another --wyoming"
        assert refused("serve", "--model", "nowhere", "--port", "0", "--wyoming", str(port)) == expected


def test_the_path_of_a_folder_is_not_told() -> None:
    assert serve.model_name(str(demo_folder() / "checkpoint")) == "checkpoint"
    assert serve.model_name("owner/name") == "owner/name"
    assert serve.address("::1", 80) == "http://[::1]:80/v1"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "localhost:8080"),
        ("::", "localhost:8080"),
        ("10.0.0.2", "10.0.0.2:8080"),
        ("fd00::1", "[fd00::1]:8080"),
    ],
)
def test_what_to_type_into_a_browser(host: str, shown: str) -> None:
    """Only pages of localhost may use the microphone."""
    assert serve.page_address(host, 8080) == shown


class Process:
    """A server in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "mlx_gemma4", "serve", "--model", "demo", "--dtype", "float32", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.fullmatch(r"Serving demo at http://127\.0\.0\.1:(\d+)/v1\n", line)
        assert found is not None, line
        self.port = int(found[1])
        assert self.process.stderr.readline() == f"Open localhost:{self.port} in a browser to talk to it\n"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it has written since."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def started() -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def start(*options: str) -> Process:
        processes.append(Process(*options))
        return processes[-1]

    yield start
    for each in processes:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


class Stream:
    """A transcription that has begun: its head is sent before anything is computed."""

    def __init__(self, server: Process, **headers: str) -> None:
        self._connection = server.connect()
        body, own = form([("stream", "true")], media_file(SPEECH).read_bytes())
        self._connection.request("POST", "/v1/audio/transcriptions", body, {**own, **headers})
        self.response = self._connection.getresponse()

    def read(self) -> bytes:
        try:
            return self.response.read()
        finally:
            self.response.close()
            self._connection.close()


def test_an_answer_that_has_begun_is_finished(started: Callable[..., Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM comes while the model computes. The key is from the environment, where no list of processes shows it."""
    monkeypatch.setenv("MLX_GEMMA4_API_KEY", "secret")
    server = started("--name", "other")
    refused = Stream(server)
    assert (refused.response.status, json.loads(refused.read())["error"]["code"]) == (401, "invalid_api_key")
    stream = Stream(server, Authorization="Bearer secret")
    os.kill(server.process.pid, signal.SIGTERM)
    events = [json.loads(line[6:]) for line in stream.read().split(b"\n\n") if line.startswith(b"data: {")]
    assert (events[-1]["type"], events[-1]["text"]) == ("transcript.text.done", " ".join(utterances(SPEECH)))
    assert server.end() == (143, "", "")


def test_after_a_limit_the_rest_is_cut(started: Callable[..., Process]) -> None:
    server = started("--drain", "0")
    stream = Stream(server)
    os.kill(server.process.pid, signal.SIGINT)
    with pytest.raises(http.client.IncompleteRead):
        stream.read()
    assert server.end() == (130, "", "")


def test_wyoming_beside_http(started: Callable[..., Process]) -> None:
    server = started("--wyoming", "0")
    assert server.process.stderr is not None
    found = re.fullmatch(r"Serving Wyoming at 127\.0\.0\.1:(\d+)\n", server.process.stderr.readline())
    assert found is not None
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as client:
        client.sendall(b'{"type": "ping"}\n')
        lines = client.makefile("rb")
        assert json.loads(lines.readline())["type"] == "pong"
        os.kill(server.process.pid, signal.SIGTERM)
        assert lines.read() == b'{"text": null}'
    assert server.end() == (143, "", "")


def test_a_second_signal_ends_it_at_once(started: Callable[..., Process]) -> None:
    """A client whose request is not complete is waited for until then."""
    server = started("--drain", "50")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        connection = server.connect()
        connection.request("GET", "/health")  # behind the first request, which is seen then
        assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.close()
        os.kill(server.process.pid, signal.SIGTERM)
        with pytest.raises(OSError):
            while True:  # until no connection is taken any more
                socket.create_connection(("127.0.0.1", server.port)).close()
                time.sleep(0.005)
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(timeout=20) == 143
    assert server.end() == (143, "", "")
