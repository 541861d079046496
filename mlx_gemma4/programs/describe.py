"""A video in words, stretch by stretch: each is asked about on its own, so that none is too long for the model.

No clock, no files but the video's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.messages import user_content
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.vision.clip import Stretch, check_length
from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.inputs.vision.video import Film, Selection
from mlx_gemma4.inputs.vision.video_file import VideoFile
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.generate import GREEDY, GenerationResponse, stream_generate
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.steps import MAX_TOKENS
from mlx_gemma4.prefixes.store import PrefixStore

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


@dataclass(frozen=True)
class Describing:
    """What is asked about a video, and how it is cut."""

    text: str = DESCRIBE
    """The question about each segment."""
    segment: float = SEGMENT
    """Seconds of a segment."""
    selection: Selection | None = None
    """Video frames per second, how many at most in a segment, and from when to when; by default 1 a second."""
    sound: bool = False
    """Whether the model hears the segments too."""
    image_tokens: int | None = None
    """Budget of each video frame, instead of the checkpoint's."""
    max_tokens: int = MAX_TOKENS
    """Tokens of each answer."""
    sampling: Sampling = GREEDY


DEFAULT = Describing()


def describe_video(
    model: Model,
    processor: Processor,
    source: str | os.PathLike[str] | VideoFile,
    settings: Describing = DEFAULT,
    *,
    drafter: Drafter | None = None,
    store: PrefixStore | None = None,
) -> Generator[Description, None, None]:
    """Describe a video of any length segment by segment, each as soon as it is decoded.

    Args:
        drafter: As for ``stream_generate``.
        store: Likewise. With it, another question about the same video computes only the question.

    Raises:
        ValueError: More frames or sound in a segment than fit, or a file that cannot be read or has no sound.
    """
    segment = settings.segment
    selection = settings.selection or Selection(processor.limits.video_frames, FPS)
    check_length(segment)
    if selection.fps is None:
        raise ValueError("The selection has no fps: name a number of video frames per second")
    longest = segment if selection.end is None else min(segment, selection.end - selection.start)
    frames = math.ceil(longest * selection.fps)
    if frames > selection.max_video_frames:
        raise ValueError(
            f"Expected at most {selection.max_video_frames} frames in {longest:g} s, got {frames} at {selection.fps:g} "
            "a second; raise --max-frames, lower --fps or shorten --segment"
        )
    stretches = processor.stretches(
        source, segment, selection, image_tokens=settings.image_tokens, sound=settings.sound
    )

    def answer(content: list[Mapping[str, Any]]) -> Iterator[GenerationResponse]:
        prompt = processor.prompt([{"role": "user", "content": content}])
        return stream_generate(
            model,
            processor,
            prompt,
            max_tokens=settings.max_tokens,
            sampling=settings.sampling,
            drafter=drafter,
            store=store,
        )

    return _described(stretches, settings.text, answer)


def _described(
    stretches: Iterator[Stretch], text: str, answer: Callable[[list[Mapping[str, Any]]], Iterator[GenerationResponse]]
) -> Generator[Description, None, None]:
    last: Patches | None = None
    for stretch in stretches:
        film = stretch.film
        if film is None and last is not None:
            film = Film((last,), (stretch.start,))  # it still stands
        media: list[dict[str, Any]] = [] if film is None else [{"type": "video", "video": film}]
        if len(stretch.samples):
            media.append({"type": "audio", "audio": stretch.samples})
        responses = list(answer(user_content(text, media)))
        yield Description(
            start=stretch.start,
            end=stretch.end,
            text="".join(response.text for response in responses).strip(),
            tokens=responses[-1].generation_tokens,
            complete=responses[-1].finish_reason == "stop",
        )
        last = last if film is None else film.video_frames[-1]
