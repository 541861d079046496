"""What a converted folder holds beside the weights, and what its record says."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import mlx.core as mx
import pytest
from converted import (
    FORMATS,
    LAYER,
    PACKED,
    RELEASED,
    RESAVED,
    assert_same,
    config_of,
    converted,
    in_shards,
    refuse,
    silent,
    with_config,
)
from quantized_checkpoints import (
    random_tensors,
    small_config,
    stored,
    write,
)

from mlx_gemma4 import Processor
from mlx_gemma4.cli import main
from mlx_gemma4.convert.card import write_card
from mlx_gemma4.convert.config_files import copied_files, write_config
from mlx_gemma4.convert.job import plan_conversion
from mlx_gemma4.convert.provenance import make_record
from mlx_gemma4.convert.publish import check_folder
from mlx_gemma4.convert.record import Record
from mlx_gemma4.convert.run import convert
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.weights import read_weights

SMALL_FILES = ("chat_template.jinja", "generation_config.json", "processor_config.json", "tokenizer.json")


@pytest.mark.parametrize(
    "source", [RELEASED, RESAVED, FORMATS / "compressed-tensors"], ids=lambda path: path.parent.name
)
@pytest.mark.parametrize("recipe", ["bf16", "4bit"])
def test_the_config_is_the_released_dialect(tmp_path: Path, source: Path, recipe: str) -> None:
    """Every size is named by the released keys, as mlx-vlm and mlx-lm read them; it means what the source's does."""
    converted(source, tmp_path / "out", recipe)
    told, text = config_of(tmp_path / "out"), config_of(tmp_path / "out")["text_config"]
    assert "per_layer_config" not in text
    assert (text["global_head_dim"], text["num_global_key_value_heads"]) == (64, 1)
    assert (text["hidden_size_per_layer_input"], text["num_kv_shared_layers"], told["vocab_size"]) == (0, 0, 371)
    assert told["vision_config"]["model_patch_size"] == 48
    assert told["audio_config"]["audio_embed_dim"] == told["audio_config"]["audio_samples_per_token"] == 640
    assert told.get("quantization") == told.get("quantization_config")
    assert ("quantization" in told) == (recipe == "4bit")
    raw = {key: value for key, value in config_of(source).items() if key != "quantization_config"}
    expected = Config.from_dict(raw)
    assert replace(Config.from_file(tmp_path / "out" / "config.json"), quantization=None) == expected


def test_sizes_in_the_released_dialect(tmp_path: Path) -> None:
    """Whatever they are, full layers' sizes go by the released names, and what others would guess is said."""
    raw = small_config()
    for key in ("global_head_dim", "num_global_key_value_heads", "num_kv_shared_layers"):
        del raw["text_config"][key]
    raw["text_config"]["per_layer_config"] = {"1": {"head_dim": 48, "num_key_value_heads": 2}}
    write_config(tmp_path, raw, Config.from_dict(raw), None)
    text = config_of(tmp_path)["text_config"]
    assert "per_layer_config" not in text
    assert (text["head_dim"], text["global_head_dim"], text["num_global_key_value_heads"]) == (32, 48, 2)
    assert (text["num_kv_shared_layers"], text["hidden_size_per_layer_input"]) == (0, 0)
    assert Config.from_file(tmp_path / "config.json") == Config.from_dict(raw)


