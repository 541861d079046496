"""LiveKit's stock speech-to-text plugin against a server: recordings, and Realtime transcription.

    python3 -m venv client && client/bin/pip install livekit-agents livekit-plugins-openai
    mlx_gemma4 serve --model demo --dtype float32 --port 8091
    client/bin/python tests/livekit_client.py http://127.0.0.1:8091/v1

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from client_parts import OTHER, SPEECH, is_equal, pcm, pcm_24k, pieces, said
from livekit import rtc
from livekit.agents import stt, utils
from livekit.agents.utils import http_context
from livekit.plugins import openai

KINDS = stt.SpeechEventType
SILENCE = b"\0" * 48_000


def frames(data: bytes, rate: int) -> list[rtc.AudioFrame]:
    """Of 20 ms."""
    size = rate // 50
    return [rtc.AudioFrame(piece, rate, 1, len(piece) // 2) for piece in pieces(data, 2 * size)]


async def recording(url: str) -> None:
    """A whole recording, by ``/audio/transcriptions``."""
    service = openai.STT(base_url=url, api_key="none", model="demo", prompt="Numbers.")
    for name in (SPEECH, OTHER):
        event = await service.recognize(utils.merge_frames(frames(pcm(name), 16_000)))
        is_equal(event.alternatives[0].text, said(name))
    await service.aclose()


async def realtime(url: str) -> None:
    """Two turns, which the server finds, of sound as it is spoken; the second one in the same session."""
    detection: Any = {"type": "server_vad", "silence_duration_ms": 500}
    service = openai.STT(base_url=url, api_key="none", model="demo", use_realtime=True, turn_detection=detection)
    stream = service.stream()
    texts, kinds = [], []

    async def read() -> None:
        async for event in stream:
            kinds.append(event.type)
            if event.type == KINDS.FINAL_TRANSCRIPT:
                texts.append(event.alternatives[0].text)
            if event.type == KINDS.RECOGNITION_USAGE:
                assert event.recognition_usage is not None and event.recognition_usage.audio_duration > 0.5
                if len(texts) == 2:
                    return

    reader = asyncio.create_task(read())
    for name in (SPEECH, OTHER):
        for frame in frames(pcm_24k(name) + SILENCE, 24_000):
            stream.push_frame(frame)
            await asyncio.sleep(0.005)
    await asyncio.wait_for(reader, 60)
    is_equal(texts, [said(SPEECH), said(OTHER)])
    is_equal(kinds.count(KINDS.START_OF_SPEECH), kinds.count(KINDS.END_OF_SPEECH))
    assert KINDS.INTERIM_TRANSCRIPT in kinds
    await stream.aclose()
    await service.aclose()


async def main() -> None:
    async with http_context.open():
        for check in (recording, realtime):
            await check(sys.argv[1])
            print(f"ok  {check.__name__}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
