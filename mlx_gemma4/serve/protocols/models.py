"""``GET /v1/models``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def model_record(name: str, created: int, takes: Sequence[str]) -> dict[str, Any]:
    """A model.

    Args:
        takes: What it takes: ``text``, ``image``, ``audio``, ``video``. The field is not OpenAI's.
    """
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "mlx_gemma4",
        "input_modalities": list(takes),
    }


def model_list(names: Sequence[str], created: int, takes: Sequence[str]) -> dict[str, Any]:
    """All names of the model."""
    return {"object": "list", "data": [model_record(name, created, takes) for name in names]}
