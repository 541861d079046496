"""Compute the reference's numbers that the tests compare with. Run it where torch and transformers are:

    pip install torch==2.13.0 transformers==5.23.0 pillow soundfile && python tests/make_reference.py

Writes ``data/reference/rounding.json`` (how far float32 logits are from float64 ones, in the reference itself) and
``data/demo/logits.npz``. The cases in ``data/reference`` were computed in the same way: float32, on a CPU, with
``gemma4_unified`` and the mask that full layers are causal, sliding layers (causal or same image) within the window.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent.parent))

from reference_cases import CASES, CHECKPOINTS, DATA, REFERENCE, demo_prompts, reference_case

from mlx_gemma4.hub import demo_folder
from mlx_gemma4.processor import Processor
from mlx_gemma4.prompt import AUDIO, Prompt


def load(folder: Path, dtype: torch.dtype) -> Any:
    model = Gemma4UnifiedForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    if dtype == torch.float64:
        widen_rope(model.model.language_model)
    return model.eval()


def widen_rope(text_model: Any) -> None:
    """The reference keeps its frequencies in float32, whatever the model's type: compute them anew."""
    config, rotary = text_model.config, text_model.rotary_emb

    def forward(x: torch.Tensor, positions: torch.Tensor, layer_type: str) -> tuple[torch.Tensor, torch.Tensor]:
        layer = config.per_layer_config[config.layer_types.index(layer_type)]
        told = config.rope_parameters[layer_type]
        pairs = layer.head_dim // 2
        rotating = int(told.get("partial_rotary_factor", 1.0) * pairs)
        frequencies = torch.zeros(pairs, dtype=torch.float64)
        exponents = torch.arange(0, 2 * rotating, 2, dtype=torch.float64) / layer.head_dim
        frequencies[:rotating] = told["rope_theta"] ** -exponents
        angles = positions[..., None].double() * frequencies
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    rotary.forward = forward


@contextmanager
def wide() -> Iterator[None]:
    """Turn the reference's casts to float32 (norms, softmax) into casts to float64."""
    narrow, softmax = torch.Tensor.float, torch.nn.functional.softmax
    torch.Tensor.float = lambda tensor: tensor.double()  # type: ignore[assignment, method-assign]
    torch.nn.functional.softmax = lambda x, dim=-1, dtype=None: softmax(x, dim=dim)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.Tensor.float, torch.nn.functional.softmax = narrow, softmax  # type: ignore[method-assign]


@torch.no_grad()
def logits(model: Any, prompt: Prompt) -> np.ndarray:
    """[L, V] of a prompt in one pass."""
    dtype = model.dtype
    types = torch.tensor(prompt.token_types.astype(np.int64))
    vision = torch.tensor(prompt.is_vision)
    rows = model.model.language_model.embed_tokens(torch.tensor(prompt.token_ids.astype(np.int64)))
    if len(prompt.patches):
        patches, positions = torch.tensor(prompt.patches), torch.tensor(prompt.positions.astype(np.int64))
        rows[vision] = model.model.embed_vision(patches[None].to(dtype), positions[None]).pooler_output[0]
    if len(prompt.frames):
        rows[types == AUDIO] = model.model.embed_audio(torch.tensor(prompt.frames)[None].to(dtype))[0]

    length, window = len(prompt), model.config.text_config.sliding_window
    query, key = torch.arange(length)[:, None], torch.arange(length)[None]
    starts = vision & ~torch.cat([torch.tensor([False]), vision[:-1]])
    run = torch.where(vision, torch.cumsum(starts.int(), 0), 0)
    causal = key <= query
    same_image = (run[:, None] == run[None]) & (run[None] > 0)
    masks = {
        "full_attention": as_bias(causal, dtype),
        "sliding_attention": as_bias((causal | same_image) & (key > query - window), dtype),
    }
    hidden = model.model.language_model(inputs_embeds=rows[None], attention_mask=masks, use_cache=False)
    raw = model.lm_head(hidden.last_hidden_state)[0]
    cap = model.config.text_config.final_logit_softcapping
    return (torch.tanh(raw / cap) * cap).numpy()


def as_bias(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[None, None]


def rounding() -> dict[str, float]:
    found = {}
    for checkpoint in CHECKPOINTS:
        model = load(REFERENCE / checkpoint / "checkpoint", torch.float64)
        for name in CASES:
            case = reference_case(checkpoint, name)
            with wide():
                found[f"{checkpoint}-{name}"] = float(np.abs(logits(model, case.prompt) - case.logits).max())
    return found


def demo() -> tuple[dict[str, np.ndarray], dict[str, float]]:
    folder = demo_folder() / "checkpoint"
    prompts = demo_prompts(Processor.from_folder(folder))
    narrow = {name: logits(load(folder, torch.float32), prompt) for name, prompt in prompts.items()}
    exact = load(folder, torch.float64)
    with wide():
        errors = {name: np.abs(logits(exact, prompt) - narrow[name]).max() for name, prompt in prompts.items()}
    return narrow, {f"demo-{name}": float(error) for name, error in errors.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    demo_logits, demo_rounding = demo()
    np.savez_compressed(DATA / "demo" / "logits.npz", **demo_logits)
    (REFERENCE / "rounding.json").write_text(json.dumps({**rounding(), **demo_rounding}, indent=2) + "\n")
