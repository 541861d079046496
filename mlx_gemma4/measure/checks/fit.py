"""Which recipes of the 12B fit into this machine's memory, and how long a context may be. Arithmetic, not measured."""

from __future__ import annotations

from collections.abc import Mapping

from mlx_gemma4.decoder.config import TextConfig
from mlx_gemma4.decoder.memory import LONGEST, Needs, Use, longest_context, plan_memory
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known

RECIPES = ("4bit", "mxfp4", "nvfp4", "mixed", "qat", "8bit", "mxfp8", "bf16")
"""The smallest that is recommended first."""
LIVE_CONTEXT = 1024
"""Positions of live transcription, at most: the instruction, 15 s of sound and their text."""
LIVE = Use(room=LIVE_CONTEXT, rows=128)
CHAT = Use()
CLOSE = "Close some of them before you load the 12B: a machine that swaps is slow."


def check(known: Known) -> Findings:
    from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

    weights = {recipe: RandomCheckpoint("12b", recipe).nbytes for recipe in RECIPES}
    text = RandomCheckpoint("12b", "bf16").config.text_config
    memory = known["memory"]
    found = fit(memory["budget"], weights, text, is_ahead=known["device"]["device"] != "cpu")
    yield found
    if found.verdict == "ok":
        yield from crowded(memory["available"], found)


def fit(budget: int, weights: Mapping[str, int], text: TextConfig, *, is_ahead: bool = True) -> Finding:
    """What fits into a budget of bytes.

    Args:
        weights: Bytes of the weights by recipe.
        is_ahead: As in ``Needs``.
    """
    live, figures = dict[str, int](), dict[str, dict[str, int]]()
    table = [("recipe", "weights", "live speech needs", "context up to")]
    for recipe, nbytes in weights.items():
        needs = Needs(text, nbytes, is_ahead=is_ahead)
        live[recipe] = plan_memory(needs, LIVE, LIVE_CONTEXT).total
        longest = longest_context(budget, needs, CHAT)
        figures[recipe] = {"weights": nbytes, "live": live[recipe], "longest_context": longest}
        table.append((recipe, _gb(nbytes), _gb(live[recipe]), _context(longest)))
    fitting = [recipe for recipe in weights if live[recipe] <= budget]
    if not fitting:
        smallest = min(live, key=lambda recipe: live[recipe])
        message = f"The 12B does not fit into {_gb(budget)}: live speech needs {_gb(live[smallest])} with {smallest}."
        return Finding("fit", "problem", message, "Use a machine with 16 GB or more.", figures, table)
    message = f"Live speech with the 12B fits into {_gb(budget)} with {', '.join(fitting)}. Computed, not measured."
    return Finding("fit", "ok", message, "", figures, table)


def crowded(available: int | None, found: Finding) -> Findings:
    """Tell if other programs hold so much memory that the smallest recipe would make the machine swap.

    Args:
        available: Bytes that they leave; None if unknown.
    """
    recipe, needed = min(((name, each["live"]) for name, each in found.figures.items()), key=lambda pair: pair[1])
    if available is not None and available < needed:
        message = f"Other programs leave {_gb(available)} now; live speech needs {_gb(needed)} with {recipe}."
        yield Finding("room", "warning", message, CLOSE)


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"


def _context(positions: int) -> str:
    """Two digits: it is an estimate."""
    if positions == LONGEST:
        return f"{LONGEST // 1000 * 1000:,} or more"
    unit = 10 ** max(0, len(str(positions)) - 2)
    return f"{positions // unit * unit:,}" if positions else "-"
