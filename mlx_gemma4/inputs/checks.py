"""Whether a piece fits the model: bounds, sizes and counts, which gathers and products do not check."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.decoder.config import Config
from mlx_gemma4.inputs.prompt import AUDIO, Prompt


def check_prompt(prompt: Prompt, config: Config) -> None:
    """Check what the model's gathers and products would not: bounds, sizes, counts.

    Raises:
        ValueError: Something does not fit; the message names it.
    """
    check_token_ids(prompt.token_ids, config)
    for medium, rows, placeholders, kind in (
        ("audio", len(prompt.frames), int((prompt.token_types == AUDIO).sum()), "frames"),
        ("image", len(prompt.patches), int(prompt.is_vision.sum()), "patches"),
    ):
        if placeholders != rows:
            raise ValueError(f"The prompt has {placeholders} {medium} placeholders but {rows} {kind}")
    if len(prompt.frames):
        check_frames(prompt.frames, config)
    if len(prompt.patches):
        if config.vision_config is None:
            raise ValueError("The checkpoint takes no images: it has no weights for them")
        _check_rows("patches", prompt.patches, config.vision_config.patch_values)
        most = config.vision_config.mm_posemb_size - 1
        if prompt.patch_xy.min() < 0 or prompt.patch_xy.max() > most:
            raise ValueError(
                f"Expected patch_xy from 0 to {most}, got {prompt.patch_xy.min()} to {prompt.patch_xy.max()}"
            )


def check_token_ids(token_ids: np.ndarray, config: Config) -> None:
    """Raise a ValueError if an id lies outside the vocabulary: MLX's gather would return garbage."""
    size = config.text_config.vocab_size
    outside = token_ids[(token_ids < 0) | (token_ids >= size)]
    if len(outside):
        raise ValueError(f"Expected token ids from 0 to {size - 1}, got {outside[0]}")


def check_frames(frames: np.ndarray, config: Config) -> None:
    """Raise a ValueError if frames [F, frame_samples] do not fit the model."""
    if config.audio_config is None:
        raise ValueError("The checkpoint takes no sound: it has no weights for it")
    _check_rows("audio frames", frames, config.audio_config.audio_embed_dim)


def _check_rows(name: str, rows: np.ndarray, width: int) -> None:
    if rows.shape[1] != width:
        raise ValueError(f"Expected {name} of {width} values each, got {rows.shape[1]}")
    if not np.isfinite(rows).all():
        raise ValueError(f"The {name} contain NaN or infinity")
