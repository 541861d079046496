"""Functions of MCP servers: called, bounded, and what is said where a server is wrong."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp_server import command

from mlx_gemma4.cli.shared import signals
from mlx_gemma4.cli.shared.tools import opened_tools
from mlx_gemma4.mcp.server import McpServer, prefix_shared
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.outputs.tools.sources import join_tools, names

pytest.importorskip("mcp")


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    with McpServer(command(), time_limit=20) as opened:
        yield opened


def result(server: McpServer, name: str, **arguments: Any) -> ToolResult:
    return server.call(ToolCall("1", name, arguments))


def is_alive(process_id: int) -> bool:
    """Whether a process runs. One that ended, and that nobody waited for, does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_functions_are_declared_and_called(server: McpServer) -> None:
    assert server.schemas[0] == {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Do add.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    }
    assert server.runs("add") and not server.runs("subtract") and server.left_out == []
    assert (result(server, "add", a=2, b=40).text, server.source) == ("42", "the MCP server server")
    assert result(server, "subtract").text.startswith("error: there is no function subtract, only add, picture")


def test_pictures_and_sound_are_parts_of_a_result(server: McpServer) -> None:
    both = result(server, "both")
    assert [part["type"] for part in both.parts] == ["text", "image", "audio"]
    assert both.text == "Look:\n[image 1]\n[audio 1]"
    image, audio = both.media
    assert image["image"].shape == (48, 48, 3) and (image["image"] == np.array([200, 30, 30], np.uint8)).all()
    assert audio["audio"].shape == (1600,)


def test_other_contents_are_lines(server: McpServer) -> None:
    assert result(server, "structured").text == '{"kelvin": 300}'
    lines = result(server, "links").text.splitlines()
    assert lines[:3] == [
        "[resource test://text (text)]",
        "inside",
        "[resource test://b: application/zip, which cannot be read]",
    ]
    assert lines[3].startswith("[image that cannot be read: ")


def test_errors_of_a_function_are_results(server: McpServer) -> None:
    failed, refused = result(server, "fail"), result(server, "refuse")
    assert (failed.text, failed.is_error) == ("error:\nit broke", True)
    assert refused.text == r"error: The MCP server server refused the call of refuse: not\x1b[2J today"


def test_long_results_are_shortened(server: McpServer) -> None:
    long = result(server, "huge", size=100_000)
    assert long.left_out == 92_000 and len(long.text) < 8_100


def test_a_result_beyond_all_bounds_ends_the_server() -> None:
    with McpServer(command()) as server:
        problem = "The MCP server server has ended: it sent a message of more than 16 MB"
        assert result(server, "huge", size=17 * 2**20).text == f"error: {problem}"
        assert result(server, "add", a=1, b=1).text == f"error: {problem}"


def test_a_server_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with McpServer(command()) as server:
        environment = result(server, "environment").text
    assert "PATH" in environment and "hf_secret" not in environment


def test_a_call_that_takes_too_long_is_given_up() -> None:
    with McpServer(command(), time_limit=0.2) as server:
        assert (
            result(server, "wait").text == "error: The MCP server server did not answer the call of wait within 0.2 s"
        )


def test_a_server_that_dies_is_said_so_with_its_last_words() -> None:
    with McpServer(command()) as server:
        problem = r"error: The MCP server server has ended: exit status 3; it printed: going\x1b[2J"
        assert result(server, "quit").text == problem
        assert result(server, "add", a=1, b=1).text == problem


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("die", r"exit status 1; it printed: No licence\\x1b\[2J: ask for one \(.*mcp_server\.py die\)"),
        ("hang", r"it did not answer within 1 s \(.*"),
        ("noise", r"it sent more than 5,000 messages within 10 s; it printed: Welcome! / .*"),
        ("long", r"it sent a message of more than 16 MB \(.*"),
    ],
)
def test_servers_that_do_not_start(kind: str, problem: str) -> None:
    limit = 1 if kind == "hang" else 30
    with pytest.raises(ValueError, match=rf"^The MCP server server cannot be used: {problem}$"):
        McpServer(command(kind), start_limit=limit)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("mute", "The MCP server server did not answer the list of its functions within 0.3 s"),
        ("flood", "The MCP server server has ended: it sent more than 5,000 messages within 10 s"),
        (
            "broken",
            "The MCP server server answered the list of its functions in a way that the protocol does not allow: "
            "tools.0.inputSchema: Field required",
        ),
    ],
)
def test_servers_that_do_not_list(monkeypatch: pytest.MonkeyPatch, kind: str, message: str) -> None:
    monkeypatch.setattr("mlx_gemma4.mcp.server.LIST_LIMIT", 0.3 if kind == "mute" else 30)
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        McpServer(command(kind))


def test_functions_that_cannot_be_used_are_left_out() -> None:
    with McpServer(command("lie")) as server:
        (only,) = server.schemas
        assert only["function"]["description"] == r"\x1b[2J Adds.<turn|>"
        wrong = '"type" in the parameters of tool 1 in server must be text or a list of texts, got 5'
        needs = 'needs a "name" without spaces, braces and <|>, got'
        assert server.left_out == [
            f"'rm -rf /' of server is left out: tool 1 in server {needs} 'rm -rf /'",
            f"'<|tool_call>' of server is left out: tool 1 in server {needs} '<|tool_call>'",
            f"'{'n' * 64}' of server is left out: its name has more than 64 characters",
            "'add' of server is left out: there is another one of this name",
            f"'wrong' of server is left out: {wrong}",
            "'deep' of server is left out: the parameters of tool 1 in server are nested more than 32 deep",
            "'large' of server is left out: its schema has 50,324 characters, at most 32,000 are read",
            "'task' of server is left out: it runs as a task only, and tasks are not supported",
        ]


