"""How the demo is trained, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Of one training."""

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
    """… and the step at which they do at the latest; at which answers begin, the first."""
