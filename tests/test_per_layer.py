"""What transformers 5.24 saves: zero-padded layer numbers, in the 12B and in a checkpoint of twelve layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from make_random_checkpoint import RELEASED
from quantized_checkpoints import stored
from reference_cases import DATA

from mlx_gemma4 import Session, load
from mlx_gemma4.convert.config_files import write_config
from mlx_gemma4.convert.read import open_checkpoint
from mlx_gemma4.convert.run import convert
from mlx_gemma4.decoder.config import FULL, SLIDING, Config, LayerConfig
from mlx_gemma4.decoder.per_layer import per_layer_sizes
from mlx_gemma4.inputs.prompt import Prompt

SAVED = DATA / "transformers-5.24"
ASSISTANT = DATA / "formats" / "assistant-plain"
CASE = dict(np.load(SAVED / "logits.npz"))
PROMPT = Prompt(
    **{name: CASE[name] for name in ("token_ids", "token_types", "frames", "patches")},
    patch_xy=CASE["positions"],
)

SLIDING_12B = LayerConfig(SLIDING, head_dim=256, num_key_value_heads=8, k_eq_v=False)
FULL_12B = LayerConfig(FULL, head_dim=512, num_key_value_heads=1, k_eq_v=True)


def twelve_layers(folder: Path) -> Path:
    """The checkpoint of twelve layers, with the small files that another tool writes."""
    shutil.copytree(SAVED / "twelve-layers", folder)
    for path in RELEASED.iterdir():
        if not path.name.endswith((".safetensors", "config.json")) or path.name == "tokenizer_config.json":
            shutil.copyfile(path, folder / path.name)
    return folder


def in_one_file(folder: Path) -> Path:
    tensors = stored(folder)
    for path in folder.glob("model*"):
        path.unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def logits(folder: Path) -> np.ndarray:
    model, _ = load(folder, dtype="float32")
    return np.array(Session(model).extend(PROMPT, logits_from=0))


def config_12b(**changes: Any) -> dict[str, Any]:
    """The 12B's config as saved; ``changes`` are those of its ``text_config``."""
    raw: dict[str, Any] = json.loads((SAVED / "config-12b.json").read_text())
    raw["text_config"] |= changes
    return raw


def test_the_12b_as_saved() -> None:
    """Every layer has its own sizes, of 48 with keys from "05" to "47"."""
    assert list(config_12b()["text_config"]["per_layer_config"]) == ["05", "11", "17", "23", "29", "35", "41", "47"]
    assert Config.from_dict(config_12b()).text_config.layers == ((SLIDING_12B,) * 5 + (FULL_12B,)) * 8


@pytest.mark.parametrize("width", [1, 2, 3])
def test_keys_of_any_width(width: int) -> None:
    """ "5", "05" and "005" are the same layer."""
    table = {str(layer).zfill(width): {"head_dim": 512, "num_key_value_heads": 1} for layer in range(5, 48, 6)}
    assert Config.from_dict(config_12b(per_layer_config=table)) == Config.from_dict(config_12b())


def test_the_12b_as_converted(tmp_path: Path) -> None:
    """The converted config says the same in the released words, which other programs read."""
    raw = config_12b()
    config = Config.from_dict(raw)
    write_config(tmp_path, raw, config, None)
    told = json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert (told["global_head_dim"], told["num_global_key_value_heads"]) == (512, 1)
    assert "per_layer_config" not in told
    assert Config.from_file(tmp_path / "config.json") == config


def test_twelve_layers_are_the_references(tmp_path: Path) -> None:
    """Logits of text, a picture and sound, from several files and from one."""
    folder = twelve_layers(tmp_path / "sharded")
    assert len(list(folder.glob("*.safetensors"))) == 3
    sharded = logits(folder)
    assert np.abs(sharded - CASE["logits"]).max() < 4 * CASE["rounding"]
    np.testing.assert_array_equal(logits(in_one_file(folder)), sharded)


def test_twelve_layers_converted(tmp_path: Path) -> None:
    """A conversion computes the same, and so does a conversion of that."""
    folder = twelve_layers(tmp_path / "saved")
    convert(folder, tmp_path / "once", recipe="bf16")
    convert(tmp_path / "once", tmp_path / "twice", recipe="bf16")
    for name in ("once", "twice"):
        np.testing.assert_array_equal(logits(tmp_path / name), logits(folder))
    convert(folder, tmp_path / "8bit", recipe="bf16", modules=["*.layers.*_proj=8/32"])
    assert np.abs(logits(tmp_path / "8bit") - CASE["logits"]).max() < 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"48": {}}, r"text_config.per_layer_config has an entry '48', but the model has 48 layers \(from 0\)"),
        ({"9" * 5000: {}}, r"has an entry '9+\.\.\.9+', but the model has 48 layers"),
        ({"5": {}, "05": {}}, "text_config.per_layer_config has two entries for layer 5: '5' and '05'"),
        ({"five": {}}, "Expected layer numbers as the keys of text_config.per_layer_config, got 'five'"),
        ({"-1": {}}, "Expected layer numbers .*, got '-1'"),
        ({"1_0": {}}, "Expected layer numbers .*, got '1_0'"),
        ({"٥": {}}, "Expected layer numbers .*, got '٥'"),
        ({"": {}}, "Expected layer numbers .*, got ''"),
        ({"05": 512}, r"Expected an object for text_config.per_layer_config\['05'\], got 512"),
        ([512], r"Expected an object for 'per_layer_config' in text_config, got \[512\]"),
        ({"05": {"intermediate_size": 8}}, r"per_layer_config\['05'\] sets 'intermediate_size', which is the same for"),
        ({"05": {"skip": ["mlp"]}}, r"per_layer_config\['05'\] sets 'skip', which is the same for all layers"),
        ({"05": {"head_dim": 512.5}}, r"Expected a positive whole number for 'head_dim' in .*\['5'\], got 512.5"),
    ],
)
def test_other_entries(table: Any, message: str) -> None:
    """An entry that names no layer, or names one twice, is named itself."""
    with pytest.raises(ValueError, match=message):
        Config.from_dict(config_12b(per_layer_config=table))


def test_an_entry_may_repeat_what_holds_for_all() -> None:
    """transformers can be asked to write every value out."""
    text = config_12b()["text_config"]
    entry = {"head_dim": 512, "intermediate_size": text["intermediate_size"]}
    assert per_layer_sizes(text | {"per_layer_config": {"05": entry}}, 48) == {5: entry}


def drafter(folder: Path, table: dict[str, Any]) -> Path:
    shutil.copytree(ASSISTANT, folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["text_config"]["per_layer_config"] = table
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def test_a_drafter_with_padded_keys(tmp_path: Path) -> None:
    """Its converted config has the size of its full layer in the released words too."""
    source = drafter(tmp_path / "source", {"03": {"head_dim": 64, "num_key_value_heads": 1}})
    convert(source, tmp_path / "out", recipe="bf16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["global_head_dim"] == 64


def test_a_drafter_with_another_entry(tmp_path: Path) -> None:
    """It is refused before anything is written."""
    source = drafter(tmp_path / "source", {"04": {"head_dim": 64}})
    with pytest.raises(ValueError, match="per_layer_config has an entry '04', but the model has 4 layers"):
        open_checkpoint(source)
