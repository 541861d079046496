"""The engine of a live conversation: sound, pictures and typed text in, events out. No devices.

    scene changes        open turn: [picture]                      the old picture is rewound
    somebody speaks      open turn: [picture][sound sound …        frames are computed while they arrive (``Rhythm``)
    scene changes too    open turn: [picture][sound sound …        the newest picture waits
    the speaker stops    open turn: [picture][sound …][picture] end of turn → answer

When the speaker stops, only the end of the turn and the answer are left to compute. Speech interrupts an answer:

    answering            [question] end of turn [The cat is bl
    keep                 [question] end of turn [The cat is bl] next turn: [picture][sound …
    discard              [question][sound …                     rewound; the speech continues the question
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.audio.endpoint import DEFAULT as ENDPOINTING
from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.inputs.audio.frames import Framer
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, check_samples
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.inputs.vision.image import check_budget
from mlx_gemma4.live.hear.rhythm import Overload
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.talk.dialogue import Dialogue
from mlx_gemma4.live.talk.events import AssistantEvent, Called, Forgot, Heard, Looked, Refused, Said, SightLost
from mlx_gemma4.live.talk.hearing import Hearing
from mlx_gemma4.live.talk.open_answer import OpenAnswer
from mlx_gemma4.live.talk.turns import Turns
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.generate import GREEDY, stream_generate
from mlx_gemma4.outputs.grammar.calls import bound_calls
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.steps import MAX_TOKENS
from mlx_gemma4.outputs.tools.calls import ToolCall, read_calls
from mlx_gemma4.outputs.tools.result import ToolResult

CONTEXT = 8192
"""Positions of the sequence, at most, by default."""
SPARE = 64
"""Positions for the markers around turns, pictures and sound."""
LONG_TOKEN = 32
"""Characters of a token; hardly any has more. A result is cut to this many for each token before it is tokenized."""
ROUNDS = 8
"""How often an answer continues after function results: a model may repeat a call forever."""


@dataclass(frozen=True)
class Talking:
    """How an assistant answers."""

    system: str | None = None
    """A system message."""
    tools: Sequence[Mapping[str, Any]] | None = None
    """JSON schemas of functions that the model may call. Calls are checked against them."""
    image_tokens: int | None = None
    """Budget of a picture, instead of the checkpoint's."""
    max_tokens: int = MAX_TOKENS
    """Tokens of an answer."""
    context: int = CONTEXT
    """Positions of the sequence, at most (``Dialogue``)."""
    keep_interrupted: bool = True
    """When somebody interrupts an answer, keep what was said of it. Otherwise it is discarded, and the new speech
    continues the question."""
    sampling: Sampling = GREEDY

    def __post_init__(self) -> None:
        if self.image_tokens is not None:
            check_budget(self.image_tokens)
        if self.max_tokens < 1:
            raise ValueError(f"Expected max_tokens of 1 or more, got {self.max_tokens}")


DEFAULT = Talking()


