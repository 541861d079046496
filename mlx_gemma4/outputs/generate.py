"""Generates from a session: streamed text with statistics, or one string."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.channels import MARKERS, Channels, Kind, Thoughts
from mlx_gemma4.outputs.constrained_steps import answer_plan
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.grammar.constraint import CALLS, Constraint
from mlx_gemma4.outputs.grammar.matcher import open_matcher
from mlx_gemma4.outputs.guards import LoopGuard
from mlx_gemma4.outputs.pace import MOST_DRAFTED
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import MAX_TOKENS
from mlx_gemma4.outputs.together import alone
from mlx_gemma4.outputs.tools.calls import parse_tool_calls
from mlx_gemma4.prefixes.landmarks import landmarks
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.session import MIN_ROOM, Session

GREEDY = Sampling()


@dataclass(frozen=True)
class GenerationResponse:
    """A piece of the answer, with statistics so far."""

    text: str
    kind: Kind
    """"text", "thought" (with ``thoughts="show"``) or "tool_call" (the whole call)."""
    tokens: tuple[int, ...]
    """The tokens since the previous piece. The last piece includes the stop token."""
    prompt_tokens: int
    prompt_tps: float
    """Prompt tokens per second."""
    generation_tokens: int
    generation_tps: float
    time_to_first_token: float
    """Seconds from the call to the first token, prefill included."""
    peak_memory: float
    """Of the process, in GB (1e9 bytes), as MLX counts it."""
    finish_reason: str | None
    """None while the answer goes on; in the last piece "stop", "length" (``max_tokens``, or the context is full) or
    "loop" (``stop_loops``)."""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls in a piece of kind "tool_call": ``[{"name": …, "arguments": {…}}]``. Other pieces have none.

        Raises:
            ValueError: The call cannot be read, as when ``max_tokens`` cut it short.
        """
        return parse_tool_calls(self.text) if self.kind == "tool_call" else []


def stream_generate(
    model: Model,
    processor: Processor,
    prompt: Prompt | str,
    *,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling = GREEDY,
    thoughts: Thoughts = "drop",
    session: Session | None = None,
    before: Sequence[int] = (),
    drafter: Drafter | None = None,
    snapshots: Collection[int] = (),
    store: PrefixStore | None = None,
    constraint: Constraint | None = None,
    stop_loops: bool = False,
) -> Generator[GenerationResponse, None, None]:
    """Answer a prompt piece by piece.

    Args:
        prompt: From ``processor.prompt``; a string becomes one user message.
        sampling: Greedy by default; ``Sampling.from_config(processor.generation)`` takes the checkpoint's settings.
        thoughts: Drop thoughts, keep them in the text with their markers, or show them as pieces of kind "thought".
        session: The prompt is appended to it; a new one by default. It ends with the prompt and the answer, without
            the last token.
        before: Ids in the session before ``prompt``: they may open a thought, and count as said.
        drafter: Guesses tokens, several of which are then checked in one forward (``load_drafter``, ``Drafter``). The
            text is the same, but for ties in rounding. It learns what pays, so use one for all answers.
        snapshots: Rows of the prompt before which the session takes snapshots (``Session.extend``).
        store: Takes the session from it, so that only what is new of the prompt is computed; ``prompt_tokens`` counts
            that. ``session``, ``before`` and ``snapshots`` follow from it.
        constraint: What the answer may be. Thoughts before it are free.
        stop_loops: End an answer that repeats itself (``LoopGuard``). A constraint other than of calls may want
            repetition: then only thoughts are ended.

    Yields:
        A GenerationResponse for each piece of text. The last one has a finish_reason, and perhaps no text.

    Raises:
        ValueError: ``max_tokens`` is less than 1, a logit is NaN or infinite, the drafter belongs to another model, or
            the constraint does not fit the vocabulary.
        ContextFull: The prompt does not fit into the session's context; the session is unchanged.
    """
    if max_tokens < 1:
        raise ValueError(f"Expected max_tokens of 1 or more, got {max_tokens}")
    if isinstance(prompt, str):
        prompt = processor.prompt([{"role": "user", "content": prompt}])
    if store is not None:
        opened, kept = store.open(prompt)
        try:
            yield from stream_generate(
                model,
                processor,
                prompt[kept:],
                max_tokens=max_tokens,
                sampling=sampling,
                thoughts=thoughts,
                session=opened,
                before=prompt[:kept].token_ids.tolist(),
                drafter=drafter,
                snapshots=landmarks(prompt, processor.stop_ids, start=kept),
                constraint=constraint,
                stop_loops=stop_loops,
            )
        finally:
            store.close(opened)
        return
    # nothing else rewinds a session of its own
    session = session or Session(model, room=MIN_ROOM if drafter is None else MIN_ROOM + MOST_DRAFTED)
    history = [*before, *prompt.token_ids.tolist()]
    sampler = Sampler(sampling, model.config.text_config.vocab_size, suppress=processor.suppressed_ids, history=history)
    started = time.perf_counter()
    drafts = None if drafter is None else drafter.begin(session, history, processor.suppressed_ids)
    matcher = None if constraint is None else open_matcher(constraint, processor, history)
    logits = session.extend(prompt, snapshots=snapshots)
    steps = alone(answer_plan(session, logits, sampler, matcher, max_tokens=max_tokens, drafts=drafts))
    progress = _Progress(started, len(prompt))
    channels = Channels(processor.tokenizer, thoughts, history)
    guard = LoopGuard(text=constraint is None or constraint.kind == CALLS) if stop_loops else None
    finish_reason = "length"
    try:
        for token in steps:
            progress.take(token)
            if token in processor.stop_ids:
                finish_reason = "stop"
                break
            for kind, text in channels.push(token):
                yield progress.response(text, kind)
            if guard is not None and guard.push(token, thinking=channels.is_thinking):
                finish_reason = "loop"
                break
    finally:
        steps.close()
    *rest, last = [*channels.flush()] or [("text", "")]
    for kind, text in rest:
        yield progress.response(text, kind)
    yield progress.response(last[1], last[0], finish_reason)


