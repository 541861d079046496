"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Numbers that decide the result of a training."""

    steps: int = 7000
    seed: int = 0
    processes: int = 2
    budget: int = 2400
    """Positions of a batch, in each process."""
    rate: float = 1.5e-3
    decay: float = 0.05
    learned: float = 0.4
    """Loss of spoken answers at which lessons become harder."""
    stage_steps: tuple[int, ...] = (900, 1800, 2800)
    """Steps at which they become harder at the latest. Answers begin at the first of them."""
