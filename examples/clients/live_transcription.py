"""Send a recording to a running server as fast as it plays, with OpenAI's package: words come while it plays.

    pip install 'openai[realtime]'
    mlx_gemma4 serve --model demo
    python examples/clients/live_transcription.py [RECORDING] [URL]

Without arguments: a recording of the demo. A RECORDING is a WAV of 16 bits and one channel, of 8 to 48 kHz. A server
with a key takes it from OPENAI_API_KEY here.
"""

import asyncio
import base64
import os
import sys
import time
import wave
from pathlib import Path

from openai import AsyncOpenAI

MEDIA = Path(__file__).parents[2] / "mlx_gemma4" / "demo" / "media"
BLOCK_SECONDS = 0.04  # the model's frames have 40 ms, too


async def main(recording: str, url: str) -> None:
    client = AsyncOpenAI(
        base_url=url,
        websocket_base_url=url.replace("http", "ws", 1),
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
    )
    with wave.open(recording) as file:
        if (file.getsampwidth(), file.getnchannels()) != (2, 1):
            sys.exit(
                f"{recording} is not of 16 bits and one channel; ffmpeg -i {recording} -ac 1 -c:a pcm_s16le out.wav"
            )
        async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            sound = {"format": {"type": "audio/pcm", "rate": file.getframerate()}, "turn_detection": None}
            await connection.session.update(session={"type": "transcription", "audio": {"input": sound}})
            playing = asyncio.create_task(play(file, connection))
            async for event in connection:
                if event.type == "conversation.item.input_audio_transcription.delta":
                    print(event.delta, end="", flush=True)
                elif event.type == "conversation.item.input_audio_transcription.completed":
                    delay = time.monotonic() - await playing
                    print(f"\n{event.transcript}\n{1000 * delay:.0f} ms after the last sample")
                    return
                elif event.type == "error":
                    sys.exit(event.error.message)


async def play(file, connection) -> float:
    """Send the recording at its own pace; return when it has ended."""
    block = round(BLOCK_SECONDS * file.getframerate())
    started, sent = time.monotonic(), 0
    while data := file.readframes(block):
        sent += len(data) // 2
        await asyncio.sleep(started + sent / file.getframerate() - time.monotonic())
        await connection.input_audio_buffer.append(audio=base64.b64encode(data).decode())
    await connection.input_audio_buffer.commit()
    return time.monotonic()


if __name__ == "__main__":
    defaults = [str(MEDIA / "hibari-03.wav"), "http://127.0.0.1:8080/v1"]
    asyncio.run(main(*(sys.argv[1:] + defaults[len(sys.argv) - 1 :])))
