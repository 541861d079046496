"""A video in words, stretch by stretch: each is asked about on its own, so that none is too long for the model.

No clock, no files but the video's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.vision.clip import Stretch, check_length
from mlx_gemma4.inputs.vision.film import Film
from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.inputs.vision.video import Selection
from mlx_gemma4.inputs.vision.video_file import VideoFile
from mlx_gemma4.outputs.generate import GREEDY, MAX_TOKENS, GenerationResponse, stream_generate
from mlx_gemma4.outputs.sample import Sampling

DESCRIBE = "Describe what happens in this video."
SEGMENT = 30.0
"""Seconds that are described at once, by default; the longest sound that the model takes."""
FPS = 1.0


@dataclass(frozen=True)
class Description:
    """A stretch of a video, and what the model says about it."""

    start: float
    """Seconds from the video's first frame on."""
    end: float
    text: str
    tokens: int
    """Tokens of the answer, the one that ended it included."""
    complete: bool
    """False where the answer was cut at ``max_tokens``."""


def describe_video(
    model: Model,
    processor: Processor,
    source: str | os.PathLike[str] | VideoFile,
    *,
    text: str = DESCRIBE,
    segment: float = SEGMENT,
    selection: Selection | None = None,
    sound: bool = False,
    image_tokens: int | None = None,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling = GREEDY,
) -> Generator[Description, None, None]:
    """Describe a video of any length, a stretch after the other, each as soon as it is decoded.

    Args:
        text: What is asked about each stretch.
        segment: Seconds of a stretch.
        selection: With how many frames a second (1 by default), how many at most in a stretch, and from when to when.
        sound: Whether the model hears it, too.
        image_tokens: Budget of each frame, instead of the checkpoint's.

    Raises:
        ValueError: More frames or sound in a stretch than fit, or a file that cannot be read or has no sound.
    """
    selection = selection or Selection(processor.limits.video_frames, FPS)
    check_length(segment)
    if selection.fps is None:
        raise ValueError("Expected a number of frames per second to describe a video at, got none")
    longest = segment if selection.end is None else min(segment, selection.end - selection.start)
    frames = math.ceil(longest * selection.fps)
    if frames > selection.max_frames:
        raise ValueError(
            f"Expected at most {selection.max_frames} frames in {longest:g} s, got {frames} at {selection.fps:g} "
            "a second; raise --max-frames, lower --fps or shorten --segment"
        )
    stretches = processor.stretches(source, segment, selection, image_tokens=image_tokens, sound=sound)

    def answer(content: list[dict[str, Any]]) -> Iterator[GenerationResponse]:
        prompt = processor.prompt([{"role": "user", "content": content}])
        return stream_generate(model, processor, prompt, max_tokens=max_tokens, sampling=sampling)

    return _described(stretches, text, answer)


def _described(
    stretches: Iterator[Stretch], text: str, answer: Callable[[list[dict[str, Any]]], Iterator[GenerationResponse]]
) -> Generator[Description, None, None]:
    last: Patches | None = None
    for stretch in stretches:
        film = stretch.film
        if film is None and last is not None:
            film = Film((last,), (stretch.start,))  # it still stands
        responses = list(answer(_content(text, film, stretch.samples)))
        yield Description(
            start=stretch.start,
            end=stretch.end,
            text="".join(response.text for response in responses).strip(),
            tokens=responses[-1].generation_tokens,
            complete=responses[-1].finish_reason == "stop",
        )
        last = last if film is None else film.frames[-1]


def _content(text: str, film: Film | None, samples: np.ndarray) -> list[dict[str, Any]]:
    """In the order that the model was trained on: pictures, text, sound."""
    return [
        *([] if film is None else [{"type": "video", "video": film}]),
        {"type": "text", "text": text},
        *([{"type": "audio", "audio": samples}] if len(samples) else []),
    ]
