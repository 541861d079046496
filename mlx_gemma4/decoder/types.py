"""The types of tensors, by the names that files and options give them."""

from __future__ import annotations

from collections.abc import Mapping

import mlx.core as mx

STORED_TYPES: Mapping[str, mx.Dtype] = {
    "BF16": mx.bfloat16,
    "F16": mx.float16,
    "F32": mx.float32,
    "U32": mx.uint32,
    "U8": mx.uint8,
    "I32": mx.int32,
    "I64": mx.int64,
}
"""Those that files are read and written with, by safetensors' names."""
TYPE_NAMES: Mapping[mx.Dtype, str] = {dtype: name for name, dtype in STORED_TYPES.items()}
"""Safetensors' names."""
DTYPES: Mapping[str, mx.Dtype] = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
"""Those that a model can compute in, by MLX's names."""


def type_name(dtype: mx.Dtype) -> str:
    """``bfloat16``."""
    return str(dtype).removeprefix("mlx.core.")
