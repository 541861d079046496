"""How weights move: Muon for the decoder's matrices, AdamW for all the rest, filters slowly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

ADAM, MUON = 1.0, 1.5
"""Rates of AdamW and of Muon, in the rate of a training."""
PATCHES, SOUND = 0.5, 0.15
"""… and of the filters for patches and those for sound, which begin near what they are to be."""


class Optimiser:
    """Two optimisers with one rate.

    Muon (Jordan et al., 2024, by way of Liu et al., "Muon is scalable for LLM training", 2025, whose updates are as
    large as AdamW's) needed two thirds of AdamW's steps where both were tried, the first 500, each a fifth longer.
    """

    def __init__(self, named: Iterable[tuple[str, torch.nn.Parameter]], decay: float) -> None:
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        matrices = []
        for name, parameter in named:
            pace = _pace(name)
            if pace == ADAM and parameter.ndim == 2 and "language_model.layers" in name:
                matrices.append(parameter)
            else:
                groups.setdefault((pace, decay if parameter.ndim > 1 and pace == ADAM else 0.0), []).append(parameter)
        told = [{"params": each, "weight_decay": decay, "pace": pace} for (pace, decay), each in groups.items()]
        adam = torch.optim.AdamW(told, betas=(0.9, 0.98), eps=1e-8, fused=True)
        muon = torch.optim.Muon(
            [{"params": matrices, "pace": MUON}], weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        self._both = adam, muon
        self.parameters = [each for one in self._both for group in one.param_groups for each in group["params"]]

    def zero_grad(self) -> None:
        for one in self._both:
            one.zero_grad(set_to_none=False)

    def step(self, rate: float) -> None:
        for one in self._both:
            for group in one.param_groups:
                group["lr"] = rate * group["pace"]
            one.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [one.state_dict() for one in self._both]

    def load_state_dict(self, held: list[dict[str, Any]]) -> None:
        for one, each in zip(self._both, held, strict=True):
            one.load_state_dict(each)


def _pace(name: str) -> float:
    if "patch_dense.weight" in name:
        return PATCHES
    return SOUND if "embed_audio" in name or "layers.0.mlp" in name else ADAM
