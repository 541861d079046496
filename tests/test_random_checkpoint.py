"""Random checkpoints have the released layout, differ row by row, and are the same in one file and in many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from make_random_checkpoint import RELEASED, config_12b, make, tensor_shapes
from reference_cases import reference_case

from mlx_gemma4 import Session
from mlx_gemma4.decoder.weights import load_model, read_weights


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads((RELEASED / "config.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("random")
    make(path, config)
    return path


def numbers(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.astype(mx.float32)) for name, tensor in read_weights(folder).items()}


def test_the_released_layout(folder: Path) -> None:
    made, released = (mx.load(str(path / "model.safetensors")) for path in (folder, RELEASED))
    assert isinstance(made, dict)
    assert isinstance(released, dict)
    assert {name: (t.shape, t.dtype) for name, t in made.items()} == {
        name: (t.shape, t.dtype) for name, t in released.items()
    }


def test_it_loads_and_computes(folder: Path) -> None:
    logits = Session(load_model(folder)).extend(reference_case("released", "mixed").prompt)
    assert np.isfinite(np.array(logits.astype(mx.float32))).all()


def test_no_two_rows_are_equal(folder: Path) -> None:
    rows: dict[int, list[np.ndarray]] = {}
    for name, tensor in numbers(folder).items():
        if name.endswith(("norm.weight", "ln1.weight", "ln2.weight", "layer_scalar")):
            assert (tensor == 1).all()
        else:
            rows.setdefault(tensor.shape[-1], []).append(tensor.reshape(-1, tensor.shape[-1]))
    for parts in rows.values():
        together = np.concatenate(parts)
        assert len(np.unique(together, axis=0)) == len(together)
        assert together.std() == pytest.approx(0.02, rel=0.05)


def test_the_seed_decides(folder: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    make(tmp_path / "same", config)
    make(tmp_path / "other", config, seed=1)
    same, other, first = (
        (path / "model.safetensors").read_bytes() for path in (tmp_path / "same", tmp_path / "other", folder)
    )
    assert same == first
    assert other != first


def test_shards_hold_the_same(folder: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    make(tmp_path, config, shard_bytes=1_000_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert (tmp_path / "model.safetensors.index.json").is_file()
    sharded, single = numbers(tmp_path), numbers(folder)
    assert sharded.keys() == single.keys()
    assert all(np.array_equal(sharded[name], single[name]) for name in single)


def test_the_12b_has_its_parameters() -> None:
    shapes = tensor_shapes(config_12b(48)).values()
    assert sum(int(np.prod(shape)) for shape in shapes) == pytest.approx(11.95e9, rel=0.002)
