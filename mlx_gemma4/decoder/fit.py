"""Whether a checkpoint fits into a budget, before anything of it is loaded; and if not, what would.

config.json ────────────┐
headers of the weights ─┼─▶ plan ─▶ fits: the context, and the budget that holds while the model runs
budget, context, use ───┘       └─▶ does not: an error with the numbers, and with what fits this budget
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mlx_gemma4.decoder.budget import Budget
from mlx_gemma4.decoder.memory import LONGEST, Needs, Use, longest_context, plan_memory

MOST_WAYS = 3
"""Other ways that a refusal names, beside a smaller context."""


class DoesNotFit(ValueError):
    """A model does not fit into its budget. Nothing was loaded."""


@dataclass(frozen=True)
class Asked:
    """What is planned for."""

    name: str
    """Of the checkpoint, for messages."""
    budget: int
    """Bytes."""
    use: Use
    context: int | None = None
    """Positions; None: as many as fit."""


def fit(asked: Asked, needs: Needs, others: Callable[[], Mapping[str, Needs]]) -> Budget:
    """The budget of a model that fits.

    Args:
        others: What else could be loaded instead, by what has to be done for it, the best first. It is asked only where
            the checkpoint itself does not fit.

    Raises:
        DoesNotFit: It does not; the message has the numbers, and what fits.
        ValueError: The context is not positive, or longer than the checkpoint was made for.
    """
    most = needs.text.max_position_embeddings or LONGEST
    if asked.context is not None and not 1 <= asked.context <= most:
        raise ValueError(
            f"Expected a context (--context) of 1 to {most} positions for {asked.name}, got {asked.context}"
        )
    bare = replace(asked.use, snapshots=0)
    longest = longest_context(asked.budget, needs, bare, most)
    least = asked.context or min(asked.use.least, most)
    if longest < least:
        raise DoesNotFit(_refusal(asked, needs, least, longest, others()))
    context = asked.context or max(least, longest_context(asked.budget, needs, asked.use, most))
    spare = asked.budget - plan_memory(needs, bare, context).total
    plan = plan_memory(needs, replace(bare, snapshots=min(spare, asked.use.snapshots)), context)
    return Budget(context, longest, asked.budget, needs, plan)


def _refusal(asked: Asked, needs: Needs, context: int, longest: int, others: Mapping[str, Needs]) -> str:
    plan = plan_memory(needs, replace(asked.use, snapshots=0), context)
    parts = ", ".join(f"{name} {gigabytes(nbytes)}" for name, nbytes in plan.parts.items() if nbytes)
    return (
        f"{asked.name} needs {gigabytes(plan.total)} GB for a context of {context} positions ({parts}), and it may use "
        f"{gigabytes(asked.budget)}; {_ways(asked, needs, context, longest, others)}"
    )


def _ways(asked: Asked, needs: Needs, context: int, longest: int, others: Mapping[str, Needs]) -> str:
    """What fits, in words."""
    ways, use = [], replace(asked.use, snapshots=0)
    if longest >= min(asked.use.least, context):
        ways.append(f"--context {longest}")
    fitting = {way: each for way, each in others.items() if plan_memory(each, use, context).total <= asked.budget}
    for way, each in list(fitting.items())[:MOST_WAYS]:
        ways.append(f"{way} ({gigabytes(each.weights)} GB of weights)" if each.weights < needs.weights else way)
    if ways:
        return f"what fits is {' or '.join(ways)}"
    smallest = min(plan_memory(each, use, context).total for each in (needs, *others.values()))
    least = f"the least is {gigabytes(smallest)} GB"
    return f"nothing smaller fits, {least}; allow more (--memory), or use a machine that has it"


def gigabytes(nbytes: int) -> str:
    """In units of 1e9 bytes: 23.9, 0.52."""
    return f"{nbytes / 1e9:.{1 if nbytes >= 10**9 else 2}f}"
