"""Which MCP server is meant: a command, a URL on this machine, or a name in a config file of another client."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mlx_gemma4.mcp.address import Address, command_address, url_address
from mlx_gemma4.mcp.config_file import read_address

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("uvx mcp-server-time", "time"),
        ("npx -y @modelcontextprotocol/server-filesystem@1.2 /tmp", "filesystem"),
        ("python3.11 -m mcp_server_time", "time"),
        ("docker run -i --rm mcp/weather", "weather"),
        ("env KEY=value uv run /opt/my.server.py", "my_server"),
        ("weather-mcp-server", "weather"),
        ("bash -c '/opt/serve --now'", "serve"),
        ("node", "node"),
        ("'é ü/ö'", "server"),
    ],
)
def test_names_of_programs(command: str, name: str) -> None:
    assert command_address(command).name == name


def test_a_command_line_is_read_as_a_shell_reads_it() -> None:
    address = read_address(f"'{PYTHON}' -c 'print(1)' \"a b\"")
    assert address.command == (PYTHON, "-c", "print(1)", "a b")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/mcp", "https://localhost/mcp", "http://[::1]:9/mcp"])
def test_urls_of_this_machine(url: str) -> None:
    assert read_address(url).url == url
    assert url_address("http://127.0.0.1:8000/mcp").name == "127_0_0_1-8000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r'^mcp: needs a command, a URL or a name behind it, for example mcp:"uvx mcp-server-time"$'),
        ("'a", r"^The command of an MCP server cannot be read: No closing quotation in \"'a\"$"),
        ("http://", r"^http:// is not the URL of an MCP server; write http://127\.0\.0\.1:8000/mcp$"),
        ("http://[::1", r"^http://\[::1 is not a URL: Invalid IPv6 URL$"),
        (
            "https://example.com/mcp",
            r"^https://example\.com/mcp is not on this machine: only servers on 127\.0\.0\.1, ::1 and localhost are "
            r"used\. Forward its port \(ssh -L\), or start a server here that reaches it$",
        ),
        ("http://127.0.0.1.example.com/mcp", r"^http://127\.0\.0\.1\.example\.com/mcp is not on this machine"),
        ("http://me:secret@127.0.0.1/mcp", r"^The URL of an MCP server at 127\.0\.0\.1 has a user name in it; use"),
        (
            "no-such-program x",
            r"^There is no program 'no-such-program' to start an MCP server with; names of servers need --mcp-config",
        ),
    ],
)
def test_addresses_that_mean_nothing(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_address(text)


CONFIGS = {
    "claude_desktop_config.json": '{"globalShortcut": "", "mcpServers": {"time": SERVER}}',
    ".cursor/mcp.json": '{"mcpServers": {"time": SERVER}}',
    ".vscode/mcp.json": '{"inputs": [], // none, yet\n "servers": {"time": SERVER, /* one , } */},\n}',
    "settings.json": '{"mcp": {"servers": {"time": SERVER}}}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_files_of_other_clients(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIME_KEY", "secret")
    server = {
        "type": "stdio",
        "command": PYTHON,
        "args": ["-m", "time // server", "${workspaceFolder}/x", "${ZONE:-Asia/Tokyo}"],
        "env": {"KEY": "${TIME_KEY}", "SAME": "${env:TIME_KEY}", "PORT": 5},
        "cwd": "${userHome}",
    }
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\ufeff" + CONFIGS[name].replace("SERVER", json.dumps(server)), encoding="utf-8")
    folder = tmp_path if "/" in name else path.parent
    assert read_address("time", path) == Address(
        "time",
        (PYTHON, "-m", "time // server", f"{folder}/x", "Asia/Tokyo"),
        {"KEY": "secret", "SAME": "secret", "PORT": "5"},
        str(Path.home()),
    )


def test_urls_in_config_files(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    entry = {"type": "http", "url": "http://localhost:3000/mcp", "headers": {"Authorization": "Bearer x"}}
    path.write_text(json.dumps({"servers": {"my notes": entry}}))
    expected = Address("my_notes", url="http://localhost:3000/mcp", headers={"Authorization": "Bearer x"})
    assert read_address("my notes", path) == expected


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (5, "must be an object, got 5"),
        ({}, 'has neither a "command" nor a "url"'),
        ({"command": "x", "disabled": True}, 'is disabled: remove its line "disabled"'),
        (
            {"type": "sse", "url": "http://localhost/sse"},
            "uses the old SSE transport; servers are reached by stdio and streamable HTTP",
        ),
        ({"command": "x", "envFile": ".env"}, "has an envFile, which is not read: write its variables into env"),
        (
            {"command": "x", "env": {"KEY": "${input:key}"}},
            "refers to ${input:key}, which is not known here: write the value itself",
        ),
        ({"command": "x", "args": ["${NO_SUCH_NAME}"]}, "needs the environment variable NO_SUCH_NAME: set it"),
    ],
)
def test_entries_that_are_wrong(tmp_path: Path, entry: object, problem: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"notes": entry}}))
    with pytest.raises(ValueError) as raised:
        read_address("notes", path)
    assert str(raised.value) == f"The server notes in {path} {problem}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"command": 5}, '"command" of the server notes in {} must be text, got 5'),
        ({"command": "x", "args": "y"}, '"args" of the server notes in {} must be a list of texts'),
        ({"command": "x", "env": ["y"]}, '"env" of the server notes in {} must be an object of texts'),
        (
            {"url": "http://10.0.0.1/"},
            "The server notes in {}: http://10.0.0.1/ is not on this machine: only servers on",
        ),
    ],
)
def test_values_that_are_wrong(tmp_path: Path, entry: object, message: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"notes": entry}}))
    with pytest.raises(ValueError) as raised:
        read_address("notes", path)
    assert str(raised.value).startswith(message.format(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"^.*mcp\.json is not valid JSON: "),
        ("[" * 100_000, r"^.*mcp\.json is not valid JSON: "),
        ("[]", r'^There are no MCP servers in .*mcp\.json: it must hold \{"mcpServers": \{"NAME": …\}\}$'),
        ('{"servers": []}', r"^There are no MCP servers in "),
        (" " * (2**20 + 1), r"^.*mcp\.json is too large for a list of MCP servers: at most 1,048,576 bytes are read$"),
        (
            '{"mcpServers": {"a": {}, "b": {}}}',
            r"^There is no program 'notes' to start an MCP server with; .*mcp\.json has only a, b$",
        ),
    ],
)
def test_config_files_without_servers(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_address("notes", path)


def test_config_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^The MCP servers in .*absent\.json cannot be read: No such file or directory$"
    ):
        read_address("notes", tmp_path / "absent.json")
