"""A video as the model takes it: the patches of its video frames, and when each is shown. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_gemma4.inputs.vision.image import Patches


@dataclass(frozen=True, eq=False)
class Film:
    """Video frames, of a video or a camera."""

    video_frames: tuple[Patches, ...]
    seconds: tuple[float, ...]
    """When each video frame is shown; the prompt says it as mm:ss."""

    def __post_init__(self) -> None:
        if not self.video_frames or len(self.video_frames) != len(self.seconds):
            raise ValueError(
                f"Expected a time for each video frame, got {len(self.video_frames)} frames and {self.seconds}"
            )

    def __len__(self) -> int:
        return len(self.video_frames)
