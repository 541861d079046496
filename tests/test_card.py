"""Model cards: what they say, and that the Hub can read it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import yaml

from mlx_gemma4.convert.card import card, write_card
from mlx_gemma4.convert.record import Record

RECORD = Record(
    source="google/gemma-4-12B-it",
    base_model="google/gemma-4-12B-it",
    model_type="gemma4_unified",
    license="apache-2.0",
    recipe="4bit",
    description="attention and MLP at 4 bits, embedding at 6",
    parameters=12_000_000_000,
    size_bytes=7_050_000_000,
    modules={"4 bits, group 64": 328, "6 bits, group 64": 1, "bfloat16": 5},
    version="0.1.0",
    quantization_error={
        "tokens": 1789,
        "kl": 0.03214,
        "top1": 0.9512,
        "perplexity": 8.4321,
        "reference_perplexity": 8.1234,
        "wer": 0.023,
        "reference_wer": 0.02,
    },
)
DRAFTER = replace(RECORD, model_type="gemma4_unified_assistant", base_model="google/drafter", quantization_error=None)

TOLD = """\
---
library_name: mlx
pipeline_tag: any-to-any
license: "apache-2.0"
base_model: "google/gemma-4-12B-it"
base_model_relation: quantized
tags:
- mlx
- gemma4
---

# gemma-4-12B-it-4bit

[google/gemma-4-12B-it](https://huggingface.co/google/gemma-4-12B-it) in MLX, converted by mlx_gemma4 0.1.0.

Recipe `4bit`: attention and MLP at 4 bits, embedding at 6. 7.05 GB, 4.70 bits per weight.

| stored as | modules |
|---|---:|
| 4 bits, group 64 | 328 |
| 6 bits, group 64 | 1 |
| bfloat16 | 5 |

## What was lost

| | source | this |
|---|---:|---:|
| perplexity | 8.123 | 8.432 |
| word error rate | 2.0% | 2.3% |
| KL divergence from the source, nats | | 0.0321 |
| same likeliest token | | 95.1% |

Means over 1789 tokens that both models read; the predictions at each are compared. Both models transcribe the same \
recordings.

## Use

```bash
mlx_gemma4 chat --model me/gemma-4-12B-it-4bit
mlx_gemma4 listen --model me/gemma-4-12B-it-4bit
python -m mlx_vlm.generate --model me/gemma-4-12B-it-4bit --prompt "What is this?" --image photo.jpg
```
"""


def front_matter(text: str) -> dict[str, Any]:
    _, head, _ = text.split("---\n", 2)
    told: dict[str, Any] = yaml.safe_load(head)
    return told


def test_card() -> None:
    """All that the record knows, and how to use it."""
    assert card(RECORD, "me/gemma-4-12B-it-4bit") == TOLD


def test_front_matter() -> None:
    """The Hub reads values as they were meant."""
    assert front_matter(card(replace(RECORD, license="1.0: all"), "me/a")) == {
        "library_name": "mlx",
        "pipeline_tag": "any-to-any",
        "license": "1.0: all",
        "base_model": "google/gemma-4-12B-it",
        "base_model_relation": "quantized",
        "tags": ["mlx", "gemma4"],
    }


def test_nothing_quantized() -> None:
    """A conversion that only changes names and types is no quantized one."""
    told = front_matter(card(replace(RECORD, modules={"bfloat16": 334}), "me/a"))
    assert "base_model_relation" not in told
    assert told["base_model"] == "google/gemma-4-12B-it"


def test_nothing_known() -> None:
    """What is not known is not said; without a repo, the commands name a folder."""
    text = card(replace(RECORD, base_model=None, license=None, source="checkpoint", quantization_error=None), None)
    assert front_matter(text) == {"library_name": "mlx", "pipeline_tag": "any-to-any", "tags": ["mlx", "gemma4"]}
    assert "\n# checkpoint, 4bit\n\ncheckpoint in MLX, converted by mlx_gemma4 0.1.0.\n" in text
    assert "What was lost" not in text
    assert "\nmlx_gemma4 chat --model path/to/this/folder\n" in text


def test_by_way_of_another() -> None:
    """What was converted from a conversion names both."""
    text = card(replace(RECORD, source="mlx-community/other"), "me/a")
    assert "](https://huggingface.co/google/gemma-4-12B-it) (through mlx-community/other) in MLX, " in text


def test_without_sound() -> None:
    """Where nothing was heard, no word was in error."""
    assert RECORD.quantization_error is not None
    loss = {name: value for name, value in RECORD.quantization_error.items() if "wer" not in name}
    text = card(replace(RECORD, quantization_error=loss), "me/a")
    assert "| perplexity | 8.123 | 8.432 |\n| KL divergence" in text
    assert "; the predictions at each are compared.\n" in text


def test_drafter() -> None:
    """A drafter runs beside a model, and not by itself."""
    text = card(DRAFTER, "me/drafter")
    assert front_matter(text)["tags"] == ["mlx", "gemma4", "speculative-decoding"]
    assert "pipeline_tag" not in front_matter(text)
    assert text.endswith("""
## Use

```bash
mlx_gemma4 chat --model mlx-community/gemma-4-12B-it-4bit --draft-model me/drafter
python -m mlx_vlm.generate --model mlx-community/gemma-4-12B-it-4bit --draft-model me/drafter \
--prompt "Why is the sky blue?"
```
""")


def test_written(tmp_path: Path) -> None:
    """The card of a folder is its README.md."""
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"a": mx.zeros(3)})
    RECORD.write(tmp_path)
    write_card(tmp_path, "me/gemma-4-12B-it-4bit")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == TOLD


def test_no_conversion(tmp_path: Path) -> None:
    """Other folders get no card."""
    with pytest.raises(
        ValueError, match=r"This folder was not made by mlx_gemma4 convert: there is no conversion\.json"
    ):
        write_card(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": 4}, "Expected a string for 'recipe' in {path}, got 4"),
        ({"source": "a\n# b"}, "Expected one line of at most 300 characters for 'source' in {path}, got 'a"),
        ({"license": ["mit"]}, "Expected a string for 'license' in {path}, got"),
        ({"parameters": 0}, "for 'parameters' in {path}, got 0"),
        ({"size_bytes": 1.5}, "for 'size_bytes' in {path}, got 1.5"),
        ({"modules": {"4 bits": "2"}}, "for 'modules' in {path}, got '2'"),
        ({"modules": [1]}, "Expected an object for 'modules' in {path}, got"),
        ({"loss": True}, "Expected an object for 'loss' in {path}, got True"),
        (
            {"loss": {"kl": 1.0}},
            "'loss' in {path} lacks perplexity, reference_perplexity, tokens, top1",
        ),
        ({"loss": {"kl": float("nan")}}, "for 'kl' of 'loss' in {path}, got nan"),
    ],
)
def test_a_record_of_another_form(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Each value is of its type, and text is a line, before a card is made of it."""
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"w": mx.zeros(4)})
    record = Record("tiny", None, "gemma4_unified", None, "4bit", "all at 4 bits", 100, 50, {"4 bits": 2}, "0.1.0")
    record.write(tmp_path)
    assert Record.read(tmp_path) == record
    path = tmp_path / "conversion.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message.format(path=path)):
        Record.read(tmp_path)
