"""What happens while an agent works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.parallel import Returned

Reason = Literal["done", "steps", "tokens", "seconds", "context", "loop", "interrupted"]
"""Why a run ended: it is done; a limit was reached; the context is full; the model repeats itself; Ctrl-C."""


@dataclass(frozen=True)
class Wrote:
    """A piece of the model's answer: text, or a thought."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class Stepped:
    """The model has answered: with calls, or with the answer to the task."""

    step: int
    """From 1 on."""
    text: str
    calls: tuple[ToolCall, ...]
    finish_reason: str | None
    """As of ``GenerationResponse``; None if the time was over."""
    prompt_tokens: int
    """Positions that were computed before it, other than those held."""
    tokens: int
    """Tokens of the answer, thoughts and calls included."""


@dataclass(frozen=True)
class Decided:
    """Whether a call may run."""

    call: ToolCall
    reason: str | None
    """Why not; None if it may."""


@dataclass(frozen=True)
class Told:
    """The model repeats itself, and is told so."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The run is over."""

    reason: Reason
    answer: str
    """The text of the last step; the answer to the task if the reason is "done"."""
    steps: int
    tokens: int
    seconds: float
    """Without the time in which consent was asked for."""


AgentEvent = Wrote | Stepped | Decided | Returned | Told | Ended
