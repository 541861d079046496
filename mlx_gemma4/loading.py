"""A checkpoint by name: its model and its processor."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from mlx_gemma4.checkpoint.hub import checkpoint_folder
from mlx_gemma4.decoder.budget import Budget, allocation_errors
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.fit import Asked, fit
from mlx_gemma4.decoder.machine_memory import machine_memory, memory_budget
from mlx_gemma4.decoder.memory import KEPT_BUFFERS, MARGIN, PROGRAM, SNAPSHOTS, Needs, Use
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.stored import can_have_kv_bits, check_kv_bits
from mlx_gemma4.decoder.types import DTYPES
from mlx_gemma4.decoder.weight_sizes import recipe_sizes, weight_sizes
from mlx_gemma4.decoder.weights import drafter_name, load_model
from mlx_gemma4.inputs.processor import Processor

ANY = Use(snapshots=SNAPSHOTS)


def load(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str | mx.Dtype | None = None,
    context: int | None = None,
    memory: float | None = None,
    kv_bits: int | None = None,
    drafter: str | os.PathLike[str] | None = None,
    use: Use = ANY,
) -> tuple[Model, Processor]:
    """Load a checkpoint, if it fits.

    What it needs is computed from its config and the headers of its weights. If that is more than ``memory``, nothing
    is loaded. Otherwise ``model.budget`` holds: sessions refuse what would break it, and MLX's own limits are set.

    Args:
        name: ``"demo"`` (embedded), a folder, or a Hugging Face repo id; released, saved by transformers, or
            converted to MLX, quantized or not.
        revision: Branch, tag or commit of the repo.
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"`` (or mlx's own) to compute in, instead of the
            checkpoint's.
        context: Positions of the longest sequence; by default as many as fit, up to what the checkpoint was made for.
        memory: GB (1e9 bytes) that this program may use; by default what the machine has for a model
            (``memory_budget``).
        kv_bits: Store the keys and values of full layers in 8 or 4 bits, from the first position on; by default as they
            are computed. It becomes ``model.kv_bits``.
        drafter: The name of a drafter that will be loaded beside it (``load_drafter``), to be planned for.
        use: What the model will be used for, as far as that decides how much memory it needs.

    Raises:
        DoesNotFit: The checkpoint does not fit; the message has the numbers, and what fits. Nothing was loaded.
        ValueError: There is no such checkpoint, or it is broken; the message says what and where. Or the heads of its
            full layers cannot be stored in ``kv_bits``.
    """
    compute = compute_type(dtype)
    limit = memory_limit(memory)
    # in another type they may become smaller
    most = limit - MARGIN if compute is None else None
    folder = checkpoint_folder(name, revision=revision, most_weights=most)
    config = Config.from_file(folder / "config.json")
    check_kv_bits(config.text_config, kv_bits)
    # a tokenizer of 262,144 tokens takes a second to parse; nothing in the thread touches MLX
    with ThreadPoolExecutor(1) as thread:
        processor = thread.submit(Processor.from_folder, folder, config)
        try:
            asked = Asked(str(name), limit, use, context)
            budget = plan_checkpoint(folder, config, compute, asked, drafter, kv_bits=kv_bits)
            set_limits(limit)
            model = load_model(folder, config=config, dtype=compute, lazy=True)
            model.budget, model.kv_bits = budget, kv_bits
            if budget.plan is not None:
                model.snapshots.memory = budget.plan.snapshots
            for layer in model.language_model.model.layers:
                if processor.done():
                    processor.result()  # if it is broken, the weights need not be read
                with allocation_errors():
                    mx.eval(layer.parameters())
            with allocation_errors():
                mx.eval(model.parameters())
        except Exception:
            processor.result()  # if both are broken, this error comes first
            raise
        return model, processor.result()


def plan_checkpoint(
    folder: Path,
    config: Config,
    dtype: mx.Dtype | None,
    asked: Asked,
    drafter: str | os.PathLike[str] | None = None,
    *,
    kv_bits: int | None = None,
) -> Budget:
    """The budget of a checkpoint that fits. Headers of its files are read, nothing else.

    Args:
        dtype: The type to compute in; None takes the checkpoint's own.
        drafter: As for ``load``, and ``kv_bits``.

    Raises:
        DoesNotFit: It does not fit.
    """
    beside = 0
    if drafter is not None:
        beside = weight_sizes(checkpoint_folder(drafter, has_tokenizer=False), dtype, drafter_name).held
    sizes = weight_sizes(folder, dtype)
    needs = Needs(
        config.text_config,
        sizes.held + beside,
        loading=sizes.loading,
        number=sizes.dtype.size,
        kv_bits=kv_bits,
        is_ahead=mx.default_device().type == mx.gpu,
    )

    def others() -> dict[str, Needs]:
        found = {}
        if dtype is not None and (own := weight_sizes(folder)).held < sizes.held:
            number = own.dtype.size
            found["leaving out --dtype"] = replace(needs, weights=own.held + beside, loading=own.loading, number=number)
        if kv_bits is None and can_have_kv_bits(config.text_config):
            found["--kv-bits 8"] = replace(needs, kv_bits=8)
        for recipe, nbytes in sorted(recipe_sizes(config).items(), key=lambda pair: -pair[1]):
            if recipe != "qat" and nbytes < sizes.held:  # qat is for weights that were trained for it
                found[f"a conversion with --recipe {recipe}"] = replace(
                    needs, weights=nbytes + beside, loading=0, number=2
                )
        return found

    return fit(asked, needs, others)


def memory_limit(memory: float | None = None) -> int:
    """Bytes that this program may use.

    Args:
        memory: In GB; None: what the machine has for a model.

    Raises:
        ValueError: It is not positive, or more than the machine has.
    """
    if memory is None:
        return memory_budget()
    most = machine_memory()
    if not 0 < memory * 1e9 <= most:
        raise ValueError(f"Expected memory (--memory) of more than 0 and at most {most / 1e9:.1f} GB, got {memory:g}")
    return round(memory * 1e9)


def set_limits(limit: int) -> None:
    """Set MLX's own limits within a budget of bytes.

    While more than the memory limit is in use, MLX waits for the device before it hands out more, and keeps no buffers
    for reuse. On Metal the weights are wired, as in mlx-lm, so that macOS does not page them out between answers.
    """
    most = max(limit - PROGRAM, 1)
    mx.set_memory_limit(most)
    kept = min(KEPT_BUFFERS, most)
    mx.set_cache_limit(min(kept, mx.set_cache_limit(kept)))  # a CPU keeps less by default
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
