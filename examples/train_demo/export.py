"""The trained model as a checkpoint: bfloat16, saved by the reference implementation, with tokenizer and processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers.models.gemma4_unified.feature_extraction_gemma4_unified import Gemma4UnifiedAudioFeatureExtractor

from .network import build
from .tokenizer import load_tokenizer
from .train import CHECKPOINT

PROCESSOR: dict[str, Any] = {
    "processor_class": "Gemma4UnifiedProcessor",
    "image_seq_length": 70,
    "audio_seq_length": 750,
    "audio_ms_per_token": 40,
    "feature_extractor": {
        "feature_extractor_type": "Gemma4UnifiedAudioFeatureExtractor",
        "feature_size": 640,
        "sampling_rate": 16000,
        "padding_value": 0.0,
        "audio_samples_per_token": 640,
    },
    "image_processor": {
        "image_processor_type": "Gemma4UnifiedImageProcessor",
        "patch_size": 16,
        "max_soft_tokens": 70,
        "pooling_kernel_size": 3,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "do_convert_rgb": True,
    },
    "video_processor": {
        "video_processor_type": "Gemma4UnifiedVideoProcessor",
        "patch_size": 16,
        "max_soft_tokens": 70,
        "pooling_kernel_size": 3,
        "num_frames": 32,
        "do_sample_frames": True,
        "do_rescale": True,
        "do_resize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
    },
}


def export(work: Path) -> Path:
    """Write the checkpoint folder of the last training; its path."""
    tokenizer = load_tokenizer(work / "tokenizer")
    model = build(tokenizer, seed=0)
    model.load_state_dict(torch.load(work / CHECKPOINT, weights_only=True)["model"])
    model = model.to(torch.bfloat16)
    model.config.dtype = "bfloat16"
    number = tokenizer.convert_tokens_to_ids
    model.generation_config.eos_token_id = [number("<turn|>"), number("<eos>")]
    model.generation_config.pad_token_id = number("<pad>")
    model.generation_config.bos_token_id = number("<bos>")
    folder = work / "checkpoint"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Gemma4UnifiedAudioFeatureExtractor().save_pretrained(folder)
    (folder / "processor_config.json").write_text(f"{json.dumps(PROCESSOR, indent=2)}\n", encoding="utf-8")
    return folder