def test_layers_of_their_own_sizes(tmp_path: Path) -> None:
    """Where full layers differ from each other, only the source's dialect can say so, and is kept."""
    config = small_config()
    text = config["text_config"]
    text |= {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    sizes = {"1": {"head_dim": 64, "num_key_value_heads": 1}, "2": {"head_dim": 32, "num_key_value_heads": 2}}
    text |= {"per_layer_config": sizes}
    del text["global_head_dim"], text["num_global_key_value_heads"]
    tensors = dict(random_tensors())
    for name in list(tensors):
        if ".layers.1." in name:
            tensors[name.replace(".layers.1.", ".layers.2.")] = tensors[name]
    layer = "model.language_model.layers.2.self_attn"
    tensors |= {f"{layer}.{norm}.weight": mx.ones(32, mx.bfloat16) for norm in ("q_norm", "k_norm")}
    tensors[f"{layer}.q_proj.weight"] = tensors[f"{layer}.q_proj.weight"][:128]
    tensors[f"{layer}.o_proj.weight"] = tensors[f"{layer}.o_proj.weight"][:, :128]
    source = write(tmp_path / "source", tensors, config)
    assert_same(converted(source, tmp_path / "out"), read_weights(source))
    assert config_of(tmp_path / "out")["text_config"]["per_layer_config"] == sizes
    expected = Config.from_file(source / "config.json")
    assert Config.from_file(tmp_path / "out" / "config.json") == expected


def test_small_files_are_copied(tmp_path: Path) -> None:
    """Tokenizer, templates and processor byte for byte; not what is no part of a checkpoint, or is written new."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    others = ["README.md", "notes.txt", "pytorch_model.bin.index.json", "image.png"]
    for name in [*others, "tokenizer.model", "preprocessor_config.json"]:
        (source / name).write_bytes(b"{}")
    (source / "folder.json").mkdir()
    convert(source, tmp_path / "out", recipe="4bit")
    copied = {*SMALL_FILES, "tokenizer_config.json", "tokenizer.model", "preprocessor_config.json"}
    assert {path.name for path in copied_files(source)} == copied
    made = {"config.json", "model.safetensors", "model.safetensors.index.json", "conversion.json", "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == copied | made
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes(), name
    assert (tmp_path / "out" / "README.md").read_bytes() != b"{}"
    Processor.from_folder(tmp_path / "out")


def test_what_is_not_part_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not copied, whatever its name ends in, and is named."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    others = ["secrets.json", ".env", "._config.json", "._tokenizer.json", "training_args.json", "notes.jinja"]
    for name in others:
        (source / name).write_text("secret")
    (source / "link.json").symlink_to("/etc/passwd")
    command = ["convert", "--hf-path", str(source), "--mlx-path", str(tmp_path / "out"), "-q"]
    assert main(command) == 0
    names = ", ".join(map(repr, sorted([*others, "link.json"])))
    assert capsys.readouterr().err == f"Not part of a checkpoint, left out: {names}\n"
    assert not {path.name for path in (tmp_path / "out").iterdir()} & {*others, "link.json"}


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "config.json", "model.safetensors"])
def test_links_out_of_the_source(tmp_path: Path, name: str) -> None:
    """A file of a checkpoint that is a link to elsewhere is not read, and so never copied."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    outside = (source / name).rename(tmp_path / name)
    (source / name).symlink_to(outside)
    message = f"{source / name} is a link to a file outside its folder; copy the file into the folder"
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(source, tmp_path / "out", recipe="4bit")
    assert not (tmp_path / "out").exists()


def test_a_quantization_that_is_no_object(source: Path) -> None:
    """It is named."""
    with_config(source, quantization=True)
    refuse(source, f"Expected an object for 'quantization' in {source / 'config.json'}, got True")


def test_a_packed_tensor_that_is_no_matrix(tmp_path: Path) -> None:
    """It is named."""
    source = shutil.copytree(FORMATS / "compressed-tensors", tmp_path / "source")
    tensors = stored(source)
    mx.eval(tensors)
    (source / "expected.npz").unlink()
    path = source / "model.safetensors"
    path.unlink()
    mx.save_safetensors(str(path), {**tensors, f"{PACKED}.weight_packed": mx.zeros((16,), mx.int32)})
    refuse(source, f"Expected a matrix for {PACKED}.weight_packed in {path}, got [16]", recipe="qat")


def test_links_become_files(tmp_path: Path) -> None:
    """A snapshot of the Hugging Face cache holds links only; what is made of it does not depend on the cache."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    shutil.copytree(RELEASED, blobs)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{number:040d}")
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    convert(snapshot, tmp_path / "out", recipe="bf16")
    shutil.rmtree(blobs)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert_same(stored(tmp_path / "out"), read_weights(RELEASED))
    for name in SMALL_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (RELEASED / name).read_bytes()


@pytest.mark.parametrize(
    ("recipe", "modules"),
    [
        ("bf16", {"bfloat16": 86}),
        ("4bit", {"4 bits, group 64": 82, "bfloat16": 3, "6 bits, group 64": 1}),
        ("nvfp4", {"nvfp4": 82, "bfloat16": 3, "6 bits, group 64": 1}),
    ],
)
def test_the_record(tmp_path: Path, recipe: str, modules: dict[str, int]) -> None:
    """It tells what is on disk: parameters of the source, bytes of the tensors, modules by how they are stored."""
    record = convert(RELEASED, tmp_path / "out", recipe=recipe)
    assert record == Record.read(tmp_path / "out")
    assert record.parameters == sum(tensor.size for tensor in stored(RELEASED).values()) == 1151948
    assert record.size_bytes == sum(tensor.nbytes for tensor in stored(tmp_path / "out").values())
    assert record.bits_per_weight == 8 * record.size_bytes / 1151948
    assert record.modules == modules
    assert (record.source, record.base_model, record.license) == ("checkpoint", None, None)
    assert (record.recipe, record.model_type, record.quantization_error) == (recipe, "gemma4_unified", None)


def test_the_base_model_is_kept(tmp_path: Path) -> None:
    """Converted again, a conversion names the model that it was first made of, and its licence."""
    convert(RELEASED, tmp_path / "once", recipe="8bit")
    first = replace(Record.read(tmp_path / "once"), base_model="google/gemma-4-12B-it", license="apache-2.0")
    first.write(tmp_path / "once")
    record = convert(tmp_path / "once", tmp_path / "twice", recipe="4bit")
    assert (record.source, record.base_model, record.license) == ("once", "google/gemma-4-12B-it", "apache-2.0")
    assert record.recipe == "4bit"


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\ntags: [x]\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- license\n---\n", None),
        ("no metadata", None),
        ("", None),
    ],
)
def test_the_licence_of_a_folder(tmp_path: Path, card: str, license: str | None) -> None:
    """It is what the folder's card names; a card that says nothing, or cannot be read, undoes no conversion."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    (source / "README.md").write_text(card)
    assert convert(source, tmp_path / "out", recipe="4bit").license == license


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"base_model": "a/b"}', "does not describe the weights beside it"),
        ("[]", "Expected a JSON object"),
    ],
)
def test_a_record_of_another_form(tmp_path: Path, content: str, reason: str) -> None:
    """Neither does a record that another version has written, and it is said."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    (source / "conversion.json").write_text(content)
    told: list[str] = []
    assert convert(source, tmp_path / "out", recipe="4bit", note=told.append).base_model is None
    assert told[-1].startswith("The source's conversion.json is ignored: ") and reason in told[-1]


def with_record(folder: Path) -> Path:
    """A conversion that names its base and its licence."""
    convert(RELEASED, folder, recipe="bf16")
    record = replace(Record.read(folder), base_model="google/gemma-4-12B-it", license="apache-2.0")
    record.write(folder)
    return folder


def test_a_record_of_other_weights(tmp_path: Path) -> None:
    """Weights that replaced those of a conversion have no card of theirs: one tensor that was trained is enough."""
    folder = with_record(tmp_path / "made")
    tensors = stored(folder)
    name = f"{LAYER}.mlp.up_proj.weight"
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | {name: tensors[name] * 1.01})
    message = re.escape(
        f"{folder}/conversion.json does not describe the weights beside it: convert them, or remove the"
    )
    for refused in (Record.read, check_folder, write_card):
        with pytest.raises(ValueError, match=message):
            refused(folder)
    told: list[str] = []
    record = convert(folder, tmp_path / "again", recipe="4bit", note=told.append)
    assert (record.base_model, record.license) == (None, None)
    assert told[-1].startswith(f"The source's conversion.json is ignored: {folder}/conversion.json does not describe")
    assert "google/gemma-4-12B-it" not in (tmp_path / "again" / "README.md").read_text()


def test_a_record_of_the_same_weights(tmp_path: Path) -> None:
    """Neither the files nor the order of tensors make other weights of them."""
    folder = with_record(tmp_path / "made")
    many = in_shards(folder, tmp_path / "many", 3)
    assert Record.read(many) == Record.read(folder)
    convert(many, tmp_path / "again", recipe="bf16")
    assert Record.read(tmp_path / "again").base_model == "google/gemma-4-12B-it"


def test_a_record_is_not_copied(tmp_path: Path) -> None:
    """A conversion has its own alone, whatever the source has."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    (source / "conversion.json").write_text('{"loss": 5}')
    convert(source, tmp_path / "out", recipe="4bit")
    assert Record.read(tmp_path / "out").quantization_error is None


