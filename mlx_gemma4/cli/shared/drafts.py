"""``--draft-model`` and ``--draft``: guesses of the next tokens, several of which are read in one forward."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.signals import starting

if TYPE_CHECKING:
    from mlx_gemma4.outputs.drafter import Drafter

AUTO, NGRAM, NONE = "auto", "ngram", "none"


def add_drafts(parser: argparse.ArgumentParser) -> None:
    """Add the options of drafts."""
    group = parser.add_argument_group("drafts", "Guesses of the next tokens, which are read where that is faster.")
    group.add_argument(
        "--draft-model", metavar="NAME", help="a drafter (gemma4_unified_assistant): a folder or a Hugging Face repo id"
    )
    group.add_argument(
        "--draft",
        choices=(AUTO, NGRAM, NONE),
        default=AUTO,
        help="auto: by --draft-model and by text that repeats; ngram: by the latter alone; none. With --seed and "
        "without --draft-model, auto is none (default: auto)",
    )


def check_drafts(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if the options exclude each other."""
    if arguments.draft_model is not None and arguments.draft != AUTO:
        raise ValueError(f"--draft {arguments.draft} does not use --draft-model; leave out one of them")


def open_drafter(arguments: argparse.Namespace) -> Drafter | None:
    """The drafter that the options describe; None: tokens are decoded one by one."""
    check_drafts(arguments)
    if arguments.draft == NONE or (arguments.draft_model is None and arguments.draft == AUTO and _is_seeded(arguments)):
        return None
    with starting():
        from mlx_gemma4.outputs.drafter import Drafter, load_drafter

        if arguments.draft_model is None:
            return Drafter()
        return load_drafter(arguments.draft_model, dtype=arguments.dtype)


def _is_seeded(arguments: argparse.Namespace) -> bool:
    """Whether the same answer is wanted each time.

    What is drafted depends on the time that forwards take, and a forward over several rows rounds differently.
    """
    return getattr(arguments, "seed", None) is not None


def drafted(drafter: Drafter | None) -> str:
    """How many tokens were drafted so far and how many were right, for ``--stats``; empty if none were."""
    if drafter is None or not drafter.drafted:
        return ""
    share = drafter.accepted / drafter.drafted
    return f" · {drafter.drafted} tokens drafted, {drafter.accepted} right ({share:.0%})"
