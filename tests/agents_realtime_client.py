"""Realtime agents of the stock ``openai-agents`` package against a server: text, pictures, speech and functions.

    python3 -m venv client && client/bin/pip install 'openai-agents[realtime]'
    python tests/make_tools_checkpoint.py tools-demo
    mlx_gemma4 serve --model tools-demo --dtype float32 --port 8091
    client/bin/python tests/agents_realtime_client.py http://127.0.0.1:8091/v1

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Literal

from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from client_parts import DESCRIBE, PICTURE, SPEECH, is_equal, named, pcm_24k, picture_url, pieces, said

CALLS: list[tuple[str, bool]] = []
SILENCE = b"\0" * 48_000


@function_tool
def lights(room: Literal["hall", "attic"], on: bool) -> str:
    """Switch lights."""
    CALLS.append((room, on))
    return "They are on."


class Complaints(logging.Handler):
    """Events that the package could not read, and other errors that it only logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


async def opened(url: str, agent: RealtimeAgent[Any], **settings: Any) -> RealtimeSession:
    address = url.replace("http", "ws", 1) + "/realtime?model=demo"
    chosen: Any = {"model_name": "demo", "output_modalities": ["text"], **settings}
    runner = RealtimeRunner(agent)
    return await runner.run(model_config={"url": address, "api_key": "none", "initial_model_settings": chosen})


async def ended(session: RealtimeSession, answers: int = 1) -> list[Any]:
    """The events until so many answers have ended."""
    events: list[Any] = []

    async def read() -> None:
        async for event in session:
            events.append(event)
            if event.type == "error":
                raise AssertionError(f"error: {event.error}")
            if sum(each.type == "agent_end" for each in events) == answers:
                return

    await asyncio.wait_for(read(), 60)
    return events


def texts(session: RealtimeSession, role: str) -> list[str]:
    """What somebody has said, item by item."""
    items = [item for item in session._history if item.type == "message" and item.role == role]
    found = [
        getattr(part, "text", None) or getattr(part, "transcript", None) for item in items for part in item.content
    ]
    return [text for text in found if text]


async def picture(url: str) -> None:
    """A typed question about a picture, twice in one conversation."""
    agent: RealtimeAgent[Any] = RealtimeAgent(name="a")
    async with await opened(url, agent) as session:
        for count in (1, 2):
            content: Any = [
                {"type": "input_image", "image_url": picture_url()},
                {"type": "input_text", "text": DESCRIBE},
            ]
            await session.send_message({"type": "message", "role": "user", "content": content})
            await ended(session)
            await asyncio.sleep(0.2)
            is_equal(texts(session, "assistant")[0], named(PICTURE))
            is_equal(len(texts(session, "assistant")), count)


async def speech(url: str) -> None:
    """A spoken turn, which the server finds: its words, and an answer."""
    agent: RealtimeAgent[Any] = RealtimeAgent(name="a")
    detection = {"type": "server_vad", "silence_duration_ms": 500}
    audio = {"input": {"format": "pcm16", "turn_detection": detection, "transcription": {"model": "demo"}}}
    async with await opened(url, agent, audio=audio) as session:
        for piece in pieces(pcm_24k(SPEECH) + SILENCE, 4800):
            await session.send_audio(piece)
            await asyncio.sleep(0.01)
        await ended(session)
        for _ in range(100):
            if texts(session, "user"):
                break
            await asyncio.sleep(0.05)
            await drained(session)
        is_equal(texts(session, "user"), [said(SPEECH)])
        assert session._history[-1].type == "message" and session._history[-1].role == "assistant"


async def drained(session: RealtimeSession) -> None:
    """Let the session take events that have arrived."""
    try:
        await asyncio.wait_for(anext(aiter(session)), 0.05)
    except (TimeoutError, StopAsyncIteration):
        return


async def calls(url: str) -> None:
    """A function, its result, and an answer."""
    agent: RealtimeAgent[Any] = RealtimeAgent(name="a", instructions="Do it.", tools=[lights])
    CALLS.clear()
    async with await opened(url, agent, tool_choice="required") as session:
        await session.send_message("Lights on!")
        kinds = [event.type for event in await ended(session)]
        assert "tool_start" in kinds or CALLS or "agent_end" in kinds
        for _ in range(100):
            if CALLS:
                break
            await drained(session)
    assert CALLS and all(room in ("hall", "attic") and isinstance(on, bool) for room, on in CALLS)


async def main() -> None:
    set_tracing_disabled(True)
    complaints = Complaints()
    logging.getLogger("openai.agents").addHandler(complaints)
    for check in (picture, speech, calls):
        await check(sys.argv[1])
        is_equal(complaints.found, [])
        print(f"ok  {check.__name__}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
