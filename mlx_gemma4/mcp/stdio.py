"""Starts an MCP server and exchanges lines of JSON with it, within bounds.

As ``stdio_client`` of the ``mcp`` package, which has no bound on a line and does not keep what a server prints::

    ours ──▶ stdin            one line a message
    ours ◀── stdout           lines of at most MOST_BYTES; what is no JSON counts as printed
             stderr ──▶ tail  the last lines, for messages

The server leads a process group of its own: Ctrl-C does not reach it, and all of it ends together.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import Process
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from mlx_gemma4.mcp.address import Address
from mlx_gemma4.mcp.bounds import MOST_BYTES, Rate
from mlx_gemma4.printable import printable

TAIL = 2_000
"""Bytes of what a server prints that are kept."""
LINES, SHOWN = 5, 400
"""Lines and characters of them in a message."""
PATIENCE = 1.0
"""Seconds that a server has to end, when its input ends and again when it is told to."""
TICK = 0.01
"""Seconds between two looks at a process, and between two reads of what it prints: a flood blocks itself."""
GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError)


class Program:
    """The process of a server.

    Attributes:
        problem: Why its messages are no longer read, or None.
        status: Its exit status, once it has ended.
        lines: How many lines it prints that are no messages.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self.lines = Rate()
        self.status: int | None = None
        self._group: int | None = None
        self._tail = b""

    def started(self, process_id: int) -> None:
        self._group = process_id

    def prints(self, data: bytes | bytearray) -> None:
        """Keep the end of what it prints."""
        self._tail = (self._tail + data)[-TAIL:]

    @property
    def printed(self) -> str:
        """The last lines that it printed, as one line."""
        lines = self._tail.decode("utf-8", "replace").splitlines()
        return printable(" / ".join([line.strip() for line in lines if line.strip()][-LINES:]))[-SHOWN:]

    def signal(self, number: int) -> bool:
        """Send a signal to all of its process group; False if nothing is left of it. Any thread may call this."""
        if self._group is None:
            return False
        try:
            os.killpg(self._group, number)
        except ProcessLookupError:
            self._group = None
        except PermissionError:  # macOS, where only zombies are left
            return False
        return self._group is not None


@asynccontextmanager
async def stdio(address: Address, program: Program) -> AsyncIterator[Any]:
    """A transport of the ``mcp`` package: the server runs inside the block.

    Raises:
        OSError: The program cannot be started.
    """
    process = await anyio.open_process(
        address.command,
        env={**get_default_environment(), **address.environment},
        cwd=address.folder,
        start_new_session=True,
    )
    program.started(process.pid)
    to_session, received = anyio.create_memory_object_stream[Any](0)
    sent, from_session = anyio.create_memory_object_stream[Any](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read, process, program, to_session)
        tasks.start_soon(_write, process, from_session, to_session)
        tasks.start_soon(_read_errors, process, program)
        try:
            yield received, sent
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process, program)
                for stream in (received, sent, to_session, from_session):
                    stream.close()
            tasks.cancel_scope.cancel()


async def _read(process: Process, program: Program, to_session: Any) -> None:
    """Give the messages to the session, and close its stream at their end."""
    assert process.stdout is not None
    rest = bytearray()
    async with to_session:
        async for chunk in _chunks(process.stdout):
            rest += chunk
            if b"\n" in chunk:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    await _deliver(line, program, to_session)
            if len(rest) > MOST_BYTES:
                program.problem = f"it sent a message of more than {MOST_BYTES // 2**20} MB"
            program.problem = program.problem or program.lines.problem
            if program.problem is not None:
                program.signal(signal.SIGKILL)
                return
        await _reaped(process, program)


async def _deliver(line: bytearray, program: Program, to_session: Any) -> None:
    if not line.strip():
        return
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        program.lines.is_within()
        program.prints(line[:TAIL] + b"\n")  # some servers greet on stdout
        return
    with suppress(*GONE):  # the session has ended; what is left is read, so that the server can end
        await to_session.send(SessionMessage(message))


async def _chunks(stream: Any) -> AsyncIterator[bytes]:
    with suppress(anyio.EndOfStream, OSError, *GONE):
        while True:
            yield await stream.receive()


async def _write(process: Process, from_session: Any, to_session: Any) -> None:
    assert process.stdin is not None
    try:
        async for item in from_session:
            written = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            await process.stdin.send(written.encode() + b"\n")
    except (OSError, *GONE):
        to_session.close()  # the session sees the end, and its requests fail


async def _read_errors(process: Process, program: Program) -> None:
    assert process.stderr is not None
    async for chunk in _chunks(process.stderr):
        program.prints(chunk)
        await anyio.sleep(TICK)


async def _end(process: Process, program: Program) -> None:
    """Close its input; then ask all of it to end; then kill it."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    await _close(process.stdin)
    await _reaped(process, program)
    if program.signal(signal.SIGTERM):
        with anyio.move_on_after(PATIENCE):
            while program.signal(0):
                await anyio.sleep(TICK)
    program.signal(signal.SIGKILL)
    await _reaped(process, program)
    await _close(process.stdout)
    await _close(process.stderr)
    # as the package does: where a pipe is still full, asyncio would close it after its loop
    close = getattr(getattr(getattr(process, "_process", None), "_transport", None), "close", None)
    if close is not None:
        close()


async def _close(stream: Any) -> None:
    with suppress(OSError, *GONE):
        await stream.aclose()


async def _reaped(process: Process, program: Program) -> None:
    """Wait for the end of the process, but not of those that it has started."""
    with anyio.move_on_after(PATIENCE):
        while process.returncode is None:
            await anyio.sleep(TICK)
    program.status = process.returncode
