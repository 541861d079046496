"""Runs a transcript of an agent again: the model answers anew, and the results of calls come from the file.

recorded   step 1: lights(hall) → "hall on"      step 2: "Done."
again      step 1: lights(hall) → "hall on"      step 2: "Done."         the same
again      step 1: lights(bath) → an error       …                       differs in step 1: nothing was run
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma4.checkpoint.json_file import array, table
from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.inputs.messages import MEDIA
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.declarations import check_declarations
from mlx_gemma4.outputs.tools.result import MOST_MEDIA, Part, ToolResult
from mlx_gemma4.programs.agent_events import Stepped
from mlx_gemma4.programs.agent_transcript import SUFFIXES, VERSION, content_hash, file_hash, media_folder

MOST_BYTES = 64 * 2**20
"""Bytes of a transcript, at most."""
UNKNOWN = "The recording has no such call."


@dataclass
class Recording:
    """What a transcript holds.

    Attributes:
        began: Its first line.
        steps: Text and calls of each step.
        results: What calls returned, or why they were declined; by function and arguments, in their order.
        problem: What is wrong with its last line, if it broke off.
        reason: Why the run ended; None if the transcript does not say.
    """

    began: Mapping[str, Any]
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    results: dict[str, deque[tuple[str | None, ToolResult]]] = field(default_factory=lambda: defaultdict(deque))
    problem: str | None = None
    reason: str | None = None

    def task(self) -> list[Mapping[str, Any]]:
        """The content of the task.

        Raises:
            ValueError: A file has changed or is missing.
        """
        return [_opened(table(part, "a part of the task")) for part in array(self.began.get("task"), "the task")]

    def difference(self, steps: Sequence[Stepped]) -> str | None:
        """Where other steps differ from those recorded, in words; None if they are the same."""
        for number, (mine, theirs) in enumerate(zip(self.steps, steps, strict=False), 1):
            if _calls(mine["calls"]) != _calls([vars(call) for call in theirs.calls]):
                return f"step {number} calls other functions, or with other arguments"
            if mine["text"] != theirs.text:
                return f"step {number} has another text"
        if len(self.steps) != len(steps):
            return f"there are {len(steps)} steps instead of {len(self.steps)}"
        return None


class RecordedTools:
    """The functions of a recording. A call that is allowed (``allow``) has the result that it had; each serves once."""

    def __init__(self, recording: Recording, source: str) -> None:
        self.source = source
        self.schemas = check_declarations(array(recording.began.get("tools"), "the tools"), source)
        self._results = recording.results
        self._allowed: dict[str, ToolResult] = {}
        """Results of calls that were asked about, by the calls' ids."""

    def runs(self, name: str) -> bool:
        return True

    def allow(self, call: ToolCall) -> str | None:
        """What was decided about a call; its result is kept for it."""
        waiting = self._results.get(key(call.name, call.arguments))
        reason, result = waiting.popleft() if waiting else (UNKNOWN, ToolResult.error(UNKNOWN))
        self._allowed[call.id] = result
        return reason

    def call(self, call: ToolCall) -> ToolResult:
        return self._allowed.pop(call.id)

    def close(self) -> None: ...


def read_transcript(path: str | os.PathLike[str]) -> Recording:
    """Read a transcript. A last line that is cut short is left out (``problem``).

    Raises:
        ValueError: It cannot be read, or is no transcript; the message names the file and the line.
    """
    recording, calls, decisions = None, dict[str, Mapping[str, Any]](), dict[str, str | None]()
    lines = list(_lines(Path(path)))
    for number, line in enumerate(lines, 1):
        where = f"line {number} of {path}"
        try:
            fields = table(json.loads(line), where)
            event = fields.get("event")
            if recording is None:
                recording = _begun(fields, where)
            elif event == "step":
                recording.steps.append({"text": str(fields["text"]), "calls": array(fields["calls"], "the calls")})
                calls |= {table(call, "a call")["id"]: call for call in fields["calls"]}
            elif event == "decided":
                decisions[fields["id"]] = None if fields["allowed"] else str(fields["reason"])
            elif event == "returned":
                call = calls[fields["id"]]
                result = _result(fields, media_folder(path))
                recording.results[key(call["name"], call["arguments"])].append((decisions.get(fields["id"]), result))
            elif event == "ended":
                recording.reason = str(fields["reason"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            if number < len(lines) or recording is None or line.endswith("\n"):
                raise ValueError(f"{where} cannot be read: {reason}; is it a transcript of an agent?") from error
            recording.problem = f"{where} is cut short, and was left out"
    if recording is None:
        raise ValueError(f"{path} is empty: it is no transcript of an agent")
    return recording


def key(name: str, arguments: Any) -> str:
    """What makes two calls the same."""
    return json.dumps([name, arguments], sort_keys=True, default=str)


def _lines(path: Path) -> Iterator[str]:
    try:
        if not path.is_file():
            raise ValueError(f"There is no transcript at {path}")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} is too large for a transcript: it has more than {MOST_BYTES} bytes")
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            yield from file
    except OSError as error:
        raise ValueError(f"The transcript {path} cannot be read: {error.strerror}") from error


def _begun(fields: Mapping[str, Any], where: str) -> Recording:
    if fields.get("event") != "began":
        raise ValueError("it does not say how the run began")
    if fields.get("version") != VERSION:
        raise ValueError(f"it has the version {fields.get('version')!r}, and {VERSION} is known")
    return Recording(fields)


def _result(fields: Mapping[str, Any], media: Path) -> ToolResult:
    parts = array(fields["parts"], "the parts")
    if sum(part["type"] != "text" for part in parts) > MOST_MEDIA:
        raise ValueError(f"a result has more than {MOST_MEDIA} media")
    return ToolResult(tuple(_part(part, media) for part in parts), bool(fields["is_error"]), int(fields["left_out"]))


def _part(part: Mapping[str, Any], media: Path) -> Part:
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": str(part["text"])}
    if kind not in SUFFIXES:
        raise ValueError(f"a result cannot hold {kind!r}")
    file = media / f"{Path(str(part['sha256'])).name}{SUFFIXES[kind]}"
    if not file.is_file():
        raise ValueError(f"the {kind} {file} is missing")
    medium: np.ndarray = load_image(file) if kind == "image" else load_audio(file)
    if content_hash(medium) != part["sha256"]:
        raise ValueError(f"the {kind} {file} has changed")
    return {"type": kind, kind: medium}


def _opened(part: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": str(part.get("text"))}
    path = part.get("path")
    if kind not in MEDIA or not isinstance(path, str):
        raise ValueError(f"The task has a {kind} that was not a file: it cannot be run again")
    if not Path(path).is_file():
        raise ValueError(f"The {kind} of the task is missing: there is no file at {path}")
    if file_hash(path) != part.get("sha256"):
        raise ValueError(f"The {kind} of the task has changed: {path} is not the file that the run had")
    return {"type": kind, kind: path}


def _calls(calls: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key(str(call["name"]), call["arguments"]) for call in calls]
