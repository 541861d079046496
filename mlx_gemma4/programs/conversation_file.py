"""The messages of a chat as tensors of a file, media included.

messages          JSON of the messages, in which a medium is {"saved": number} instead
media.0.pixels    pictures and video frames: patches [P, values], as bytes where they came from bytes
media.0.xy        their places
media.1.samples   sound
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlx_gemma4.checkpoint.json_file import array, real, table, whole
from mlx_gemma4.inputs.messages import Message, check_messages
from mlx_gemma4.inputs.vision.image import Patches, from_bytes, to_bytes
from mlx_gemma4.inputs.vision.video import Film

KIND = "conversation"


def is_packed(name: str) -> bool:
    """Whether a tensor of a file is one of those that ``pack`` made."""
    return name == "messages" or name.startswith("media.")


def pack(messages: Sequence[Message]) -> dict[str, np.ndarray]:
    """Messages whose media were read (``Processor.read_media``) → tensors.

    Raises:
        ValueError: A message holds something that JSON cannot express.
    """
    media: list[dict[str, np.ndarray]] = []
    written = [_packed(message, media) for message in messages]
    try:
        text = json.dumps(written)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The messages cannot be saved: {error}; use text, numbers, lists and objects in them"
        ) from error
    tensors = {"messages": np.frombuffer(text.encode(), np.uint8)}
    return tensors | {
        f"media.{number}.{name}": each for number, parts in enumerate(media) for name, each in parts.items()
    }


def unpack(tensors: Mapping[str, np.ndarray]) -> list[Message]:
    """The messages again.

    Raises:
        ValueError: Something is missing, or has another form.
    """
    try:
        messages = json.loads(tensors["messages"].tobytes())
        check_messages(messages)
        return [_unpacked(message, tensors) for message in messages]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the messages cannot be read: {error}") from error


def _packed(message: Message, media: list[dict[str, np.ndarray]]) -> Message:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    return {**message, "content": [_packed_part(part, media) for part in content]}


def _packed_part(part: Mapping[str, Any], media: list[dict[str, np.ndarray]]) -> Mapping[str, Any]:
    kind = part["type"]
    if kind == "text":
        return part
    medium, more = part[kind], {}
    if isinstance(medium, Film):
        more = {"seconds": list(medium.seconds), "lengths": [len(patches) for patches in medium.video_frames]}
        media.append(_stored(*medium.video_frames))
    elif isinstance(medium, Patches):
        media.append(_stored(medium))
    else:
        media.append({"samples": np.asarray(medium, np.float32)})
    return {**part, kind: {"saved": len(media) - 1, **more}}


def _stored(*images: Patches) -> dict[str, np.ndarray]:
    pixels = np.concatenate([each.pixels for each in images])
    return {"pixels": to_bytes(pixels), "xy": np.concatenate([each.patch_xy for each in images])}


def _unpacked(message: Message, tensors: Mapping[str, np.ndarray]) -> Message:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return message
    return {**message, "content": [_unpacked_part(part, tensors) for part in content]}


def _unpacked_part(part: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
    kind = part["type"]
    if kind == "text":
        return part
    saved = table(part[kind], f"a saved {kind}")
    place = f"media.{whole(saved['saved'], 'the number of a medium', least=0)}"
    if kind == "audio":
        return {**part, "audio": tensors[f"{place}.samples"]}
    pixels, patch_xy = from_bytes(tensors[f"{place}.pixels"]), tensors[f"{place}.xy"]
    if pixels.ndim != 2 or patch_xy.shape != (len(pixels), 2):
        raise ValueError(f"the patches of {place} and their places do not fit together")
    if kind == "image":
        return {**part, "image": Patches(pixels, patch_xy)}
    seconds = tuple(real(each, "the time of a video frame") for each in array(saved["seconds"], "the times"))
    cuts = np.cumsum([whole(each, "the length of a video frame") for each in array(saved["lengths"], "the lengths")])
    if len(cuts) != len(seconds) or cuts[-1:].tolist() != [len(pixels)]:
        raise ValueError(f"the video frames of {place} do not fit its patches")
    pieces = zip(np.split(pixels, cuts[:-1]), np.split(patch_xy, cuts[:-1]), strict=True)
    return {**part, "video": Film(tuple(Patches(*piece) for piece in pieces), seconds)}
