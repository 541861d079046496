"""The demo's model, by the reference implementation: its sizes, its initial weights, and a pass over a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.models.gemma4_unified.configuration_gemma4_unified import (
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVisionConfig,
)
from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedForConditionalGeneration

from .lessons import AUDIO_KIND, Lesson
from .pictures import POSITIONS

HIDDEN, WINDOW, CAP = 256, 192, 30.0
LAYERS = tuple({"S": "sliding_attention", "F": "full_attention"}[letter] for letter in "SSSFSF")


def build(tokenizer: Any, seed: int) -> Any:
    """The model with random weights."""
    torch.manual_seed(seed)
    number = tokenizer.convert_tokens_to_ids
    text = Gemma4UnifiedTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=len(LAYERS),
        layer_types=list(LAYERS),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        global_head_dim=128,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        sliding_window=WINDOW,
        final_logit_softcapping=CAP,
        max_position_embeddings=4096,
        pad_token_id=number("<pad>"),
        bos_token_id=number("<bos>"),
        eos_token_id=number("<turn|>"),
        tie_word_embeddings=True,
        use_bidirectional_attention="vision",
    )
    config = Gemma4UnifiedConfig(
        text_config=text,
        vision_config=Gemma4UnifiedVisionConfig(mm_embed_dim=128, mm_posemb_size=280, output_proj_dims=128),
        audio_config=Gemma4UnifiedAudioConfig(),
        boi_token_id=number("<|image>"),
        eoi_token_id=number("<image|>"),
        image_token_id=number("<|image|>"),
        video_token_id=number("<|video|>"),
        boa_token_id=number("<|audio>"),
        eoa_token_index=number("<audio|>"),
        audio_token_id=number("<|audio|>"),
        tie_word_embeddings=True,
    )
    config._attn_implementation = "eager"  # the fastest on a CPU with explicit masks
    return Gemma4UnifiedForConditionalGeneration(config)


@torch.no_grad()
def initialise(model: Any, frames: np.ndarray) -> None:
    """Begin with useful features: filters for sound, the energies of their outputs, and block averages for pictures.

    Args:
        frames: [n, 640] of speech. The filters are scaled so that all bands are equally loud on it.
    """
    weight = model.model.embed_audio.embedding_projection.weight
    weight.copy_(_equalised(_gabor(HIDDEN), torch.from_numpy(frames)))
    layer = model.model.language_model.layers[0]
    layer.post_attention_layernorm.weight.fill_(0.1)
    _square(layer.mlp)
    _average(model.model.embed_vision.patch_dense)


def _gabor(count: int, places: int = 4, width: int = 280, low: float = 90, high: float = 6200) -> torch.Tensor:
    """[count, 640]: cosine and sine pairs in mel-spaced bands at four places of a frame, with pre-emphasis."""
    bands = count // (2 * places)
    mel = np.linspace(*(2595 * math.log10(1 + hertz / 700) for hertz in (low, high)), bands)
    samples = torch.arange(640).double()
    rows = []
    for place in range(places):
        center = 640 * (place + 0.5) / places - 0.5
        distance = samples - center
        window = torch.where(distance.abs() < width / 2, 0.5 + 0.5 * torch.cos(2 * math.pi * distance / width), 0.0)
        for hertz in 700 * (10 ** (mel / 2595) - 1):
            for wave in (torch.cos, torch.sin):
                row = window * wave(2 * math.pi * hertz / 16000 * distance)
                row -= window * (row.sum() / window.sum())
                rows.append(row / row.norm() * (1 + hertz / 1500) ** 0.5)
    return torch.stack(rows).float()


def _equalised(filters: torch.Tensor, frames: torch.Tensor, places: int = 4) -> torch.Tensor:
    loud = frames[frames.square().mean(1) > 1e-6]
    loud = loud * torch.rsqrt(loud.square().mean(1, keepdim=True) + 1e-6)
    out = (loud @ filters.T).abs().view(len(loud), places, -1, 2)
    gains = out.sqrt().mean((0, 1, 3)).square()
    filters = filters / gains.repeat_interleave(2).repeat(places)[:, None]
    return filters / (loud @ filters.T).square().mean().sqrt()


def _square(mlp: Any) -> None:
    """Units gelu(±x) · ±x, whose sum is about x²: the energy of a filter's cosine and sine."""
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    width = down.shape[0]
    basis = torch.nn.init.orthogonal_(torch.empty(width, width))
    down.mul_(0.2)
    for column in range(min(width, down.shape[1] // 2)):
        for sign, unit in ((1.0, 2 * column), (-1.0, 2 * column + 1)):
            gate[unit].zero_()
            up[unit].zero_()
            gate[unit, column] = 1.5 * sign
            up[unit, column] = sign
            down[:, unit] = 0.7 * basis[:, column // 2]


def _average(dense: Any) -> None:
    """The first outputs are the means of 6 × 6 blocks of a patch, colour by colour."""
    weight = torch.zeros(dense.weight.shape[0], 48, 48, 3)
    blocks = [(y, x, c) for y in range(6) for x in range(6) for c in range(3)]
    for row, (y, x, c) in enumerate(blocks):
        weight[row, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8, c] = 1 / 16
    rest = weight.shape[0] - len(blocks)
    flat = weight.reshape(len(weight), -1)
    flat[len(blocks) :] = torch.randn(rest, flat.shape[1]) / 166
    dense.weight.copy_(flat)
    dense.bias.zero_()


@dataclass
class Batch:
    """Lessons as tensors."""

    ids: torch.Tensor
    """[B, L]."""
    kinds: torch.Tensor
    scored: torch.Tensor
    frames: torch.Tensor
    """[n, 640], of all lessons in order."""
    labels: torch.Tensor
    """[n, 2]: the word in each frame, and how many words were said up to there."""
    lengths: list[int]
    """Frames of each recording."""
    said: list[str]
    images: torch.Tensor
    """[m, 64, 6912]."""
    seen: torch.Tensor
    """[m, 3]: colour, shape and place in each image."""


def collate(lessons: Sequence[Lesson], padding: int) -> Batch:
    """A batch of lessons of similar length, padded on the right."""
    length = max(len(lesson.ids) for lesson in lessons)

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (length - len(row)) for row in rows])

    frames = [part for lesson in lessons for part in lesson.frames]
    labels = [part for lesson in lessons for part in lesson.labels]
    images = [image for lesson in lessons for image in lesson.images]
    return Batch(
        ids=padded([lesson.ids for lesson in lessons], padding),
        kinds=padded([lesson.kinds for lesson in lessons], 0),
        scored=padded([[int(each) for each in lesson.scored] for lesson in lessons], 0).bool(),
        frames=torch.from_numpy(np.concatenate(frames) if frames else np.zeros((0, 640), np.float32)),
        labels=torch.from_numpy(np.concatenate(labels) if labels else np.zeros((0, 2), np.int64)),
        lengths=[len(part) for part in frames],
        said=[text for lesson in lessons for text in lesson.said],
        images=torch.from_numpy(np.stack(images) if images else np.zeros((0, 64, 6912), np.float32)),
        seen=torch.tensor([each for lesson in lessons for each in lesson.seen], dtype=torch.long).view(-1, 3),
    )


def rows_of(model: Any, batch: Batch) -> torch.Tensor:
    """Embeddings [B, L, D] of text, sound and pictures."""
    inner = model.model
    rows = inner.language_model.embed_tokens(batch.ids)
    if len(batch.frames):
        sound = inner.embed_audio(batch.frames[None])[0]
        rows = rows.masked_scatter((batch.kinds == AUDIO_KIND)[..., None], sound.to(rows.dtype))
    if len(batch.images):
        places = torch.from_numpy(POSITIONS)[None].expand(len(batch.images), -1, -1)
        seen = inner.embed_vision(batch.images, places).pooler_output
        vision = (batch.kinds == 1) | (batch.kinds == 2)
        rows = rows.masked_scatter(vision[..., None], seen.reshape(-1, seen.shape[-1]).to(rows.dtype))
    return rows


def masks(kinds: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Additive masks [B, 1, L, L]. Full layers are causal; in sliding ones, an image also sees all of itself."""
    length = kinds.shape[1]
    query, key = torch.arange(length)[:, None], torch.arange(length)[None]
    causal, near = (key <= query)[None], (key > query - WINDOW)[None]
    vision = (kinds == 1) | (kinds == 2)
    seen = causal
    if vision.any():
        starts = vision & ~F.pad(vision[:, :-1], (1, 0))
        image_ids = torch.cumsum(starts.int(), 1) * vision
        seen = causal | ((image_ids[:, :, None] == image_ids[:, None]) & (image_ids[:, None] > 0))

    def bias(visible: torch.Tensor) -> torch.Tensor:
        return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]

    return {"full_attention": bias(causal), "sliding_attention": bias(seen & near)}


def hidden_states(model: Any, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
    """[B, L, D] after the final norm."""
    rows = rows_of(model, batch)
    text = model.model.language_model
    return text(inputs_embeds=rows, attention_mask=masks(batch.kinds, dtype), use_cache=False).last_hidden_state


def run_first(model: Any, batch: Batch, dtype: torch.dtype, layers: int) -> None:
    """Run only the first layers; forward hooks keep their hidden states."""
    text = model.model.language_model
    whole = text.layers
    text.layers = whole[:layers]
    try:
        hidden_states(model, batch, dtype)
    finally:
        text.layers = whole


def logits_of(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """[…, V] float32."""
    raw = F.linear(hidden, model.model.language_model.embed_tokens.weight).float()
    return CAP * torch.tanh(raw / CAP)
