"""What a session takes: pieces, checked, cut into forwards, and embedded as rows of the sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.masks import number_images
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.checks import check_frames, check_prompt, check_token_ids
from mlx_gemma4.inputs.content import Content
from mlx_gemma4.inputs.prompt import AUDIO, IMAGE, TEXT, Prompt
from mlx_gemma4.inputs.vision.image import Patches

Piece = Prompt | Patches | Sequence[int] | np.ndarray
"""A Prompt, an image, token ids [L], or frames of sound (float [F, frame_samples])."""

Rows = tuple[mx.array, np.ndarray | None]
"""Of one forward: [1, L, D], and the image that each row belongs to, as the model takes them."""


def embed(piece: Piece, model: Model, sizes: Iterator[int]) -> tuple[Content, Iterator[Rows]]:
    """Check a piece; then what it is, and its rows, lazily, forward by forward.

    Args:
        sizes: How long the next forward may be, each time that it is asked.

    Raises:
        ValueError: The piece is empty, of another type, or does not fit the model.
    """
    if isinstance(piece, Patches):
        piece = Prompt.from_patches(piece, _placeholder(model, "image"), IMAGE)
    if isinstance(piece, Prompt):
        if len(piece) == 0:
            raise _nothing()
        check_prompt(piece, model.config)
        return Content.of(piece), (_rows(chunk, model) for chunk in piece.chunks(sizes))
    array = np.asarray(piece)
    if array.ndim and len(array) == 0:
        raise _nothing()
    # what is of one type needs no Prompt: frames of sound come 25 times a second
    if array.ndim == 2 and np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32, copy=False)
        check_frames(array, model.config)
        embedding: Callable[[mx.array], mx.array] = model.embed_frames
        content = Content.of_frames(array, _placeholder(model, "audio"))
    elif array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
        check_token_ids(array, model.config)
        embedding = model.embed_tokens
        content = Content.of_ids(array)
    else:
        raise ValueError(
            "Expected a Prompt, Patches, token ids [L] or audio frames [F, frame_samples], "
            f"got {array.dtype} {list(array.shape)}"
        )
    return content, ((embedding(mx.array(chunk)[None]), None) for chunk in _cut(array, sizes))


def longest_image(piece: Piece) -> int:
    """Rows of the longest image of a piece that ``embed`` takes: it goes in one forward."""
    if isinstance(piece, Patches):
        return len(piece)
    if not isinstance(piece, Prompt) or not len(piece.patches):
        return 0
    return int(np.bincount(number_images(piece.is_vision) + 1)[1:].max())


def _nothing() -> ValueError:
    return ValueError("There is nothing to extend the session with: the piece is empty")


def _cut(array: np.ndarray, sizes: Iterator[int]) -> Iterator[np.ndarray]:
    while len(array):
        size = next(sizes)
        yield array[:size]
        array = array[size:]


def _rows(chunk: Prompt, model: Model) -> Rows:
    rows = [_span(span, model) for span in chunk.spans()]
    vision = chunk.is_vision
    image_ids = number_images(vision) if vision.any() else None
    return rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=1), image_ids


def _span(span: Prompt, model: Model) -> mx.array:
    """A stretch of one type → [1, L, D]."""
    if span.token_types[0] == TEXT:
        return model.embed_tokens(mx.array(span.token_ids)[None])
    if span.token_types[0] == AUDIO:
        return model.embed_frames(mx.array(span.frames)[None])
    return model.embed_image(mx.array(span.patches)[None], mx.array(span.patch_xy)[None])


def _placeholder(model: Model, kind: str) -> int:
    ids = model.config.token_ids
    token_id = ids.audio if kind == "audio" else ids.image
    if token_id is None:
        raise ValueError(f"The checkpoint takes no {kind}: its config.json names no {kind} token")
    return token_id
