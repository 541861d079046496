"""Every layout of tensors on disk gives the same model, bit by bit; anything broken is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from reference_cases import REFERENCE, reference_case

from mlx_gemma4 import Model, Processor, Session, load
from mlx_gemma4.decoder.weights import load_model, model_name, read_weights
from mlx_gemma4.inputs.vision.image import Patches

RELEASED = REFERENCE / "released" / "checkpoint"
MIXED = reference_case("released", "mixed").prompt[:98]
"""As much of it as holds text, a picture and sound."""
TEXT = reference_case("released", "text").prompt

Tensors = dict[str, mx.array]


def tensors(rename: Callable[[str], str] = str) -> Tensors:
    """The reference's tensors under the names that an MLX conversion gives them, or further renamed."""
    return {rename(name): tensor for name, tensor in read_weights(RELEASED).items()}


def checkpoint(folder: Path, shards: Mapping[str, Tensors], **config: Any) -> Path:
    """A copy of the reference with other weight files, and additions to its config."""
    shutil.copytree(RELEASED, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    table = json.loads((RELEASED / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**table, **config}))
    for name, shard in shards.items():
        mx.save_safetensors(str(folder / name), shard)
    return folder


def one_file(folder: Path, weights: Tensors, **config: Any) -> Path:
    return checkpoint(folder, {"model.safetensors": weights}, **config)


def logits(model: Model, prompt: Any = MIXED) -> np.ndarray:
    return np.array(Session(model).extend(prompt, logits_from=0))


def released_name(name: str) -> str:
    return "model." + name.replace("language_model.model.", "language_model.")


def text_name(name: str) -> str:
    return name.removeprefix("language_model.")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
        ("language_model.model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
        ("model.layers.0.mlp.up_proj.weight", "language_model.model.layers.0.mlp.up_proj.weight"),
        ("model.language_model.layers.5.layer_scalar", "language_model.model.layers.5.layer_scalar"),
        ("model.layers.11.self_attn.q_proj.scales", "language_model.model.layers.11.self_attn.q_proj.scales"),
        ("model.embed_tokens.weight", "language_model.model.embed_tokens.weight"),
        ("model.language_model.norm.weight", "language_model.model.norm.weight"),
        ("model.norm.weight", "language_model.model.norm.weight"),
        ("model.vision_embedder.pos_embedding", "vision_embedder.pos_embedding"),
        ("vision_embedder.patch_ln1.bias", "vision_embedder.patch_ln1.bias"),
        ("model.embed_vision.embedding_projection.weight", "embed_vision.embedding_projection.weight"),
        ("embed_audio.embedding_projection.biases", "embed_audio.embedding_projection.biases"),
        ("language_model.model.layers.0.self_attn.q_proj", "language_model.model.layers.0.self_attn.q_proj"),
        ("lm_head.weight", None),
        ("language_model.lm_head.weight", None),
        ("lm_head.scales", None),
        ("model.language_model.layers.0.self_attn.rotary_emb.inv_freq", None),
    ],
)
def test_model_name(name: str, expected: str | None) -> None:
    """Names of every layout lead to the model's, which stay as they are."""
    assert model_name(name) == expected
    assert expected is None or model_name(expected) == expected


def test_released_names_are_all_known() -> None:
    """The reference checkpoint's tensors are the model's parameters, all of them and no others."""
    model = load_model(RELEASED)
    assert set(read_weights(RELEASED)) == {name for name, _ in tree_flatten(model.parameters())}


@pytest.mark.parametrize("rename", [str, released_name, lambda name: "model." + name])
def test_names_on_disk(tmp_path: Path, released: tuple[Model, Processor], rename: Callable[[str], str]) -> None:
    """A model saved under any layout's names computes the same logits, bit by bit."""
    model, _ = load(one_file(tmp_path, tensors(rename)), dtype="float32")
    np.testing.assert_array_equal(logits(model), logits(released[0]))


