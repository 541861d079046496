"""A server in a thread, and a client of the standard library."""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from mlx_gemma4 import Drafter, Model, Processor, load
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.app import make_app
from mlx_gemma4.serve.web.run import Beside, Server, open_socket
from mlx_gemma4.serve.web.sessions import Sessions
from mlx_gemma4.serve.work import hearing
from mlx_gemma4.serve.work.hearing import Inbox

JSON = {"Content-Type": "application/json"}


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, without the end."""
        lines = [line.removeprefix("data: ") for line in self.body.decode().split("\n\n") if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json()["error"]
        return error


@dataclass
class Running:
    """A server that listens."""

    service: Service
    port: int
    other_port: int
    """Of the server beside it."""
    stop: Callable[[], None]
    """Lets it finish what it has begun, and end."""

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> Reply:
        connection = self.connect()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {**JSON, **headers})
        response = connection.getresponse()
        reply = Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
        connection.close()
        return reply

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, headers=headers)

    def chat(self, *messages: Any, **options: Any) -> Reply:
        return self.send("POST", "/v1/chat/completions", {"messages": list(messages), **options})


class Told(list[Any]):
    """An outbox that is never full."""

    is_full = False
    put = list.append


@contextmanager
def serving(
    *,
    sessions: int = 4,
    waiting: int = 8,
    limits: Limits | None = None,
    model: Callable[[], tuple[Model, Processor]] = lambda: load("demo", dtype="float32"),
    beside: Callable[[Service, socket.socket], Beside] | None = None,
    drafter: Callable[[], Drafter | None] = lambda: None,
    **guard: Any,
) -> Iterator[Running]:
    """A server on a free port, by default of the demo in float32."""
    service = Service(
        model,
        ["demo", "other-name", "demo"],
        most_sessions=sessions,
        most_waiting=waiting,
        limits=limits,
        load_drafter=drafter,
    )
    ready = threading.Event()
    # clips come all at once, and this machine may be busy: they are live and never late all the same
    never_late = patch.dict(Inbox.__init__.__kwdefaults__ or {}, clock=lambda: 0.0)
    always_live = patch.object(hearing, "HASTE", math.inf)
    with open_socket("127.0.0.1", 0) as where, open_socket("127.0.0.1", 0) as other, never_late, always_live:
        live = Sessions()
        app = make_app(service, live, **{"host": "127.0.0.1", **guard})
        server = Server(app, started=ready.set, beside=[live, *([beside(service, other)] if beside else [])])
        thread = threading.Thread(target=server.listen, args=[where])
        thread.start()
        assert ready.wait(30)
        try:
            yield Running(service, where.getsockname()[1], other.getsockname()[1], server.drain)
        finally:
            server.drain()
            thread.join(30)
            service.close()
            assert not thread.is_alive()
