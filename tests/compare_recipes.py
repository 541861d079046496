"""Size and quality of each recipe on the embedded demo, as a Markdown table.

python tests/compare_recipes.py [--module PATTERN=FORMAT …] [RECIPE …]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlx_gemma4 import demo_folder
from mlx_gemma4.checkpoint.recipes import RECIPES
from mlx_gemma4.convert import convert
from mlx_gemma4.convert.record import Record
from mlx_gemma4.measure.quality import Quality, measure
from mlx_gemma4.measure.wer import Recording, read_manifest

TESTS = Path(__file__).parent / "data" / "demo"
NO_TEXT = "."


def recordings() -> list[Recording]:
    """All recordings of the test set. Those of the package are not copied into the tests."""
    packaged = demo_folder() / "media"
    listed = read_manifest(TESTS / "speech.jsonl")
    places = [TESTS / item.name if (TESTS / item.name).is_file() else packaged / item.name for item in listed]
    return [Recording(item.name, place, item.text) for item, place in zip(listed, places, strict=True)]


def compare(recipe: str, modules: Sequence[str]) -> tuple[Record, Quality]:
    """Convert the demo and measure the quality."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "converted"
        record = convert("demo", folder, recipe=recipe, modules=modules, note=lambda text: None)
        quality = measure(demo_folder() / "checkpoint", folder, text=NO_TEXT, recordings=recordings())
    return record, quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=[name for name in RECIPES if name != "qat"])
    parser.add_argument("--module", action="append", default=[])
    arguments = parser.parse_args()
    print("| recipe | MB | bits per weight | KL, nats a token | top-1 agreement | WER |")
    print("|---|---:|---:|---:|---:|---:|")
    for recipe in arguments.recipes:
        record, quality = compare(recipe, arguments.module)
        print(row(recipe, record, quality), flush=True)


def row(name: str, record: Record, quality: Quality) -> str:
    """A line of the table. Text is left out: the demo was not trained on prose."""
    parts = [quality.parts["audio"], quality.parts["image"]]
    tokens = sum(part.tokens for part in parts)
    kl, top1 = (sum(getattr(part, key) * part.tokens for part in parts) / tokens for key in ("kl", "top1"))
    sizes = f"{record.size_bytes / 1e6:.2f} | {record.bits_per_weight:.2f}"
    return f"| {name} | {sizes} | {kl:.5f} | {top1:.1%} | {quality.wer:.1%} |"


if __name__ == "__main__":
    main()
