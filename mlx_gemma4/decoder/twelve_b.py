"""The sizes of Gemma 4 12B, for what is computed without its files: plans, estimates and random models."""

from __future__ import annotations

from typing import Any

TWELVE_B: dict[str, Any] = {
    "model_type": "gemma4_unified",
    "text_config": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 8,
        "num_attention_heads": 16,
        "head_dim": 256,
        "num_key_value_heads": 8,
        "global_head_dim": 512,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "vocab_size": 262144,
        "sliding_window": 1024,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
        },
    },
    "vision_config": {"model_patch_size": 48, "mm_embed_dim": 3840, "mm_posemb_size": 1120},
    "audio_config": {"audio_embed_dim": 640},
}
"""The sizes of the 12B, as its config.json has them."""
