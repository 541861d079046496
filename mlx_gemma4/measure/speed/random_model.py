"""Models of random weights in real shapes: what a checkpoint costs to run, without its download.

Quantized weights are made in quantized form, tensor by tensor, so that no more than the model itself is ever held. Each
matrix keeps the size of what it multiplies, so logits are finite, and the embedding is small beside what the layers
add, so a token does not predict itself for ever.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.checkpoint.recipes import find_recipe, recipe_settings, stored_bytes
from mlx_gemma4.checkpoint.setting import Setting
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.decoder.weights import build_model, parameter_shapes

SMALL: dict[str, Any] = {
    "text_config": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "layer_types": TWELVE_B["text_config"]["layer_types"][:6],
        "num_attention_heads": 4,
        "head_dim": 32,
        "num_key_value_heads": 2,
        "global_head_dim": 64,
        "vocab_size": 2048,
        "sliding_window": 256,
    },
    "vision_config": {"mm_embed_dim": 256},
}
"""For CPUs: a step of six layers in the 12B's arrangement, with the demo's width."""
SIZES: dict[str, dict[str, Any]] = {"12b": {}, "small": SMALL}
"""What each size has of its own beside TWELVE_B."""

EMBEDDING_SPREAD = 0.1
"""Standard deviation of an embedded token, beside 1 of what each layer adds."""
LOGIT_SPREAD = 2.0
"""Standard deviation of the logits: the most likely of 262144 tokens is then well below the cap of 30."""
EMBEDDING, FINAL_NORM = "language_model.model.embed_tokens.weight", "language_model.model.norm.weight"
ONES = ("norm.weight", "patch_ln1.weight", "patch_ln2.weight", "layer_scalar")
"""Ends of the names of tensors that scale by one."""


@dataclass(frozen=True)
class RandomCheckpoint:
    """A checkpoint of random weights; equal fields give equal weights.

    Args:
        size: "12b" or "small".
        recipe: How modules are stored: a name of ``checkpoint.recipes``. Of ``qat``, what it makes of weights that were
            trained for Q4_0.
        layers: The first layers only, of which costs can be extrapolated; None takes all.

    Raises:
        ValueError: There is no such size or recipe, or the model has fewer layers.
    """

    size: str
    recipe: str
    layers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"Expected a size of {', '.join(SIZES)} for random weights, got {self.size!r}")
        find_recipe(self.recipe, ())
        count = self._text["num_hidden_layers"]
        if self.layers is not None and not 1 <= self.layers <= count:
            raise ValueError(f"Expected 1 to {count} layers of {self.size}, got {self.layers}")

    @property
    def _text(self) -> dict[str, Any]:
        return {**TWELVE_B["text_config"], **SIZES[self.size].get("text_config", {})}

    @cached_property
    def raw_config(self) -> dict[str, Any]:
        """A whole ``config.json`` in the released dialect; token ids and constants are the demo's."""
        raw = json.loads((demo_folder() / "checkpoint" / "config.json").read_text(encoding="utf-8"))
        text = {key: value for key, value in raw["text_config"].items() if key != "per_layer_config"}
        text |= {**self._text, "hidden_size_per_layer_input": 0, "max_position_embeddings": 262144}
        layers = self.layers or text["num_hidden_layers"]
        text |= {"num_hidden_layers": layers, "layer_types": text["layer_types"][:layers]}
        vision = raw["vision_config"] | TWELVE_B["vision_config"] | SIZES[self.size].get("vision_config", {})
        vision |= {"output_proj_dims": vision["mm_embed_dim"]}
        samples = TWELVE_B["audio_config"]["audio_embed_dim"]
        names = ("audio_embed_dim", "audio_samples_per_token", "output_proj_dims")
        audio = raw["audio_config"] | dict.fromkeys(names, samples)
        raw |= {"text_config": text, "vision_config": vision, "audio_config": audio, "vocab_size": text["vocab_size"]}
        if self.settings:
            commonest = Counter(self.settings.values()).most_common(1)[0][0]
            own = {module: setting.block for module, setting in self.settings.items() if setting != commonest}
            raw |= {key: {**commonest.block, **own} for key in ("quantization", "quantization_config")}
        return raw

    @cached_property
    def config(self) -> Config:
        return Config.from_dict(self.raw_config)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors as if nothing were quantized."""
        layers = self.layers or self._text["num_hidden_layers"]
        text = {**self._text, "num_hidden_layers": layers, "layer_types": self._text["layer_types"][:layers]}
        vision = TWELVE_B["vision_config"] | SIZES[self.size].get("vision_config", {})
        return parameter_shapes(Config.from_dict({**TWELVE_B, "text_config": text, "vision_config": vision}))

    @cached_property
    def settings(self) -> dict[str, Setting]:
        """How each quantized module is stored."""
        return recipe_settings(self.recipe, self.shapes)

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return stored_bytes(self.shapes, self.settings)

    def tensors(self) -> Iterator[tuple[str, mx.array]]:
        """All tensors under the model's names, each computed when it is asked for, but not evaluated."""
        for index, (name, shape) in enumerate(self.shapes.items()):
            key = mx.random.key(self.seed + 1_000_003 * index)
            module = name.removesuffix(".weight")
            if name.endswith(ONES):
                value = LOGIT_SPREAD / EMBEDDING_SPREAD if name == FINAL_NORM else 1.0
                yield name, mx.full(shape, value, dtype=mx.bfloat16)
            elif name.endswith(".bias"):
                yield name, mx.zeros(shape, dtype=mx.bfloat16)
            elif module in self.settings:
                parts = _quantized(shape, self.settings[module], _spread(name, shape), key)
                yield from zip((name, f"{module}.scales", f"{module}.biases"), parts, strict=False)
            else:
                widest = math.sqrt(3) * _spread(name, shape)  # of a uniform distribution
                yield name, mx.random.uniform(-widest, widest, shape, dtype=mx.bfloat16, key=key)

    def model(self, progress: Callable[[int], None] = lambda done: None) -> Model:
        """The model, evaluated.

        Args:
            progress: Called with the bytes that were made so far.
        """
        weights, done = dict[str, mx.array](), 0
        for name, tensor in self.tensors():
            mx.eval(tensor)
            weights[name] = tensor
            done += tensor.nbytes
            mx.clear_cache()  # random numbers take more room than what is made of them
            progress(done)
        return build_model(self.config, weights)


