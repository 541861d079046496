"""``GET /v1/models``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def model_record(name: str, created: int) -> dict[str, Any]:
    """A model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "mlx_gemma4"}


def model_list(names: Sequence[str], created: int) -> dict[str, Any]:
    """All names of the model."""
    return {"object": "list", "data": [model_record(name, created) for name in names]}
