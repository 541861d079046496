"""A row computes what its sequence computes alone, whoever comes and goes beside it."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import reference_case
from test_reference import ROUNDING

from mlx_gemma4 import Model, Session
from mlx_gemma4.decoder import batch_cache
from mlx_gemma4.inputs.prompt import Prompt


class Rows:
    """Rows of a batch, and each of their sequences alone."""

    def __init__(self, model: Model) -> None:
        self.model, self.cache = model, model.make_batch_cache()
        self.sessions: list[Session] = []

    def put(self, prompt: Prompt, row: int) -> None:
        session = Session(self.model)
        session.extend(prompt)
        self.cache.put(session.held(), row)
        self.sessions[row : row + 1] = [session]

    def keep(self, rows: list[int]) -> None:
        self.cache.keep(rows)
        self.sessions = [self.sessions[row] for row in rows]

    def step(self, tokens: list[int]) -> float:
        """The largest difference between a logit of a row and of its sequence alone."""
        alone = [session.step(mx.array(token)) for session, token in zip(self.sessions, tokens, strict=True)]
        h = self.model(self.model.embed_tokens(mx.array(tokens)[:, None]), self.cache)
        return float(mx.abs(self.model.logits(h)[:, 0] - mx.stack(alone)).max().item())


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers grow and shrink often."""
    monkeypatch.setattr(batch_cache, "STEP", 8)


@pytest.mark.parametrize("checkpoint", ["released", "resaved"])
def test_logits_side_by_side_are_those_alone(checkpoint: str) -> None:
    """Sequences of 19 to 297 positions, with sound, images and video, and windows of 16 and 24."""
    names = ("text", "audio", "image", "video")
    rows = Rows(loaded(checkpoint)[0])
    for row, name in enumerate(names):
        rows.put(reference_case(checkpoint, name).prompt, row)
    most = 4 * max(ROUNDING[f"{checkpoint}-{name}"] for name in names)
    assert all(rows.step([token] * len(names)) < most for token in range(30, 35))


@pytest.mark.parametrize(("checkpoint", "seed"), [("released", 0), ("resaved", 1)])
def test_rows_come_and_go(checkpoint: str, seed: int) -> None:
    """In any order, with sequences shorter and longer than the window, around the ends of the rings."""
    random = np.random.default_rng(seed)
    rows, joined, left = Rows(loaded(checkpoint)[0]), 0, 0
    most = 4 * ROUNDING[f"{checkpoint}-video"]

    def prompt() -> Prompt:
        return Prompt.from_tokens(random.integers(6, 300, random.integers(1, random.choice([4, 30, 60]))).tolist())

    for _ in range(30):
        count = len(rows.sessions)
        if count == 0 or (count < 4 and random.random() < 0.3):
            rows.put(prompt(), count)
            joined += 1
        elif random.random() < 0.2:
            rows.put(prompt(), int(random.integers(count)))
            left, joined = left + 1, joined + 1
        elif random.random() < 0.1:
            kept = np.flatnonzero(random.random(count) < 0.6).tolist()
            rows.keep(kept)
            left += count - len(kept)
        if rows.sessions:
            assert rows.step(random.integers(6, 300, len(rows.sessions)).tolist()) < most
    assert len(rows.cache) == len(rows.sessions) == joined - left
    assert left >= 4 and joined >= 8


def test_room_is_that_of_the_longest_row() -> None:
    """A window on sliding layers, whole steps on full ones; it shrinks when the longest row has left."""
    model = loaded("resaved")[0]
    rows = Rows(model)

    def capacities() -> set[tuple[bool, int, int]]:
        layers = zip(model.config.text_config.layers, rows.cache.layers, strict=True)
        shapes = [(config.is_sliding, array.shape) for config, layer in layers for array in layer.arrays]
        return {(is_sliding, shape[0], shape[2]) for is_sliding, shape in shapes}

    rows.put(Prompt.from_tokens([7] * 7), 0)
    assert capacities() == {(True, 1, 8), (False, 1, 8)}
    rows.step([7])
    assert capacities() == {(True, 1, 8), (False, 1, 8)}
    rows.step([7])
    assert capacities() == {(True, 1, 16), (False, 1, 16)}
    rows.put(Prompt.from_tokens([7] * 64), 1)
    assert capacities() == {(True, 2, 24), (False, 2, 72)}
    rows.put(Prompt.from_tokens([7] * 20), 1)
    assert capacities() == {(True, 2, 24), (False, 2, 24)}
    rows.keep([0])
    assert capacities() == {(True, 1, 16), (False, 1, 16)}
    rows.keep([])
    assert (capacities(), rows.cache.nbytes) == (set(), 0)
