"""MCP servers by streamable HTTP: called with headers, without proxies, and within bounds."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mcp_server import Failure, Server

from mlx_gemma4.mcp.server import McpServer
from mlx_gemma4.outputs.tools.calls import ToolCall

pytest.importorskip("mcp")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listening

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(dict(self.headers))
        if "id" not in message:
            self.answer(202, b"")
            return
        try:
            result = self.server.answers.result(message["method"], message.get("params") or {})
            body = {"result": result}
        except Failure as error:
            body = {"error": {"code": -32601, "message": str(error)}}
        data = json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}).encode()
        kind = self.server.kind if message["method"] == "tools/call" else "good"
        if kind == "redirect":
            self.answer(307, b"", Location="http://localhost:1/other")
        elif kind == "hang":
            self.server.over.wait(20)
        elif kind == "gzip":
            self.answer(200, gzip.compress(data), **{"Content-Encoding": "gzip"})
        elif kind == "long":
            self.answer(200, data + b" " * (17 * 2**20))
        elif kind == "events":
            self.answer(200, b"data: " + data + b"\n\n", **{"Content-Type": "text/event-stream"})
        elif kind == "flood":
            note = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}})
            self.answer(200, f"data: {note}\n\n".encode() * 6000, **{"Content-Type": "text/event-stream"})
        else:
            self.answer(200, data)

    def do_GET(self) -> None:
        self.answer(405, b"")

    do_DELETE = do_GET

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class Listening(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind = "good"
        self.answers = Server("good")
        self.seen: list[dict[str, str]] = []
        self.over = threading.Event()

    def handle_error(self, *_: Any) -> None: ...


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with Listening() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def address(listening: Listening) -> str:
    return f"http://127.0.0.1:{listening.server_port}/mcp"


def test_functions_by_http(listening: Listening, tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    entry = {"url": address(listening), "headers": {"Authorization": "Bearer x"}}
    config.write_text(json.dumps({"mcpServers": {"sums": entry}}))
    with McpServer("sums", config=config) as server:
        assert server.call(ToolCall("1", "add", {"a": 2, "b": 40})).text == "42"
        listening.kind = "events"
        assert server.call(ToolCall("1", "add", {"a": 3, "b": 40})).text == "43"
        (picture,) = server.call(ToolCall("1", "picture", {})).media
        assert picture["image"].shape == (48, 48, 3)
    assert {headers["Authorization"] for headers in listening.seen} == {"Bearer x"}


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("redirect", "Redirect to http://localhost:1/other not followed; use that URL as the endpoint if it is the"),
        ("hang", "did not answer the call of add within 0.5 s"),
        ("gzip", "The server sends compressed answers"),
        ("long", "it has more than 16 MB"),
        ("flood", "it sent more than 5,000 messages within 10 s"),
    ],
)
def test_answers_beyond_bounds(listening: Listening, kind: str, problem: str) -> None:
    with McpServer(address(listening), time_limit=0.5 if kind == "hang" else 20) as server:
        listening.kind = kind
        started = time.monotonic()
        result = server.call(ToolCall("1", "add", {"a": 2, "b": 40}))
        assert result.is_error and problem in result.text
        assert time.monotonic() - started < 15


def test_nobody_listens() -> None:
    with pytest.raises(
        ValueError, match=r"^The MCP server localhost-1 cannot be used: All connection attempts failed "
    ):
        McpServer("http://localhost:1/mcp", start_limit=20)
