"""Fixtures: checkpoints of the architecture that are small enough to compute with, and the reference's numbers."""

from __future__ import annotations

import os

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported: float32 is to be float32

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_gemma4 import Model, Processor, Prompt, demo_folder, load

DATA = Path(__file__).parent / "data"
REFERENCE = DATA / "reference"
CHECKPOINTS = ("released", "resaved")
CASES = ("text", "image", "two-images", "audio", "video", "mixed")


@dataclass(frozen=True)
class Case:
    """A prompt and what the reference implementation computes for it."""

    checkpoint: str
    name: str
    prompt: Prompt
    logits: np.ndarray
    greedy: list[int]
    text: str
    messages: list[tuple[str, list[tuple[str, Any]]]]
    rounding: float
    """How far the reference's own float32 logits are from its float64 ones, at most."""


def media_file(name: str) -> Path:
    """A recording or picture of the demo: some are in the package, the others here."""
    packaged = demo_folder() / "media" / name
    return packaged if packaged.exists() else DATA / "demo" / name


def reference_case(checkpoint: str, name: str) -> Case:
    arrays = np.load(REFERENCE / checkpoint / f"{name}.npz")
    told = json.loads((REFERENCE / checkpoint / "cases.json").read_text())[name]
    frames, patches, positions = np.zeros((0, 640)), [np.zeros((0, 6912))], [np.zeros((0, 2))]
    if "input_features" in arrays:
        frames = arrays["input_features"][arrays["input_features_mask"].astype(bool)]
    for pixels, places in (
        ("pixel_values", "image_position_ids"),
        ("pixel_values_videos", "video_position_ids"),
    ):
        if pixels in arrays:
            real = (arrays[places] != -1).all(axis=-1)
            patches.append(arrays[pixels][real].astype(np.float32) * np.float32(1 / 255))
            positions.append(arrays[places][real])
    ids = arrays["input_ids"][0].astype(np.int32)
    return Case(
        checkpoint=checkpoint,
        name=name,
        prompt=Prompt(
            token_ids=ids,
            token_types=arrays["mm_token_type_ids"][0].astype(np.uint8),
            frames=frames.astype(np.float32),
            patches=np.concatenate(patches).astype(np.float32),
            positions=np.concatenate(positions).astype(np.int32),
        ),
        logits=arrays["logits"].reshape(len(ids), -1),
        greedy=arrays["greedy"].reshape(-1).tolist(),
        text=told["prompt"],
        messages=told["messages"],
        rounding=json.loads((REFERENCE / "rounding.json").read_text())[f"{checkpoint}/{name}"],
    )


@pytest.fixture(params=[(checkpoint, name) for checkpoint in CHECKPOINTS for name in CASES], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    return reference_case(*request.param)


_LOADED: dict[str, tuple[Model, Processor]] = {}


def loaded(name: str) -> tuple[Model, Processor]:
    """A checkpoint in float32, loaded once."""
    if name not in _LOADED:
        folder = name if name == "demo" else REFERENCE / name / "checkpoint"
        _LOADED[name] = load(folder, dtype=mx.float32)
    return _LOADED[name]


@pytest.fixture
def demo() -> tuple[Model, Processor]:
    return loaded("demo")


@pytest.fixture
def released() -> tuple[Model, Processor]:
    return loaded("released")
