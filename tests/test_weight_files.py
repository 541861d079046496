"""Which files of a folder or a repo are its weights, whatever else lies beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest
from small_files import demo_copy

from mlx_gemma4 import load
from mlx_gemma4.checkpoint.weight_files import INDEX, downloaded_names, weight_files, weight_names
from mlx_gemma4.convert.publish import _names as uploaded_names
from mlx_gemma4.convert.run import convert

APPLE_DOUBLE = b"\0\5\x16\7" + b"\0" * 60
"""What macOS keeps beside each file on disks that know no extended attributes."""
ONE = "model.safetensors"
TWO = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([ONE], [ONE]),
        ([ONE, "._model.safetensors", ".model.safetensors.swp", "config.json"], [ONE]),
        ([ONE, "adapters.safetensors", "0000100_adapters.safetensors", "adapter_model.safetensors"], [ONE]),
        ([ONE, "optimizer.safetensors", "mtp.safetensors", "model-mtp.safetensors", "lora.safetensors"], [ONE]),
        ([ONE, "consolidated.safetensors", "other.safetensors"], [ONE]),
        ([*TWO, *(f"._{name}" for name in TWO)], TWO),
        (["consolidated.safetensors", *TWO], TWO),
        ([ONE, TWO[0]], [ONE]),
        (["model-0-of-2.safetensors", "model-1-of-2.safetensors"],) * 2,
        (["model.safetensors-00001-of-00002.safetensors", "model.safetensors-00002-of-00002.safetensors"],) * 2,
        (["weights.00.safetensors", "weights.01.safetensors"],) * 2,
        (["weights.safetensors", "adapters.safetensors"], ["weights.safetensors"]),
        (["gemma-12b.safetensors", "._gemma-12b.safetensors"], ["gemma-12b.safetensors"]),
        (["pytorch_model-00001-of-00001.safetensors"],) * 2,
    ],
)
def test_names(names: Sequence[str], expected: Sequence[str]) -> None:
    """One set, under any name in use."""
    assert weight_names(names, "here") == list(expected)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "There are no weights (model*.safetensors) in here"),
        (["model.gguf", "._model.safetensors"], "There are no weights (model*.safetensors) in here"),
        (
            ["adapters.safetensors"],
            "it has only adapters.safetensors: merge the adapter into its model first (mlx_lm.fuse)",
        ),
        (
            [ONE, *TWO],
            f"There are two sets of weights in here: {ONE} and {TWO[0]} to {TWO[1]}; move one of them to another",
        ),
        (
            [*TWO, "model-00001-of-00001.safetensors"],
            f"There are two sets of weights in here: model-00001-of-00001.safetensors and {TWO[0]} to {TWO[1]}; move",
        ),
        (TWO[:1], f"Some shards are missing in here, found only {TWO[0]}; fetch the others"),
    ],
)
def test_other_names(names: Sequence[str], message: str) -> None:
    """None, a part, or more than one set: the files are named."""
    with pytest.raises(ValueError, match=re.escape(message)):
        weight_names(names, "here")


def index(folder: Path, names: Sequence[str]) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {name: name for name in names}}))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_an_index_says_which(tmp_path: Path) -> None:
    """What it does not name is none of the checkpoint: parts of another set, and sidecars."""
    touch(tmp_path, *TWO, "model-00001-of-00003.safetensors", "adapters.safetensors")
    index(tmp_path, TWO)
    assert [path.name for path in weight_files(tmp_path)] == TWO


def test_an_index_beside_another_set(tmp_path: Path) -> None:
    """Programs differ in which one they take."""
    touch(tmp_path, ONE, *TWO)
    index(tmp_path, TWO)
    message = f"There are two sets of weights in {tmp_path}: {TWO[0]} to {TWO[1]} and {ONE}; move one of them"
    with pytest.raises(ValueError, match=re.escape(message)):
        weight_files(tmp_path)
    index(tmp_path, [ONE])
    with pytest.raises(ValueError, match=re.escape(f"{ONE} and {TWO[0]} to {TWO[1]}; move one of them")):
        weight_files(tmp_path)


def test_an_index_of_shards_that_were_replaced(tmp_path: Path) -> None:
    """transformers saves one file over a checkpoint in shards, and leaves the index."""
    touch(tmp_path, ONE)
    index(tmp_path, TWO)
    assert weight_files(tmp_path) == [tmp_path / ONE]
    touch(tmp_path, TWO[0])
    with pytest.raises(ValueError, match=f"Some shards that .* names are missing: {TWO[1]}"):
        weight_files(tmp_path)


def test_beside_what_macos_writes(tmp_path: Path) -> None:
    """A folder from an exFAT disk loads and converts, and none of it is copied or sent."""
    folder = demo_copy(tmp_path / "checkpoint", weights=True)
    names = [path.name for path in folder.iterdir()]
    for name in names:
        (folder / f"._{name}").write_bytes(APPLE_DOUBLE)
    mx.save_safetensors(str(folder / "adapters.safetensors"), {"lora_a": mx.zeros(1)})
    (folder / "additional_chat_templates").mkdir()
    for name in ("tool_use.jinja", "._tool_use.jinja"):
        (folder / "additional_chat_templates" / name).write_text("tools")
    load(folder)
    convert(folder, tmp_path / "out", recipe="bf16")
    made = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(made) == sorted(
        {*names, "README.md", "conversion.json", INDEX, "additional_chat_templates/tool_use.jinja"}
    )
    for name in names:
        (tmp_path / "out" / f"._{name}").write_bytes(APPLE_DOUBLE)
    assert sorted(uploaded_names(tmp_path / "out")) == sorted(made)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([ONE, "adapters.safetensors"], [ONE]),
        ([INDEX, ONE], [INDEX, ONE]),
        ([INDEX, *TWO], [INDEX, *TWO]),
        ([INDEX, ONE, *TWO, "consolidated.safetensors"], [INDEX, *TWO]),
        ([INDEX, "model-1.safetensors", "model-2.safetensors"], [INDEX, "model-1.safetensors", "model-2.safetensors"]),
    ],
)
def test_what_is_downloaded(names: Sequence[str], expected: Sequence[str]) -> None:
    """No sidecars, and of two copies one."""
    assert downloaded_names(names, "the repo a/b") == list(expected)
