"""Text-only exports, whose config.json is the decoder's alone; and types that differ between tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from make_random_checkpoint import RELEASED
from mlx.utils import tree_flatten
from quantized_checkpoints import stored
from reference_cases import DATA, reference_case
from small_files import DEMO, demo_copy

from mlx_gemma4 import Session, load
from mlx_gemma4.convert.run import convert
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.weights import compute_type, load_model

SAVED = DATA / "transformers-5.24" / "twelve-layers"
TEXT = reference_case("released", "text").prompt
Rename = Callable[[str], str]


def causal_lm(name: str) -> str:
    """As Gemma4UnifiedForCausalLM saves it."""
    return name.replace("model.language_model.", "model.")


def text_model(name: str) -> str:
    """As Gemma4UnifiedTextModel does, which is inside it."""
    return name.removeprefix("model.language_model.")


def text_only(folder: Path, rename: Rename = causal_lm, model_type: str = "gemma4_unified_text") -> Path:
    """The checkpoint of twelve layers without its media, in one file."""
    folder.mkdir()
    for path in RELEASED.iterdir():
        if path.name not in ("config.json", "model.safetensors", "processor_config.json"):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((SAVED / "config.json").read_text())
    flat = config["text_config"] | {"model_type": model_type, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(flat))
    tensors = {rename(name): tensor for name, tensor in stored(SAVED).items() if ".language_model." in name}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def logits(folder: Path) -> np.ndarray:
    model = load_model(folder, dtype=mx.float32)
    return np.array(Session(model).extend(TEXT, logits_from=0))


@pytest.mark.parametrize("rename", [causal_lm, text_model, lambda name: name])
@pytest.mark.parametrize("model_type", ["gemma4_unified_text", "gemma4_text"])
def test_text_only_exports(tmp_path: Path, rename: Rename, model_type: str) -> None:
    """They compute what the whole checkpoint does, under any names."""
    folder = text_only(tmp_path / "text", rename, model_type)
    model, processor = load(folder)
    assert (model.config.vision_config, model.config.audio_config) == (None, None)
    assert (processor.bos_id, processor.stop_ids) == (2, {1, 5, 20})
    np.testing.assert_array_equal(logits(folder), logits(SAVED))
    with pytest.raises(ValueError, match="The checkpoint takes no image input; use one that is not text-only"):
        processor.prompt([{"role": "user", "content": [{"type": "image", "image": np.zeros((9, 9, 3), np.uint8)}]}])


def test_text_only_exports_converted(tmp_path: Path) -> None:
    """In the layout that other readers of MLX checkpoints know, quantized or not; and from that again."""
    source = text_only(tmp_path / "text")
    convert(source, tmp_path / "plain", recipe="bf16")
    np.testing.assert_array_equal(logits(tmp_path / "plain"), logits(source))
    told = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (told["model_type"], told["vision_config"], told["audio_config"]) == ("gemma4_unified", None, None)
    assert told["text_config"]["global_head_dim"] == 32 and told["eos_token_id"] == [1, 5]
    convert(source, tmp_path / "8bit", recipe="bf16", modules=["*.layers.*_proj=8/32"])
    convert(tmp_path / "8bit", tmp_path / "back", recipe="bf16")
    np.testing.assert_allclose(logits(tmp_path / "back"), logits(tmp_path / "8bit"), atol=0.5)


def test_a_quantized_export(tmp_path: Path) -> None:
    """The block of quantization stays where readers look for it: at the top, by the export's own names."""
    source = text_only(tmp_path / "text")
    convert(source, tmp_path / "nested", recipe="bf16", modules=["*.layers.*_proj=8/32"])
    told = json.loads((tmp_path / "nested" / "config.json").read_text())
    block = {key.removeprefix("language_model."): value for key, value in told["quantization"].items()}
    flat = told["text_config"] | {"model_type": "gemma4_text", "quantization": block, "quantization_config": block}
    (source / "config.json").write_text(json.dumps(flat))
    tensors = {name.removeprefix("language_model."): tensor for name, tensor in stored(tmp_path / "nested").items()}
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    np.testing.assert_array_equal(logits(source), logits(tmp_path / "nested"))


def test_a_flat_config_of_another_size() -> None:
    """It is refused as the same in a text_config is."""
    flat = json.loads((SAVED / "config.json").read_text())["text_config"] | {"hidden_size_per_layer_input": 256}
    with pytest.raises(ValueError, match="This checkpoint is not of Gemma 4 12B but of another size"):
        Config.from_dict(flat)


def changed_types(folder: Path, dtype: Callable[[str, mx.array], mx.Dtype]) -> Path:
    """The demo with tensors in other types."""
    demo_copy(folder)
    tensors = {name: tensor.astype(dtype(name, tensor)) for name, tensor in stored(DEMO).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def nbytes(folder: Path) -> int:
    return sum(tensor.nbytes for _, tensor in tree_flatten(load_model(folder).parameters()))


@pytest.mark.parametrize(
    "wide",
    [
        lambda name, tensor: tensor.ndim == 1,
        lambda name, tensor: name.endswith("language_model.norm.weight"),
        lambda name, tensor: "vision_embedder" in name,
        lambda name, tensor: name.endswith("layer_scalar"),
    ],
    ids=["norms", "last norm", "vision", "scalars"],
)
def test_float32_beside_bfloat16(tmp_path: Path, wide: Callable[[str, mx.array], bool]) -> None:
    """What is kept in float32 beside the matrices does not double them."""
    folder = changed_types(tmp_path / "mixed", lambda name, tensor: mx.float32 if wide(name, tensor) else mx.bfloat16)
    model, _ = load(folder)
    assert {tensor.dtype for _, tensor in tree_flatten(model.parameters())} == {mx.bfloat16} == {model.dtype}
    assert nbytes(folder) == nbytes(DEMO)


def test_a_conversion_of_float32_beside_bfloat16(tmp_path: Path) -> None:
    """It keeps each tensor's type, and what it quantized computes in the matrices' type too."""
    folder = changed_types(tmp_path / "mixed", lambda _, tensor: mx.float32 if tensor.ndim == 1 else mx.bfloat16)
    for recipe in ("bf16", "8bit", "mxfp4"):
        convert(folder, tmp_path / recipe, recipe=recipe)
        assert load_model(tmp_path / recipe).dtype == mx.bfloat16
    convert(tmp_path / "mxfp4", tmp_path / "back", recipe="bf16")
    assert {tensor.dtype for tensor in stored(tmp_path / "back").values() if tensor.ndim > 1} == {mx.bfloat16}


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([(mx.bfloat16, (64, 64)), (mx.float32, (10_000,))], mx.bfloat16),
        ([(mx.float32, (64, 64)), (mx.bfloat16, (10_000,))], mx.float32),
        ([(mx.float16, (64, 64)), (mx.bfloat16, (64, 32))], mx.float16),
        ([(mx.uint32, (64, 8)), (mx.float16, (64, 1)), (mx.float32, (64,))], mx.float16),
        ([(mx.uint32, (64, 8)), (mx.uint8, (64, 2)), (mx.float16, (64,)), (mx.float32, (1,))], mx.float16),
        ([], mx.bfloat16),
    ],
    ids=["norms", "float32", "two", "scales", "scales of bytes", "none"],
)
def test_the_type_to_compute_in(tensors: Any, expected: mx.Dtype) -> None:
    """That of the matrices, or of the scales of quantized ones, and of norms where there are neither."""
    assert compute_type(tensors) == expected