def random_model(size: str, recipe: str, *, layers: int | None = None, seed: int = 0) -> Model:
    """A model of random weights (``RandomCheckpoint``)."""
    return RandomCheckpoint(size, recipe, layers, seed).model()


def _spread(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a tensor's values: a product keeps the size of what goes in."""
    return (EMBEDDING_SPREAD if name == EMBEDDING else 1.0) / math.sqrt(shape[-1])


def _quantized(shape: tuple[int, ...], setting: Setting, spread: float, key: mx.array) -> tuple[mx.array, ...]:
    """Random codes, scales and, in affine mode, biases of values of this standard deviation around 0."""
    rows, columns = shape
    codes = _codes((rows, columns * setting.bits // 32), setting, key)
    groups = rows, columns // setting.group_size
    unit, middle = _unit(setting)
    if setting.mode == "affine":
        scale = spread / unit
        return codes, mx.full(groups, scale, dtype=mx.bfloat16), mx.full(groups, -scale * middle, dtype=mx.bfloat16)
    return codes, mx.full(groups, _scale_code(spread / unit, setting), dtype=mx.uint8)


def _codes(shape: tuple[int, int], setting: Setting, key: mx.array) -> mx.array:
    """Random words. Of mxfp8 without the highest exponents, among which is NaN."""
    rows, count = shape
    halves = mx.random.randint(0, 2**16, (rows, 2 * count), dtype=mx.uint16, key=key)  # 24 bits are random in a draw
    words = halves.view(mx.uint32)
    return words & mx.array(0xBFBFBFBF, dtype=mx.uint32) if setting.mode == "mxfp8" else words


@cache
def _unit(setting: Setting) -> tuple[float, float]:
    """Standard deviation and mean of the values of random codes under a scale of 1."""
    if setting.mode == "affine":
        return math.sqrt((4**setting.bits - 1) / 12), (2**setting.bits - 1) / 2
    count = 16384
    codes = _codes((1, count * setting.bits // 32), setting, mx.random.key(0))
    scales = mx.full((1, count // setting.group_size), _scale_code(1.0, setting), dtype=mx.uint8)
    values = mx.dequantize(
        codes, scales, None, group_size=setting.group_size, bits=setting.bits, mode=setting.mode, dtype=mx.float32
    )
    return float(np.array(values).std()), 0.0


def _scale_code(scale: float, setting: Setting) -> int:
    """A scale as a byte: a power of two (E8M0), or of nvfp4 a number in E4M3."""
    if setting.mode == "nvfp4":
        return int(np.array(mx.to_fp8(mx.array([scale])))[0])
    return 127 + round(math.log2(scale))
