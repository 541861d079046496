"""A run of an agent as lines of JSON, written while it happens: what breaks off is kept as far as it came.

    began      version, model, task, system, tools, limits, sampling, thinking
    step       step, text, thought, calls [{id, name, arguments, problem}], finish_reason, prompt_tokens, tokens
    decided    id, name, allowed, reason                      for each call that could be run
    returned   id, name, parts, is_error, left_out, seconds   for each call
    told       text                                           what the model was told because it repeats itself
    ended      reason, answer, steps, tokens, seconds

A medium of a task is a path and a hash of the file. A medium of a result is a file in the folder of media beside the
transcript, whose name is the hash of its content: a PNG, or 32-bit samples at 16 kHz in a WAV.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.parallel import Returned
from mlx_gemma4.outputs.tools.result import Part
from mlx_gemma4.programs.agent_events import AgentEvent, Decided, Ended, Stepped, Told, Wrote
from mlx_gemma4.programs.chat import Content

VERSION = 1
SUFFIXES = {"image": ".png", "audio": ".wav"}


def media_folder(transcript: str | os.PathLike[str]) -> Path:
    """The folder of the media of results, beside a transcript."""
    return Path(f"{os.fspath(transcript)}.media")


class AgentTranscript:
    """Writes the events of a run to a stream, a line each.

    Args:
        stream: Flushed after each line.
        media: The folder for media of results; made when it is needed. None: their hashes are written, not they.
    """

    def __init__(self, stream: TextIO, media: Path | None = None) -> None:
        self._stream, self._media = stream, media
        self._thought: list[str] = []
        self._has_ended = False

    def begin(self, task: Content, **settings: Any) -> None:
        """Write the first line: the task, and everything that is needed to run it again."""
        parts = [{"type": "text", "text": task}] if isinstance(task, str) else task
        self._write("began", version=VERSION, task=[_named(part) for part in parts], **settings)

    def take(self, event: AgentEvent) -> None:
        """Write an event."""
        if isinstance(event, Wrote):
            if event.kind == "thought":
                self._thought.append(event.text)
        elif isinstance(event, Stepped):
            thought, self._thought = "".join(self._thought), []
            self._write("step", **{**vars(event), "thought": thought, "calls": [vars(call) for call in event.calls]})
        elif isinstance(event, Decided):
            call, allowed = event.call, event.reason is None
            self._write("decided", id=call.id, name=call.name, allowed=allowed, reason=event.reason)
        elif isinstance(event, Returned):
            self._returned(event.call, event)
        elif isinstance(event, Told):
            self._write("told", text=event.text)
        else:
            self.end(event)

    def end(self, event: Ended) -> None:
        """Write the last line, once."""
        if not self._has_ended:
            self._has_ended = True
            self._write("ended", **vars(event))

    def _returned(self, call: ToolCall, event: Returned) -> None:
        result = event.result
        self._write(
            "returned",
            id=call.id,
            name=call.name,
            parts=[self._kept(part) for part in result.parts],
            is_error=result.is_error,
            left_out=result.left_out,
            seconds=round(event.seconds, 3),
        )

    def _kept(self, part: Part) -> Mapping[str, Any]:
        """A part of a result; a medium as the name of a file that holds it."""
        kind = part["type"]
        if kind == "text":
            return part
        medium = part[kind]
        name = content_hash(medium)
        if self._media is None:
            return {"type": kind, "sha256": name}
        file = self._media / f"{name}{SUFFIXES[kind]}"
        if not file.exists():
            self._media.mkdir(exist_ok=True)
            _save(medium, file)
        return {"type": kind, "file": file.name, "sha256": name}

    def _write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}, default=str)
        self._stream.write(f"{line}\n")
        self._stream.flush()


def content_hash(medium: np.ndarray) -> str:
    """The hash of a picture's pixels or a sound's samples."""
    return sha256(repr(medium.shape).encode() + np.ascontiguousarray(medium).tobytes()).hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """The hash of a file's content."""
    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _named(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part of a task; a medium as its path and hash, or what it is if it is no file."""
    kind = part["type"]
    if kind == "text":
        return part
    medium = part[kind]
    if isinstance(medium, (str, os.PathLike)):
        return {"type": kind, "path": os.path.abspath(medium), "sha256": file_hash(medium)}
    return {"type": kind, "medium": type(medium).__name__}


def _save(medium: np.ndarray, file: Path) -> None:
    if file.suffix == ".png":
        from PIL import Image

        Image.fromarray(medium).save(file)
    else:
        import soundfile

        soundfile.write(file, medium, SAMPLE_RATE, subtype="FLOAT")
