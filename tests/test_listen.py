"""``listen`` in one call: the events of the parts wired by hand, from every kind of source."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_cases import SHORT, media_file

from mlx_gemma4 import Model, Processor, Transcriber, load_audio
from mlx_gemma4.inputs.audio.endpoint import Endpointer, Endpointing
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.live.hear.events import Final, ListenerEvent, Partial
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.live.hear.sources import FileSource

NAME = "pico-04.wav"


def timeless(events: Generator[ListenerEvent, None, None]) -> list[ListenerEvent]:
    """Events without what a clock measures."""
    return [replace(event, delay=0.0, after_speech=0.0) if isinstance(event, Final) else event for event in events]


def test_one_call_gives_the_events_of_the_parts(demo: tuple[Model, Processor]) -> None:
    """Partials and all, of a path, a binary stream, samples and a source."""
    path = media_file(NAME)
    listener = Listener(Transcriber(*demo), Endpointer(Voice()), guess_every=0.5)
    expected = timeless(listen(FileSource(path, fast=True), listener))
    for source in (path, str(path), load_audio(path), FileSource(path, fast=True)):
        assert timeless(listen(source, *demo)) == expected  # type: ignore[arg-type]
    assert timeless(listen(path, model=demo[0], processor=demo[1])) == expected
    assert timeless(listen(path, listener=Listener(Transcriber(*demo)))) == expected
    piped = listen(io.BytesIO(path.read_bytes()), *demo)
    texts = [[event.text for event in events if isinstance(event, Final)] for events in (expected, piped)]
    assert texts[0] == texts[1] == ["go back seven meters"]


def test_every_part_can_be_replaced(demo: tuple[Model, Processor]) -> None:
    path = media_file(NAME)
    transcriber = Transcriber(*demo, text=SHORT, max_segment=1.0)
    events = list(listen(path, *demo, transcriber=transcriber, endpointer=Endpointing(pre_roll=0.0), guess_every=100.0))
    finals = [event for event in events if isinstance(event, Final)]
    assert finals[0].reason == "length" and all(final.end - final.start <= 1.0 + 1e-9 for final in finals)
    assert len([event for event in events if isinstance(event, Partial)]) <= len(finals)
    assert not any(isinstance(event, Final) for event in listen(path, *demo, endpointer=Endpointer(lambda frame: 0.0)))


def test_a_recording_is_read_fast_unless_its_pace_is_asked_for(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    samples = np.zeros(6400, np.float32)
    sources: list[bool] = []

    class Watched(FileSource):
        def __init__(self, *arguments: Any, fast: bool, **options: Any) -> None:
            sources.append(fast)
            super().__init__(*arguments, fast=fast, sleep=slept.append, clock=time.monotonic, **options)

    monkeypatch.setattr("mlx_gemma4.live.hear.loop.FileSource", Watched)
    list(listen(samples, *demo))
    assert (sources, slept) == ([True], [])
    list(listen(samples, *demo, fast=False))
    assert sources == [True, False] and slept


def test_arguments_that_do_not_go_together(demo: tuple[Model, Processor]) -> None:
    """Each error says what to write instead, before anything is read."""
    model, processor = demo
    transcriber = Transcriber(*demo)
    listener, samples = Listener(transcriber), np.zeros(640, np.float32)
    needs = "listen needs a model and its processor: listen(source, model, processor), as load returns them"
    cases: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (needs, (samples, model), {}),
        (needs, (samples,), {}),
        (
            "The listener has its own processor; pass these to Listener(...), not to listen",
            (samples, listener, processor),
            {},
        ),
        (
            "The listener has its own endpointer and guess_every; pass these to Listener(...), not to listen",
            (samples, listener),
            {"endpointer": Endpointing(), "guess_every": 0.0},
        ),
        (
            "listen takes no transcriber in this place; write listen(source, Listener(transcriber))",
            (samples, transcriber),
            {},
        ),
        (
            "A FileSource has its own pace; fast is for paths and samples: FileSource(…, fast=…)",
            (FileSource(samples), listener),
            {"fast": True},
        ),
        ("listen needs a path, samples, a binary stream or a source, got int", (7, listener), {}),
    ]
    for message, arguments, options in cases:
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            listen(*arguments, **options)


def test_a_recording_that_is_not_there_is_named_at_once(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.wav"):
        listen(tmp_path / "nothing.wav", *demo)
