"""What tests of converted checkpoints share."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from quantized_checkpoints import (
    Tensors,
    small_config,
    stored,
    write,
)
from reference_cases import DATA, REFERENCE

from mlx_gemma4.convert.run import convert
from mlx_gemma4.decoder.weights import load_model

FORMATS = DATA / "formats"


RELEASED, RESAVED = (REFERENCE / name / "checkpoint" for name in ("released", "resaved"))


LAYER = "language_model.model.layers.0"


def silent(text: str) -> None:
    """What a conversion tells is not asked for."""


def converted(source: Path, out: Path, recipe: str = "bf16", **options: Any) -> Tensors:
    convert(source, out, recipe=recipe, note=silent, **options)
    return stored(out)


def assert_same(found: Mapping[str, mx.array], expected: Mapping[str, mx.array]) -> None:
    """Names, types and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert mx.array_equal(found[name], tensor), name


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def in_shards(source: Path, folder: Path, count: int) -> Path:
    """A copy of a checkpoint whose tensors lie in several files, with an index."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = stored(source)
    weight_map = {}
    for part in range(count):
        shard = {name: tensors[name] for name in sorted(tensors)[part::count]}
        weight_map |= dict.fromkeys(shard, f"model-{part}.safetensors")
        mx.save_safetensors(str(folder / f"model-{part}.safetensors"), shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def quantized_by_mlx(folder: Path, block: Mapping[str, Any], rename: Callable[[str], str] = str) -> Path:
    """The released reference as mlx-lm and mlx-vlm quantize it: what has scales is what the block does not exclude."""
    model = load_model(RELEASED)
    default = {key: value for key, value in block.items() if not isinstance(value, (dict, bool))}

    def settings(path: str, module: nn.Module) -> bool | dict[str, Any]:
        own = block.get(path, default)
        return own if hasattr(module, "to_quantized") else False

    nn.quantize(model, class_predicate=settings)
    renamed = {key if key in default else rename(key): value for key, value in block.items()}
    config = {**config_of(RELEASED), "quantization": renamed, "quantization_config": renamed}
    return write(folder, {rename(name): tensor for name, tensor in tree_flatten(model.parameters())}, config)


PEERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all-alike": (
        {"group_size": 32, "bits": 4, "mode": "affine"},
        ["*=4/32"],
    ),
    "an-entry-each": (
        {
            "group_size": 64,
            "bits": 4,
            "mode": "affine",
            "language_model.model.embed_tokens": {"group_size": 64, "bits": 8},
            f"{LAYER}.self_attn.v_proj": {"group_size": 64, "bits": 8},
            f"{LAYER}.mlp.down_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
            f"{LAYER}.mlp.up_proj": {"group_size": 64, "bits": 4},
            "embed_vision.embedding_projection": False,
            "vision_embedder.patch_dense": False,
        },
        [
            *("*=4/64", "*embed_tokens=8/64", f"{LAYER}.self_attn.v_proj=8/64", f"{LAYER}.mlp.down_proj=mxfp4"),
            *("embed_vision.*=none", "vision_embedder.*=none"),
        ],
    ),
    "entries-without-mode": (
        {"group_size": 32, "bits": 4, "mode": "mxfp4", f"{LAYER}.mlp.up_proj": {"group_size": 64, "bits": 8}},
        ["*=mxfp4", f"{LAYER}.mlp.up_proj=8/64"],
    ),
}


def refuse(source: Path, message: str, recipe: str = "4bit") -> None:
    """The conversion ends with this message, and leaves nothing behind."""
    out = source.parent / "out"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convert(source, out, recipe=recipe, note=silent)
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]


def with_config(source: Path, **changes: Any) -> None:
    (source / "config.json").write_text(json.dumps({**small_config(), **changes}))


PACKED = "model.language_model.layers.0.mlp.up_proj"
