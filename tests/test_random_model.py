"""Random models: real sizes, weights that keep states finite, and what a step reads of them."""

from __future__ import annotations

import itertools
from math import prod

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4 import Session, load
from mlx_gemma4.checkpoint.recipes import RECIPES
from mlx_gemma4.convert.sizes import plan_of_12b
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.measure.speed.bandwidth import bytes_read_per_token, copy_bandwidth
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint, random_model
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import generate_step


def nbytes(model: Model) -> int:
    return sum(tensor.nbytes for _, tensor in tree_flatten(model.parameters()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_makes_of_the_12b_what_the_converter_makes_of_it(recipe: str) -> None:
    checkpoint, plan = RandomCheckpoint("12b", recipe), plan_of_12b(recipe)
    assert checkpoint.nbytes == plan.nbytes
    assert checkpoint.raw_config.get("quantization") == plan.quantization
    assert sum(map(prod, checkpoint.shapes.values())) == plan.parameters
    assert len(checkpoint.config.text_config.layers) == 48
    assert checkpoint.config.text_config.vocab_size == 262144


@pytest.mark.parametrize("recipe", RECIPES)
def test_logits_are_finite_and_text_is_not_degenerate(recipe: str) -> None:
    checkpoint = RandomCheckpoint("small", recipe)
    model = checkpoint.model()
    assert nbytes(model) == checkpoint.nbytes
    session = Session(model)
    logits = session.extend(range(300, 308))
    assert 1 < mx.std(logits.astype(mx.float32)).item() < 3  # type: ignore[operator]
    tokens = list(generate_step(session, logits, Sampler(Sampling(), 2048), max_tokens=5))
    assert len(set(tokens)) > 3


def test_equal_seeds_give_equal_weights() -> None:
    def tensors(seed: int) -> dict[str, np.ndarray]:
        checkpoint = RandomCheckpoint("small", "4bit", 2, seed)
        return {name: np.array(tensor.astype(mx.float32)) for name, tensor in checkpoint.tensors()}

    one, same, other = tensors(1), tensors(1), tensors(2)
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    assert all(np.array_equal(one[key], same[key]) for key in one)
    assert not np.array_equal(one[name], other[name])
    assert not np.array_equal(one[name], one[name.replace("up", "gate")])


def test_the_first_layers_only() -> None:
    model = random_model("small", "bf16", layers=2)
    whole = RandomCheckpoint("small", "bf16")
    assert len(model.language_model.model.layers) == 2
    assert [layer.layer_type for layer in model.config.text_config.layers] == ["sliding_attention"] * 2
    others = sum(
        prod(shape) for name, shape in whole.shapes.items() if any(f".layers.{n}." in name for n in range(2, 6))
    )
    assert nbytes(model) == whole.nbytes - 2 * others


def test_progress_counts_bytes() -> None:
    checkpoint, seen = RandomCheckpoint("small", "4bit", 1), list[int]()
    checkpoint.model(seen.append)
    assert seen[-1] == checkpoint.nbytes
    assert all(one < two for one, two in itertools.pairwise(seen))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("7b", "4bit", None), "Expected a size of 12b, small for random weights, got '7b'"),
        (("small", "4bit", 7), "Expected 1 to 6 layers of small, got 7"),
        (("12b", "4bit", 0), "Expected 1 to 48 layers of 12b, got 0"),
        (("small", "5bit", None), "Expected a recipe of 4bit, mixed, 8bit"),
    ],
)
def test_what_there_is_not(fields: tuple[str, str, int | None], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        RandomCheckpoint(*fields)
    assert str(raised.value).startswith(text)


def test_bytes_that_a_step_reads() -> None:
    """All weights but those of sound and pictures; keys and values as far as each layer sees."""
    model, _ = load("demo")
    media = ("vision_embedder.", "embed_vision.", "embed_audio.")
    decoder = sum(2 * tensor.size for name, tensor in tree_flatten(model.parameters()) if not name.startswith(media))
    assert bytes_read_per_token(model) == decoder
    sliding, full = 4 * 2 * 2 * 64 * 2, 2 * 2 * 1 * 128 * 2  # layers · (K, V) · heads · head size · bytes
    assert bytes_read_per_token(model, 10) - decoder == 10 * (sliding + full)
    assert bytes_read_per_token(model, 1000) - decoder == 191 * sliding + 1000 * full  # a window of 192, with itself


def test_a_quantized_step_reads_packed_weights() -> None:
    checkpoint = RandomCheckpoint("small", "4bit")
    media = sum(2 * prod(shape) for name, shape in checkpoint.shapes.items() if not name.startswith("language_model."))
    assert bytes_read_per_token(checkpoint.model()) == checkpoint.nbytes - media


def test_the_bandwidth_of_a_copy() -> None:
    """Read and written bytes by the median time, the first copy left out."""
    times = iter([0, 100, 200, 201, 300, 302, 400, 403])
    assert copy_bandwidth(4096, copies=3, clock=lambda: next(times)) == 2 * 4096 / 2
