"""Pipecat's stock services for OpenAI against a server: speech to text, by segments and live, and conversations.

    python3 -m venv client && client/bin/pip install 'pipecat-ai[openai]'
    mlx_gemma4 serve --model demo --dtype float32 --port 8091
    client/bin/python tests/pipecat_client.py http://127.0.0.1:8091/v1

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from client_parts import OTHER, SPEECH, is_equal, pcm, pieces, said
from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService
from pipecat.workers.runner import WorkerRunner

SILENCE = b"\0" * 32_000
BLOCK = 640
"""Bytes: 20 ms at 16 kHz."""


class Seen(FrameProcessor):
    """An end of a pipeline: keeps what comes out."""

    def __init__(self, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self._direction = direction

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction == self._direction:
            self.frames.append(frame)
        await self.push_frame(frame, direction)

    @property
    def texts(self) -> list[str]:
        return [each.text for each in self.frames if type(each) is TranscriptionFrame]

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(each, kind) for each in self.frames)


def sound(data: bytes) -> list[Frame]:
    return [InputAudioRawFrame(audio=piece, sample_rate=16_000, num_channels=1) for piece in pieces(data, BLOCK)]


async def run(service: Any, turns: Sequence[Sequence[Frame]], wanted: type[Frame] = TranscriptionFrame) -> list[Seen]:
    """Send turns of frames through a service; a turn is sent when the one before has led to a frame that is wanted.

    Returns what came out at the end, and at the beginning.
    """
    end, beginning = Seen(), Seen(FrameDirection.UPSTREAM)
    pipeline = Pipeline([beginning, service, end])
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=16_000))
    runner = WorkerRunner(handle_sigint=False)

    async def send() -> None:
        await asyncio.sleep(1.0)  # the service connects
        for number, turn in enumerate(turns, 1):
            for frame in turn:
                await worker.queue_frame(frame)
                await asyncio.sleep(0.005)
            for _ in range(600):
                if end.count(wanted) >= number:
                    break
                await asyncio.sleep(0.1)
        await worker.queue_frame(EndFrame())

    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), send())
    assert not end.count(ErrorFrame) and not beginning.count(ErrorFrame)
    return [end, beginning]


async def segments(url: str) -> None:
    """Pipecat finds the segments and sends each as a file."""
    service = OpenAISTTService(api_key="none", base_url=url)
    turns = [
        [VADUserStartedSpeakingFrame(), *sound(pcm(name)), VADUserStoppedSpeakingFrame()] for name in (SPEECH, OTHER)
    ]
    (end, _) = await run(service, turns)
    is_equal(end.texts, [said(SPEECH), said(OTHER)])


async def commits(url: str) -> None:
    """Pipecat finds the turns and commits; sound goes out while it is spoken."""
    service = OpenAIRealtimeSTTService(api_key="none", base_url=url.replace("http", "ws", 1) + "/realtime")
    turns = [
        [VADUserStartedSpeakingFrame(), *sound(pcm(name)), VADUserStoppedSpeakingFrame()] for name in (SPEECH, OTHER)
    ]
    (end, _) = await run(service, turns)
    is_equal(end.texts, [said(SPEECH), said(OTHER)])
    assert end.count(InterimTranscriptionFrame)


async def turns(url: str) -> None:
    """The server finds the turns."""
    settings = OpenAIRealtimeSTTService.Settings(delay="low")
    service = OpenAIRealtimeSTTService(
        api_key="none",
        base_url=url.replace("http", "ws", 1) + "/realtime",
        turn_detection={"type": "server_vad", "silence_duration_ms": 500},
        settings=settings,
    )
    (end, _) = await run(service, [sound(pcm(name) + SILENCE) for name in (SPEECH, OTHER)])
    is_equal(end.texts, [said(SPEECH), said(OTHER)])
    is_equal((end.count(ProposedUserStartedSpeakingFrame), end.count(ProposedUserStoppedSpeakingFrame)), (2, 2))


async def converses(url: str) -> None:
    """A conversation: a greeting, then two spoken turns, each with its words and an answer in text."""
    audio = events.AudioConfiguration(
        input=events.AudioInput(
            transcription=events.InputAudioTranscription(model="demo"),
            turn_detection=events.TurnDetection(silence_duration_ms=500),
        )
    )
    service = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=url.replace("http", "ws", 1) + "/realtime",
        settings=OpenAIRealtimeLLMService.Settings(
            model="demo", session_properties=events.SessionProperties(output_modalities=["text"], audio=audio)
        ),
    )
    context = LLMContext([{"role": "user", "content": "Hello"}])
    spoken = [sound(pcm(name) + SILENCE) for name in (SPEECH, OTHER)]
    (end, beginning) = await run(service, [[LLMContextFrame(context)], *spoken], LLMFullResponseEndFrame)
    is_equal(beginning.texts, [said(SPEECH), said(OTHER)])
    is_equal(end.count(LLMFullResponseEndFrame), 3)


async def main() -> None:
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    for check in (segments, commits, turns, converses):
        await check(sys.argv[1])
        print(f"ok  {check.__name__}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
