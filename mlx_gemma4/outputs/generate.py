"""Tokens out of a session: one by one, as streaming text with statistics, or as one string."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.channels import MARKERS, Channels, Kind, Thoughts
from mlx_gemma4.outputs.finite import are_finite, check_finite
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.tools.calls import parse_tool_calls
from mlx_gemma4.session import Session

MAX_TOKENS = 256
CLEAR_CACHE_EVERY = 256
"""Tokens after which MLX's unused buffers are freed: attention over a longer sequence needs others."""
GREEDY = Sampling()


@dataclass(frozen=True)
class GenerationResponse:
    """A piece of the answer, and how it is going."""

    text: str
    kind: Kind
    """"text", "thought" (with ``thoughts="show"``) or "tool_call" (the whole call)."""
    tokens: tuple[int, ...]
    """The tokens since the last piece; in the last one, the token that ended the answer included."""
    prompt_tokens: int
    prompt_tps: float
    """Prompt tokens per second."""
    generation_tokens: int
    generation_tps: float
    time_to_first_token: float
    """Seconds from the call to the first token, the prompt included."""
    peak_memory: float
    """GB, as MLX counts it; of the process."""
    finish_reason: str | None
    """None while it runs, then "stop" or "length"."""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls in a piece of kind "tool_call": ``[{"name": …, "arguments": {…}}]``; else none.

        Raises:
            ValueError: The call cannot be read, as when ``max_tokens`` cut it short.
        """
        return parse_tool_calls(self.text) if self.kind == "tool_call" else []


def generate_step(
    session: Session, logits: mx.array, sampler: Callable[[mx.array], mx.array], *, max_tokens: int = MAX_TOKENS
) -> Generator[int, None, None]:
    """Yield tokens from ``logits`` [V] on; the next forward is queued before a token is handed out.

    When the generator is closed, the session holds all tokens that were yielded but the last: whatever was
    computed ahead is rewound.

    Raises:
        ValueError: The model computes NaN.
    """
    start, dtype = session.position, logits.dtype
    taken = 0
    token, finite = sampler(logits), are_finite(logits)
    mx.async_eval(token, finite)
    try:
        while taken < max_tokens:
            following = None
            if taken + 1 < max_tokens:
                logits = session.step(token)
                following = sampler(logits), are_finite(logits)
                mx.async_eval(*following)
            check_finite(finite, dtype)
            taken += 1
            if taken % CLEAR_CACHE_EVERY == 0:
                mx.clear_cache()
            yield _id(token)
            if following is None:
                break
            token, finite = following
    finally:
        session.rewind(start + max(taken - 1, 0))


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
) -> Generator[GenerationResponse, None, None]:
    """Answer a prompt piece by piece.

    Args:
        prompt: From ``processor.prompt``; a string is taken as one user message.
        sampling: Greedy by default; ``Sampling.from_config(processor.generation)`` for the checkpoint's own way.
        session: Where the prompt is appended; a new one by default. It ends up holding the prompt and the answer,
            without the token that ended it.
        before: Token ids right before ``prompt`` in the session, if the turn began there: a thought may be open.

    Yields:
        A GenerationResponse for each piece of text, and a last one, possibly without text, with a finish_reason.
    """
    if max_tokens < 1:
        raise ValueError(f"Expected max_tokens of 1 or more, got {max_tokens}")
    if isinstance(prompt, str):
        prompt = processor.prompt([{"role": "user", "content": prompt}])
    session = session or Session(model)
    sampler = Sampler(
        sampling,
        model.config.text_config.vocab_size,
        suppress=processor.suppressed_ids,
        history=prompt.token_ids.tolist(),
    )
    started = time.perf_counter()
    steps = generate_step(session, session.extend(prompt), sampler, max_tokens=max_tokens)
    progress = _Progress(started, len(prompt))
    channels = Channels(processor.tokenizer, thoughts, [*before, *prompt.token_ids.tolist()])
    finish_reason = "length"
    try:
        for token in steps:
            progress.take(token)
            if token in processor.stop_ids:
                finish_reason = "stop"
                break
            for kind, text in channels.push(token):
                yield progress.response(text, kind)
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
) -> str:
    """Answer a prompt: the text of ``stream_generate`` as one string.

    Thoughts are dropped, or else (``keep`` and ``show``) stand between their markers. Tool calls stand in it as
    the model wrote them, between ``<|tool_call>`` and ``<tool_call|>``, where ``parse_tool_calls`` finds them. A call
    that ``max_tokens`` cut short has no end.
    """
    written: Thoughts = "keep" if thoughts == "show" else thoughts
    responses = stream_generate(model, processor, prompt, max_tokens=max_tokens, sampling=sampling, thoughts=written)
    return "".join(map(marked, responses))


def marked(response: GenerationResponse) -> str:
    """The text of a piece; a call between its markers, the second one only where the call has ended."""
    if response.kind != "tool_call":
        return response.text
    begin, end = MARKERS["tool_call"]
    return begin + response.text + (end if response.finish_reason is None else "")


def _id(token: mx.array) -> int:
    value = token.item()
    assert isinstance(value, int)
    return value


class _Progress:
    """Tokens and times of one answer."""

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
