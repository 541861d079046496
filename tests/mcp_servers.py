"""Run scripted chats and an agent with real MCP servers, installed into a folder of their own.

python tests/mcp_servers.py FOLDER

From PyPI: mcp-server-time. From npm: server-filesystem and server-everything of @modelcontextprotocol, the latter by
stdin and stdout and by streamable HTTP. The answers of the model are scripted, as in tests/test_chat_tools.py: what is
checked is that a call reaches the server after a yes, that its result reaches the next prompt, that a server gets
nothing of our environment, and that no process is left.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import loaded
from PIL import Image
from test_chat_tools import WRITES_TOOLS, chat, scripted, typing

from mlx_gemma4 import Processor
from mlx_gemma4.cli.shared.tools import opened_tools
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.tools.sources import names
from mlx_gemma4.programs.agent import Agent
from mlx_gemma4.programs.agent_events import Ended

PYPI = ["mcp-server-time"]
NPM = ["@modelcontextprotocol/server-filesystem", "@modelcontextprotocol/server-everything"]


def install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "env").exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
        subprocess.run([folder / "env" / "bin" / "pip", "install", "-q", *PYPI], check=True)
    if not (folder / "node_modules").exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, *NPM], check=True)


def asked(tools: list[str], config: Path, call: str, *, answer: str = "y") -> str:
    """The prompt behind one call, in a chat with these tools."""
    model, demo = loaded("demo")
    processor = Processor(demo.config, demo.tokenizer, ChatTemplate(WRITES_TOOLS, {}))
    prompts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, prompts, [("tool_call", f"call:{call}")], [("text", "Done.")])
        typing(patch, "Go.", answer)
        options = argparse.Namespace(tools=tools, mcp_config=str(config), tool_timeout=20.0)
        with opened_tools(options) as opened:
            assert opened is not None
            print("  " + ", ".join(names(opened))[:100])
            chat((model, processor), opened)
    return prompts[-1]


def done(tools: list[str], config: Path, calls: list[str], allow: list[str]) -> str:
    """The last prompt of an agent that makes a call a step."""
    model, demo = loaded("demo")
    processor = Processor(demo.config, demo.tokenizer, ChatTemplate(WRITES_TOOLS, {}))
    prompts: list[str] = []
    steps: list[list[tuple[Kind, str]]] = [[("tool_call", f"call:{call}")] for call in calls]
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, prompts, *steps, [("text", "Done.")])
        options = argparse.Namespace(tools=tools, mcp_config=str(config), tool_timeout=20.0)
        with opened_tools(options) as opened:
            assert opened is not None
            ended = list(Agent(model, processor, opened, allow=allow).run("Go."))[-1]
    assert isinstance(ended, Ended) and (ended.reason, ended.answer) == ("done", "Done.")
    return prompts[-1]


@contextmanager
def listening(folder: Path) -> Iterator[str]:
    """server-everything by HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [folder / "node_modules" / ".bin" / "mcp-server-everything", "streamableHttp"]
    process = subprocess.Popen(
        command, env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait()


def main(folder: Path) -> None:
    install(folder)
    shared = folder / "shared"
    shared.mkdir(exist_ok=True)
    (shared / "note.txt").write_text("The key is under the mat.", encoding="utf-8")
    Image.new("RGB", (96, 96), (0, 0, 200)).save(shared / "blue.png")
    quoted = '<|"|>{}<|"|>'.format
    entry: dict[str, Any] = {"command": str(folder / "node_modules/.bin/mcp-server-filesystem"), "args": [str(shared)]}
    config = folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"files": entry}}), encoding="utf-8")
    time_server = f"mcp:{shlex.quote(str(folder / 'env/bin/mcp-server-time'))}"
    everything = f"mcp:{shlex.quote(str(folder / 'node_modules/.bin/mcp-server-everything'))}"

    print("mcp-server-time")
    zone = f"get_current_time{{timezone:{quoted('Asia/Tokyo')}}}"
    assert '"timezone": "Asia/Tokyo"' in asked([time_server], config, zone)
    assert "The user did not allow it." in asked([time_server], config, zone, answer="n")
    assert "error:\nError executing tool" in asked([time_server], config, zone.replace("Tokyo", "Nowhere"))
    print("server-filesystem, named in a config file")
    note = f"read_text_file{{path:{quoted(shared / 'note.txt')}}}"
    assert "The key is under the mat." in asked(["mcp:files"], config, note)
    assert "Access denied" in asked(["mcp:files"], config, note.replace(str(shared / "note.txt"), "/etc/passwd"))
    picture = f"read_media_file{{path:{quoted(shared / 'blue.png')}}}"
    assert "<|image|>" in asked(["mcp:files"], config, picture)
    print("server-everything, twice, and server-time")
    several = [everything, everything, time_server]
    assert "Echo: hi" in asked(several, config, f"everything-2.echo{{message:{quoted('hi')}}}")
    os.environ["HF_TOKEN"] = "hf_secret"
    assert "hf_secret" not in asked([everything], config, "get-env{}")
    print("an agent with three servers")
    steps = [zone, note, f"write_file{{path:{quoted(shared / 'new.txt')},content:{quoted('x')}}}"]
    said = done([time_server, "mcp:files", everything], config, steps, ["get_current_time", "read_text_file"])
    assert '"timezone": "Asia/Tokyo"' in said and "The key is under the mat." in said
    assert "write_file=The user did not allow it." in said and not (shared / "new.txt").exists()
    print("server-everything by HTTP")
    with listening(folder) as url:
        assert "The sum of 2 and 40 is 42" in asked([f"mcp:{url}"], config, "get-sum{a:2,b:40}")
    left = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout.split()
    assert [process for process in left if int(process) != os.getpid()] == [], left
    print("all as expected; no process is left")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
