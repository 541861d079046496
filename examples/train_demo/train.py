"""Train the demo: two processes of one thread each, which share their gradients. An interrupted training resumes.

One process with two threads is slower: the operations are small. Lessons follow from the seed and their number alone.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
import torch.nn.functional as F

from . import recordings
from .hints import INSIDE, Hints
from .lessons import STAGES, Lesson, Teacher, batches
from .network import Batch, build, collate, hidden_states, initialise, logits_of, run_first
from .optimiser import Optimiser
from .settings import Settings
from .sound import Speech
from .tokenizer import load_tokenizer
from .voices import ENGINES

WEIGHTS = {"espeak": 0.27, "flite": 0.18, "hibari": 0.15, "pico": 0.16, "kokoro": 0.24}
"""Share of the utterances of each engine."""
CHECKPOINT, LOG = "training.pt", "training.jsonl"
WARM_UP, LOG_EVERY, SAVE_EVERY = 150, 25, 250


@dataclass
class State:
    """The state of a training, besides weights and optimisers."""

    step: int = 0
    stage: int = 0
    spoken: float = 5.0
    """Running mean of the loss of spoken answers."""
    entered: int = 0
    """Step at which the stage began."""


def train(work: Path, settings: Settings) -> None:
    """Train until all steps are done, in several processes. If one fails, all end."""
    torch.multiprocessing.spawn(_process, (work, settings), settings.processes)


def load_speech(folder: Path) -> Speech:
    """All recordings for training."""
    engines = [name for name, engine in ENGINES.items() if not engine.held_out]
    sets = {name: recordings.load(recordings.path_of(folder, name, "train")) for name in engines}
    return Speech(sets, WEIGHTS)


def _process(rank: int, work: Path, settings: Settings) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ.get("MASTER_PORT", "29511"))
    distributed.init_process_group("gloo", rank=rank, world_size=settings.processes)
    Training(work, settings, rank).run()
    distributed.destroy_process_group()


class Training:
    """One of the processes."""

    def __init__(self, work: Path, settings: Settings, rank: int) -> None:
        self._work, self._settings, self._rank = work, settings, rank
        self._tokenizer = load_tokenizer(work / "tokenizer")
        self._teacher = Teacher(self._tokenizer, load_speech(work / "recordings"))
        self._model = build(self._tokenizer, settings.seed)
        self._hints = Hints(self._model)
        self._state = State()
        named = (*self._model.named_parameters(), *self._hints.named_parameters(prefix="hints"))
        self._optimiser = Optimiser(named, self._settings.decay)
        self._history: dict[str, list[float]] = {}
        path = work / CHECKPOINT
        if path.is_file():
            self._restore(torch.load(path, weights_only=True))
        else:
            self._begin()

    def run(self) -> None:
        """Run all steps that are left."""
        self._model.train()
        began, first = time.monotonic(), self._state.step
        for batch in self._batches():
            if self._state.step >= self._settings.steps:
                break
            self._step(batch)
            self._state.step += 1
            if self._rank == 0 and self._state.step % LOG_EVERY == 0:
                self._log((time.monotonic() - began) / (self._state.step - first))
            if self._state.step % SAVE_EVERY == 0:
                self._save()
        self._save()

    def _begin(self) -> None:
        lessons = [lesson for group in batches(self._teacher, STAGES[1], 1234, 4000) for lesson in group]
        frames = collate(lessons, 0).frames
        initialise(self._model, frames.numpy())
        self._hints.measure(frames)

    def _batches(self) -> Iterator[list[Lesson]]:
        """Endless batches. A thread makes the next round of them while the current one is learned."""
        first = self._state.step

        def round_of(number: int, stage: int) -> list[list[Lesson]]:
            seed = hash((self._settings.seed, self._rank, first, number))
            return list(batches(self._teacher, STAGES[stage], seed, self._settings.budget))

        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(round_of, 0, self._state.stage)
            for number in itertools.count(1):
                groups = following.result()
                following = thread.submit(round_of, number, self._state.stage)
                yield from groups

    def _step(self, lessons: list[Lesson]) -> None:
        done = self._state.step / self._settings.steps
        rate = min(1, (self._state.step + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        self._optimiser.zero_grad()
        batch = collate(lessons, self._tokenizer.pad_token_id)
        with torch.autocast("cpu", torch.bfloat16):
            losses = self._losses(batch)
            help_left = max(0.1, 1 - done)  # the auxiliary losses fade
            loss = losses.get("answers", torch.zeros(()))
            if "pictures" in losses:
                loss = loss + help_left * losses["pictures"]
            if "counts" in losses:
                loss = loss + help_left * (losses["counts"] + 0.5 * losses["looks"])
            if "words" in losses:
                ramp = min(1, self._state.step / WARM_UP)
                loss = loss + help_left * (0.5 * ramp * losses["sequences"] + losses["words"] + losses["bands"])
        loss.backward()
        self._share({name: each.detach() for name, each in losses.items()})
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step(self._settings.rate * rate)

    def _losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        if not batch.scored.any():
            run_first(self._model, batch, torch.bfloat16, INSIDE + 1)
            return self._hints.losses(batch)
        hidden = hidden_states(self._model, batch, torch.bfloat16)
        scored = batch.scored[:, 1:]
        logits = logits_of(self._model, hidden[:, :-1][scored])
        each = F.cross_entropy(logits, batch.ids[:, 1:][scored], reduction="none")
        losses = {"answers": each.mean()}
        spoken = ((batch.kinds == 3).any(1) & ~((batch.kinds == 1) | (batch.kinds == 2)).any(1))[:, None] & scored
        if spoken.any():
            losses["spoken"] = each[spoken[scored]].mean()
        if len(batch.images):
            seen = scored & ~spoken
            losses["seen"] = each[seen[scored]].mean()
        return losses | self._hints.losses(batch)

    def _share(self, losses: dict[str, torch.Tensor]) -> None:
        """Average gradients over processes, and the loss that decides how hard lessons are."""
        for name, value in losses.items():
            self._history.setdefault(name, []).append(float(value))
        parameters = self._optimiser.parameters
        spoken = float(losses["spoken"]) if "spoken" in losses else self._state.spoken
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([each.reshape(-1) for each in gradients] + [torch.tensor([spoken])])
        distributed.all_reduce(flat)
        flat /= self._settings.processes
        self._state.spoken += 0.02 * (float(flat[-1]) - self._state.spoken)
        for parameter, part in zip(parameters, flat[:-1].split([each.numel() for each in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        self._next_stage()

    def _next_stage(self) -> None:
        """Begin the next stage if answers are good enough, or at the latest step for it."""
        state = self._state
        if state.stage + 1 == len(STAGES):
            return
        late = state.step >= self._settings.stage_steps[state.stage]
        if late or (state.spoken < self._settings.learned and state.step > state.entered + WARM_UP):
            self._state = replace(state, stage=state.stage + 1, entered=state.step)

    def _log(self, seconds: float) -> None:
        means = {name: round(float(np.mean(values[-200:])), 4) for name, values in self._history.items()}
        line = {"step": self._state.step, "stage": self._state.stage, "seconds_a_step": round(seconds, 3), **means}
        self._history = {}
        with (self._work / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")
        print(json.dumps(line), flush=True)

    def _save(self) -> None:
        """Called by all processes; the first one writes."""
        path = self._work / CHECKPOINT
        checkpoint = {
            "model": self._model.state_dict(),
            "hints": self._hints.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "state": asdict(self._state),
        }
        if self._rank == 0:
            torch.save(checkpoint, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        self._model.load_state_dict(checkpoint["model"])
        self._hints.load_state_dict(checkpoint["hints"])
        self._optimiser.load_state_dict(checkpoint["optimiser"])
        self._state = State(**checkpoint["state"])
