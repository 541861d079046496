"""The loop of a conversation: sound, pictures and lines go into the assistant, events come out.

Between two deliveries the assistant computes one piece of its answer, so that speech can interrupt it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from mlx_gemma4.live.see.scene import Scene
from mlx_gemma4.live.talk.arrivals import Arrivals, Arrived
from mlx_gemma4.live.talk.assistant import Assistant
from mlx_gemma4.live.talk.events import AssistantEvent
from mlx_gemma4.live.talk.transcript import Transcript


def converse(
    assistant: Assistant,
    arrivals: Arrivals,
    *,
    scene: Scene | None = None,
    read: Callable[[str], Sequence[AssistantEvent]] | None = None,
    transcript: Transcript | None = None,
) -> Generator[AssistantEvent, None, None]:
    """Yield events until nothing more arrives and the last answer is complete.

    An error of a source or the model is raised after the last events: what was heard before it is answered.
    KeyboardInterrupt is raised without waiting for the model: the answer ends where it is.

    Args:
        scene: Look only at pictures that differ from the last one, by this measure. By default at all pictures.
        read: Called with each line, instead of ``assistant.ask``.
        transcript: Transcribes what was said, after the answer to it; at the end of the sound, before it.
    """
    read = read or assistant.ask
    try:
        piped = yield from _follow(assistant, arrivals, scene, read, transcript)
        yield from _finish(assistant, transcript)
        if piped is not None:
            yield from read(piped)
            yield from _finish(assistant, transcript)
    except Exception:
        yield from _last_events(assistant, transcript)
        raise
    except KeyboardInterrupt:
        yield from assistant.abandon()
        raise


def _follow(
    assistant: Assistant,
    arrivals: Arrivals,
    scene: Scene | None,
    read: Callable[[str], Sequence[AssistantEvent]],
    transcript: Transcript | None,
) -> Generator[AssistantEvent, None, str | None]:
    """Process what arrives until nothing more does. Returns the piped line that was not read yet, if any."""
    piped: str | None = None
    while (arrived := _take(assistant, arrivals, transcript, piped)) is not None:
        if transcript is not None and arrived.sound:
            transcript.hear(np.concatenate(arrived.sound))
        for event in _process(assistant, arrived, scene, read):
            yield event
            if transcript is not None:
                transcript.add(event)
        piped = arrived.piped if piped is None else piped
        if piped is not None and assistant.ready:
            yield from read(piped)
            piped = None
        yield from assistant.step()
        if transcript is not None and not assistant.answering:
            yield from transcript.step()
    return piped


def _take(assistant: Assistant, arrivals: Arrivals, transcript: Transcript | None, piped: str | None) -> Arrived | None:
    """What has arrived. Waits for it only if there is nothing to compute."""
    is_busy = assistant.answering or (transcript is not None and transcript.waits)
    has_question = piped is not None and assistant.ready
    return arrivals.take(wait=not is_busy and not has_question, ready=piped is None and assistant.ready)


def _finish(assistant: Assistant, transcript: Transcript | None) -> Iterator[AssistantEvent]:
    for event in assistant.finish():
        yield event
        if transcript is not None:
            transcript.add(event)
    while transcript is not None and transcript.waits:
        yield from transcript.step()
    while assistant.answering:
        yield from assistant.step()
    yield from assistant.abandon()  # an answer that still waits for a result: nobody will bring it


def _last_events(assistant: Assistant, transcript: Transcript | None) -> Iterator[AssistantEvent]:
    try:
        yield from _finish(assistant, transcript)
    except Exception:  # the model failed: the caller raises the reason
        yield from assistant.abandon()


def _process(
    assistant: Assistant, arrived: Arrived, scene: Scene | None, read: Callable[[str], Sequence[AssistantEvent]]
) -> Iterator[AssistantEvent]:
    if arrived.sound:
        yield from assistant.hear(np.concatenate(arrived.sound))
    if arrived.is_last_sound:
        yield from assistant.finish()
    if arrived.shot is not None and (scene is None or scene.changed(arrived.shot.pixels)):
        if scene is not None:
            scene.accept()
        yield from assistant.look(arrived.shot)
    if arrived.lost is not None:
        if scene is not None:
            scene.forget()
        yield from assistant.lose_sight(arrived.lost)
    for line in arrived.typed:
        yield from read(line)
