"""Quantize a checkpoint by several recipes, choose the smallest that is close to the source, and upload it.

    python examples/quantize_and_upload.py [SOURCE] [OWNER/NAME]

SOURCE is a folder, a Hugging Face repo or, without arguments, the demo's checkpoint. Nothing is uploaded unless a repo
is named.
"""

import sys
from pathlib import Path

from mlx_gemma4.convert import convert, upload

RECIPES = ("8bit", "mixed", "4bit")  # the largest first
MAX_KL = 0.05  # nats a token, from the source


def main(source: str, repo: str | None) -> None:
    best = None
    for recipe in RECIPES:
        folder = Path(f"{Path(source).name}-{recipe}")
        record = convert(source, folder, recipe=recipe, verify=True, overwrite=True)
        assert record.quantization_error is not None
        print(
            f"{folder}: {record.size_bytes / 1e6:.1f} MB, {record.bits_per_weight:.2f} bits per weight, "
            f"KL {record.quantization_error['kl']:.4f}, top-1 agreement {record.quantization_error['top1']:.1%}"
        )
        if record.quantization_error["kl"] <= MAX_KL:
            best = folder
    if best is None:
        sys.exit(f"No recipe has a KL divergence of {MAX_KL} nats a token or less.")
    print(f"The smallest within {MAX_KL} nats a token is {best}.")
    if repo is not None:
        print(upload(best, repo))


if __name__ == "__main__":
    main(*(sys.argv[1:] + ["demo", None][len(sys.argv) - 1 :]))