def test_what_the_model_does_not_store(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """A head beside the tied embedding and stored frequencies are passed over."""
    extra = {"lm_head.weight": mx.zeros((371, 64)), "model.layers.0.self_attn.rotary_emb.inv_freq": mx.zeros(16)}
    model, _ = load(one_file(tmp_path, {**tensors(), **extra}), dtype="float32")
    np.testing.assert_array_equal(logits(model), logits(released[0]))


def test_shards(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Two shards with an index are one checkpoint, and files that the index does not name are none of it."""
    names = sorted(tensors())
    shards = {
        f"model-{part + 1}-of-2.safetensors": {name: tensors()[name] for name in names[part::2]} for part in (0, 1)
    }
    folder = checkpoint(tmp_path, {**shards, "other.safetensors": {"other": mx.zeros(1)}})
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model, _ = load(folder, dtype="float32")
    np.testing.assert_array_equal(logits(model), logits(released[0]))


def test_shards_without_an_index(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Without an index all files count."""
    names = sorted(tensors())
    shards = {f"{part}.safetensors": {name: tensors()[name] for name in names[part::3]} for part in (0, 1, 2)}
    model, _ = load(checkpoint(tmp_path, shards), dtype="float32")
    np.testing.assert_array_equal(logits(model), logits(released[0]))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_saved_in_another_precision(tmp_path: Path, dtype: mx.Dtype) -> None:
    """The checkpoint's own precision is kept, and loses what that precision cannot hold and no more."""
    stored = {name: tensor.astype(dtype) for name, tensor in tensors().items()}
    one_file(tmp_path, stored)
    assert load(tmp_path)[0].dtype == dtype
    expected = load_model(RELEASED, dtype=mx.float32)
    expected.update(tree_map(lambda tensor: tensor.astype(dtype).astype(mx.float32), expected.parameters()))
    np.testing.assert_array_equal(logits(load(tmp_path, dtype="float32")[0]), logits(expected))


def test_precision_asked_for() -> None:
    """All parameters take the type that is asked for, or else the checkpoint's."""
    for dtype, expected in ((None, mx.bfloat16), ("float16", mx.float16), (mx.float32, mx.float32)):
        model, _ = load(RELEASED, dtype=dtype)
        assert {tensor.dtype for _, tensor in tree_flatten(model.parameters())} == {expected}
    with pytest.raises(ValueError, match="Expected a dtype of bfloat16, float16, float32, got 'int8'"):
        load(RELEASED, dtype="int8")


def quantized(folder: Path, block: dict[str, Any], rename: Callable[[str], str] = str) -> Model:
    """Quantize the reference as the block says, save it with the block, return it as it is in memory."""
    model = load_model(RELEASED)
    defaults = {key: value for key, value in block.items() if not isinstance(value, (dict, bool))}
    own = {path: dict(value) if value else False for path, value in block.items() if isinstance(value, (dict, bool))}

    def settings(path: str, module: nn.Module) -> bool | dict[str, Any]:
        return own.get(path, defaults) if hasattr(module, "to_quantized") else False

    nn.quantize(model, class_predicate=settings)
    stored = {rename(name): tensor for name, tensor in tree_flatten(model.parameters())}
    renamed = {key if key in defaults else rename(key): value for key, value in block.items()}
    one_file(folder, stored, quantization=renamed, quantization_config=renamed)
    model.set_dtype(mx.float32)
    return model


BLOCKS: dict[str, dict[str, Any]] = {
    "affine-4": {"group_size": 32, "bits": 4, "mode": "affine"},
    "affine-8": {"group_size": 32, "bits": 8, "mode": "affine"},
    "affine-without-mode": {"group_size": 64, "bits": 4},
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
    "nvfp4": {"group_size": 16, "bits": 4, "mode": "nvfp4"},
    "mixed": {
        "group_size": 64,
        "bits": 4,
        "mode": "affine",
        "language_model.model.embed_tokens": {"group_size": 32, "bits": 8},
        "language_model.model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
        "language_model.model.layers.5.self_attn.k_proj": {"group_size": 64, "bits": 6, "mode": "affine"},
        "language_model.model.layers.7.mlp.up_proj": False,
        "vision_embedder.patch_dense": False,
        "embed_audio.embedding_projection": {"group_size": 128, "bits": 8},
    },
    "entries-without-mode": {
        "group_size": 32,
        "bits": 4,
        "mode": "mxfp4",
        "language_model.model.embed_tokens": {"group_size": 64, "bits": 8},
    },
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_quantized(tmp_path: Path, released: tuple[Model, Processor], block: dict[str, Any]) -> None:
    """A quantized checkpoint computes what the model that was saved does, bit by bit."""
    expected = logits(quantized(tmp_path, block))
    model, _ = load(tmp_path, dtype="float32")
    np.testing.assert_array_equal(logits(model), expected)
    assert np.abs(expected - logits(released[0])).max() > 0.01


@pytest.mark.parametrize("rename", [released_name, lambda name: "model." + name])
def test_quantized_under_other_names(tmp_path: Path, rename: Callable[[str], str]) -> None:
    """Entries of the quantization block are found whatever names the layout has."""
    expected = logits(quantized(tmp_path, BLOCKS["mixed"], rename))
    np.testing.assert_array_equal(logits(load(tmp_path, dtype="float32")[0]), expected)


def test_quantized_modules(tmp_path: Path) -> None:
    """Each module is quantized as its own entry says, or else as the block does."""
    quantized(tmp_path, BLOCKS["mixed"])
    modules = dict(load_model(tmp_path).named_modules())
    layers = "language_model.model.layers"
    for path, expected in {
        "language_model.model.embed_tokens": (32, 8, "affine"),
        f"{layers}.0.mlp.down_proj": (32, 4, "mxfp4"),
        f"{layers}.0.mlp.up_proj": (64, 4, "affine"),
        f"{layers}.5.self_attn.k_proj": (64, 6, "affine"),
        "embed_audio.embedding_projection": (128, 8, "affine"),
    }.items():
        module = modules[path]
        assert (module.group_size, module.bits, module.mode) == expected
    assert isinstance(modules[f"{layers}.7.mlp.up_proj"], nn.Linear)


@pytest.fixture
def text_only(tmp_path: Path) -> Path:
    """What a text-only conversion writes: no media tensors, their parts of the config unchanged."""
    weights = {text_name(name): tensor for name, tensor in tensors().items() if name.startswith("language_model.")}
    return one_file(tmp_path, weights)


def test_text_only(text_only: Path, released: tuple[Model, Processor]) -> None:
    """A checkpoint without media tensors computes the same on text, and has no vision and no audio."""
    model, _ = load(text_only, dtype="float32")
    np.testing.assert_array_equal(logits(model, TEXT), logits(released[0], TEXT))
    assert (model.config.vision_config, model.config.audio_config) == (None, None)


def test_text_only_refuses_media(text_only: Path) -> None:
    """It says so when it is given an image or sound, and the session stays as it was."""
    model, processor = load(text_only, dtype="float32")
    session = Session(model)
    image = Patches(np.zeros((1, 6912), np.float32), np.zeros((1, 2), np.int32))
    with pytest.raises(ValueError, match="The checkpoint takes no images: it has no weights for them"):
        session.extend(image)
    with pytest.raises(ValueError, match="The checkpoint takes no sound: it has no weights for it"):
        session.extend(processor.frames(np.zeros(1600, np.float32)))
    assert session.position == 0


def test_sound_without_pictures(tmp_path: Path) -> None:
    """One medium may be there without the other."""
    weights = {name: tensor for name, tensor in tensors().items() if "vision" not in name}
    config = load_model(one_file(tmp_path, weights)).config
    assert config.vision_config is None and config.audio_config is not None


def changed(name: str, tensor: mx.array | None) -> Tensors:
    """The reference's tensors with one more, another, or one less."""
    weights = {**tensors(), name: mx.zeros(1) if tensor is None else tensor}
    if tensor is None:
        del weights[name]
    return weights


NORM = "language_model.model.norm.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (NORM, None, f"Missing 1 parameters: {NORM}"),
        ("vision_embedder.pos_embedding", None, "Missing 1 parameters: vision_embedder.pos_embedding"),
        ("vision_tower.x", mx.zeros(1), "Received 1 parameters not in model: language_model.model.vision_tower.x"),
        (NORM, mx.zeros(32), rf"Expected shape \(64,\) but received shape \(32,\) for parameter {NORM}"),
    ],
)
def test_strict(tmp_path: Path, name: str, tensor: mx.array | None, message: str) -> None:
    """A missing tensor, one too many and one of another shape are named, with the folder."""
    one_file(tmp_path, changed(name, tensor))
    with pytest.raises(ValueError, match=f"The tensors in {tmp_path} do not fit its config.json: {message}"):
        load_model(tmp_path)


def test_scales_without_a_block(tmp_path: Path) -> None:
    """Quantized weights whose config says nothing of it."""
    quantized(tmp_path, BLOCKS["affine-4"])
    shutil.copy(RELEASED / "config.json", tmp_path)
    with pytest.raises(ValueError, match=r"A quantization block is missing in config.json: \d+ modules have scales"):
        load_model(tmp_path)


def damaged(folder: Path, damage: Callable[[bytes], bytes]) -> Path:
    one_file(folder, {})
    path = folder / "model.safetensors"
    path.write_bytes(damage((RELEASED / "model.safetensors").read_bytes()))
    return path


@pytest.mark.parametrize("kept", [0, 5, 8, 1000])
def test_header_cut_short(tmp_path: Path, kept: int) -> None:
    """A file that ends inside its header, as a download that broke off early does."""
    path = damaged(tmp_path, lambda whole: whole[:kept])
    with pytest.raises(ValueError, match=f"^{path} is not a safetensors file: its {kept} bytes end inside the header"):
        load_model(tmp_path)


def test_tensors_cut_short(tmp_path: Path) -> None:
    """A file that ends inside its tensors."""
    size = (RELEASED / "model.safetensors").stat().st_size
    path = damaged(tmp_path, lambda whole: whole[:-10])
    message = f"Expected {size} bytes in {path}, got {size - 10}: the file is cut short; download it again"
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("header", [b'{"a": ', b"[1]", b'{"a": {}}', b'{"a": {"data_offsets": 1}}'])
def test_header_of_something_else(tmp_path: Path, header: bytes) -> None:
    """A file whose header is not what safetensors have."""
    path = damaged(tmp_path, lambda _: len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=f"{path} is not a safetensors file: its header cannot be read: "):
        load_model(tmp_path)


def test_absent_shard(tmp_path: Path) -> None:
    """A shard that the index names and the folder lacks is named."""
    one_file(tmp_path, tensors())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    message = f"Some shards that {index} names are missing: model-2.safetensors"
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match=f"Expected a weight_map in {index}, got None"):
        load_model(tmp_path)


