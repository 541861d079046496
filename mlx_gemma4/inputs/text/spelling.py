"""The bytes that each token of a ``tokenizer.json`` writes, from its decoder.

decoder          token      bytes
ByteLevel        Ġcafé      " caf" C3 A9      a character stands for each byte; Ġ for a space
ByteFallback     ▁cat       " cat"            ▁ for a space
                 <0xC3>     C3
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

SPACE = "▁"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")

_PLAIN = {"Fuse", "ByteFallback", "Replace"}
"""Decoders that may follow each other where bytes are written as ``<0xC3>``."""


def speller(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes]:
    """The function from a token to its bytes.

    Args:
        decoder: The decoder of ``tokenizer.json``.

    Raises:
        ValueError: The decoder is of another kind: what a token writes depends on its neighbours.
    """
    steps = [decoder or {"type": "no decoder"}]
    if steps[0].get("type") == "Sequence":
        steps = list(steps[0].get("decoders") or [])
    kinds = [str(step.get("type")) for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level
    spaces = [(step.get("pattern"), step.get("content")) for step in steps if step.get("type") == "Replace"]
    if "ByteFallback" in kinds and set(kinds) <= _PLAIN and spaces in ([], [({"String": SPACE}, " ")]):
        return spelled if spaces else _with_bytes
    raise ValueError(
        f"The bytes of the tokenizer's tokens are not known: its decoder is {', '.join(kinds)}; "
        "use a checkpoint with ByteLevel or ByteFallback, as Gemma 4 has"
    )


def _stand_ins() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies, as GPT-2 chose them."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _stand_ins()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_BYTES[character] for character in token])
    except KeyError:  # an added token, which is written as it is
        return token.encode()


def _with_bytes(token: str) -> bytes:
    match = BYTE.fullmatch(token)
    return bytes.fromhex(match[1]) if match else token.encode()


def spelled(token: str) -> bytes:
    """The bytes of a token of SentencePiece's form."""
    return _with_bytes(token.replace(SPACE, " "))
