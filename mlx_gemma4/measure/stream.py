"""Two checkpoints run side by side, layer by layer, so that neither is ever in memory as a whole.

    embed         both embedders          hidden states of every sequence, twice
    run_layers    layer 0, 1, … of both   all sequences pass one layer, then it is released
    score         both heads              logits, a few rows at a time

Each stage opens both checkpoints again. Weights are read when they are first used and released with their stage; only
the hidden states stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_gemma4.decoder.cache import Cache
from mlx_gemma4.decoder.config import LayerConfig
from mlx_gemma4.decoder.masks import number_images
from mlx_gemma4.decoder.model import DecoderLayer, Model, softcap
from mlx_gemma4.decoder.weights import load_model
from mlx_gemma4.inputs.prompt import AUDIO, TEXT, Prompt
from mlx_gemma4.measure.probes import Probe
from mlx_gemma4.measure.tokens import Tokens, compare
from mlx_gemma4.measure.twins import RelativeError, dequantize, pair_up

HEAD_ROWS = 64
"""Rows whose logits are computed at a time: 64 of 262144 float32 are 67 MB, and several are needed."""
HEAD_TOKENS = 16384
"""Tokens of the vocabulary whose rows of the head are held in float32 at a time."""

LAYERS = "language_model.model.layers"

States = list[tuple[mx.array, mx.array]]
"""Hidden states [1, L, D] of each sequence, the reference's and the model's."""


@dataclass(frozen=True)
class Pair:
    """Two checkpoint folders, and the type to compute in.

    In bfloat16 the rounding of activations outweighs the error of 8 bits: logits near the cap are 1/8 apart, and tie.
    """

    reference: Path
    model: Path
    dtype: mx.Dtype = mx.float32
    kv_bits: int | None = None
    """Bits in which the model stores keys and values of full layers; the reference stores them as they are computed."""

    def open(self) -> tuple[Model, Model]:
        """Both models; no weights are read yet."""
        reference, model = (load_model(each, dtype=self.dtype, lazy=True) for each in (self.reference, self.model))
        model.kv_bits = self.kv_bits
        return reference, model

    def open_ends(self) -> tuple[Model, Model]:
        """Both without their layers: embedders and head. A plain embedding keeps its stored type."""
        reference, model = (load_model(each, lazy=True) for each in (self.reference, self.model))
        for each in (reference, model):
            each.language_model.model.layers = []
            embedding = each.language_model.model.embed_tokens
            weight = embedding.weight
            each.set_dtype(self.dtype)
            embedding.weight = weight  # 2 GB, of which a few rows are needed at a time
            dequantize(each, self.dtype)
        return reference, model

    def check(self, state: tuple[mx.array, mx.array], where: str) -> None:
        """Raise a ValueError that names the checkpoint if a state is not finite."""
        for folder, h in zip((self.reference, self.model), state, strict=True):
            if not mx.isfinite(h).all():
                raise ValueError(
                    f"{folder} computes NaN or infinity in {where}: use --dtype bfloat16 if float16 is too narrow; "
                    "otherwise the weights are damaged"
                )


def embed(pair: Pair, prompts: Sequence[Prompt]) -> tuple[States, dict[str, float]]:
    """The embeddings of all sequences, and the errors of the modules that compute them."""
    reference, model = pair.open_ends()
    module_errors = pair_up(reference, model)
    states = []
    for prompt in prompts:
        states.append((_rows(reference, prompt), _rows(model, prompt)))
        mx.eval(states[-1])
        pair.check(states[-1], "the embedding")
    return states, _values(module_errors)


def run_layers(
    pair: Pair, states: States, prompts: Sequence[Prompt], progress: Callable[[str], None]
) -> tuple[list[float], dict[str, float]]:
    """Run ``states`` through all layers, in place.

    Returns the drift after each layer (the relative error of the hidden states) and the errors of the modules.
    """
    models = pair.open()
    configs = models[0].config.text_config.layers
    stacks = [each.language_model.model.layers for each in models]
    drifts, errors = [], dict[str, float]()
    for index, config in enumerate(configs):
        progress(f"layer {index + 1} of {len(configs)}")
        reference, model = (stack.pop(0) for stack in stacks)
        dequantize(reference, models[0].dtype)
        dequantize(model, models[1].dtype)
        module_errors, drift = pair_up(reference, model), RelativeError()
        for number, prompt in enumerate(prompts):
            before = states[number]
            after = [
                _through(layer, h, whole_model, config, prompt)
                for layer, h, whole_model in zip((reference, model), before, models, strict=True)
            ]
            mx.eval(after)
            states[number] = (after[0], after[1])
            pair.check(states[number], f"layer {index}")
            drift.add(after[1], after[0])
        drifts.append(drift.value or 0.0)
        errors |= {f"{LAYERS}.{index}.{name}": error for name, error in _values(module_errors).items()}
        del reference, model, module_errors
        mx.clear_cache()  # the next layer's buffers may have other sizes
    return drifts, errors


def score(pair: Pair, states: States, probes: Sequence[Probe]) -> list[Tokens]:
    """Compare the predictions of both from the hidden states after the last layer; Tokens for each probe."""
    reference, model = pair.open_ends()
    scored = []
    for (expected, got), probe in zip(states, probes, strict=True):
        ids = probe.prompt.token_ids
        parts = []
        for start in range(len(ids) - probe.scored, len(ids), HEAD_ROWS):
            stop = min(start + HEAD_ROWS, len(ids))
            rows = slice(start - 1, stop - 1)  # a row predicts the token after it
            logits = [_logits(each, h[:, rows]) for each, h in ((reference, expected), (model, got))]
            parts.append(compare(logits[0], logits[1], ids[start:stop]))
        scored.append(Tokens.join(parts))
    return scored


def _logits(model: Model, h: mx.array) -> mx.array:
    """[1, n, D] → [n, V]. The head is dequantized in parts, because all of it may be 4 GB."""
    h = model.language_model.model.norm(h)[0]
    config, embedding = model.config.text_config, model.language_model.model.embed_tokens
    parts = []
    for start in range(0, config.vocab_size, HEAD_TOKENS):
        ids = mx.arange(start, min(start + HEAD_TOKENS, config.vocab_size))
        parts.append(h @ embedding(ids).astype(h.dtype).T)
        mx.eval(parts)
    logits = mx.concatenate(parts, axis=-1)
    cap = config.final_logit_softcapping
    return logits if cap is None else softcap(logits, cap)


def _through(layer: DecoderLayer, h: mx.array, model: Model, config: LayerConfig, prompt: Prompt) -> mx.array:
    """Run a whole sequence through one layer."""
    text = model.config.text_config
    vision = prompt.is_vision
    cache = Cache([config], window=text.sliding_window, room=0, kv_bits=model.kv_bits)
    full, sliding = cache.masks(len(prompt), number_images(vision) if text.image_blocks and vision.any() else None)
    return layer(h, sliding if config.is_sliding else full, cache.layers[0])


def _rows(model: Model, prompt: Prompt) -> mx.array:
    """[1, L, D], as ``Session`` computes them."""
    rows = []
    for span in prompt.spans():
        if span.token_types[0] == TEXT:
            embedded = model.language_model.model.embed_tokens(mx.array(span.token_ids)[None])
            rows.append(embedded.astype(model.dtype) * model.config.text_config.hidden_size**0.5)
        elif span.token_types[0] == AUDIO:
            rows.append(model.embed_frames(mx.array(span.frames)[None]))
        else:
            rows.append(model.embed_image(mx.array(span.patches)[None], mx.array(span.patch_xy)[None]))
    return mx.concatenate(rows, axis=1)


def _values(errors: dict[str, RelativeError]) -> dict[str, float]:
    return {name: error.value for name, error in errors.items() if error.value is not None}
