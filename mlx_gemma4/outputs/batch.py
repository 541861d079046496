"""Decodes the answers to many questions side by side. For recordings, where throughput counts.

A step costs the time to read the weights, and a batch reads them once for all its rows. A row whose answer has ended
leaves, and the next question takes its place; when no question is left, the batch becomes smaller::

    step        1 2 3 4 5 6 7 8 9
    row 0       a a a a a · d d d       "·": the step that was queued before the end of the answer was read
    row 1       b b · c c c c c c       "d" is asked when "a" has ended

The next step is queued before the tokens of the last one are read, so that the device does not wait for the host. The
price is one row of one step for each answer.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.guards import loop_start
from mlx_gemma4.outputs.sample import Sampler, check_finite, finite_sum
from mlx_gemma4.session import Session

BATCH_SIZE = 8
"""Rows of a batch by default. On Apple chips by MLX's kernels, 6 to 10 rows read the weights twice."""


@dataclass(frozen=True)
class Question:
    """What is asked after a session's sequence."""

    prompt: Prompt
    max_tokens: int
    """The most tokens of the answer."""


def decode_batch(
    session: Session,
    questions: Iterable[Question],
    sampler: Sampler,
    *,
    stop_ids: Collection[int],
    batch_size: int = BATCH_SIZE,
    first_alone: bool = False,
) -> Generator[list[int], None, None]:
    """Yield the answer to each question, asked after the session's sequence, in order and as ``answer`` would.

    Each answer is yielded when it and those before it have ended. A question is taken when there is a place for it, so
    memory depends on the longest questions and on ``batch_size``, not on how many there are. Whenever this generator
    is suspended, the session is as it was.

    Args:
        batch_size: The most answers that are decoded at once; fewer where the model's budget has no memory for more.
        first_alone: Do not take other questions until the first answer has ended, so that somebody who waits for it
            gets it early.

    Raises:
        ValueError: ``batch_size`` is less than 1, or a logit is NaN or infinite.
        Exception: What taking or reading a question has raised, once the answers to those before it are yielded.
    """
    steps = decode_steps(session, questions, sampler, stop_ids=stop_ids, batch_size=batch_size, first_alone=first_alone)
    for answer in steps:
        if answer is not None:
            yield answer


def decode_steps(
    session: Session,
    questions: Iterable[Question | None],
    sampler: Sampler,
    *,
    stop_ids: Collection[int],
    batch_size: int = BATCH_SIZE,
    first_alone: bool = False,
) -> Generator[list[int] | None, None, None]:
    """As ``decode_batch``, for a caller that does other things between two forwards: it yields None after each.

    Args:
        questions: Where it gives None, the next question has not come yet: answers that have begun go on without it.
            If there are none, None is yielded until it has come.
    """
    if batch_size < 1:
        raise ValueError(f"Expected a batch_size of 1 or more, got {batch_size}")
    rows = _Rows(session, sampler, stop_ids)
    waiting = iter(questions)
    asked = yielded = 0
    ended: dict[int, list[int]] = {}
    problem: Exception | None = None
    has_more = True
    while True:
        most = 1 if first_alone and yielded == 0 else batch_size
        while has_more and rows.open < most and (rows.open == 0 or rows.has_memory()):
            try:
                question = next(waiting)
                if question is None:
                    break
                rows.ask(question, asked)
            except StopIteration:
                has_more = False
            except Exception as error:
                has_more, problem = False, error
            else:
                asked += 1
                yield None
        rows.compact()
        if rows.open:
            ended.update(rows.step())
            while yielded in ended:
                yield ended.pop(yielded)
                yielded += 1
        elif not has_more:
            break
        yield None
    if problem is not None:
        raise problem


@dataclass
class _Answer:
    number: int
    """Of its question."""
    max_tokens: int
    tokens: list[int] = field(default_factory=list)


class _Rows:
    """The rows of a batch, and what was decoded in each."""

    def __init__(self, session: Session, sampler: Sampler, stop_ids: Collection[int]) -> None:
        self._session, self._sampler, self._stop_ids = session, sampler, stop_ids
        self._cache = session.model.make_batch_cache()
        self._answers: list[_Answer | None] = []
        """None where an answer has ended, and nothing has taken its place yet."""
        self._next = mx.zeros(0, dtype=mx.uint32)
        """[B], the next token of each row, which may not be computed yet."""
        self._total = mx.array(0.0)
        self._longest = 0
        """Positions of the longest sequence, its answer included."""

    @property
    def open(self) -> int:
        """Answers that have not ended."""
        return sum(answer is not None for answer in self._answers)

    def has_memory(self) -> bool:
        """Whether the budget has memory for another row."""
        budget = self._session.model.budget
        needed = budget.bytes_for_batch(len(self._answers) + 1, self._longest) - self._cache.nbytes
        return budget.has_memory(needed, mx.get_active_memory())

    def ask(self, question: Question, number: int) -> None:
        """Prefill a question, and let it take the place of an answer that has ended, or a new one."""
        row = self._answers.index(None) if None in self._answers else len(self._answers)
        session, start = self._session, self._session.position
        self._longest = max(self._longest, start + len(question.prompt) + question.max_tokens)
        try:
            logits = session.extend(question.prompt)
            mx.clear_cache()  # every question has another length, and MLX keeps buffers of each
            self._cache.put(session.held(), row)
        finally:
            if session.position > start:
                session.rewind(start)
        first = self._sampler.choose(logits[None])
        self._next = mx.concatenate([self._next[:row], first, self._next[row + 1 :]])
        self._total = self._total + finite_sum(logits)
        mx.async_eval(self._next, self._total, self._cache.arrays)
        answer = _Answer(number, question.max_tokens)
        self._answers[row : row + 1] = [answer]

    def compact(self) -> None:
        """Drop the rows whose answers have ended."""
        kept = [row for row, answer in enumerate(self._answers) if answer is not None]
        if len(kept) == len(self._answers):
            return
        self._answers = [self._answers[row] for row in kept]
        self._cache.keep(kept)
        self._next = self._next[mx.array(kept, dtype=mx.int32)]

    def step(self) -> dict[int, list[int]]:
        """Take the next token of each row; the answers that end with it, by the numbers of their questions."""
        known, total = self._next, self._total
        answers = [(row, answer) for row, answer in enumerate(self._answers) if answer is not None]
        if any(len(answer.tokens) + 1 < answer.max_tokens for _, answer in answers):
            self._queue()
        check_finite(total, self._session.model.dtype)
        tokens: list[int] = np.array(known).tolist()
        ended = {}
        for row, answer in answers:
            answer.tokens.append(tokens[row])
            if self._is_over(answer):
                ended[answer.number] = answer.tokens
                self._answers[row] = None
        return ended

    def _queue(self) -> None:
        """Compute the tokens behind the next ones, without waiting for them."""
        model = self._session.model
        logits = model.logits(model(model.embed_tokens(self._next[:, None]), self._cache))[:, -1]
        self._next, self._total = self._sampler.choose(logits), finite_sum(logits)
        mx.async_eval(self._next, self._total)

    def _is_over(self, answer: _Answer) -> bool:
        tokens = answer.tokens
        return tokens[-1] in self._stop_ids or len(tokens) == answer.max_tokens or loop_start(tokens) is not None
