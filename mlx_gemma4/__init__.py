"""Gemma 4 12B in MLX, live: text, sound and pictures grow into one sequence while they arrive.

Names are loaded when they are first used: importing this package imports neither mlx nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mlx_gemma4.audio import load_audio, split_audio
    from mlx_gemma4.chat import Conversation
    from mlx_gemma4.checkpoint import load
    from mlx_gemma4.generation import GenerationResponse, generate, stream_generate
    from mlx_gemma4.hub import demo_folder
    from mlx_gemma4.image import Patches
    from mlx_gemma4.model import Model
    from mlx_gemma4.processor import Processor
    from mlx_gemma4.prompt import Prompt
    from mlx_gemma4.sample import Sampling
    from mlx_gemma4.session import Mark, Session
    from mlx_gemma4.tools import parse_tool_calls
    from mlx_gemma4.transcribe import Segment, Transcriber

__all__ = [
    "Conversation",
    "GenerationResponse",
    "Mark",
    "Model",
    "Patches",
    "Processor",
    "Prompt",
    "Sampling",
    "Segment",
    "Session",
    "Transcriber",
    "demo_folder",
    "generate",
    "load",
    "load_audio",
    "parse_tool_calls",
    "split_audio",
    "stream_generate",
]

# No public name may be that of a module: importing the module would put it in the name's place.
_HOMES = {
    "Conversation": "chat",
    "GenerationResponse": "generation",
    "Mark": "session",
    "Model": "model",
    "Patches": "image",
    "Processor": "processor",
    "Prompt": "prompt",
    "Sampling": "sample",
    "Segment": "transcribe",
    "Session": "session",
    "Transcriber": "transcribe",
    "demo_folder": "hub",
    "generate": "generation",
    "load": "checkpoint",
    "load_audio": "audio",
    "parse_tool_calls": "tools",
    "split_audio": "audio",
    "stream_generate": "generation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