def test_no_weights(tmp_path: Path) -> None:
    """A folder without any weights is named."""
    checkpoint(tmp_path, {})
    with pytest.raises(ValueError, match=rf"^There are no weights \(model\*.safetensors\) in {tmp_path}$"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (b"BF1I", "its header cannot be read: unknown type 'BF1I' of 'model"),
        (b"I16 ", "its header cannot be read: unknown type 'I16 ' of 'model"),
        (b"I16", r"Expected a type of BF16, F16, F32, U32, U8 for model\..* in {path}, got I16"),
    ],
)
def test_a_type_that_no_weight_has(tmp_path: Path, dtype: bytes, message: str) -> None:
    """The file, the tensor and the type are named."""
    path = damaged(tmp_path, lambda whole: with_header(whole, lambda header: header.replace(b"BF16", dtype, 1)))
    with pytest.raises(ValueError, match=message.format(path=path)):
        load_model(tmp_path)


def with_header(file: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A safetensors file with another header."""
    length = int.from_bytes(file[:8], "little")
    header = change(file[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + file[8 + length :]


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    """Which of two is meant nobody knows."""
    one_file(tmp_path, tensors())
    path = tmp_path / "model2.safetensors"
    mx.save_safetensors(str(path), {NORM: mx.zeros(64)})
    with pytest.raises(
        ValueError, match=f"The tensor {NORM} is stored twice in {tmp_path}: in {path} and in another file"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (
            {"a": "../out.safetensors"},
            "{index} names '../out.safetensors', which is not a safetensors file in the same folder",
        ),
        ({"a": "/etc/passwd"}, "{index} names '/etc/passwd', which is not a safetensors file in the same folder"),
        ({"a": "tokenizer.json"}, "{index} names 'tokenizer.json', which is not a safetensors file in the same folder"),
        (
            {"a": ["model.safetensors"]},
            "a string for a file in the weight_map of {index}, got \\['model.safetensors'\\]",
        ),
        ([["a", "model.safetensors"]], "a weight_map in {index}, got "),
        ({str(n): f"model-{n}.safetensors" for n in range(99)}, "names are missing: model-0.* and 91 more"),
    ],
)
def test_an_index_of_another_form(tmp_path: Path, weight_map: object, message: str) -> None:
    """An index names files of its folder, and nothing else is opened."""
    folder = tmp_path / "folder"
    folder.mkdir()
    checkpoint(folder, {})
    mx.save_safetensors(str(tmp_path / "out.safetensors"), tensors())
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match=message.format(index=index)):
        load_model(folder)


def test_weights_outside_the_folder(tmp_path: Path) -> None:
    """A link out of the folder and a pipe are refused before they are opened."""
    folder = tmp_path / "folder"
    folder.mkdir()
    one_file(folder, tensors())
    path = (folder / "model.safetensors").rename(tmp_path / "out.safetensors")
    (folder / "model.safetensors").symlink_to(path)
    with pytest.raises(ValueError, match=r"model\.safetensors is a link to a file outside its folder; copy the file"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a regular file; replace it with one"):
        load_model(folder)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"bits": "4"}, "a positive whole number for 'bits' in quantization in config.json, got '4'"),
        ({"bits": 4, "group_size": 10**9}, "at most 1024 for 'group_size' in quantization in config.json"),
        ({"bits": 4, "mode": ["affine"]}, "a mode of affine, .* in quantization in config.json, got \\['affine'\\]"),
        ({"bits": 4, "a.b": {"bits": 0}}, "for 'bits' in quantization.'a.b' in config.json, got 0"),
    ],
)
def test_a_quantization_of_another_form(tmp_path: Path, block: dict[str, Any], message: str) -> None:
    """Each value is of its type, in a module's own entry too."""
    quantized(tmp_path, BLOCKS["affine-4"])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization": block}))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)
