"""``/v1/realtime``: a transcription session as a state machine. Events of the client and of the work in, events out.

    turn_detection    server_vad: an item for each utterance         null: an item for each commit of the client
    append …
    somebody speaks   speech_started
    words that stand  transcription.delta                            transcription.delta
    silence           speech_stopped, committed, item.added
                      transcription.delta, .completed
    commit                                                           committed, item.added
                                                                     transcription.delta, .completed

Deltas cannot be taken back, so only words on which two guesses agreed are told before the end; ``completed`` has the
text of the whole sound and is the one that counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mlx_gemma4.serve.hearing import (
    Began,
    Clear,
    Command,
    Commit,
    Committed,
    Configure,
    Hearing,
    Said,
    Supposed,
    Words,
    sounds,
)
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_request import (
    HYPOTHESES,
    Append,
    ClientEvent,
    CommitBuffer,
    Head,
    Settings,
    Update,
    event_id_of,
)
from mlx_gemma4.serve.protocols.realtime_sound import TRANSCRIPTION, SoundStream, committed, ms
from mlx_gemma4.serve.protocols.wire import read

Event = dict[str, Any]


class TranscriptionSession:
    """One connection.

    Args:
        next_id: Makes an id that begins with a prefix.
        session_id: The id of the session, if it has one already.
    """

    def __init__(self, next_id: Callable[[str], str], *, session_id: str | None = None) -> None:
        self._next_id = next_id
        self._id = session_id or next_id("sess")
        self._settings = Settings()
        self._sound = SoundStream()
        self._item: str | None = None
        """The item of the utterance, or of the buffer, that is open."""
        self._previous: str | None = None
        self._asked: deque[tuple[str | None, float]] = deque()
        """The items of commits that the work has not reached, and the seconds in them. None: the server finds turns."""
        self._texts: list[str] = []
        """Of the utterances in a buffer."""
        self._has_words = False
        """Whether deltas of the utterance were told."""
        self._said = 0
        """Utterances since the last commit that the work has reached."""

    def open(self) -> list[Event]:
        """The first events."""
        # at the top, the id is for clients of vLLM
        return [self._event("session.created", id=self._id, session=self._session())]

    def receive(self, message: bytes) -> tuple[list[Event], list[Command]]:
        """Take an event of the client; return what to answer, and what to tell the work. What is wrong changes
        nothing, and is answered by an error."""
        try:
            event = _read(message)
            return self._take(event)
        except Failure as failure:
            return [self.error(failure, event_id_of(message))], []

    def hear(self, event: Hearing) -> list[Event]:
        """Take an event of the work; return the events that tell it."""
        if isinstance(event, Began):
            return self._begin(event)
        if isinstance(event, Words):
            return [self._delta(event.text)]
        if isinstance(event, Supposed):
            return self._suppose(event)
        if isinstance(event, Said):
            return self._say(event)
        if isinstance(event, Committed):
            return self._finish()
        self._item, self._texts, self._has_words = None, [], False
        return [self._event("input_audio_buffer.cleared")]

    def drain(self) -> list[Command]:
        """Nothing follows: an utterance that is open ends here. A buffer that was not committed is not told."""
        if not self._settings.has_turns:
            return []
        self._asked.append((None, 0.0))
        return [*sounds(self._sound.finish()), Commit()]

    def error(self, failure: Failure, event_id: str | None = None) -> Event:
        """An error. The session goes on."""
        return self._event("error", error={**failure.record()["error"], "event_id": event_id})

    def _take(self, event: ClientEvent) -> tuple[list[Event], list[Command]]:
        if isinstance(event, Append):
            return [], self._append(event)
        if isinstance(event, Update):
            return self._update(event)
        if isinstance(event, CommitBuffer):
            return self._commit()
        self._sound.clear()
        return [], [Clear()]

    def _update(self, event: Update) -> tuple[list[Event], list[Command]]:
        before, self._settings = self._settings, self._settings.updated(event.session)
        if (before.encoding, before.rate) != (self._settings.encoding, self._settings.rate):
            self._sound.change_format()
        commands: list[Command] = [Configure(self._settings.hearing())]
        return [self._event("session.updated", session=self._session())], commands

    def _append(self, event: Append) -> list[Command]:
        return sounds(self._sound.append(event.audio, self._settings.encoding, self._settings.rate))

    def _commit(self) -> tuple[list[Event], list[Command]]:
        rest, seconds = self._sound.commit()
        commands: list[Command] = [*sounds(rest), Commit()]
        if self._settings.has_turns:
            self._asked.append((None, seconds))
            return [], commands
        # words of this buffer were told already if one of its utterances has begun and no other commit is before it
        item = self._item if self._item is not None and not self._asked else self._next_id("item")
        self._asked.append((item, seconds))
        return self._committed(item), commands

    def _begin(self, event: Began) -> list[Event]:
        self._has_words = False
        if not self._finds_turns:
            return []
        self._item = self._next_id("item")
        return [self._event("input_audio_buffer.speech_started", audio_start_ms=ms(event.seconds), item_id=self._item)]

    def _suppose(self, event: Supposed) -> list[Event]:
        if HYPOTHESES not in self._settings.include:
            return []
        told = {"item_id": self._current(), "content_index": 0, "committed": event.committed, "draft": event.draft}
        return [self._event(f"{TRANSCRIPTION}.hypothesis", **told)]

    def _say(self, event: Said) -> list[Event]:
        self._said += 1
        rest = [self._delta(event.rest)] if event.rest else []
        if not self._finds_turns:
            self._texts += [event.text] if event.text else []
            return rest
        item = self._current()
        stopped = self._event("input_audio_buffer.speech_stopped", audio_end_ms=ms(event.end), item_id=item)
        events = [stopped, *self._committed(item), *rest, self._completed(item, event.text, event.end - event.start)]
        self._item = None
        return events

    def _finish(self) -> list[Event]:
        """Everything before a commit was heard."""
        item, seconds = self._asked.popleft()
        said, self._said = self._said, 0
        if item is None:  # with turns, the utterances were told already; without any, a client that asked still waits
            if said or not seconds:
                return []
            item = self._next_id("item")
            return [*self._committed(item), self._completed(item, "", seconds)]
        events = [self._completed(item, " ".join(self._texts), seconds)]
        self._item, self._texts, self._has_words = None, [], False
        return events

    @property
    def _finds_turns(self) -> bool:
        """Whether what is heard now is an item of its own: the settings may have changed since it was committed."""
        return self._asked[0][0] is None if self._asked else self._settings.has_turns

    def _current(self) -> str:
        """The item that words belong to now."""
        if self._asked and self._asked[0][0] is not None:
            return self._asked[0][0]
        self._item = self._item or self._next_id("item")
        return self._item

    def _delta(self, text: str) -> Event:
        first = not self._has_words and bool(self._texts)
        self._has_words = True
        delta = f" {text}" if first and not text.startswith(" ") else text
        return self._event(f"{TRANSCRIPTION}.delta", item_id=self._current(), content_index=0, delta=delta)

    def _committed(self, item: str) -> list[Event]:
        previous, self._previous = self._previous, item
        content = [{"type": "input_audio", "transcript": None}]
        message = {
            "id": item,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        return committed(self._event, message, previous)

    def _completed(self, item: str, text: str, seconds: float) -> Event:
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        return self._event(f"{TRANSCRIPTION}.completed", item_id=item, content_index=0, transcript=text, usage=usage)

    def _session(self) -> dict[str, Any]:
        return {"id": self._id, "object": "realtime.transcription_session", **self._settings.record()}

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "event_id": self._next_id("event"), **fields}


def _read(message: bytes) -> ClientEvent:
    try:
        return read(message, ClientEvent)  # type: ignore[arg-type]  # a union
    except Failure as failure:
        if failure.param != "type":
            raise
    kind = read(message, Head).type
    if kind.startswith(("response.", "conversation.", "output_audio_buffer.")):
        told = f"{kind[:60]} is not possible in a transcription session; connect without intent=transcription"
        raise Failure(400, told, param="type", code="unsupported_event")
    raise Failure(400, f"There is no event of the type {kind[:60]!r}", param="type", code="unknown_event")
