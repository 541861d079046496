"""Make what transformers 5.24 saves, in ``data/transformers-5.24``. Run it where torch and transformers are:

    pip install torch==2.13.0 transformers==5.24.0 && python tests/make_resaved.py

- ``config-12b.json``: the config of the released 12B, written by ``save_pretrained``;
- ``twelve-layers``: a random checkpoint in several files;
- ``logits.npz``: a prompt of text, a picture and sound, and what the reference computes for it in float64.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_reference import load, logits, wide
from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedConfig
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration

from mlx_gemma4.inputs.prompt import AUDIO, IMAGE, TEXT, Prompt

DATA = Path(__file__).parent / "data"
RELEASED = DATA / "reference" / "released" / "checkpoint"
FOLDER = DATA / "transformers-5.24"

LAYERS_12B = {
    "num_hidden_layers": 48,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 8,
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_global_key_value_heads": 1,
    "sliding_window": 1024,
    "vocab_size": 262144,
}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
}
SIDE, FRAME = 16, 64
"""Pixels of a patch's side, samples of a frame."""


def config(text: dict[str, Any], vision: dict[str, Any], audio: dict[str, Any]) -> Gemma4UnifiedConfig:
    raw = json.loads((RELEASED / "config.json").read_text())
    raw["text_config"] |= text
    raw["vision_config"] |= vision
    raw["audio_config"] |= audio
    return Gemma4UnifiedConfig.from_dict(raw)


def config_12b() -> Gemma4UnifiedConfig:
    return config(LAYERS_12B, {"mm_embed_dim": 3840, "mm_posemb_size": 1120, "output_proj_dims": 3840}, {})


def small_model() -> Any:
    vision = {"patch_size": SIDE // 2, "pooling_kernel_size": 2, "mm_embed_dim": 16, "output_proj_dims": 16}
    model = Gemma4UnifiedForConditionalGeneration(config(SMALL, vision, {"audio_embed_dim": FRAME})).bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            else:
                parameter.normal_(std=0.15)
    return model.eval()


def prompt() -> Prompt:
    """[text, 6 patches, text, 5 frames, text]: longer than the window."""
    random = np.random.default_rng(0)
    ids = json.loads((RELEASED / "config.json").read_text())
    types = np.repeat(np.array([TEXT, IMAGE, TEXT, AUDIO, TEXT], np.uint8), [6, 6, 9, 5, 10])
    token_ids = random.integers(20, 371, len(types)).astype(np.int32)
    token_ids[types == IMAGE], token_ids[types == AUDIO] = ids["image_token_id"], ids["audio_token_id"]
    x, y = np.meshgrid(np.arange(3), np.arange(2))
    return Prompt(
        token_ids=token_ids,
        token_types=types,
        frames=random.uniform(-1, 1, (5, FRAME)).astype(np.float32),
        patches=random.uniform(0, 1, (6, SIDE * SIDE * 3)).astype(np.float32),
        patch_xy=np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int32),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shutil.rmtree(FOLDER, ignore_errors=True)
    checkpoint = FOLDER / "twelve-layers"
    small_model().save_pretrained(checkpoint, max_shard_size="150KB")
    config_12b().save_pretrained(FOLDER)
    (FOLDER / "config.json").rename(FOLDER / "config-12b.json")
    case = prompt()
    with wide():
        exact = logits(load(checkpoint, torch.float64), case)
    rounding = np.abs(logits(load(checkpoint, torch.float32), case) - exact).max()
    np.savez_compressed(FOLDER / "logits.npz", **vars(case), logits=exact.astype(np.float32), rounding=rounding)
