"""Contents of MCP messages as parts of messages of this package: text, pictures and sound; a line for all else."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Sequence
from typing import Any

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from mlx_gemma4.outputs.tools.result import LONGEST_SOUND, MOST_MEDIA, Part, ToolResult
from mlx_gemma4.printable import printable

MOST_BLOCKS = 64
"""Contents of one result."""


def tool_result(result: CallToolResult) -> ToolResult:
    """The result of a call. Structured content counts where there is no other."""
    blocks: Sequence[Any] = result.content
    if not blocks and result.structured_content is not None:
        blocks = [TextContent(text=json.dumps(result.structured_content, ensure_ascii=False))]
    parts = content_parts(blocks)
    if result.is_error:
        parts = [{"type": "text", "text": "error:"}, *parts]
    return ToolResult.of(*(parts or [{"type": "text", "text": "done"}]), is_error=result.is_error)


def content_parts(blocks: Sequence[Any]) -> list[Part]:
    """Parts of a message. Media that cannot be read become a line that says so."""
    parts = [_part(block) for block in blocks[:MOST_BLOCKS]]
    if len(blocks) > MOST_BLOCKS:
        parts.append(_text(f"[{len(blocks) - MOST_BLOCKS} more contents are left out]"))
    media = 0
    for place, part in enumerate(parts):
        media += part["type"] != "text"
        if part["type"] != "text" and media > MOST_MEDIA:
            parts[place] = _text(f"[{part['type']} left out: at most {MOST_MEDIA} pictures and sounds are read]")
    return parts


def _part(block: Any) -> Part:
    if isinstance(block, TextContent):
        return _text(block.text)
    if isinstance(block, ImageContent):
        return _medium("image", block.data)
    if isinstance(block, AudioContent):
        return _medium("audio", block.data)
    if isinstance(block, ResourceLink):
        return _text(f"[resource {block.uri} ({block.name})]")
    if isinstance(block, EmbeddedResource):
        return resource_part(block.resource)
    return _text(f"[{type(block).__name__}]")


def resource_part(resource: TextResourceContents | BlobResourceContents) -> Part:
    """A part of a message: its text, its picture or sound, or what it is."""
    if isinstance(resource, TextResourceContents):
        return _text(resource.text)
    kind = (resource.mime_type or "").partition("/")[0]
    if kind in ("image", "audio"):
        return _medium(kind, resource.blob)
    return _text(f"[resource {resource.uri}: {resource.mime_type or 'bytes'}, which cannot be read]")


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _medium(kind: str, data: str) -> Part:
    try:
        return _read(kind, base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        return _text(f"[{kind} that cannot be read: {printable(str(error))[:200]}]")


def _read(kind: str, data: bytes) -> Part:
    if kind == "audio":
        from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, load_audio

        samples = load_audio(io.BytesIO(data), limit=LONGEST_SOUND)
        if len(samples) > LONGEST_SOUND * SAMPLE_RATE:
            raise ValueError(f"it lasts more than {LONGEST_SOUND:g} s")
        return {"type": "audio", "audio": samples}
    from mlx_gemma4.inputs.vision.image import load_image

    return {"type": "image", "image": load_image(data)}
