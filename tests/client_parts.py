"""What the scripts of stock clients share. It needs nothing but the standard library."""

from __future__ import annotations

import array
import base64
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
FOLDERS = (TESTS.parent / "mlx_gemma4" / "demo" / "media", TESTS / "data" / "demo")
GOLDEN: dict[str, Any] = json.loads((TESTS / "data" / "demo" / "golden.json").read_text(encoding="utf-8"))
PICTURE, SPEECH, OTHER = "picture-02.png", "hibari-03.wav", "pico-04.wav"
DESCRIBE = "Describe the image."


def said(name: str) -> str:
    """What the demo hears in a recording, in float32; ``mlx_gemma4 transcribe`` says the same."""
    return " ".join(each["google"]["text"] for each in GOLDEN["recordings"][name]["utterances"])


def named(name: str) -> str:
    """What the demo sees in a picture, in float32."""
    text: str = GOLDEN["pictures"][name]["text"]
    return text


def media(name: str) -> bytes:
    return next(folder / name for folder in FOLDERS if (folder / name).exists()).read_bytes()


def base64_of(name: str) -> str:
    return base64.b64encode(media(name)).decode()


def picture_url(name: str = PICTURE) -> str:
    return f"data:image/png;base64,{base64_of(name)}"


def pcm(name: str) -> bytes:
    """The samples of a recording: 16 bits, 16 kHz, mono."""
    return media(name)[44:]


def pcm_24k(name: str) -> bytes:
    """A recording of 16 kHz at 24 kHz, interpolated."""
    samples = array.array("h", pcm(name))
    last = len(samples) - 1
    places = [(index * 2 // 3, index * 2 % 3) for index in range(len(samples) * 3 // 2)]
    return array.array(
        "h", [(samples[at] * (3 - part) + samples[min(at + 1, last)] * part) // 3 for at, part in places]
    ).tobytes()


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def is_equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"expected {expected!r}, got {found!r}")


def run(checks: Iterable[Callable[..., object]], *arguments: Any) -> None:
    """Run checks in turn; print a line for each."""
    for check in checks:
        check(*arguments)
        print(f"ok  {check.__name__}", flush=True)
