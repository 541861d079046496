"""A video as the model takes it: the patches of its frames, and when each is shown. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_gemma4.inputs.vision.image import Patches


@dataclass(frozen=True, eq=False)
class Film:
    """Frames of a video, of a camera, or of a stretch of either."""

    video_frames: tuple[Patches, ...]
    seconds: tuple[float, ...]
    """When each frame is shown; the prompt tells it as mm:ss."""

    def __post_init__(self) -> None:
        if not self.video_frames or len(self.video_frames) != len(self.seconds):
            raise ValueError(f"Expected a time for each frame, got {len(self.video_frames)} frames and {self.seconds}")

    def __len__(self) -> int:
        return len(self.video_frames)
