"""Decoding with and without drafts, in turns: new text, which is hard to draft, and text that repeats the prompt."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.measure.speed.figures import Figure, Repeats
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import generate_step
from mlx_gemma4.session import Session

QUOTE = (
    "The ferry left at ten past six, an hour late, with eleven passengers and a crate of oranges on board. Nobody "
    "complained. The captain had promised a calm crossing, and for the first two miles the sea kept his word: it lay "
    "grey and flat under the fog, like a sheet that someone had just ironed."
)
TASKS = {
    "new text": "Write a story about a lighthouse keeper who hears music in the fog.",
    "repeated text": f"Repeat this text word by word, and write nothing else:\n\n{QUOTE}",
}
PLAIN = "none"
"""The name of decoding without drafts."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class DraftedRun:
    """Tokens behind the first one."""

    seconds: float
    drafted: int
    accepted: int


def measure_drafts(
    model: Model,
    processor: Processor,
    drafters: Mapping[str, Drafter],
    *,
    tokens: int,
    repeats: Repeats,
    clock: Clock = time.perf_counter,
) -> list[Figure]:
    """Decode so many tokens without drafts and with each drafter; a repetition is one turn of all.

    Answers do not end before: stop tokens are never chosen.

    Args:
        drafters: By name. Each learns over all turns, as in a program that goes on running.
    """
    ways: dict[str, Drafter | None] = {PLAIN: None, **drafters}
    figures = []
    for task, text in TASKS.items():
        turn = partial(_turn, model, processor, text, ways, tokens, clock)
        turns = repeats.collect(turn, clock)
        for name in ways:
            runs = [runs[name] for runs in turns]
            counts = {
                "tokens": tokens,
                "drafted": sum(run.drafted for run in runs),
                "accepted": sum(run.accepted for run in runs),
            }
            rates = tuple(tokens / run.seconds for run in runs)
            figures.append(Figure("drafts", f"{task}, {name}", "tokens/s", rates, counts))
    return figures


def _turn(
    model: Model, processor: Processor, text: str, ways: Mapping[str, Drafter | None], tokens: int, clock: Clock
) -> dict[str, DraftedRun]:
    return {name: _run(model, processor, text, drafter, tokens, clock) for name, drafter in ways.items()}


def _run(
    model: Model, processor: Processor, text: str, drafter: Drafter | None, tokens: int, clock: Clock
) -> DraftedRun:
    prompt = processor.prompt([{"role": "user", "content": text}])
    never = {*processor.suppressed_ids, *processor.stop_ids}
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size, suppress=sorted(never))
    session = Session(model)
    drafts = None if drafter is None else drafter.begin(session, prompt.token_ids, sorted(never))
    before = (0, 0) if drafter is None else (drafter.drafted, drafter.accepted)
    steps = generate_step(session, session.extend(prompt), sampler, max_tokens=tokens + 1, drafts=drafts)
    next(steps)
    began = clock()
    for _ in steps:
        pass
    seconds = clock() - began
    after = (0, 0) if drafter is None else (drafter.drafted, drafter.accepted)
    return DraftedRun(seconds, after[0] - before[0], after[1] - before[1])
