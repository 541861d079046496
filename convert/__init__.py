"""The converter: Hugging Face weights to MLX, in little memory. It knows no prompts.

Names are loaded when they are first used: the command line asks for options only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .publish import upload
    from .run import convert

__all__ = ["convert", "upload"]

# No public name may be that of a module: importing the module would put it in the name's place.
_HOMES = {"convert": "run", "upload": "publish"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