def generate(
    model: Model,
    processor: Processor,
    prompt: Prompt | str,
    *,
    max_tokens: int = MAX_TOKENS,
    sampling: Sampling = GREEDY,
    thoughts: Thoughts = "drop",
    drafter: Drafter | None = None,
    store: PrefixStore | None = None,
    constraint: Constraint | None = None,
) -> str:
    """Answer a prompt: the text of ``stream_generate`` as one string.

    Thoughts are dropped, or kept between their markers (``keep`` and ``show``). Tool calls stay in the text as the
    model wrote them, between ``<|tool_call>`` and ``<tool_call|>``; ``parse_tool_calls`` reads them. A call that
    ``max_tokens`` cut short has no end marker.
    """
    kept: Thoughts = "keep" if thoughts == "show" else thoughts
    responses = stream_generate(
        model,
        processor,
        prompt,
        max_tokens=max_tokens,
        sampling=sampling,
        thoughts=kept,
        drafter=drafter,
        store=store,
        constraint=constraint,
    )
    return "".join(map(marked, responses))


def marked(response: GenerationResponse) -> str:
    """The text of a piece; a call with its markers, the end marker only if the call is complete."""
    if response.kind != "tool_call":
        return response.text
    begin, end = MARKERS["tool_call"]
    return begin + response.text + (end if response.finish_reason is None else "")


class _Progress:
    """Counts the tokens of one answer, and its times."""

    def __init__(self, started: float, prompt_tokens: int) -> None:
        self._started = started
        self._prompt_tokens = prompt_tokens
        self._first: float | None = None
        self._count = 0
        self._tokens: list[int] = []

    def take(self, token: int) -> None:
        self._count += 1
        self._tokens.append(token)
        self._first = self._first or time.perf_counter()

    def response(self, text: str, kind: Kind, finish_reason: str | None = None) -> GenerationResponse:
        now = time.perf_counter()
        first = self._first or now
        tokens, self._tokens = tuple(self._tokens), []
        return GenerationResponse(
            text=text,
            kind=kind,
            tokens=tokens,
            prompt_tokens=self._prompt_tokens,
            prompt_tps=self._prompt_tokens / max(first - self._started, 1e-9),
            generation_tokens=self._count,
            generation_tps=(self._count - 1) / max(now - first, 1e-9),
            time_to_first_token=first - self._started,
            peak_memory=mx.get_peak_memory() / 1e9,
            finish_reason=finish_reason,
        )
