"""Config files of other MCP clients: ``mcpServers`` (Claude, Cursor) or ``servers`` (VS Code), perhaps with comments.

Read only where the user names one. A value may refer to the environment: ``${NAME}``, ``${NAME:-default}`` and
``${env:NAME}``; and to folders: ``${workspaceFolder}`` and ``${userHome}``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_gemma4.mcp.address import Address, command_address, label, url_address

MOST_BYTES = 2**20
"""Bytes of a config file. Claude Code keeps its servers in a file with much else."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[}\]])', re.DOTALL)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def read_address(text: str, config: str | os.PathLike[str] | None = None) -> Address:
    """The server that ``COMMAND``, a URL, or the name of a server in a config file means.

    Args:
        text: What stands behind ``mcp:``.

    Raises:
        ValueError: It means nothing; the config file cannot be read; or its entry is wrong.
    """
    servers = {} if config is None else read_servers(Path(config))
    if config is not None and text in servers:
        return _address(text, servers[text], Path(config))
    if text.lower().startswith(("http:", "https:")):
        return url_address(text)
    address = command_address(text)
    if shutil.which(address.command[0]) is None:
        named = f"{config} has only {', '.join(servers)}" if config else "names of servers need --mcp-config FILE"
        raise ValueError(f"There is no program {address.command[0]!r} to start an MCP server with; {named}")
    return address


def read_servers(path: Path) -> dict[str, Any]:
    """The entries of a config file by their names.

    Raises:
        ValueError: The file cannot be read, or has no servers.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"The MCP servers in {path} cannot be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} is too large for a list of MCP servers: at most {MOST_BYTES:,} bytes are read")
    try:
        content = json.loads(_TOKEN.sub(_kept, data.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    inner = content.get("mcp", {}) if isinstance(content, dict) else None
    places = [place for place in (content, inner) if isinstance(place, dict)]
    for servers in (place.get(key) for place in places for key in ("mcpServers", "servers")):
        if isinstance(servers, dict):
            return servers
    raise ValueError(f'There are no MCP servers in {path}: it must hold {{"mcpServers": {{"NAME": …}}}}')


def _kept(match: re.Match[str]) -> str:
    """Strings stay; comments and commas before a closing bracket go."""
    return match[0] if match[0].startswith('"') else " "


def _address(name: str, entry: Any, path: Path) -> Address:
    where = f"The server {name} in {path}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object, got {entry!r:.80}")
    values = _Values(entry, where, path)
    if entry.get("disabled") is True:
        raise ValueError(f'{where} is disabled: remove its line "disabled"')
    if entry.get("type") == "sse":
        raise ValueError(f"{where} uses the old SSE transport; servers are reached by stdio and streamable HTTP")
    if "envFile" in entry:
        raise ValueError(f"{where} has an envFile, which is not read: write its variables into env")
    url = values.text("url") or values.text("serverUrl")
    if url:
        try:
            return url_address(url, label(name), values.table("headers"))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    command, words = values.text("command"), values.list("args")
    if not command:
        raise ValueError(f'{where} has neither a "command" nor a "url"')
    program = [command] if words or " " not in command or Path(command).exists() else command_address(command).command
    return Address(label(name), (*program, *words), values.table("env"), values.text("cwd") or None)


class _Values:
    """The values of an entry, by their types, with what they refer to."""

    def __init__(self, entry: Mapping[str, Any], where: str, path: Path) -> None:
        self._entry, self._where = entry, where
        folder = path.resolve().parent
        hidden = folder.name in (".vscode", ".cursor")
        self._folders = {
            "workspaceFolder": str(folder.parent if hidden else folder),
            "userHome": str(Path.home()),
            "pathSeparator": os.sep,
        }

    def text(self, key: str) -> str:
        value = self._entry.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ValueError(f'"{key}" of {self._where[:1].lower()}{self._where[1:]} must be text, got {value!r:.80}')
        return self._filled(value)

    def list(self, key: str) -> tuple[str, ...]:
        value = self._entry.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f'"{key}" of {self._where[:1].lower()}{self._where[1:]} must be a list of texts')
        return tuple(map(self._filled, value))

    def table(self, key: str) -> dict[str, str]:
        value = self._entry.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(item, (str, int, float)) for item in value.values()):
            raise ValueError(f'"{key}" of {self._where[:1].lower()}{self._where[1:]} must be an object of texts')
        return {name: self._filled(str(item)) for name, item in value.items()}

    def _filled(self, text: str) -> str:
        return _VARIABLE.sub(self._variable, text)

    def _variable(self, match: re.Match[str]) -> str:
        if match[1] in self._folders:
            return self._folders[match[1]]
        named = _NAME.fullmatch(match[1])
        if named is None:
            raise ValueError(f"{self._where} refers to {match[0]}, which is not known here: write the value itself")
        value = os.environ.get(named[1], named[2])
        if value is None:
            raise ValueError(f"{self._where} needs the environment variable {named[1]}: set it")
        return value
