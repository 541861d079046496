"""What a session holds: found again by content, media by what they show, without keeping them."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import CASES, reference_case

from mlx_gemma4 import Model, Session
from mlx_gemma4.inputs.content import Content
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.inputs.vision.image import Patches


@pytest.fixture
def model() -> Model:
    return loaded("released")[0]


def changed(array: np.ndarray, row: int) -> np.ndarray:
    """By the least that a float32 can."""
    copy = array.copy()
    copy[row, -1] = np.nextafter(copy[row, -1], np.float32(2), dtype=np.float32)
    return copy


def test_the_first_difference_is_found() -> None:
    """A token, a bit of one pixel or its place, a bit of one sample. An image is one unit."""
    mixed = reference_case("released", "mixed").prompt
    content = Content.of(mixed)
    assert content.common_prefix(mixed) == len(content) == len(mixed)
    first_image, first_sound = int(mixed.is_vision.argmax()), int((mixed.token_types == 3).argmax())
    ids = mixed.token_ids.copy()
    ids[3] += 1
    moved = mixed.patch_xy.copy()
    moved[1, 0] += 1
    for other, prefix in (
        (replace(mixed, token_ids=ids), 3),
        (replace(mixed, patches=changed(mixed.patches, 0)), first_image),
        (replace(mixed, patches=changed(mixed.patches, 5)), first_image),
        (replace(mixed, patch_xy=moved), first_image),
        (replace(mixed, frames=changed(mixed.frames, 2)), first_sound + 2),
        (mixed[:first_sound], first_sound),
    ):
        assert content.common_prefix(other) == Content.of(other).common_prefix(mixed) == prefix


@pytest.mark.parametrize("name", CASES)
def test_it_finds_what_comparing_prompts_finds(name: str) -> None:
    one = reference_case("released", name).prompt
    for other in (reference_case("released", other).prompt for other in CASES):
        assert Content.of(one).common_prefix(other) == one.common_prefix(other)


def test_a_session_knows_what_it_holds(model: Model) -> None:
    """However the pieces came, after rewinds, in a fork, and with tokens that are computed later."""
    mixed = reference_case("released", "mixed").prompt
    session = Session(model)
    for span in mixed.spans():
        if len(span.frames):
            session.extend(span.frames)
        elif len(span.patches):
            session.extend(Patches(span.patches, span.patch_xy))
        else:
            session.extend(span.token_ids.tolist())
    assert session.content.common_prefix(mixed) == session.position == len(session.content)
    session.step(mx.array(40) + 1)
    session.step(mx.array([42, 43]) + 1)
    session.step(mx.array(45))
    whole = join([mixed, Prompt.from_tokens([41, 43, 44, 45])])
    assert session.content.common_prefix(whole) == len(session.content) == len(whole)
    session.rewind(len(mixed) + 2)
    fork = session.fork(len(mixed))
    session.extend([50])
    assert session.content.common_prefix(whole) == len(mixed) + 2
    assert len(fork.content) == fork.content.common_prefix(whole) == len(mixed)
    session.reset()
    assert len(session.content) == 0


def test_many_tokens_are_kept_in_few_pieces(model: Model) -> None:
    content, ids = Content(), list(range(300))
    for token in ids:
        content.append_ids(mx.array(token), 1)
        assert len(content._parts) <= 65
    assert content.common_prefix(Prompt.from_tokens(ids)) == 300
    content.cut(299)
    content.append_ids(mx.array([7, 8, 9]), 3)
    content.cut(301)
    assert content.rows[297:, 0].tolist() == [297, 298, 7, 8]
    assert Content(content.rows).common_prefix(content) == 301


def test_what_was_interrupted_is_not_held(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(model)
    session.extend([30, 31])

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Model, "__call__", interrupted)
        for extend in (lambda: session.extend([32, 33]), lambda: session.step(mx.array(32))):
            with pytest.raises(KeyboardInterrupt):
                extend()
            assert session.content.rows[:, 0].tolist() == [30, 31]


def test_no_pixels_and_no_samples_are_kept(model: Model) -> None:
    """24 bytes a position."""
    session = Session(model)
    session.extend(reference_case("released", "mixed").prompt)
    assert session.content.rows.nbytes == 24 * session.position
