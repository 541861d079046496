"""Media of a request, as bytes, to what the processor takes."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, load_audio
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.serve.protocols.failure import Failure, wrong

DETAILS = {None: None, "auto": None, "low": 70, "high": 560, "original": 1120}
"""Soft tokens of a picture, by the client's wish; None: the checkpoint's own budget."""


def too_many(where: str, most: int) -> Failure:
    """A request has more media than it may have."""
    return wrong(where, f"A request may hold at most {most} pictures, sounds and videos")


class Media:
    """Decodes the media of one request.

    Args:
        most: Pictures, sounds and videos, at most.
    """

    def __init__(self, processor: Processor, most: int) -> None:
        self._processor, self._most = processor, most
        self._count = 0

    def decode(self, kind: str, data: bytes, detail: str | None, where: str) -> Any:
        """Decode one of them.

        Raises:
            Failure: It cannot be read, or there are too many.
        """
        self._count += 1
        if self._count > self._most:
            raise too_many(where, self._most)
        if detail not in DETAILS:
            raise wrong(where, f"The detail of {where} must be one of auto, low, high, original")
        try:
            return self._read(kind, data, DETAILS[detail])
        except ValueError as error:
            raise Failure(400, f"{where}: {error}", param=where, code=f"invalid_{kind}") from error

    def _read(self, kind: str, data: bytes, budget: int | None) -> Any:
        if kind == "audio":
            return self._sound(data)
        if kind == "image":
            return self._processor.patches(load_image(data), image_tokens=budget)
        return self._film(data)

    def _sound(self, data: bytes) -> np.ndarray:
        longest = self._processor.limits.audio_tokens * self._processor.frame_samples
        samples = load_audio(io.BytesIO(data), limit=longest / SAMPLE_RATE)
        if len(samples) > longest:
            raise ValueError(
                f"A message takes at most {longest / SAMPLE_RATE:g} s of sound in one part; send longer recordings to "
                "/v1/audio/transcriptions"
            )
        return samples

    def _film(self, data: bytes) -> Any:
        """FFmpeg reads files only."""
        with tempfile.TemporaryDirectory(prefix="mlx_gemma4-") as folder:
            path = Path(folder) / "medium"
            path.write_bytes(data)
            try:
                return self._processor.film(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), "the video")) from error
