"""The answer to a prompt, one forward at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Literal

import mlx.core as mx

from mlx_gemma4.decoder.budget import MemoryFull
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import AUDIO, Prompt
from mlx_gemma4.outputs.channels import Channels, Kind
from mlx_gemma4.outputs.constrained_steps import answer_plan
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.guards import LoopGuard
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.together import Plan, Step
from mlx_gemma4.prefixes.landmarks import landmarks
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.serve.engine import Asked, Work
from mlx_gemma4.serve.events import Began, ChatEvent, Finished, Piece, TokenChance
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.priority import Turn
from mlx_gemma4.serve.work.chances import WatchedSampler
from mlx_gemma4.serve.work.stops import Stops
from mlx_gemma4.session import PREFILL_STEP, Session


@dataclass(frozen=True)
class Question:
    """A prompt, and how it is to be answered."""

    prompt: Prompt
    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()
    alternatives: int | None = None
    """How many likely tokens to tell beside each token; None: no probabilities."""
    one_call: bool = False
    """End behind the first call of a function."""
    matcher: Matcher | None = None
    """What the answer must follow. It is used up by one answer."""
    guard: LoopGuard | None = None
    """What ends the answer when it repeats itself: a client reads that it was cut ("length"). Used up like that."""

    @property
    def drafts(self) -> bool:
        """Whether tokens may be guessed.

        What is guessed depends on the time that forwards take, and a forward over several rows rounds differently: a
        seed gives the same answer each time without it. Probabilities are told of tokens one by one.
        """
        return self.sampling.seed is None and self.alternatives is None


@dataclass(frozen=True)
class Answerer:
    """What answers need, besides a question.

    Args:
        store: Has their sessions, with what was computed of a prompt before.
        drafter: Guesses tokens; None: they are decoded one by one.
        resumed: How often any job has gone on so far.
    """

    model: Model
    processor: Processor
    store: PrefixStore
    drafter: Drafter | None
    resumed: Callable[[], int]


def answer(question: Question, by: Answerer, outbox: Outbox[ChatEvent]) -> Work:
    """Answer a question; tell its events to the outbox, and wait while nobody reads them."""
    store = by.store
    session, kept = store.open(question.prompt)
    try:
        audio, image = int((question.prompt.token_types == AUDIO).sum()), int(question.prompt.is_vision.sum())
        outbox.put(Began(len(question.prompt), cached_tokens=kept, audio_tokens=audio, image_tokens=image))
        yield from _answer(question, by, session, kept, outbox)
    finally:
        store.close(session)


def _answer(question: Question, by: Answerer, session: Session, kept: int, outbox: Outbox[ChatEvent]) -> Work:
    processor, history = by.processor, question.prompt.token_ids.tolist()
    sampler = _sampler(question, by.model, processor, history)
    watched = sampler if isinstance(sampler, WatchedSampler) else None
    done, marks = 0, landmarks(question.prompt, processor.stop_ids, start=kept)
    for chunk in question.prompt[kept:].chunks(repeat(PREFILL_STEP)):
        yield Turn.PREFILL
        snapshots = [row - done for row in marks if done < row <= done + len(chunk)]
        try:
            logits = session.extend(chunk, snapshots=snapshots)
        except MemoryFull:
            by.store.clear()  # conversations that nobody waits for
            logits = session.extend(chunk, snapshots=snapshots)
        done += len(chunk)
    told = _Told(processor, question, history, outbox.put)
    drafts = by.drafter.begin(session, history, processor.suppressed_ids) if by.drafter and question.drafts else None
    plan = answer_plan(
        session,
        logits,
        sampler,
        question.matcher,
        max_tokens=question.max_tokens,
        drafts=drafts,
        watch=None if watched is None else watched.see,
    )
    given: mx.array | None = None
    try:
        while (asked := _next(plan, given)) is not None:
            given = None
            if isinstance(asked, Step):
                before = by.resumed()
                if question.sampling.seed is None:
                    given = yield Asked(Turn.DECODE, asked)
                else:  # a forward that is shared rounds differently
                    yield Turn.DECODE
                    given = asked.compute()
                if drafts is not None and by.resumed() > before + 1:
                    drafts.forget_time()
                continue
            chance = None if watched is None else watched.taken(asked, processor.tokenizer)
            if not told.take(asked, chance):
                break
            while outbox.is_full:
                yield Turn.WAIT
                if drafts is not None:
                    drafts.forget_time()
    finally:
        plan.close()
    told.finish()


def _next(plan: Plan, logits: mx.array | None) -> int | Step | None:
    """The next token of an answer, or the forward that it needs; None at the end."""
    try:
        return plan.send(logits)
    except StopIteration:
        return None


def _sampler(question: Question, model: Model, processor: Processor, history: Sequence[int]) -> Sampler:
    size, suppress = model.config.text_config.vocab_size, processor.suppressed_ids
    if question.alternatives is None:
        return Sampler(question.sampling, size, suppress=suppress, history=history)
    return WatchedSampler(
        question.sampling, size, suppress=suppress, history=history, alternatives=question.alternatives
    )


class _Told:
    """Tokens in, events out: channels, stop sequences and counts."""

    def __init__(
        self, processor: Processor, question: Question, history: Sequence[int], put: Callable[[ChatEvent], None]
    ) -> None:
        self._processor, self._one_call, self._put = processor, question.one_call, put
        self._guard = question.guard
        self._channels = Channels(processor.tokenizer, "show", history)
        self._stops = Stops(question.stops)
        self._chances: list[TokenChance] = []
        """Of tokens whose text is not complete."""
        self._tokens = self._thought_tokens = 0
        self._reason: Literal["stop", "length"] = "length"

    def take(self, token: int, chance: TokenChance | None) -> bool:
        """Take the next token; return whether the answer goes on."""
        self._tokens += 1
        if token in self._processor.stop_ids:
            self._reason = "stop"
            return False
        if chance is not None and self._processor.tokenizer.decode([token]):  # markers have no text
            self._chances.append(chance)
        if self._guard is not None and self._guard.push(token, thinking=self._channels.is_thinking):
            return False
        self._thought_tokens += self._channels.is_thinking
        for kind, text in self._channels.push(token):
            self._tell(kind, text)
            if self._stops.found is not None or (kind == "tool_call" and self._one_call):
                self._reason = "stop"
                return False
        return True

    def finish(self) -> None:
        """Tell what is left, and the end. A call that was cut short is none."""
        if self._stops.found is None:
            self._flush(self._channels.flush())
        self._put(Finished(self._reason, self._tokens, self._thought_tokens, self._stops.found))

    def _flush(self, rest: Iterator[tuple[Kind, str]]) -> None:
        for kind, text in rest:
            if kind != "tool_call":
                self._tell(kind, text)
        text, chances = self._stops.flush()
        if text:
            self._put(Piece("text", text, chances))

    def _tell(self, kind: Kind, text: str) -> None:
        chances, self._chances = self._chances, []
        if kind != "text":
            self._put(Piece(kind, text))
            return
        text, standing = self._stops.push(text, chances)
        if text:
            self._put(Piece("text", text, standing))