class Assistant:
    """A conversation about what is seen and heard.

    Args:
        endpointer: Finds where somebody speaks: settings, the default ones if None, for Silero's detector (``Voice``);
            or an endpointer with a detector of your own. An utterance that is cut at its longest continues in the same
            turn.
        drafter: As for ``stream_generate``.

    Raises:
        ValueError: ``settings.context`` has no room for a single turn.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        endpointer: Endpointer | Endpointing | None = None,
        settings: Talking = DEFAULT,
        *,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._frame_seconds = processor.frame_samples / SAMPLE_RATE
        if not isinstance(endpointer, Endpointer):
            endpointer = Endpointer(Voice(), endpointer or ENDPOINTING, frame_seconds=self._frame_seconds)
        self.endpointer = endpointer
        self._processor = processor
        self._image_tokens = settings.image_tokens or processor.limits.image_tokens
        self._clock = clock
        self._framer = Framer(processor.frame_samples)
        self._turns = Turns(processor, system=settings.system, tools=settings.tools)
        longest = endpointer.max_frames
        self.dialogue = Dialogue(
            model,
            self._turns,
            context=min(settings.context, model.budget.context or settings.context),
            turn=self._image_tokens + longest + settings.max_tokens + SPARE,
            room=max(self._image_tokens, longest, settings.max_tokens) + SPARE,
        )
        self.hearing = Hearing(self.dialogue, self._turns, endpointer, clock)
        self.pictures_dropped = 0
        """Pictures that a newer one replaced before they were used."""
        self._picture: Prompt | None = None
        """The newest picture, while it is current."""
        self._picture_waits = False
        """The picture is not in the open turn yet: somebody speaks, or an answer is being given."""
        self._has_question = False
        """An utterance has ended and is not answered yet."""
        self._typed: list[Prompt] = []
        self._start, self._length = 0, 0
        """First frame of the open utterance, and how many of its frames are in the open turn."""
        self._silence = round(endpointer.settings.silence / self._frame_seconds)
        self._patience = 0
        """Frames to wait before an utterance that was cut at its longest is answered: it may continue."""
        self._answer: OpenAnswer | None = None
        self._ids = itertools.count(1)
        self._respond = partial(
            stream_generate,
            model,
            processor,
            sampling=settings.sampling,
            session=self.dialogue.session,
            drafter=drafter,
            constraint=bound_calls(settings.tools, processor),
            stop_loops=True,
        )

    @property
    def answering(self) -> bool:
        """Whether ``step`` has something to do. Not while results of calls are missing."""
        return self._answer is not None and not self._answer.waits

    @property
    def ready(self) -> bool:
        """Nobody speaks and all questions are answered: another question interrupts nothing."""
        return self._answer is None and not self._has_question and not self.endpointer.speaking

    @property
    def model(self) -> Model:
        """The model that answers."""
        return self.dialogue.session.model

    @property
    def overload(self) -> Overload | None:
        """What is to be told while the machine is too slow for speech."""
        return self.hearing.overload

    def look(self, shot: Shot) -> list[AssistantEvent]:
        """Take a picture. Unless somebody speaks or an answer is being given, it is in the cache when this returns."""
        self._picture = self._turns.picture(self._processor.patches(shot.pixels, image_tokens=self._image_tokens))
        if self._answer is not None or self.endpointer.speaking:
            self.pictures_dropped += self._picture_waits
            self._picture_waits = True
            return []
        before = self.dialogue.session.forwards
        self.dialogue.restart()
        self._show_picture()
        return [Looked(shot.time, self._clock() - shot.arrived, self.dialogue.session.forwards - before)]

    def lose_sight(self, problem: str) -> list[AssistantEvent]:
        """The camera shows nothing any more: remove the last picture from the open turn until another one comes.

        A question that is being answered keeps its picture.
        """
        self._picture, self._picture_waits = None, False
        if self._answer is None:
            self.dialogue.drop_pictures()
            self.dialogue.compute()
            self.hearing.waiting = 0
        return [SightLost(problem)]

    def hear(self, samples: np.ndarray) -> list[AssistantEvent]:
        """Take sound, float32 [n] at 16 kHz. When an utterance has ended, ``step`` answers it."""
        frames = self._framer.push(check_samples(samples, "what was heard"))
        self.hearing.behind = len(samples) / SAMPLE_RATE
        self._patience -= len(frames)
        return self._act(self.endpointer.push(frames))

    def finish(self) -> list[AssistantEvent]:
        """The sound has ended, and the open utterance with it; ``step`` answers it."""
        actions = [*self.endpointer.push(self._framer.flush()), *self.endpointer.finish()]
        self._patience = 0
        return self._act(actions)

    def ask(self, text: str) -> list[AssistantEvent]:
        """Take a typed question; ``step`` answers it. While somebody speaks, it waits behind the speech.

        Raises:
            ValueError: The question is empty.
        """
        if not text.strip():
            raise ValueError("The question is empty")
        self._typed.append(self._turns.typed(text))
        if self.endpointer.speaking:
            return []
        events = self._interrupt()
        self._begin_answer()
        return events

    def step(self) -> list[AssistantEvent]:
        """Compute the next piece of the answer, if there is one."""
        answer = self._answer
        if answer is None or answer.waits:
            return []
        text = answer.next()
        if text is not None:
            return [Said(text)] if text else []
        if answer.waits and answer.rounds == ROUNDS:
            answer.reason = "calls"
        elif answer.waits and self.dialogue.left < 2 * SPARE * len(answer.calls):
            answer.reason = "length"
        elif answer.waits:
            return [self._announce(answer, call) for call in answer.calls]
        return [*map(_refused, answer.calls), *self._end_answer(answer)]

    def abandon(self) -> list[AssistantEvent]:
        """End at once, without computing: the answer ends where it is."""
        answer, self._answer = self._answer, None
        if answer is None:
            return []
        answer.reason = "interrupted"
        return [answer.event()]

    def reply(self, result: str | ToolResult, call_id: str | None = None) -> None:
        """Bring the result of a call (``Called.id``), by default of the first that waits.

        After the last one, ``step`` continues. A result that would fill the context is cut, with a note in it. A medium
        that the model cannot take is an error for it to read.

        Raises:
            ValueError: No such call waits: it has its result, or the answer was interrupted.
        """
        answer = self._answer
        pending = answer.pending if answer is not None and answer.waits else []
        call = next((call for call in pending if call_id in (None, call.id)), None)
        if answer is None or call is None:
            which = "no call" if call_id is None else f"no call {call_id}"
            raise ValueError(f"There is {which} that waits for a result; got {_text(result)[:100]!r}")
        answer.results[call.id] = self._written(call.name, result, len(answer.calls))
        if not answer.pending:
            self._resume(answer)

    def _announce(self, answer: OpenAnswer, call: ToolCall) -> AssistantEvent:
        """The event of a call. What is wrong with a call is its result, so that the model can correct itself."""
        if call.problem is None:
            return Called(call.name, call.arguments, call.id)
        self.reply(f"error: {call.problem}", call.id)
        return _refused(call)

    def _resume(self, answer: OpenAnswer) -> None:
        results = answer.joined_results()
        room = max(1, self.dialogue.left - len(results))
        max_tokens = min(self.settings.max_tokens, room)
        answer.resume(self._respond(results, before=[*answer.tokens], max_tokens=max_tokens))

    def _written(self, name: str, result: str | ToolResult, calls: int) -> Prompt:
        """A result as the model reads it, in its share of the context that is left; the answer needs some too."""
        room = max(SPARE, self.dialogue.left // (2 * calls))
        text, media = _text(result), list[Prompt]()
        if not isinstance(result, str):
            try:
                media = [self._turns.medium(part, self._image_tokens) for part in result.media]
            except ValueError as error:
                text = f"error: {error}"
        taken = sum(map(len, media))
        if taken > room - SPARE:
            text, media, taken = f"{text}\n[the context is full: pictures and sounds are left out]", [], 0
        return self._turns.result(name, self._fit(text, room - taken), media)

    def _fit(self, result: str, max_tokens: int) -> str:
        """A text, cut to so many tokens."""
        beginning = result[: LONG_TOKEN * max_tokens]
        tokens = self._processor.text(beginning).token_ids if beginning else ()
        if len(tokens) <= max_tokens and beginning == result:
            return result
        return f"{self._processor.decode(tokens[:max_tokens])} [cut: the context is full]"

    def _act(self, actions: Sequence[Begin | Speech | End]) -> list[AssistantEvent]:
        events: list[AssistantEvent] = []
        for action in actions:
            if isinstance(action, Begin):
                events += self._interrupt()
                self._start, self._length = action.start, 0
                self.dialogue.put(self._turns.sound_begin)
            elif isinstance(action, Speech):
                self._length += len(action.frames)
                self.hearing.put(action.frames)
            else:
                events.append(self._end_utterance(action))
        self.hearing.compute()
        if self._has_question and not self.endpointer.speaking and self._patience <= 0:
            self._begin_answer()
        return events

    def _end_utterance(self, end: End) -> Heard:
        """Close an utterance; frames that belong to the next one are removed."""
        if self._length > end.length:
            self.dialogue.trim(self._length - end.length)
        self.hearing.waiting = 0
        self.dialogue.put(self._turns.sound_end)
        self._has_question = True
        self._patience = self._silence if end.reason == "length" else 0
        return Heard(self._start * self._frame_seconds, (self._start + end.length) * self._frame_seconds)

    def _begin_answer(self) -> None:
        if self._picture_waits and self._picture is not None:
            self.dialogue.put(self._picture)
        for typed in self._typed:
            self.dialogue.put(typed)
        self._typed = []
        self._has_question = self._picture_waits = False
        responses = self._respond(self.dialogue.question(), max_tokens=self.settings.max_tokens)
        self._answer = OpenAnswer(responses, self.dialogue.session, self._clock, self._read_calls)

    def _read_calls(self, text: str) -> list[ToolCall]:
        return read_calls(text, self.settings.tools, lambda: f"call_{next(self._ids)}")

    def _interrupt(self) -> list[AssistantEvent]:
        """Somebody speaks: end the answer where it is, and keep or discard it."""
        answer = self._answer
        if answer is None:
            return []
        answer.close()
        if self.settings.keep_interrupted and answer.tokens and not answer.pending:
            answer.reason = "kept"
            return self._end_answer(answer)
        self._answer = None
        self.dialogue.reopen()
        if self._picture is None:
            self.dialogue.drop_pictures()
        answer.reason = "dropped"
        return [answer.event()]

    def _end_answer(self, answer: OpenAnswer) -> list[AssistantEvent]:
        """End the answer; the next turn begins with the current picture."""
        self._answer = None
        forgot = self.dialogue.finish(answer.sequence)
        self._show_picture()
        return [answer.event(), *([Forgot(forgot, self.dialogue.session.position)] if forgot else [])]

    def _show_picture(self) -> None:
        """Put the current picture at the beginning of the open turn."""
        self._picture_waits = False
        if self._picture is not None:
            self.dialogue.put(self._picture)
        self.dialogue.compute()


def _text(result: str | ToolResult) -> str:
    return result if isinstance(result, str) else result.text


def _refused(call: ToolCall) -> Refused:
    """The event of a call that is not run."""
    return Refused(call.name, call.problem or "the answer ended before it was run", call.id)
