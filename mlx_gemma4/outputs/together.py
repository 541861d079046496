"""Forwards that answers ask for, so that whoever runs several answers can compute them together.

An answer is a plan: a generator of tokens and of forwards, which is sent what a forward gives::

    plan        ▶ Step ◀ logits ▶ token ▶ Step ◀ logits ▶ token ▶ token …
    alone       session.step computes each                        (``alone``)
    together    the steps of several plans are one forward        (``compute_together``)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import mlx.core as mx

from mlx_gemma4.decoder.apart import Apart
from mlx_gemma4.session import Session

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Step:
    """A forward: the arguments of ``Session.step``."""

    session: Session
    tokens: mx.array
    logits_from: int = 0

    def compute(self) -> mx.array:
        """The logits, as ``Session.step`` returns them."""
        return self.session.step(self.tokens, logits_from=self.logits_from)


Plan = Generator[int | Step, mx.array | None, None]


def computed(step: Step) -> Generator[Step, mx.array | None, mx.array]:
    """Ask for a forward from within a plan; return its logits."""
    logits = yield step
    assert logits is not None
    return logits


def alone(plan: Plan) -> Generator[int, None, None]:
    """The tokens of a plan, whose forwards are computed one by one."""
    logits: mx.array | None = None
    try:
        while True:
            try:
                told = plan.send(logits)
            except StopIteration:
                return
            logits = told.compute() if isinstance(told, Step) else None
            if not isinstance(told, Step):
                yield told
    finally:
        plan.close()


def compute_together(steps: Sequence[Step]) -> list[mx.array | Exception]:
    """The logits of steps of different sessions on one model, in one forward.

    Returns:
        Of each step what ``compute`` returns or raises.
    """
    if len(steps) == 1:
        return [_result(steps[0].compute)]
    results: list[Any] = [_result(lambda: step.session.before_step(step.tokens)) for step in steps]  # noqa: B023
    begun = [place for place, cache in enumerate(results) if not isinstance(cache, Exception)]
    if not begun:
        return results
    shared = [steps[place] for place in begun]
    model, apart = shared[0].session.model, Apart([results[place] for place in begun], [s.tokens.size for s in shared])
    tokens = mx.concatenate([step.tokens.reshape(1, -1) for step in shared], axis=1)
    hidden = model(model.embed_tokens(tokens), apart)
    pairs = zip(shared, apart.rows, strict=True)
    read = [step.session.after_step(step.tokens, hidden[:, rows][:, step.logits_from :]) for step, rows in pairs]
    logits = model.logits(mx.concatenate(read, axis=1)).squeeze(0)
    ends = list(accumulate(rows.shape[1] for rows in read))
    for place, step, part in zip(begun, shared, mx.split(logits, ends[:-1]), strict=True):
        results[place] = part if step.tokens.ndim else part[0]
    return results


def _result(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:
        return error
