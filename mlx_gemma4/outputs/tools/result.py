"""What a call gives back, for the model to read: text and media in order, within bounds.

a function returns           parts of the result
21.5                         "21.5"
Path("plot.png")             image
("Before:", a, "after:", b)  "Before:", image, "after:", image
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma4.inputs.messages import kind_of
from mlx_gemma4.outputs.tools.syntax import valid

Part = Mapping[str, Any]
"""``{"type": "text" | "image" | "audio", …}``, as in a message."""

RESULT_LENGTH = 8000
"""Characters of a result that the model reads; the rest would fill the context."""
TAIL_LENGTH = 2000
"""Characters of them that are its end: what went wrong often stands there."""
MOST_MEDIA = 8
"""Pictures and sounds of a result, at most."""
LONGEST_SOUND = 30.0
"""Seconds of a sound, at most: what one part of a prompt takes."""


@dataclass(frozen=True)
class ToolResult:
    """The result of a call.

    Attributes:
        parts: Text and media in order. A picture is uint8 [H, W, 3], and sound float32 [n] at 16 kHz.
        is_error: The call failed. The text says why, for the model.
        left_out: Characters that were left out of a long text. The text says so, too.
    """

    parts: tuple[Part, ...]
    is_error: bool = False
    left_out: int = 0

    @classmethod
    def of(cls, *parts: str | Part, is_error: bool = False) -> ToolResult:
        """A result of text and media. Long texts are shortened, and media are decoded.

        Args:
            parts: Text; or ``{"type": "image", "image": …}`` with a path, a PIL image or uint8 [H, W, 3]; or
                ``{"type": "audio", "audio": …}`` with a path, a binary stream or samples at 16 kHz.

        Raises:
            ValueError: A medium cannot be read, or there are too many.
        """
        written = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
        if sum(part["type"] != "text" for part in written) > MOST_MEDIA:
            raise ValueError(f"A result may hold at most {MOST_MEDIA} pictures and sounds; return fewer")
        room, left_out, read = RESULT_LENGTH, 0, list[Part]()
        for part in written:
            if part["type"] != "text":
                read.append(_decoded(part))
                continue
            text, lost = shortened(part["text"], room)
            room, left_out = max(room - len(part["text"]), 0), left_out + lost
            read.append({"type": "text", "text": text})
        return cls(tuple(read), is_error, left_out)

    @classmethod
    def error(cls, problem: str) -> ToolResult:
        """The result of a call that failed."""
        return cls.of(f"error: {problem}", is_error=True)

    @property
    def text(self) -> str:
        """The text, with the places of media."""
        return self.numbered({})

    def numbered(self, counts: dict[str, int]) -> str:
        """The text, with the places of media numbered on from ``counts``, which go on counting."""
        shown = []
        for part in self.parts:
            kind = part["type"]
            if kind != "text":
                counts[kind] = counts.get(kind, 0) + 1
            shown.append(part["text"] if kind == "text" else f"[{kind} {counts[kind]}]")
        return "\n".join(shown)

    @property
    def media(self) -> list[Part]:
        """The parts that are not text."""
        return [part for part in self.parts if part["type"] != "text"]


def result_of(value: Any) -> ToolResult:
    """The result of a function that returned ``value``.

    A PIL image, uint8 [H, W, 3] (or 4, with transparency) and the ``Path`` of a picture or a recording are media, and
    so are parts of a message (``{"type": "audio", "audio": samples}``). A list or tuple with media among its items is
    all of them, in order. All else is text.

    Raises:
        ValueError: As for ``ToolResult.of``.
    """
    items = value if isinstance(value, (list, tuple)) else [value]
    parts = [_part(item) for item in items]
    if any(part is not None for part in parts):
        return ToolResult.of(*(part or _written(item) for part, item in zip(parts, items, strict=True)))
    return ToolResult.of(_written(value))


def shortened(text: str, room: int = RESULT_LENGTH) -> tuple[str, int]:
    """Valid text of about ``room`` characters, its beginning and its end, and how many characters were left out."""
    if len(text) <= room:
        return valid(text), 0
    tail = min(TAIL_LENGTH, room // 4)
    left_out = len(text) - room
    head, end = valid(text[: room - tail]), valid(text[len(text) - tail :])
    return f"{head}\n[… {left_out:,} of {len(text):,} characters are left out here …]\n{end}", left_out


def _written(value: Any) -> str:
    if value is None:
        return "done"
    return value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else str(value)


def _part(value: Any) -> dict[str, Any] | None:
    """The medium that a value is; None if it is none."""
    if isinstance(value, Path):
        kind = kind_of(value)
        return None if kind is None else {"type": kind, kind: value}
    if _is_picture(value):
        return {"type": "image", "image": _opaque(value)}
    kind = value.get("type") if isinstance(value, dict) else None
    return value if kind in ("image", "audio") and value.keys() == {"type", kind} else None


def _is_picture(value: Any) -> bool:
    """Whether a value is a PIL image, or an array of pixels. Where it is, its library is imported."""
    pil, numpy = sys.modules.get("PIL.Image"), sys.modules.get("numpy")
    if pil is not None and isinstance(value, pil.Image):
        return True
    if numpy is None or not isinstance(value, numpy.ndarray):
        return False
    return bool(value.dtype == numpy.uint8 and value.ndim == 3 and value.shape[2] in (3, 4))


def _opaque(picture: Any) -> Any:
    """A picture whose transparency is known to what reads it: PIL images have it, arrays have not."""
    if getattr(picture, "shape", (3,))[-1] == 3:
        return picture
    from PIL import Image

    return Image.fromarray(picture)


def _decoded(part: Part) -> Part:
    kind = part["type"]
    if kind == "image":
        from mlx_gemma4.inputs.vision.image import load_image

        return {"type": "image", "image": load_image(part["image"])}
    if kind == "audio":
        from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, load_audio

        samples = load_audio(part["audio"], limit=LONGEST_SOUND)
        if len(samples) > LONGEST_SOUND * SAMPLE_RATE:
            raise ValueError(f"The sound of a result may last at most {LONGEST_SOUND:g} s; return a part of it")
        return {"type": "audio", "audio": samples}
    raise ValueError(f"A result cannot hold a {kind}; return pictures of it")
