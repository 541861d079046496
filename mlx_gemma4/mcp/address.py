"""Which MCP server is meant: a program to start, or a URL on this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

_LAUNCHERS = (
    *("bash", "bun", "bunx", "deno", "dlx", "docker", "env", "exec", "node", "npm", "npx", "pipx"),
    *("pnpm", "podman", "python", "run", "sh", "tool", "uv", "uvx"),
)
"""Programs that start another one, which gives the server its name."""
_ODD = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Address:
    """Where a server is: ``command`` or ``url`` is set.

    Attributes:
        name: What messages call the server. It also comes before names of functions that two servers have.
        environment: Variables for the program, besides the few that it inherits.
        folder: Where the program starts; None is the current folder.
        headers: For each request to ``url``.
    """

    name: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.url if self.url is not None else shlex.join(self.command)


def command_address(text: str) -> Address:
    """The address of a server that a command line starts.

    Raises:
        ValueError: It is empty, or a quotation mark is missing.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"The command of an MCP server cannot be read: {error} in {text!r}") from error
    if not words:
        raise ValueError('mcp: needs a command, a URL or a name behind it, for example mcp:"uvx mcp-server-time"')
    return Address(_program(words), tuple(words))


def url_address(url: str, name: str | None = None, headers: Mapping[str, str] | None = None) -> Address:
    """The address of a server that listens on this machine.

    Raises:
        ValueError: It is no URL, or of another machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{url} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{url} is not the URL of an MCP server; write http://127.0.0.1:8000/mcp")
    if parts.username is not None:
        raise ValueError(f"The URL of an MCP server at {host} has a user name in it; use headers in a config file")
    if not _is_loopback(host):
        raise ValueError(
            f"{url} is not on this machine: only servers on 127.0.0.1, ::1 and localhost are used. Forward its port "
            "(ssh -L), or start a server here that reaches it"
        )
    return Address(name or label(f"{host}-{port}" if port else host), url=url, headers=headers or {})


def label(name: str) -> str:
    """A name without characters that calls cannot hold."""
    return _ODD.sub("_", name).strip("_-")[:32] or "server"


def _program(words: list[str]) -> str:
    """The name of the program behind launchers and their options, without folder and version."""
    for word in words:
        stem = re.sub(
            r"\.(py|js|mjs|cjs|ts|exe|cmd)$", "", (word.split() or [""])[0].rpartition("/")[2].partition("@")[0]
        )
        if not word.startswith("-") and "=" not in word and re.sub(r"[\d.]+$", "", stem) not in _LAUNCHERS:
            return label(re.sub(r"^(mcp[-_])?(server[-_])?(?=.)|(?<=.)([-_]mcp)?([-_]server)?$", "", stem))
    return label(words[-1])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