def test_a_repo_is_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that was named as a repo is the base; its card, where it cannot be had, names no licence."""
    (tmp_path / "card.md").write_text("---\nlicense: gemma\n---\n")
    asked: list[tuple[str, str]] = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        if repo == "owner/gone":
            raise ConnectionError("no network")
        return str(tmp_path / "card.md")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    job = plan_conversion(RELEASED, "4bit", note=silent)
    record = make_record(replace(job, name="owner/model"), silent)
    assert (record.source, record.base_model, record.license) == ("owner/model", "owner/model", "gemma")
    record = make_record(replace(job, name="owner/gone"), silent)
    assert (record.source, record.base_model, record.license) == ("owner/gone", "owner/gone", None)
    assert asked == [("owner/model", "README.md"), ("owner/gone", "README.md")]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_another_dtype(tmp_path: Path, dtype: str) -> None:
    """What is not quantized, and scales, take the type that is asked for; codes are derived in it."""
    kind = {"float16": mx.float16, "float32": mx.float32}[dtype]
    plain = converted(RELEASED, tmp_path / "plain", dtype=dtype)
    assert_same(plain, {name: tensor.astype(kind) for name, tensor in read_weights(RELEASED).items()})
    tensors = converted(RELEASED, tmp_path / "four", "4bit", dtype=dtype)
    name = f"{LAYER}.mlp.up_proj"
    expected = mx.quantize(plain[f"{name}.weight"], group_size=64, bits=4)
    for part, values in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(tensors[f"{name}.{part}"], values)
        assert tensors[f"{name}.{part}"].dtype == values.dtype


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", random_tensors())
