"""What the package promises to those who import it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from golden import clearest_picture, named, said
from reference_cases import media_file, picture_prompt

import mlx_gemma4
import mlx_gemma4.decoder.config as config_module
from mlx_gemma4 import Session, generate, load, stream_generate

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there_and_is_no_module() -> None:
    """A module of that name would take its place when it is imported."""
    for name in mlx_gemma4.__all__:
        assert callable(getattr(mlx_gemma4, name))
        assert find_spec(f"mlx_gemma4.{name}") is None
    with pytest.raises(AttributeError, match="module 'mlx_gemma4' has no attribute 'nonsense'"):
        _ = mlx_gemma4.nonsense


def test_type_checkers_see_the_public_names() -> None:
    """The imports that only type checkers run are those of the table."""
    tree = ast.parse(Path(mlx_gemma4.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"mlx_gemma4.{module}.{name}" for name, module in mlx_gemma4._MODULES.items()}
    assert imported == homes and sorted(homes) == mlx_gemma4.__all__


def test_every_public_name_is_shown_in_the_documentation() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    words = set(re.findall(r"\w+", " ".join(page.read_text(encoding="utf-8") for page in pages)))
    assert [name for name in mlx_gemma4.__all__ if name not in words] == []


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, mlx_gemma4; assert not {'numpy', 'mlx.core', 'argparse'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_quick_start() -> None:
    """The lines of the documentation, with what they give."""
    model, processor = load("demo", dtype=mx.float32)
    prompt = processor.prompt(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Transcribe the audio."},
                    {"type": "audio", "audio": media_file("hibari-03.wav")},
                ],
            }
        ]
    )
    assert prompt.token_ids.shape == prompt.token_types.shape == (len(prompt),)
    session = Session(model)
    logits = session.extend(prompt)
    assert logits.shape == (model.config.text_config.vocab_size,)
    mark = session.mark()
    session.extend([20, 21])
    session.rewind(mark)
    assert session.position == len(prompt)
    assert generate(model, processor, prompt, max_tokens=100) == said("hibari-03.wav", "short")
    assert "".join(each.text for each in stream_generate(model, processor, prompt)) == said("hibari-03.wav", "short")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_checkpoint_computes_in_the_type_asked_for(dtype: str) -> None:
    """By name or as mlx's own; every logit in it."""
    model, _ = load("demo", dtype=dtype)
    assert model.dtype == getattr(mx, dtype)
    assert Session(model).extend([2, 4, 20]).dtype == getattr(mx, dtype)


def test_float16_says_the_same() -> None:
    model, processor = load("demo", dtype="float16")
    prompt = picture_prompt(processor, clearest_picture())
    assert generate(model, processor, prompt) == named(clearest_picture())
    assert np.isfinite(np.array(Session(model).extend(prompt))).all()


def test_the_config_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model and processor share it."""
    paths: list[Path] = []
    read = config_module.read_json

    def counted(path: Path, *arguments: Any) -> dict[str, Any]:
        paths.append(path)
        return read(path, *arguments)

    monkeypatch.setattr(config_module, "read_json", counted)
    load("demo")
    assert [path.name for path in paths].count("config.json") == 1


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a dtype of bfloat16, float16, float32, got 'int4'"):
        load("demo", dtype="int4")
