"""The files beside the weights: config.json as every reader of MLX checkpoints expects it, the index, and copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import SMALL_FILES, has_file
from mlx_gemma4.checkpoint.template_files import ADDITIONAL
from mlx_gemma4.checkpoint.weight_files import INDEX
from mlx_gemma4.decoder.config import FULL, Config
from mlx_gemma4.decoder.per_layer import per_layer_sizes

from .plan import Step

MOST_NAMES = 8
"""Names listed of the files that are left out."""


def write_config(
    folder: Path, raw: Mapping[str, Any], config: Config | None, quantization: Mapping[str, Any] | None
) -> None:
    """Write config.json: the source's, in the released dialect, with its quantization under both names in use."""
    written = _drafter(raw) if config is None else _released(raw, config)
    if quantization is not None:
        written |= {"quantization": quantization, "quantization_config": quantization}
    _write_json(folder / "config.json", written)


def write_index(folder: Path, names: Sequence[str], shards: Sequence[Sequence[Step]]) -> None:
    """Write the index that says which file holds which tensor."""
    weight_map = {
        output.name: name
        for name, steps in zip(names, shards, strict=True)
        for step in steps
        for output in step.outputs
    }
    total = sum(step.nbytes for steps in shards for step in steps)
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def shard_names(count: int) -> list[str]:
    """``model.safetensors``, or ``model-00001-of-00002.safetensors`` and so on."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def copied_files(source: Path) -> list[Path]:
    """The files of a checkpoint that hold no tensors: tokenizer, processor, templates and configs.

    Raises:
        ValueError: One of them must not be read, such as a link out of the folder.
    """
    templates = sorted((source / ADDITIONAL).glob("[!.]*.jinja"))
    return [path for path in (*(source / name for name in SMALL_FILES), *templates) if has_file(path, source)]


def copies_text(source: Path) -> str:
    """The files that are copied."""
    names = [path.relative_to(source).as_posix() for path in copied_files(source)]
    return f"Copied as they are: {', '.join(names) or 'no files'}"


def left_out_text(source: Path) -> str | None:
    """The files that lie there and are not copied; None where there are none."""
    known = {"config.json", "conversion.json", "README.md", INDEX, ADDITIONAL, *SMALL_FILES}
    names = sorted(path.name for path in source.iterdir() if path.name not in known and path.suffix != ".safetensors")
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"Not part of a checkpoint, left out: {', '.join(map(repr, names[:MOST_NAMES]))}{more}" if names else None


def copy_files(source: Path, folder: Path) -> None:
    """Copy ``copied_files``; what lies there as a link in the Hugging Face cache becomes a file."""
    for path in copied_files(source):
        target = folder / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _released(raw: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """mlx-vlm knows the released dialect only; mlx-lm has defaults of other sizes for what it finds nowhere."""
    told = {
        **raw,
        "text_config": {key: value for key, value in raw["text_config"].items() if key != "per_layer_config"},
    }
    full = next((layer for layer in config.text_config.layers if not layer.is_sliding), None)
    if full is not None:
        told["text_config"] |= {
            "global_head_dim": full.head_dim,
            "num_global_key_value_heads": full.num_key_value_heads,
        }
    if Config.from_dict(told).text_config != config.text_config:
        told["text_config"] = dict(raw["text_config"])  # layers of one kind differ, which only this dialect can say
    told["text_config"] |= {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}
    told["vocab_size"] = config.text_config.vocab_size
    if config.vision_config is None:
        told["vision_config"] = None
    else:
        side, size = config.vision_config.model_patch_size, config.vision_config.mm_embed_dim
        told["vision_config"] = raw["vision_config"] | {"model_patch_size": side, "output_proj_dims": size}
    if config.audio_config is None:
        told["audio_config"] = None
    else:
        size = config.audio_config.audio_embed_dim
        names = ("audio_embed_dim", "audio_samples_per_token", "output_proj_dims")
        told["audio_config"] = raw["audio_config"] | dict.fromkeys(names, size)
    return told


def _drafter(raw: Mapping[str, Any]) -> dict[str, Any]:
    """mlx-vlm has defaults of other sizes for these two."""
    text = {"hidden_size_per_layer_input": 0, **raw["text_config"]}
    own = per_layer_sizes(text, len(text["layer_types"]))
    for index, kind in enumerate(text["layer_types"]):
        if kind == FULL and "head_dim" in own.get(index, {}):
            text["global_head_dim"] = own[index]["head_dim"]
    return {**raw, "text_config": text}


def _write_json(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(f"{json.dumps(told, ensure_ascii=False, indent=2)}\n", encoding="utf-8")
