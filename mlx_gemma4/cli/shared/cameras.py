"""Cameras, as commands open them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.live.see.camera import Camera


def add_listing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list-cameras", action="store_true", help="list the cameras and exit")


def print_cameras() -> None:
    """A line for each: its number and its name."""
    from mlx_gemma4.live.see.address import list_cameras

    cameras = list_cameras()
    for camera in cameras:
        show(f"{camera.number:>2} {camera.name}")
    if not cameras:
        note("There is no camera.")


def open_camera(source: str, *, fast: bool = False, loop: bool = False) -> Camera:
    """A camera that reports on stderr what it waits for, and is opened again when it ends."""
    from mlx_gemma4.live.see.camera import TRIES, Camera

    return Camera(source, fast=fast, loop=loop, tries=TRIES, tell=note)
