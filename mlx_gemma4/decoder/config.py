"""``config.json`` as frozen dataclasses: sizes, layer types and token ids. Fields have the names of the file.

Both dialects are read: the released one (``global_head_dim``, ``num_global_key_value_heads``), and the one that
transformers saves since 5.23 (``per_layer_config``). No size has a default: a missing one is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.checkpoint.json_file import (
    array,
    flag,
    read_json,
    real,
    shown,
    token_ids,
    typed,
    whole,
)
from mlx_gemma4.decoder.config_fields import (
    DRAFTER,
    dimension,
    epsilon,
    missing,
    need,
    optional_token_id,
    positive,
    quantization_of,
    section,
)
from mlx_gemma4.decoder.per_layer import per_layer_sizes

SLIDING = "sliding_attention"
FULL = "full_attention"

MOST_LAYERS, MOST_VOCABULARY, MOST_WIDTH, MOST_HEADS, MOST_HEAD_DIM, MOST_PATCH = (
    1024,
    2**24,
    2**20,
    2**12,
    2**16,
    2**12,
)
"""Bounds far above the 12B's sizes. A model of these sizes is still built, lazily, in a second and 0.3 GB; then its
shapes are compared with those of the tensors. No product of two that make a dimension exceeds 32 bits."""
_WHOLE = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype"),
    *("tie_word_embeddings", "transformers_version"),
)
"""Keys that ``config.json`` has at the top as well as in ``text_config``."""


@dataclass(frozen=True)
class LayerConfig:
    """The sizes in which decoder layers differ."""

    layer_type: str
    head_dim: int
    num_key_value_heads: int
    k_eq_v: bool
    """Values are the raw key projection; the layer has no ``v_proj``."""

    @property
    def is_sliding(self) -> bool:
        return self.layer_type == SLIDING


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding of one layer type; ``partial_rotary_factor`` is the share of pairs that rotate."""

    rope_theta: float
    partial_rotary_factor: float


@dataclass(frozen=True)
class TextConfig:
    """The decoder."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    vocab_size: int
    sliding_window: int
    rms_norm_eps: float
    final_logit_softcapping: float | None
    layers: tuple[LayerConfig, ...]
    rope: Mapping[str, RopeConfig]
    image_blocks: bool
    """An image attends inside itself on sliding layers (``use_bidirectional_attention: "vision"``)."""
    eos_token_ids: tuple[int, ...]
    max_position_embeddings: int | None = None
    """Positions of the longest sequence that the checkpoint was made for; None if it does not say."""


@dataclass(frozen=True)
class VisionConfig:
    """The projection of pixel patches."""

    model_patch_size: int
    """Side of a patch in pixels (48 in the 12B)."""
    mm_embed_dim: int
    mm_posemb_size: int
    """Rows of the position table: the largest x or y of a patch, plus one."""
    rms_norm_eps: float

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: height × width × 3 channels."""
        return self.model_patch_size**2 * 3


@dataclass(frozen=True)
class AudioConfig:
    """The projection of audio frames."""

    audio_embed_dim: int
    """Samples in one frame (640, 40 ms at 16 kHz, in the 12B)."""
    rms_norm_eps: float


@dataclass(frozen=True)
class TokenIds:
    """Ids of the placeholders of media and of the markers around them; None if the checkpoint names none."""

    image: int | None
    audio: int | None
    video: int | None
    image_begin: int | None
    image_end: int | None
    audio_begin: int | None
    audio_end: int | None


@dataclass(frozen=True)
class Config:
    """A whole checkpoint. ``vision_config`` and ``audio_config`` are None in text-only checkpoints."""

    text_config: TextConfig
    vision_config: VisionConfig | None
    audio_config: AudioConfig | None
    token_ids: TokenIds
    quantization: Mapping[str, Any] | None
    """The ``quantization`` block of an MLX conversion: defaults, and an entry for each module that differs."""
    eos_token_ids: tuple[int, ...]
    """Tokens that end an answer, from the top of the file and from ``text_config``."""
    bos_token_id: int | None

    @classmethod
    def from_file(cls, path: Path) -> Config:
        """Read ``config.json``.

        Raises:
            ValueError: The file is missing, is not JSON, or lacks a size; the message names it.
        """
        if not has_file(path):
            raise ValueError(
                f"There is no config.json of a checkpoint at {path}; "
                "name a folder that holds one, a Hugging Face repo id, or 'demo'"
            )
        with typed(path):
            return cls.from_dict(read_json(path))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Config:
        """Build from the parsed ``config.json``, in either dialect.

        Raises:
            ValueError: A size is missing (named), or the checkpoint is of another architecture.
        """
        raw = with_text_config(raw)
        model_type = raw.get("model_type")
        if model_type == DRAFTER:
            raise ValueError(
                "This is a drafter, which runs beside a model: name the model with --model, and this with --draft-model"
            )
        if not str(model_type).startswith("gemma4"):
            raise ValueError(f"Expected a Gemma 4 12B checkpoint (model_type gemma4_unified), got {shown(model_type)}")
        if raw.get("tie_word_embeddings") is False:
            raise ValueError("config.json sets tie_word_embeddings to false: only tied embeddings are supported")
        vision, audio = raw.get("vision_config"), raw.get("audio_config")
        text = section(raw, "text_config", "config.json")
        text_config = text_config_of(text)
        top = token_ids(raw.get("eos_token_id"), "'eos_token_id' in config.json")
        return cls(
            text_config=text_config,
            vision_config=None if vision is None else _vision_config(section(raw, "vision_config", "config.json")),
            audio_config=None if audio is None else _audio_config(section(raw, "audio_config", "config.json")),
            token_ids=TokenIds(
                image=optional_token_id(raw, "image_token_id"),
                audio=optional_token_id(raw, "audio_token_id"),
                video=optional_token_id(raw, "video_token_id"),
                image_begin=optional_token_id(raw, "boi_token_id"),
                image_end=optional_token_id(raw, "eoi_token_id"),
                audio_begin=optional_token_id(raw, "boa_token_id"),
                # released configs spell it this way
                audio_end=optional_token_id(raw, "eoa_token_index" if "eoa_token_index" in raw else "eoa_token_id"),
            ),
            quantization=quantization_of(raw),
            eos_token_ids=tuple(dict.fromkeys((*top, *text_config.eos_token_ids))),
            bos_token_id=optional_token_id(raw if raw.get("bos_token_id") is not None else text, "bos_token_id"),
        )


