"""What is heard in a Realtime conversation: turns, their items, and what was said in them.

    server_vad, semantic_vad    somebody speaks: a turn begins; silence: it is an item
    null                        a buffer: an item when the client commits it

Words may be told before or after their item is there; ``completed`` comes when both are complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.serve.hearing import Began, Said, Spoke, Supposed, Transcribed, Words
from mlx_gemma4.serve.protocols.realtime_items import Item, Items, spoken, stretches
from mlx_gemma4.serve.protocols.realtime_sound import TRANSCRIPTION, committed, ms

Event = dict[str, Any]


@dataclass
class Turn:
    """A turn, or a buffer."""

    item_id: str
    sounds: list[np.ndarray] = field(default_factory=list)
    """Its stretches; of a buffer, what was appended."""
    samples: int = 0
    """In them."""
    start: float = 0.0
    end: float = 0.0
    texts: list[str] = field(default_factory=list)
    missing: int = 0
    """Utterances whose text is not known yet."""
    has_words: bool = False
    """Whether words of the open utterance were told."""
    item: Item | None = None

    def add(self, samples: np.ndarray) -> None:
        self.sounds.append(samples)
        self.samples += len(samples)


class Turns:
    """The turns of a connection.

    Args:
        longest: Samples of a stretch of sound, at most.
        event: Makes an event of a type and its fields.

    Attributes:
        open: The turn in which somebody speaks.
        buffer: The sound that the client has not committed.
        guesses: Whether guesses are told.
    """

    def __init__(self, items: Items, longest: int, next_id: Callable[[str], str], event: Callable[..., Event]) -> None:
        self._items, self._longest, self._next_id, self._event = items, longest, next_id, event
        self._utterances: dict[int, Turn] = {}
        """Whose text is not known yet, by number."""
        self._count = 0
        self._committed: deque[Turn] = deque()
        """Buffers that were committed, and that the work has not heard to their ends."""
        self.open: Turn | None = None
        self.buffer: Turn | None = None
        self.transcribes = self.guesses = False

    def append(self, samples: np.ndarray) -> bool:
        """Sound comes into the buffer. Returns whether another stretch of it has begun."""
        begins = self.buffer is None
        self.buffer = self.buffer or Turn(self._next_id("item"))
        before = self.buffer.samples // self._longest
        self.buffer.add(samples)
        return begins or self.buffer.samples // self._longest > before

    def commit(self, rest: np.ndarray) -> list[Event]:
        """The buffer is an item."""
        turn = self.buffer or Turn(self._next_id("item"))
        samples = np.concatenate([*turn.sounds, rest])
        turn.end, self.buffer = len(samples) / SAMPLE_RATE, None
        turn.sounds = list(stretches(samples, self._longest))
        self._committed.append(turn)
        return self._add(turn)

    def clear(self) -> None:
        """The client has cleared the buffer."""
        self.buffer = None

    def committed(self) -> list[Event]:
        """The work has heard a buffer to its end."""
        turn = self._committed.popleft()
        return [self._completed(turn)] if self.transcribes else []

    def begin(self, told: Began) -> list[Event]:
        """An utterance begins, in the open turn or in a new one."""
        events = []
        if self.open is None:
            self.open = Turn(self._next_id("item"), start=told.seconds)
            where = {"audio_start_ms": ms(told.seconds), "item_id": self.open.item_id}
            events = [self._event("input_audio_buffer.speech_started", **where)]
        if self.transcribes:
            self.open.missing += 1
            self._utterances[self._count] = self.open
        self._count += 1
        return events

    def spoke(self, told: Spoke) -> None:
        """An utterance has ended."""
        assert self.open is not None
        self.open.add(told.samples)
        self.open.end = told.end

    def end(self) -> list[Event]:
        """The open turn is an item."""
        turn, self.open = self.open, None
        assert turn is not None
        stopped = self._event("input_audio_buffer.speech_stopped", audio_end_ms=ms(turn.end), item_id=turn.item_id)
        return [stopped, *self._add(turn), *self._complete(turn)]

    def cleared(self) -> None:
        """The work has forgotten the open turn."""
        self._utterances = {number: turn for number, turn in self._utterances.items() if turn is not self.open}
        self.open = None

    def transcribed(self, event: Transcribed) -> list[Event]:
        """Words of an utterance are known."""
        turn = self._turn_of(event)
        if turn is None:
            return []
        told = event.told
        if isinstance(told, Words):
            return [self._delta(turn, told.text)]
        if isinstance(told, Supposed):
            where = {"item_id": turn.item_id, "content_index": 0}
            guess = {"committed": told.committed, "draft": told.draft}
            return [self._event(f"{TRANSCRIPTION}.hypothesis", **where, **guess)] if self.guesses else []
        return self._say(turn, event, told)

    def _say(self, turn: Turn, event: Transcribed, told: Said) -> list[Event]:
        events = [self._delta(turn, told.rest)] if told.rest else []
        turn.texts += [told.text] if told.text else []
        turn.has_words = False
        if event.utterance is not None:
            del self._utterances[event.utterance]
            turn.missing -= 1
            events += self._complete(turn)
        return events

    def _turn_of(self, event: Transcribed) -> Turn | None:
        if event.utterance is not None:
            return self._utterances.get(event.utterance)
        return self._committed[0] if self._committed else self.buffer

    def _add(self, turn: Turn) -> list[Event]:
        """The item of a turn."""
        turn.item = spoken(turn.item_id, turn.sounds)
        previous = self._items.insert(turn.item)
        return committed(self._event, turn.item.record(), previous)

    def _complete(self, turn: Turn) -> list[Event]:
        """Tell the text of a turn that is an item, if it is known."""
        is_known = self.transcribes and turn.item is not None and not turn.missing
        return [self._completed(turn)] if is_known else []

    def _completed(self, turn: Turn) -> Event:
        text = " ".join(turn.texts)
        if turn.item is not None:
            turn.item.content[0].text, turn.item.content[0].is_transcribed = text, True
        usage = {"type": "duration", "seconds": round(turn.end - turn.start, 3)}
        told = {"item_id": turn.item_id, "content_index": 0, "transcript": text, "usage": usage}
        return self._event(f"{TRANSCRIPTION}.completed", **told)

    def _delta(self, turn: Turn, text: str) -> Event:
        is_next = bool(turn.texts) and not turn.has_words and not text.startswith(" ")
        turn.has_words = True
        delta = f" {text}" if is_next else text
        return self._event(f"{TRANSCRIPTION}.delta", item_id=turn.item_id, content_index=0, delta=delta)
