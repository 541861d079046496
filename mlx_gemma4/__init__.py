"""Gemma 4 12B in MLX, live: text, sound and pictures grow into one sequence while they arrive.

Names are loaded when they are first used: importing this package imports neither mlx nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlx_gemma4.audio import AudioStream, load_audio, split_audio, stream_audio
    from mlx_gemma4.chat import Conversation
    from mlx_gemma4.checkpoint import load
    from mlx_gemma4.description import Description, describe_video
    from mlx_gemma4.generation import GenerationResponse, generate, stream_generate
    from mlx_gemma4.hub import demo_folder
    from mlx_gemma4.image import Patches
    from mlx_gemma4.live.arrivals import Inbox, Together
    from mlx_gemma4.live.assistant import Assistant
    from mlx_gemma4.live.assistant_events import Answered, Called, Forgot, Heard, Looked, Refused, Said, SightLost
    from mlx_gemma4.live.camera import Camera, Shot
    from mlx_gemma4.live.converse import converse
    from mlx_gemma4.live.endpoint import Endpointer, Endpointing
    from mlx_gemma4.live.events import Committed, Final, Lost, Partial, Silence
    from mlx_gemma4.live.listen import listen
    from mlx_gemma4.live.listener import Listener
    from mlx_gemma4.live.microphone import Microphone
    from mlx_gemma4.live.scene import Scene
    from mlx_gemma4.live.sources import FileSource, PipeSource
    from mlx_gemma4.live.voice import Voice
    from mlx_gemma4.live.watcher import Sighting, Watcher
    from mlx_gemma4.model import Model
    from mlx_gemma4.pcm import RawFormat
    from mlx_gemma4.processor import Processor
    from mlx_gemma4.prompt import Prompt
    from mlx_gemma4.sample import Sampling
    from mlx_gemma4.session import Mark, Session
    from mlx_gemma4.tools import parse_tool_calls
    from mlx_gemma4.transcribe import Guess, Segment, Transcriber
    from mlx_gemma4.video import Selection

__all__ = [
    "Answered",
    "Assistant",
    "AudioStream",
    "Called",
    "Camera",
    "Committed",
    "Conversation",
    "Description",
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
    "Lost",
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
    "Together",
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
    "Answered": "live.assistant_events",
    "Assistant": "live.assistant",
    "AudioStream": "audio",
    "Called": "live.assistant_events",
    "Camera": "live.camera",
    "Committed": "live.events",
    "Conversation": "chat",
    "Description": "description",
    "Endpointer": "live.endpoint",
    "Endpointing": "live.endpoint",
    "FileSource": "live.sources",
    "Final": "live.events",
    "Forgot": "live.assistant_events",
    "GenerationResponse": "generation",
    "Guess": "transcribe",
    "Heard": "live.assistant_events",
    "Inbox": "live.arrivals",
    "Listener": "live.listener",
    "Looked": "live.assistant_events",
    "Lost": "live.events",
    "Mark": "session",
    "Microphone": "live.microphone",
    "Model": "model",
    "Partial": "live.events",
    "Patches": "image",
    "PipeSource": "live.sources",
    "Processor": "processor",
    "Prompt": "prompt",
    "RawFormat": "pcm",
    "Refused": "live.assistant_events",
    "Said": "live.assistant_events",
    "Sampling": "sample",
    "Scene": "live.scene",
    "Segment": "transcribe",
    "Selection": "video",
    "Session": "session",
    "Shot": "live.camera",
    "SightLost": "live.assistant_events",
    "Sighting": "live.watcher",
    "Silence": "live.events",
    "Together": "live.arrivals",
    "Transcriber": "transcribe",
    "Voice": "live.voice",
    "Watcher": "live.watcher",
    "converse": "live.converse",
    "demo_folder": "hub",
    "describe_video": "description",
    "generate": "generation",
    "listen": "live.listen",
    "load": "checkpoint",
    "load_audio": "audio",
    "parse_tool_calls": "tools",
    "split_audio": "audio",
    "stream_audio": "audio",
    "stream_generate": "generation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
