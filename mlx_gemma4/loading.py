"""A checkpoint by name: its model and its processor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx

from mlx_gemma4.checkpoint.hub import checkpoint_folder
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.weights import load_model
from mlx_gemma4.inputs.processor import Processor

DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}


def load(
    name: str | os.PathLike[str], *, revision: str | None = None, dtype: str | mx.Dtype | None = None
) -> tuple[Model, Processor]:
    """Load a checkpoint.

    Args:
        name: ``"demo"`` (embedded), a folder, or a Hugging Face repo id; released, saved by transformers, or
            converted to MLX, quantized or not.
        revision: Branch, tag or commit of the repo.
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"`` (or mlx's own) to compute in, instead of the
            checkpoint's.

    Raises:
        ValueError: There is no such checkpoint, or it is broken; the message says what and where.
    """
    compute = compute_type(dtype)
    folder = checkpoint_folder(name, revision=revision)
    config = Config.from_file(folder / "config.json")
    wire_weights()
    # a tokenizer of 262,144 tokens takes a second to parse; nothing in the thread touches MLX
    with ThreadPoolExecutor(1) as thread:
        processor = thread.submit(Processor.from_folder, folder, config)
        try:
            model = load_model(folder, config=config, dtype=compute, lazy=True)
            for layer in model.language_model.model.layers:
                if processor.done():
                    processor.result()  # if it is broken, the weights need not be read
                mx.eval(layer.parameters())
            mx.eval(model.parameters())
        except Exception:
            processor.result()  # if both are broken, this error comes first
            raise
        return model, processor.result()


def wire_weights() -> None:
    """Keep macOS from paging out the weights between answers, as mlx-lm does. Nothing happens on other devices."""
    if mx.metal.is_available() and mx.default_device().type == mx.gpu:
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def compute_type(dtype: str | mx.Dtype | None) -> mx.Dtype | None:
    """A type by its name; None stays None.

    Raises:
        ValueError: There is no such type to compute in.
    """
    compute = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if compute is None and dtype is not None:
        raise ValueError(f"Expected a dtype of {', '.join(DTYPES)}, got {dtype!r}")
    return compute