def test_a_list_without_end_is_cut() -> None:
    with McpServer(command("many")) as server:
        assert len(server.schemas) == 128
        assert server.left_out == ["server lists more than 128 functions: those behind them are left out"]


@pytest.mark.parametrize(("kind", "what"), [("change", "has changed it"), ("gone", "does not have it any more")])
def test_a_function_that_changed_is_not_called(kind: str, what: str) -> None:
    """What was allowed is what was listed; new functions are not there."""
    with McpServer(command(kind)) as server:
        refused = f"add was not called: the server {what} since it was listed. Start again to use it"
        assert result(server, "add", a=1, b=2).text == f"error: {refused}"
        assert not server.runs("new") and len(names(server)) == 12


def test_names_that_two_servers_have(server: McpServer) -> None:
    with McpServer(command("change")) as first, McpServer(command()) as second:
        first.name = second.name = "sums"
        prefix_shared([first, second])
        assert names(first)[0] == "sums.add" and names(second)[0] == "sums-2.add"
        joined = join_tools([first, second])
        assert joined.call(ToolCall("1", "sums-2.add", {"a": 1, "b": 2})).text == "3"
        assert joined.call(ToolCall("1", "sums.add", {"a": 1, "b": 2})).text.startswith("error: add was not called")
        prefix_shared([server])
        assert names(server)[0] == "add"


def test_prompts_and_resources(server: McpServer) -> None:
    greet, chat, _ = server.prompts()
    assert (greet.name, greet.arguments, chat.description) == ("greet", {"who": True, "how": False}, "A chat.")
    assert server.prompt("greet", {"who": "Ada"}) == [
        {"role": "user", "content": [{"type": "text", "text": "Say hello to Ada."}]}
    ]
    messages = server.prompt("chat", {})
    kinds = [(message["role"], [part["type"] for part in message["content"]]) for message in messages]
    assert kinds == [("user", ["text", "image", "text"]), ("assistant", ["text"]), ("user", ["text"])]
    assert [offer.name for offer in server.resources()] == ["test://text", "test://picture"]
    assert server.resource("test://text") == [{"type": "text", "text": "The text."}]
    (picture,) = server.resource("test://picture")
    assert picture["image"].shape == (48, 48, 3)


def test_prompts_and_resources_that_there_are_not(server: McpServer) -> None:
    with pytest.raises(ValueError, match=r"^The prompt answer does not end with a message of the user$"):
        server.prompt("answer", {})
    refused = r"^The MCP server server refused the resource test://no: there is no such resource$"
    with pytest.raises(ValueError, match=refused):
        server.resource("test://no")


@pytest.mark.skipif(not os.path.exists("/proc"), reason="looks at processes in /proc")
@pytest.mark.parametrize("how", ["close", "kill"])
def test_no_process_is_left(how: str) -> None:
    """Not even one that ignores the end of its input and SIGTERM, or that such a one has started."""
    server = McpServer(command("stubborn"))
    processes = [int(word) for word in server._connection._program.printed.split()[1:]]
    assert len(processes) == 2 and all(map(is_alive, processes))
    getattr(server, how)()
    deadline = time.monotonic() + 10
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, processes))
    server.close()


def test_a_server_among_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--tools mcp:…``: names that a file has, too, begin with the server's; what is left out is said."""
    (tmp_path / "sums.py").write_text('def add(a: float, b: float) -> float:\n    "Add."\n    return a - b\n')
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"sums": {"command": command("lie")}}}))
    options = {"tools": [str(tmp_path / "sums.py"), "mcp:sums"], "mcp_config": str(config), "tool_timeout": 5.0}
    with opened_tools(argparse.Namespace(**options)) as tools:
        assert tools is not None and names(tools) == ["add", "sums.add"]
        assert tools.call(ToolCall("1", "add", {"a": 2, "b": 1})).text == "1"
        assert tools.call(ToolCall("1", "sums.add", {"a": 2, "b": 1})).text == "3"
    noted = capsys.readouterr().err.splitlines()
    assert (
        noted[0]
        == """('rm -rf /' of sums is left out: tool 1 in sums needs a "name" without spaces, braces and \
<|>, got 'rm -rf /')"""
    )
    assert len(noted) == 8


def test_a_signal_while_a_server_is_closed_kills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """``live`` waits for nothing that takes longer than its patience."""
    close = McpServer.close
    pending: list[bool] = []

    def watched(server: McpServer) -> None:
        pending.append(server.kill in signals._discards)
        close(server)

    monkeypatch.setattr(McpServer, "close", watched)
    with opened_tools(argparse.Namespace(tools=[f"mcp:{command()}"], mcp_config=None)):
        assert signals._discards
    assert pending == [True] and signals._discards == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlx_gemma4.mcp.connection", None)
    with pytest.raises(
        ImportError, match=r"^MCP servers need the package mcp, version 2\.3 or newer: pip install 'mcp>=2\.3' \(or"
    ):
        McpServer(command())
