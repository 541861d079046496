"""Gemma 4 12B in MLX, live: text, sound and pictures grow into one sequence while they arrive.

Names are loaded when they are first used: importing this package imports neither mlx nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlx_gemma4.checkpoint.hub import demo_folder
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.audio.endpoint import Endpointer, Endpointing
    from mlx_gemma4.inputs.audio.pcm import RawFormat
    from mlx_gemma4.inputs.audio.recording import AudioStream, load_audio, split_audio, stream_audio
    from mlx_gemma4.inputs.audio.voice import Voice
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.inputs.prompt import Prompt
    from mlx_gemma4.inputs.vision.image import Patches
    from mlx_gemma4.inputs.vision.video import Selection
    from mlx_gemma4.live.hear.events import Committed, DroppedAudio, Final, Partial, Silence
    from mlx_gemma4.live.hear.listener import Listener
    from mlx_gemma4.live.hear.loop import listen
    from mlx_gemma4.live.hear.microphone import Microphone
    from mlx_gemma4.live.hear.sources import FileSource, PipeSource
    from mlx_gemma4.live.see.camera import Camera, Shot
    from mlx_gemma4.live.see.scene import Scene
    from mlx_gemma4.live.see.watcher import Sighting, Watcher
    from mlx_gemma4.live.talk.arrivals import Inbox, Replay
    from mlx_gemma4.live.talk.assistant import Assistant
    from mlx_gemma4.live.talk.events import Answered, Called, Forgot, Heard, Looked, Refused, Said, SightLost
    from mlx_gemma4.live.talk.loop import converse
    from mlx_gemma4.loading import load
    from mlx_gemma4.outputs.generate import GenerationResponse, generate, stream_generate
    from mlx_gemma4.outputs.sample import Sampling
    from mlx_gemma4.outputs.tools.calls import parse_tool_calls
    from mlx_gemma4.programs.chat import Conversation
    from mlx_gemma4.programs.describe import Description, describe_video
    from mlx_gemma4.programs.transcribe import Guess, Segment, Transcriber
    from mlx_gemma4.session import Mark, Session

__all__ = [
    "Answered",
    "Assistant",
    "AudioStream",
    "Called",
    "Camera",
    "Committed",
    "Conversation",
    "Description",
    "DroppedAudio",
    "Endpointer",
    "Endpointing",
    "FileSource",
    "Final",
    "Forgot",
    "GenerationResponse",
    "Guess",
    "Heard",
    "Inbox",
    "Listener",
    "Looked",
    "Mark",
    "Microphone",
    "Model",
    "Partial",
    "Patches",
    "PipeSource",
    "Processor",
    "Prompt",
    "RawFormat",
    "Refused",
    "Replay",
    "Said",
    "Sampling",
    "Scene",
    "Segment",
    "Selection",
    "Session",
    "Shot",
    "SightLost",
    "Sighting",
    "Silence",
    "Transcriber",
    "Voice",
    "Watcher",
    "converse",
    "demo_folder",
    "describe_video",
    "generate",
    "listen",
    "load",
    "load_audio",
    "parse_tool_calls",
    "split_audio",
    "stream_audio",
    "stream_generate",
]

# No public name may be that of a module: importing the module would put it in the name's place.
_HOMES = {
    "Answered": "live.talk.events",
    "Assistant": "live.talk.assistant",
    "AudioStream": "inputs.audio.recording",
    "Called": "live.talk.events",
    "Camera": "live.see.camera",
    "Committed": "live.hear.events",
    "Conversation": "programs.chat",
    "Description": "programs.describe",
    "Endpointer": "inputs.audio.endpoint",
    "Endpointing": "inputs.audio.endpoint",
    "FileSource": "live.hear.sources",
    "Final": "live.hear.events",
    "Forgot": "live.talk.events",
    "GenerationResponse": "outputs.generate",
    "Guess": "programs.transcribe",
    "Heard": "live.talk.events",
    "Inbox": "live.talk.arrivals",
    "Listener": "live.hear.listener",
    "Looked": "live.talk.events",
    "DroppedAudio": "live.hear.events",
    "Mark": "session",
    "Microphone": "live.hear.microphone",
    "Model": "decoder.model",
    "Partial": "live.hear.events",
    "Patches": "inputs.vision.image",
    "PipeSource": "live.hear.sources",
    "Processor": "inputs.processor",
    "Prompt": "inputs.prompt",
    "RawFormat": "inputs.audio.pcm",
    "Refused": "live.talk.events",
    "Said": "live.talk.events",
    "Sampling": "outputs.sample",
    "Scene": "live.see.scene",
    "Segment": "programs.transcribe",
    "Selection": "inputs.vision.video",
    "Session": "session",
    "Shot": "live.see.camera",
    "SightLost": "live.talk.events",
    "Sighting": "live.see.watcher",
    "Silence": "live.hear.events",
    "Replay": "live.talk.arrivals",
    "Transcriber": "programs.transcribe",
    "Voice": "inputs.audio.voice",
    "Watcher": "live.see.watcher",
    "converse": "live.talk.loop",
    "demo_folder": "checkpoint.hub",
    "describe_video": "programs.describe",
    "generate": "outputs.generate",
    "listen": "live.hear.loop",
    "load": "loading",
    "load_audio": "inputs.audio.recording",
    "parse_tool_calls": "outputs.tools.calls",
    "split_audio": "inputs.audio.recording",
    "stream_audio": "inputs.audio.recording",
    "stream_generate": "outputs.generate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
