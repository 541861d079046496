"""Gemma 4 12B in MLX, live: text, sound and pictures enter one growing sequence while they arrive.

These are the names that most programs need; everything else is imported from its folder. A name is loaded when it is
first used: importing this package imports neither mlx nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlx_gemma4.checkpoint.hub import demo_folder as demo_folder
    from mlx_gemma4.decoder.model import Model as Model
    from mlx_gemma4.decoder.snapshots import Snapshots as Snapshots
    from mlx_gemma4.inputs.audio.endpoint import Endpointer as Endpointer
    from mlx_gemma4.inputs.audio.endpoint import Endpointing as Endpointing
    from mlx_gemma4.inputs.audio.frames import split_audio as split_audio
    from mlx_gemma4.inputs.audio.recording import load_audio as load_audio
    from mlx_gemma4.inputs.audio.voice import Voice as Voice
    from mlx_gemma4.inputs.processor import Processor as Processor
    from mlx_gemma4.live.hear.events import Final as Final
    from mlx_gemma4.live.hear.events import Partial as Partial
    from mlx_gemma4.live.hear.listener import Listener as Listener
    from mlx_gemma4.live.hear.loop import listen as listen
    from mlx_gemma4.live.hear.microphone import Microphone as Microphone
    from mlx_gemma4.live.hear.sources import FileSource as FileSource
    from mlx_gemma4.live.see.camera import Camera as Camera
    from mlx_gemma4.live.see.scene import Scene as Scene
    from mlx_gemma4.live.see.watcher import Watcher as Watcher
    from mlx_gemma4.live.see.watcher import Watching as Watching
    from mlx_gemma4.live.talk.arrivals import Inbox as Inbox
    from mlx_gemma4.live.talk.arrivals import Replay as Replay
    from mlx_gemma4.live.talk.assistant import Assistant as Assistant
    from mlx_gemma4.live.talk.events import Answered as Answered
    from mlx_gemma4.live.talk.events import Heard as Heard
    from mlx_gemma4.live.talk.events import Said as Said
    from mlx_gemma4.live.talk.loop import converse as converse
    from mlx_gemma4.loading import load as load
    from mlx_gemma4.mcp.server import McpServer as McpServer
    from mlx_gemma4.outputs.drafter import Drafter as Drafter
    from mlx_gemma4.outputs.drafter import load_drafter as load_drafter
    from mlx_gemma4.outputs.generate import generate as generate
    from mlx_gemma4.outputs.generate import stream_generate as stream_generate
    from mlx_gemma4.outputs.grammar.constraint import Constraint as Constraint
    from mlx_gemma4.outputs.sample import Sampling as Sampling
    from mlx_gemma4.outputs.tools.toolbox import load_tools as load_tools
    from mlx_gemma4.prefixes.store import PrefixStore as PrefixStore
    from mlx_gemma4.programs.agent import Agent as Agent
    from mlx_gemma4.programs.chat import Conversation as Conversation
    from mlx_gemma4.programs.describe import describe_video as describe_video
    from mlx_gemma4.programs.transcribe import Transcriber as Transcriber
    from mlx_gemma4.session import Session as Session

# No public name may be that of a module: importing the module would put it in the name's place.
_NAMES = {
    "checkpoint.hub": "demo_folder",
    "decoder.model": "Model",
    "decoder.snapshots": "Snapshots",
    "inputs.audio.endpoint": "Endpointer Endpointing",
    "inputs.audio.frames": "split_audio",
    "inputs.audio.recording": "load_audio",
    "inputs.audio.voice": "Voice",
    "inputs.processor": "Processor",
    "live.hear.events": "Final Partial",
    "live.hear.listener": "Listener",
    "live.hear.loop": "listen",
    "live.hear.microphone": "Microphone",
    "live.hear.sources": "FileSource",
    "live.see.camera": "Camera",
    "live.see.scene": "Scene",
    "live.see.watcher": "Watcher Watching",
    "live.talk.arrivals": "Inbox Replay",
    "live.talk.assistant": "Assistant",
    "live.talk.events": "Answered Heard Said",
    "live.talk.loop": "converse",
    "loading": "load",
    "mcp.server": "McpServer",
    "outputs.drafter": "Drafter load_drafter",
    "outputs.generate": "generate stream_generate",
    "outputs.grammar.constraint": "Constraint",
    "outputs.sample": "Sampling",
    "outputs.tools.toolbox": "load_tools",
    "prefixes.store": "PrefixStore",
    "programs.agent": "Agent",
    "programs.chat": "Conversation",
    "programs.describe": "describe_video",
    "programs.transcribe": "Transcriber",
    "session": "Session",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
