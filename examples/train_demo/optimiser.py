"""Optimisers: Muon for the decoder's matrices, AdamW for the rest, with a low rate for filters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters

ADAM, MUON = 1.0, 1.5
"""Learning rates of AdamW and of Muon, as shares of the training's rate."""
PATCHES, SOUND = 0.5, 0.15
"""The same for the filters of patches and of sound, whose initial weights are nearly right."""


class Optimiser:
    """Two optimisers with one rate. Muon's step is slow, so each process updates its share of the matrices for all.

    Muon (Jordan et al., 2024, by way of Liu et al., "Muon is scalable for LLM training", 2025, whose updates are as
    large as AdamW's) needed two thirds of AdamW's steps where both were tried, the first 500.
    """

    def __init__(self, named: Iterable[tuple[str, torch.nn.Parameter]], decay: float) -> None:
        self._rank, processes = distributed.get_rank(), distributed.get_world_size()
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        matrices = []
        for name, parameter in named:
            pace = _pace(name)
            if pace == ADAM and parameter.ndim == 2 and "language_model.layers" in name:
                matrices.append(parameter)
            else:
                groups.setdefault((pace, decay if parameter.ndim > 1 and pace == ADAM else 0.0), []).append(parameter)
        adam_groups = [{"params": each, "weight_decay": decay, "pace": pace} for (pace, decay), each in groups.items()]
        self._adam = torch.optim.AdamW(adam_groups, betas=(0.9, 0.98), eps=1e-8, fused=True)
        self._shares = [matrices[rank::processes] for rank in range(processes)]
        muon_groups = [{"params": self._shares[self._rank], "pace": MUON}]
        self._muon = torch.optim.Muon(muon_groups, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        self.parameters = [*(each for group in self._adam.param_groups for each in group["params"]), *matrices]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, rate: float) -> None:
        for optimiser in (self._adam, self._muon):
            for group in optimiser.param_groups:
                group["lr"] = rate * group["pace"]
            optimiser.step()
        for rank, share in enumerate(self._shares):
            updated = parameters_to_vector(share).detach()
            distributed.broadcast(updated, rank)
            vector_to_parameters(updated, share)

    def state_dict(self) -> dict[str, Any]:
        """The state of all processes. Each of them must call this, because they exchange their parts."""
        muon = [None] * len(self._shares)
        distributed.all_gather_object(muon, self._muon.state_dict())
        return {"adam": self._adam.state_dict(), "muon": muon}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state["adam"])
        self._muon.load_state_dict(state["muon"][self._rank])


def _pace(name: str) -> float:
    if "patch_dense.weight" in name:
        return PATCHES
    return SOUND if "embed_audio" in name or "layers.0.mlp" in name else ADAM
