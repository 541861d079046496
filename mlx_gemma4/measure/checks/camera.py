"""The camera: whether there is one, and whether it shows anything. One picture is taken, and none is kept."""

from __future__ import annotations

import sys
import threading

from mlx_gemma4.live.see.address import PRIVACY, list_cameras
from mlx_gemma4.live.see.camera import Camera
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known

SECONDS = 5.0
"""Seconds that a camera may take to show its first picture."""
LIMIT = 1.5
"""The same while it opens or shows only black, as a multiple of it."""
ALLOW = f"Uncover it, or allow it in {PRIVACY}, then start the terminal anew."
UNCOVER = "Uncover it, or close programs that use it."
OTHERWISE = "watch also takes videos and addresses, and live --no-camera needs none"


def check(known: Known) -> Findings:
    camera = known.get("options", {}).get("camera")
    if camera is not None:
        yield look(camera, camera)
        return
    try:
        cameras = list_cameras()
    except ValueError as error:
        yield Finding("camera", "not tested", f"{error}.")
        return
    if cameras:
        yield look(cameras[0].number, cameras[0].name)
    else:
        yield Finding("camera", "warning", "There is no camera.", f"Connect one; {OTHERWISE}.")


def look(source: str, name: str, seconds: float = SECONDS) -> Finding:
    """Take one picture, then switch the camera off."""
    told: list[str] = []
    try:
        camera = Camera(source, stall_seconds=seconds, tell=told.append)
        timer = threading.Timer(LIMIT * seconds, camera.stop)
        timer.start()
        try:
            with camera:
                shot = camera.read()
        finally:
            timer.cancel()
    except ValueError as error:
        text, _, remedy = str(error).partition("; ")
        return Finding("camera", "problem", f"{text}.", f"{remedy[:1].upper()}{remedy[1:]}." if remedy else "")
    if shot is not None:
        height, width, _ = shot.pixels.shape
        figures = {"name": name, "width": width, "height": height}
        return Finding("camera", "ok", f"'{name}' shows pictures of {width} x {height}.", figures=figures)
    symptom = camera.problem or (
        f"'{name}' showed only black pictures." if camera.seen else f"'{name}' showed no picture."
    )
    return Finding("camera", "problem", symptom, ALLOW if sys.platform == "darwin" else UNCOVER, {"name": name})