@dataclass(frozen=True)
class GenerationConfig:
    """``generation_config.json``: how to sample, the tokens that end an answer, and those that are never sampled."""

    eos_token_ids: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    """0 (greedy) if the file does not ask for sampling."""
    top_k: int = 0
    top_p: float = 1.0
    bos_token_id: int | None = None

    @classmethod
    def from_file(cls, path: Path) -> GenerationConfig:
        """Read the file. Without one, decoding is greedy and nothing is suppressed."""
        if not has_file(path):
            return cls()
        raw = {key: value for key, value in read_json(path).items() if value is not None}
        temperature = real(raw.get("temperature", 1.0), f"'temperature' in {path}")
        samples = flag(raw.get("do_sample", "temperature" in raw), f"'do_sample' in {path}")
        return cls(
            eos_token_ids=token_ids(raw.get("eos_token_id"), f"'eos_token_id' in {path}"),
            suppress_tokens=token_ids(raw.get("suppress_tokens"), f"'suppress_tokens' in {path}"),
            temperature=temperature if samples else 0.0,
            top_k=whole(raw.get("top_k", 0), f"'top_k' in {path}", least=0),
            top_p=real(raw.get("top_p", 1.0), f"'top_p' in {path}", most=1.0) or 1.0,
            bos_token_id=next(iter(token_ids(raw.get("bos_token_id"), f"'bos_token_id' in {path}")), None),
        )


def with_text_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """A ``config.json`` with its decoder under ``text_config``.

    Text-only exports (``AutoModelForCausalLM``, model_type ``gemma4_unified_text``) have it at the top of the file.
    """
    if "text_config" in raw or "num_hidden_layers" not in raw:
        return raw
    blocks = ("quantization", "quantization_config")
    text = {key: value for key, value in raw.items() if key not in blocks}
    whole = {key: raw[key] for key in (*_WHOLE, *blocks) if key in raw}
    model_type = str(raw.get("model_type")).removesuffix("_text")
    return {**whole, "model_type": model_type, "text_config": text, "vision_config": None, "audio_config": None}


def text_config_of(raw: Mapping[str, Any]) -> TextConfig:
    where = "text_config"
    _refuse_other_models(raw)
    softcap = raw.get("final_logit_softcapping")
    return TextConfig(
        hidden_size=dimension(raw, "hidden_size", where, MOST_WIDTH),
        intermediate_size=dimension(raw, "intermediate_size", where, MOST_WIDTH),
        num_attention_heads=dimension(raw, "num_attention_heads", where, MOST_HEADS),
        vocab_size=dimension(raw, "vocab_size", where, MOST_VOCABULARY),
        sliding_window=dimension(raw, "sliding_window", where),
        rms_norm_eps=real(need(raw, "rms_norm_eps", where), f"'rms_norm_eps' in {where}", most=1.0),
        final_logit_softcapping=None if softcap is None else positive(softcap, f"'final_logit_softcapping' in {where}"),
        layers=_layers(raw),
        rope=_rope(raw),
        image_blocks=raw.get("use_bidirectional_attention") == "vision",
        eos_token_ids=token_ids(raw.get("eos_token_id"), f"'eos_token_id' in {where}"),
        max_position_embeddings=None
        if raw.get("max_position_embeddings") is None
        else dimension(raw, "max_position_embeddings", where),
    )


