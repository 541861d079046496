"""MCP servers in a chat: calls that are allowed, and ``/mcp``, ``/prompt`` and ``/resource``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mcp_server import command
from test_chat_tools import asked, chat, scripted, typing, writing  # noqa: F401  # fixtures

from mlx_gemma4 import Model, Processor
from mlx_gemma4.mcp.server import McpServer
from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.programs.agent import Agent
from mlx_gemma4.programs.agent_events import Ended

pytest.importorskip("mcp")

ADD: tuple[Kind, str] = ("tool_call", "call:add{a:2,b:40}")


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    with McpServer(command()) as opened:
        yield opened


@pytest.mark.parametrize(("typed", "value"), [("y", "42"), ("n", "The user did not allow it.")])
def test_a_call_of_a_server_needs_a_yes(
    writing: tuple[Model, Processor],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    asked: list[str],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    typed: str,
    value: str,
) -> None:
    scripted(monkeypatch, asked, [ADD], [("text", "Done.")])
    typing(monkeypatch, "2 + 40?", typed)
    chat(writing, server)
    assert "Run add(a=2, b=40)? [y/N]\n" in capsys.readouterr().err
    assert f"<|tool_response>add={value}<tool_response|>" in asked[-1]


def test_an_agent_calls_a_server(
    writing: tuple[Model, Processor],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    asked: list[str],  # noqa: F811
) -> None:
    """The functions that are allowed by name; two at once, and one that fails."""
    calls: list[tuple[Kind, str]] = [ADD, ("tool_call", "call:add{a:1,b:1}"), ("tool_call", "call:environment{}")]
    scripted(monkeypatch, asked, calls, [("tool_call", "call:fail{}")], [("text", "42 and 2.")])
    agent = Agent(*writing, server, allow=["add", "fail"])
    ended = list(agent.run("Add."))[-1]
    assert isinstance(ended, Ended) and (ended.reason, ended.answer) == ("done", "42 and 2.")
    for result in ("add=42<", "add=2<", "environment=The user did not allow it.<"):
        assert f"<|tool_response>{result}" in asked[1]
    assert "<|tool_response>fail=error:\nit broke<" in asked[2]


def test_what_servers_offer_is_listed(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typing(monkeypatch, "/mcp")
    chat(demo, server)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"server: {command()}" and lines[1] == "  add  Do add."
    assert lines[13:] == [
        "  /prompt greet who=… [how=…]  Greet.",
        "  /prompt chat  A chat.",
        "  /prompt answer  An answer.",
        "  /resource test://text  A text.",
        "  /resource test://picture  picture",
    ]


def test_prompts_are_sent(
    writing: tuple[Model, Processor],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    asked: list[str],  # noqa: F811
) -> None:
    """With the messages before the last one, and with the calls that the answer makes."""
    scripted(monkeypatch, asked, [("text", "Hello.")], [ADD], [("text", "Done.")])
    typing(monkeypatch, "/prompt greet who='Ada L.'", "/prompt chat", "y")
    conversation = chat(writing, server)
    turn = "<|turn>user\nSay hello to Ada L..<turn|>\n<|turn>model\n"
    assert asked[0].endswith(turn)
    assert asked[1].endswith("Two?<turn|>\n<|turn>assistant\nThree.<turn|>\n<|turn>user\nOne.<turn|>\n<|turn>model\n")
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["user", "assistant", "user", "assistant", "user", "assistant"]
    assert conversation.messages[-1]["content"] == "Done."


def test_a_prompt_that_fails_leaves_nothing(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    asked: list[str],  # noqa: F811
) -> None:
    scripted(monkeypatch, asked, ValueError("NaN"))
    typing(monkeypatch, "/prompt chat")
    assert chat(demo, server).messages == []


def test_resources_go_with_the_next_message(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    asked: list[str],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted(monkeypatch, asked, [("text", "Red.")], [("text", "Yes.")])
    typing(monkeypatch, "/resource test://picture", "/resource test://text", "Which colour?", "Really?")
    first, _, second, _ = chat(demo, server).messages
    assert [part["type"] for part in first["content"]] == ["image", "text"]
    assert first["content"][1]["text"] == "The text.\n\nWhich colour?"
    assert second["content"] == [{"type": "text", "text": "Really?"}]
    assert "(the resource test://text goes with the next message)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/prompt", "Type the name of a prompt"),
        ("/prompt no", "There is no prompt 'no'; /mcp lists them"),
        ("/prompt 'no", "The prompt cannot be read: No closing quotation"),
        ("/prompt greet", "An argument of the prompt is missing: /prompt greet who=… [how=…]"),
        ("/prompt greet Ada", "'Ada' is no argument of the prompt: /prompt greet who=… [how=…]"),
        ("/prompt answer", "The prompt answer does not end with a message of the user"),
        ("/resource", "Type the address of a resource; /mcp lists them"),
        (
            "/resource test://no",
            "The MCP server server refused the resource test://no: there is no such resource",
        ),
    ],
)
def test_what_servers_do_not_offer(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    server: McpServer,
    capsys: pytest.CaptureFixture[str],
    line: str,
    problem: str,
) -> None:
    typing(monkeypatch, line)
    assert chat(demo, server).messages == []
    assert capsys.readouterr().err == f"error: {problem}\n"


@pytest.mark.parametrize("line", ["/mcp", "/prompt greet", "/resource test://text"])
def test_without_servers(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    typing(monkeypatch, line)
    chat(demo)
    assert capsys.readouterr().err == "error: There are no MCP servers: start chat with --tools mcp:COMMAND\n"
