"""Cameras, as commands open them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlx_gemma4.cli.options import note

if TYPE_CHECKING:
    from mlx_gemma4.live.camera import Camera


def open_camera(source: str, *, fast: bool = False, loop: bool = False) -> Camera:
    """A camera that says on stderr what it waits for, and is opened again when it ends."""
    from mlx_gemma4.live.camera import TRIES, Camera

    return Camera(source, fast=fast, loop=loop, tries=TRIES, tell=note)