def _refuse_other_models(raw: Mapping[str, Any]) -> None:
    """Refuse features of other Gemma 4 sizes: a model that ignored them would be wrong."""
    for key in ("num_kv_shared_layers", "hidden_size_per_layer_input", "enable_moe_block"):
        if raw.get(key):
            raise ValueError(f"This checkpoint is not of Gemma 4 12B but of another size ({key} = {shown(raw[key])})")
    if raw.get("use_bidirectional_attention") not in ("vision", None):
        raise ValueError(
            "Expected use_bidirectional_attention 'vision' or null in text_config, "
            f"got {shown(raw['use_bidirectional_attention'])}"
        )
    if raw.get("tie_word_embeddings") is False:
        raise ValueError("text_config sets tie_word_embeddings to false: only tied embeddings are supported")
    if raw.get("attention_bias"):
        raise ValueError("text_config sets attention_bias to true: attention with biases is not supported")
    activation = raw.get("hidden_activation")
    if activation != "gelu_pytorch_tanh":
        raise ValueError(f"Expected hidden_activation 'gelu_pytorch_tanh' in text_config, got {shown(activation)}")


def _layers(raw: Mapping[str, Any]) -> tuple[LayerConfig, ...]:
    count = dimension(raw, "num_hidden_layers", "text_config", most=MOST_LAYERS)
    types = array(need(raw, "layer_types", "text_config"), "'layer_types' in text_config")
    if len(types) != count:
        raise ValueError(f"Expected {count} layer_types in text_config (num_hidden_layers), got {len(types)}")
    unknown = [each for each in types if each not in (SLIDING, FULL)]
    if unknown:
        raise ValueError(f"Expected layer_types {SLIDING!r} or {FULL!r} in text_config, got {shown(unknown)}")
    own = None if raw.get("per_layer_config") is None else per_layer_sizes(raw, count)
    return tuple(
        _layer(raw, index, layer_type, None if own is None else own.get(index, {}))
        for index, layer_type in enumerate(types)
    )


def _layer(raw: Mapping[str, Any], index: int, layer_type: str, own: Mapping[str, Any] | None) -> LayerConfig:
    """``own`` are the layer's sizes in ``per_layer_config``; None in the released dialect, which has no such table."""
    where = "text_config"
    k_eq_v = bool(raw.get("attention_k_eq_v")) and layer_type == FULL
    sizes, kv_heads_key, head_dim_key = raw, "num_key_value_heads", "head_dim"
    if own is not None:
        sizes = {**raw, **own}
        if own or layer_type == FULL:
            where = f"text_config.per_layer_config[{str(index)!r}]"
        if layer_type == FULL and "head_dim" not in own:
            raise missing("head_dim", where)
    elif layer_type == FULL:
        head_dim_key = "global_head_dim"
        kv_heads_key = "num_global_key_value_heads" if k_eq_v else kv_heads_key
    kv_heads = dimension(sizes, kv_heads_key, where, MOST_HEADS)
    heads = dimension(raw, "num_attention_heads", "text_config", MOST_HEADS)
    if heads % kv_heads:
        raise ValueError(f"Expected {kv_heads_key!r} in {where} to divide the {heads} attention heads, got {kv_heads}")
    head_dim = dimension(sizes, head_dim_key, where, MOST_HEAD_DIM)
    if head_dim % 2:
        raise ValueError(f"Expected an even number for {head_dim_key!r} in {where}, got {head_dim}")
    return LayerConfig(layer_type, head_dim, kv_heads, k_eq_v)


def _rope(raw: Mapping[str, Any]) -> dict[str, RopeConfig]:
    tables = section(raw, "rope_parameters", "text_config")
    rope = {}
    for layer_type, expected in ((SLIDING, "default"), (FULL, "proportional")):
        if layer_type not in raw["layer_types"]:
            continue
        where = f"text_config.rope_parameters.{layer_type}"
        own = section(tables, layer_type, "text_config.rope_parameters")
        if own.get("rope_type") != expected:
            raise ValueError(f"Expected rope_type {expected!r} in {where}, got {shown(own.get('rope_type'))}")
        share = need(own, "partial_rotary_factor", where) if expected == "proportional" else 1.0
        rope[layer_type] = RopeConfig(
            positive(need(own, "rope_theta", where), f"'rope_theta' in {where}"),
            real(share, f"'partial_rotary_factor' in {where}", most=1.0),
        )
    return rope


def _vision_config(raw: Mapping[str, Any]) -> VisionConfig:
    where = "vision_config"
    if raw.get("model_patch_size") is None:
        sizes = ("patch_size", "pooling_kernel_size")
        side = whole(
            prod(dimension(raw, key, where) for key in sizes), f"their product, the patch, in {where}", most=MOST_PATCH
        )
    else:
        side = dimension(raw, "model_patch_size", where, MOST_PATCH)
    return VisionConfig(
        model_patch_size=side,
        mm_embed_dim=dimension(raw, "mm_embed_dim", where, MOST_WIDTH),
        mm_posemb_size=dimension(raw, "mm_posemb_size", where, MOST_WIDTH),
        rms_norm_eps=epsilon(raw, where),
    )


def _audio_config(raw: Mapping[str, Any]) -> AudioConfig:
    where = "audio_config"
    names = [name for name in ("audio_embed_dim", "audio_samples_per_token") if raw.get(name) is not None]
    size = dimension(raw, (names or ["audio_embed_dim"])[0], where, MOST_WIDTH)
    return AudioConfig(audio_embed_dim=size, rms_norm_eps=epsilon(raw, where))
