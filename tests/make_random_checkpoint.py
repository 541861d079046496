"""Write a random checkpoint of the 12B's dimensions in the released layout, to measure what reads it. Needs only numpy:

python tests/make_random_checkpoint.py FOLDER --layers 24 [--seed 0] [--shard-gb 5]

It is written tensor by tensor and never held in memory: 24 layers are 13 GB on disk. The tokenizer and the other small
files are those of the reference checkpoint, and so are the token ids in ``config.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

RELEASED = Path(__file__).parent / "data" / "reference" / "released" / "checkpoint"

POOL_VALUES = 16_777_259  # prime: rows of one width, read one after another, never start twice at the same value
BLOCK_BYTES = 1 << 25
BF16_ONE = 0x3F80

Shapes = dict[str, tuple[int, ...]]


def make(folder: Path, config: dict[str, Any], *, seed: int = 0, shard_bytes: int | None = None) -> None:
    """Write the checkpoint that ``config`` (released dialect) describes; equal seeds give equal bytes.

    Args:
        shard_bytes: Tensors are spread over files of at most this size, with an index; None writes one file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(RELEASED, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    shards = _shards(tensor_shapes(config), shard_bytes)
    values = RandomRows(seed)
    for name, shapes in shards.items():
        with (folder / name).open("wb") as file:
            _write_shard(file, shapes, values)
    if shard_bytes is not None:
        weight_map = {tensor: name for name, shapes in shards.items() for tensor in shapes}
        total = sum(_bytes(shape) for shapes in shards.values() for shape in shapes.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def config_12b(layers: int) -> dict[str, Any]:
    """The released 12B's ``config.json`` with another number of layers, and the small tokenizer's token ids."""
    config: dict[str, Any] = json.loads((RELEASED / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": layers,
        "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)],
        "num_attention_heads": 16,
        "head_dim": 256,
        "num_key_value_heads": 8,
        "global_head_dim": 512,
        "num_global_key_value_heads": 1,
        "sliding_window": 1024,
        "vocab_size": 262144,
    }
    config["vision_config"] |= {
        "mm_embed_dim": 3840,
        "mm_posemb_size": 1120,
        "model_patch_size": 48,
        "output_proj_dims": 3840,
    }
    config["audio_config"] |= {"audio_embed_dim": 640, "audio_samples_per_token": 640}
    return config


def tensor_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of the checkpoint, in the order on disk."""
    text = config["text_config"]
    width = text["hidden_size"]
    shapes: Shapes = {"model.language_model.embed_tokens.weight": (text["vocab_size"], width)}
    for index, layer_type in enumerate(text["layer_types"]):
        for name, shape in _layer_shapes(text, full=layer_type == "full_attention").items():
            shapes[f"model.language_model.layers.{index}.{name}"] = shape
    shapes["model.language_model.norm.weight"] = (width,)
    if config.get("vision_config") is not None:
        shapes |= _vision_shapes(config["vision_config"], width)
    if config.get("audio_config") is not None:
        samples = config["audio_config"]["audio_embed_dim"]
        shapes["model.embed_audio.embedding_projection.weight"] = (width, samples)
    return shapes


def _layer_shapes(text: Mapping[str, Any], *, full: bool) -> Shapes:
    width, mlp = text["hidden_size"], text["intermediate_size"]
    head_dim = text["global_head_dim" if full else "head_dim"]
    queries = text["num_attention_heads"] * head_dim
    keys = text["num_global_key_value_heads" if full else "num_key_value_heads"] * head_dim
    shapes: Shapes = {
        "input_layernorm.weight": (width,),
        "layer_scalar": (1,),
        "mlp.down_proj.weight": (width, mlp),
        "mlp.gate_proj.weight": (mlp, width),
        "mlp.up_proj.weight": (mlp, width),
        "post_attention_layernorm.weight": (width,),
        "post_feedforward_layernorm.weight": (width,),
        "pre_feedforward_layernorm.weight": (width,),
        "self_attn.k_norm.weight": (head_dim,),
        "self_attn.k_proj.weight": (keys, width),
        "self_attn.o_proj.weight": (width, queries),
        "self_attn.q_norm.weight": (head_dim,),
        "self_attn.q_proj.weight": (queries, width),
    }
    if not full:
        shapes["self_attn.v_proj.weight"] = (keys, width)
    return shapes


def _vision_shapes(vision: Mapping[str, Any], width: int) -> Shapes:
    patch = 3 * (vision["patch_size"] * vision["pooling_kernel_size"]) ** 2
    embed = vision["mm_embed_dim"]
    shapes: Shapes = {"model.embed_vision.embedding_projection.weight": (width, embed)}
    for norm, size in (("patch_ln1", patch), ("patch_ln2", embed), ("pos_norm", embed)):
        shapes |= {f"model.vision_embedder.{norm}.{part}": (size,) for part in ("weight", "bias")}
    shapes["model.vision_embedder.patch_dense.weight"] = (embed, patch)
    shapes["model.vision_embedder.patch_dense.bias"] = (embed,)
    shapes["model.vision_embedder.pos_embedding"] = (vision["mm_posemb_size"], 2, embed)
    return shapes


class RandomRows:
    """bfloat16 normals of std 0.02, drawn once; rows of one width read on through them, round and round."""

    def __init__(self, seed: int) -> None:
        drawn = np.random.default_rng(seed).standard_normal(POOL_VALUES, dtype=np.float32)
        drawn *= 0.02
        self._pool = _bfloat16(drawn)
        self._next: dict[int, int] = {}  # by width: where the next row starts

    def blocks(self, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The bytes of a tensor's rows, in pieces."""
        left, start = math.prod(shape), self._next.get(shape[-1], 0)
        while left:
            piece = self._pool[start : start + min(left, BLOCK_BYTES // 2)]
            yield piece
            left -= len(piece)
            start = (start + len(piece)) % POOL_VALUES
        self._next[shape[-1]] = start


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 rounded to the nearest bfloat16, ties to even, as uint16."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _shards(shapes: Shapes, shard_bytes: int | None) -> dict[str, Shapes]:
    if shard_bytes is None:
        return {"model.safetensors": shapes}
    shards: list[Shapes] = [{}]
    filled = 0
    for name, shape in shapes.items():
        if shards[-1] and filled + _bytes(shape) > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += _bytes(shape)
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def _bytes(shape: tuple[int, ...]) -> int:
    return 2 * math.prod(shape)


def _write_shard(file: BinaryIO, shapes: Shapes, values: RandomRows) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + _bytes(shape)]}
        end += _bytes(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, shape in shapes.items():
        if _is_scale(name):
            file.write(np.full(shape, BF16_ONE, dtype="<u2").tobytes())
        else:
            for block in values.blocks(shape):
                file.write(block.data)


def _is_scale(name: str) -> bool:
    """A norm's weight or a layer's scalar: one, where everything else is random."""
    return name.endswith(("norm.weight", "patch_ln1.weight", "patch_ln2.weight", "layer_scalar"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a random checkpoint of the 12B's dimensions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=24, help="decoder layers (the 12B has 48)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shard-gb", type=float, help="files of at most this many GB, with an index; default: one file"
    )
    args = parser.parse_args()
    shard_bytes = None if args.shard_gb is None else int(args.shard_gb * 1e9)
    make(args.folder, config_12b(args.layers), seed=args.seed, shard_bytes=shard_bytes)


if __name__ == "__main__":
    main()
