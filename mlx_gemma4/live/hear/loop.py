"""The loop: sound from a source into a listener while it arrives, events out.

for event in listen("talk.wav", model, processor): ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeAlias, cast, overload

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import Endpointer, Endpointing
from mlx_gemma4.inputs.audio.recording import AudioSource
from mlx_gemma4.live.hear.events import DroppedAudio, ListenerEvent
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.sources import FileSource, PipeSource, Source, open_recording
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.programs.transcribe import Transcriber

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor

Events: TypeAlias = Generator[ListenerEvent, None, None]
Hear: TypeAlias = Callable[[np.ndarray], None]
Sound: TypeAlias = Source | AudioSource | np.ndarray


@overload
def listen(
    source: Sound,
    model: Model,
    processor: Processor,
    *,
    transcriber: Transcriber | None = None,
    endpointer: Endpointer | Endpointing | None = None,
    guess_every: float | None = None,
    fast: bool | None = None,
    hear: Hear | None = None,
) -> Events: ...


@overload
def listen(source: Sound, listener: Listener, *, fast: bool | None = None, hear: Hear | None = None) -> Events: ...


def listen(  # type: ignore[misc]  # the second argument has two names: a listener, or a model
    source: Sound,
    listener: Listener | Model | None = None,
    processor: Processor | None = None,
    *,
    model: Model | None = None,
    transcriber: Transcriber | None = None,
    endpointer: Endpointer | Endpointing | None = None,
    guess_every: float | None = None,
    fast: bool | None = None,
    hear: Hear | None = None,
) -> Events:
    """Transcribe sound while it arrives: yield what happens until the source ends.

    Each pass takes all sound that has arrived in the meantime. If the source or the model fails, the text of what was
    heard until then comes first, then the error is raised. The same holds for KeyboardInterrupt, but without waiting
    for the model: the last guess becomes the text.

    Args:
        source: A recording's path; ``"-"``, a named pipe or a binary stream; samples [n] at 16 kHz; or a ``Source``,
            such as a ``Microphone``.
        listener: The engine; or ``model`` and ``processor``, of which one is made.
        transcriber: Used instead of one with Google's instruction for English, segments of at most 15 s, and drafts
            from n-grams.
        endpointer: How utterances are found: settings, or an ``Endpointer`` with a detector of your own.
        guess_every: Seconds of new speech between two guesses; by default as often as the machine can, every 0.5 s at
            most (``Listener``).
        fast: Whether a recording is read as fast as the model can, which is the default: most programs want its text
            soon. False plays it at its own pace, as if it were being spoken. A pipe has the pace of its writer.
        hear: Called with each block of sound, float32 [n] at 16 kHz, before it is worked off.

    Raises:
        TypeError: The arguments do not go together.
        ValueError: The source holds no sound, or the settings make no sense.
    """
    if isinstance(listener, Listener):
        replaced = {"processor": processor, "model": model, "transcriber": transcriber, "endpointer": endpointer}
        extra = [name for name, value in {**replaced, "guess_every": guess_every}.items() if value is not None]
        if extra:
            raise TypeError(
                f"The listener has its own {' and '.join(extra)}; pass these to Listener(...), not to listen"
            )
        return _follow_to_end(_open(source, fast), listener, hear)
    if isinstance(listener, Transcriber):
        raise TypeError("listen takes no transcriber in this place; write listen(source, Listener(transcriber))")
    model = listener if model is None else model
    if model is None or processor is None:
        raise TypeError(
            "listen needs a model and its processor: listen(source, model, processor), as load returns them"
        )
    opened = _open(source, fast)
    made = Listener(
        Transcriber(model, processor, drafter=Drafter()) if transcriber is None else transcriber,
        endpointer,
        guess_every=guess_every,
    )
    return _follow_to_end(opened, made, hear)


def _open(source: Sound, fast: bool | None) -> Source:
    """A source of sound; recordings are read fast unless ``fast`` is False."""
    if isinstance(source, np.ndarray):
        return FileSource(source, fast=fast is not False)
    if isinstance(source, str | os.PathLike):
        return open_recording(source, fast=fast is not False)
    if not hasattr(source, "read"):
        raise TypeError(f"listen needs a path, samples, a binary stream or a source, got {type(source).__name__}")
    if not hasattr(source, "stop"):
        return PipeSource(source)
    if fast is not None:
        raise TypeError(
            f"A {type(source).__name__} has its own pace; fast is for paths and samples: FileSource(…, fast=…)"
        )
    return cast(Source, source)


def _follow_to_end(source: Source, listener: Listener, hear: Hear | None) -> Events:
    try:
        yield from _follow(source, listener, hear)
        yield from listener.finish()
    except Exception:
        yield from _last_events(listener)
        raise
    except KeyboardInterrupt:
        yield from listener.abandon()
        raise


def _follow(source: Source, listener: Listener, hear: Hear | None) -> Events:
    lost = 0.0
    while (block := source.read()) is not None:
        listener.feed(block)
        if hear is not None:
            hear(block)
        yield from listener.step()
        if source.lost_seconds > lost:
            yield DroppedAudio(source.lost_seconds - lost)
            lost = source.lost_seconds


def _last_events(listener: Listener) -> list[ListenerEvent]:
    try:
        return listener.finish()
    except Exception:  # the model failed: the caller raises the reason
        return listener.abandon()
