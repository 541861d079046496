"""Make the small checkpoints of other formats in ``data/formats``, with the packages that define them:

    pip install torch==2.13.0 transformers==5.23.0 compressed-tensors==0.20.0 && python tests/make_formats.py

``compressed-tensors``: a W4A16 export (pack-quantized, symmetric, groups of 32), written as llm-compressor does;
``compressed-tensors-channel`` and ``-group-128``: one module in other strategies. Their ``expected.npz`` hold the
weights as the package decompresses them. ``assistant-plain`` and ``-ordered``: drafters; their ``expected.npz`` hold
one step in float32, ``inputs_embeds``, ``position_ids``, ``keys.LAYER_TYPE`` and ``values.LAYER_TYPE`` in,
``last_hidden_state`` and ``logits`` out.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import compressed_tensors
import numpy as np
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import calculate_qparams, is_module_quantized
from safetensors.torch import save_file
from transformers.models.gemma4_unified.configuration_gemma4_unified import (
    Gemma4UnifiedConfig,
    Gemma4UnifiedTextConfig,
)
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration
from transformers.models.gemma4_unified_assistant.configuration_gemma4_unified_assistant import (
    Gemma4UnifiedAssistantConfig,
)
from transformers.models.gemma4_unified_assistant.modeling_gemma4_unified_assistant import (
    Gemma4UnifiedAssistantForCausalLM,
)

DATA = Path(__file__).parent / "data"
RELEASED = DATA / "reference" / "released" / "checkpoint"
FORMATS = DATA / "formats"

KEPT = ["lm_head", "re:.*vision_embedder.*", "re:.*embed_vision.*", "re:.*embed_audio.*"]
"""What a W4A16 export leaves in bfloat16, besides the embedding and the norms, which are no Linear modules."""

ASSISTANT_TEXT = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    "num_attention_heads": 4,
    "head_dim": 32,
    "num_key_value_heads": 2,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "sliding_window": 16,
}
CONTEXT = 12
"""Positions that the drafter attends to: fewer than its window, so that no mask is needed."""


def randomize(model: torch.nn.Module) -> None:
    """Other numbers than the initial ones in norms and scalars too."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            else:
                parameter.normal_(std=0.05)


def quantization(args: QuantizationArgs) -> QuantizationConfig:
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    return QuantizationConfig(config_groups={"group_0": scheme}, ignore=KEPT)


def scales(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """[out, groups] (one group a row where the strategy is "channel"), as the package's observers derive them."""
    groups = weight.unflatten(-1, (-1, args.group_size or weight.shape[-1]))
    return calculate_qparams(groups.amin(-1), groups.amax(-1), args)[0]


def small_model() -> Any:
    raw = json.loads((RELEASED / "config.json").read_text())
    raw["text_config"] |= {"num_hidden_layers": 3, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
    raw["vision_config"] |= {"mm_embed_dim": 16, "output_proj_dims": 16}
    model = Gemma4UnifiedForConditionalGeneration(Gemma4UnifiedConfig.from_dict(raw)).bfloat16()
    randomize(model)
    return model.eval()


def make_w4a16(folder: Path) -> None:
    shutil.copytree(RELEASED, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model = small_model()
    apply_quantization_config(model, quantization(QuantizationArgs(num_bits=4, strategy="group", group_size=32)))
    quantized = {name: module for name, module in model.named_modules() if is_module_quantized(module)}
    for module in quantized.values():
        module.weight_scale.data = scales(module.weight.data, module.quantization_scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    compressor.decompress_model(model)
    np.savez_compressed(folder / "expected.npz", **{name: to_numpy(m.weight) for name, m in quantized.items()})


def make_module(folder: Path, args: QuantizationArgs) -> None:
    """One module alone; ``config.json`` is only the fragment that says how it is packed."""
    folder.mkdir()
    config = quantization(args)
    scheme = config.config_groups["group_0"]
    weight = torch.randn(24, 256, dtype=torch.bfloat16) * 0.05
    packed = PackedQuantizationCompressor.compress({"weight": weight, "weight_scale": scales(weight, args)}, scheme)
    config.format = scheme.format = "pack-quantized"
    module = "model.language_model.layers.0.self_attn.q_proj"
    save_file({f"{module}.{name}": tensor for name, tensor in packed.items()}, folder / "model.safetensors")
    fragment = {"quantization_config": {**config.to_dict(), "version": compressed_tensors.__version__}}
    (folder / "config.json").write_text(json.dumps(fragment, indent=2) + "\n")
    expected = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
    np.savez_compressed(folder / "expected.npz", **{module: to_numpy(expected)})


def share_all_layers() -> None:
    """transformers 5.23 refuses a model in which no layer has K/V of its own, which is what its drafter is."""
    Gemma4UnifiedTextConfig.kv_sharing_modes = property(lambda config: ["reuse"] * config.num_hidden_layers)


def make_assistant(folder: Path, *, ordered: bool) -> None:
    config = Gemma4UnifiedAssistantConfig(
        text_config=ASSISTANT_TEXT,
        backbone_hidden_size=128,
        use_ordered_embeddings=ordered,
        num_centroids=16,
        centroid_intermediate_top_k=4,
    )
    model = Gemma4UnifiedAssistantForCausalLM(config).bfloat16()
    randomize(model)
    if ordered:
        model.masked_embedding.token_ordering.copy_(torch.randperm(config.text_config.vocab_size))
    model.save_pretrained(folder)
    model = Gemma4UnifiedAssistantForCausalLM.from_pretrained(folder, dtype=torch.float32)
    step = {"inputs_embeds": torch.randn(1, 1, 256), "position_ids": torch.tensor([[CONTEXT]])}
    shared = {kind: (torch.randn(shape), torch.randn(shape)) for kind, shape in context_shapes().items()}
    with torch.no_grad():
        output = model(**step, shared_kv_states=shared)
    arrays = {f"keys.{kind}": keys for kind, (keys, _) in shared.items()}
    arrays |= {f"values.{kind}": values for kind, (_, values) in shared.items()}
    arrays |= {**step, "last_hidden_state": output.last_hidden_state, "logits": output.logits}
    np.savez_compressed(folder / "expected.npz", **{name: to_numpy(tensor) for name, tensor in arrays.items()})


def context_shapes() -> dict[str, tuple[int, int, int, int]]:
    """[B, K, L, head_dim] of the target's last sliding and last full layer."""
    return {"sliding_attention": (1, 2, CONTEXT, 32), "full_attention": (1, 1, CONTEXT, 64)}


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shutil.rmtree(FORMATS, ignore_errors=True)
    make_w4a16(FORMATS / "compressed-tensors")
    make_module(FORMATS / "compressed-tensors-channel", QuantizationArgs(num_bits=4, strategy="channel"))
    make_module(
        FORMATS / "compressed-tensors-group-128", QuantizationArgs(num_bits=4, strategy="group", group_size=128)
    )
    share_all_layers()
    make_assistant(FORMATS / "assistant-plain", ordered=False)
    make_assistant(FORMATS / "assistant-ordered", ordered=True)
