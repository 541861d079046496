"""The stock ``wyoming-openai`` proxy in front of a server, and a stock Wyoming client in front of it.

    python3.12 -m venv client && client/bin/pip install wyoming-openai
    mlx_gemma4 serve --model demo --dtype float32 --port 8091
    client/bin/python tests/wyoming_openai_client.py http://127.0.0.1:8091/v1

    client ──Wyoming──▶ wyoming-openai ──/v1/realtime──▶ server          (or /v1/audio/transcriptions)

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import asynccontextmanager
from typing import Any

from client_parts import OTHER, SPEECH, is_equal, pcm, pieces, said
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info

LIVE, STREAMED, WHOLE = "demo", "demo-stream", "demo-file"
"""Models of the proxy: by Realtime, by a stream of events, and by one response. The server takes any name here."""
FORMAT = {"rate": 16_000, "width": 2, "channels": 1}


@asynccontextmanager
async def proxy(url: str) -> Any:
    """The proxy in a process of its own; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    models = ["--stt-realtime-models", LIVE, "--stt-streaming-models", STREAMED, "--stt-models", WHOLE]
    key = ["--stt-openai-key", "none", "--languages", "en"]
    address = ["--uri", f"tcp://127.0.0.1:{port}", "--stt-openai-url", url]
    command = [sys.executable, "-m", "wyoming_openai", *address, *models, *key]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def connected(port: int) -> AsyncTcpClient:
    for _ in range(100):
        client = AsyncTcpClient("127.0.0.1", port)
        try:
            await client.connect()
            return client
        except OSError:
            await asyncio.sleep(0.2)
    raise AssertionError("the proxy did not start")


async def transcribe(client: AsyncTcpClient, name: str, model: str) -> tuple[str, str]:
    """The pieces of a transcript, and the transcript."""
    await client.write_event(Transcribe(name=model, language="en").event())
    await client.write_event(AudioStart(**FORMAT).event())
    for piece in pieces(pcm(name), 2048):
        await client.write_event(AudioChunk(**FORMAT, audio=piece).event())
        await asyncio.sleep(0.005)
    await client.write_event(AudioStop().event())
    words = ""
    while (event := await asyncio.wait_for(client.read_event(), 60)) is not None:
        if TranscriptChunk.is_type(event.type):
            words += TranscriptChunk.from_event(event).text
        elif Transcript.is_type(event.type):
            return words, Transcript.from_event(event).text
    raise AssertionError("the proxy has hung up")


async def main() -> None:
    async with proxy(sys.argv[1]) as port:
        client = await connected(port)
        await client.write_event(Describe().event())
        event = await client.read_event()
        assert event is not None
        names = {model.name for program in Info.from_event(event).asr for model in program.models}
        is_equal(names, {LIVE, STREAMED, WHOLE})
        print("ok  describe")
        for model in (LIVE, STREAMED, WHOLE):
            for name in (SPEECH, OTHER):
                words, text = await transcribe(client, name, model)
                is_equal(text, said(name))
                assert words in ("", text) and (words or model == WHOLE), words
            print(f"ok  {model}", flush=True)
        await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
