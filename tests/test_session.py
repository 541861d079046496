"""A session: any cut equals one pass, a rewind equals never having gone there, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, repeat

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import Case, reference_case
from test_reference import ROUNDING

from mlx_gemma4 import Model, Processor, Session
from mlx_gemma4.decoder.model import MLP
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.inputs.vision.image import Patches

CUTTINGS = 3
"""Of each of the 12 cases."""


def tolerance(case: Case) -> float:
    """As for the logits themselves: a small multiple of the reference's own rounding on this checkpoint."""
    return 4 * ROUNDING[f"{case.checkpoint}-{case.name}"]


def allowed_cuts(prompt: Prompt) -> np.ndarray:
    """Every place but those inside an image."""
    vision = prompt.is_vision
    return np.flatnonzero(~(vision[1:] & vision[:-1])) + 1


def pieces(prompt: Prompt, random: np.random.Generator) -> list[Prompt]:
    places = allowed_cuts(prompt)
    count = int(random.integers(1, min(9, len(places))))
    cuts = [0, *sorted(random.choice(places, count, replace=False).tolist()), len(prompt)]
    return [prompt[start:stop] for start, stop in pairwise(cuts)]


def test_any_cut_is_one_pass(case: Case) -> None:
    """The reference's logits at every position, for random cuttings into up to 9 pieces."""
    model, _ = loaded(case.checkpoint)
    random = np.random.default_rng(0)
    for _ in range(CUTTINGS):
        session = Session(model)
        logits = [session.extend(piece, logits_from=0) for piece in pieces(case.prompt, random)]
        assert np.abs(np.concatenate(logits) - case.logits).max() < tolerance(case)


def test_frame_by_frame_is_one_pass() -> None:
    """Text whole, then every 40 ms frame on its own."""
    case = reference_case("released", "audio")
    model, _ = loaded("released")
    session = Session(model)
    logits = [session.extend(case.prompt[i : i + 1], logits_from=0) for i in range(len(case.prompt))]
    assert np.abs(np.concatenate(logits) - case.logits).max() < tolerance(case)


def test_rewinding_is_never_having_gone_there(case: Case) -> None:
    """At random places, beyond the window too: forget random detours, and end with the same bits."""
    model, _ = loaded(case.checkpoint)
    random = np.random.default_rng(1)
    straight, winding = Session(model), Session(model)
    for part in pieces(case.prompt, random):
        expected = straight.extend(part)
        mark = winding.mark()
        detour = random.integers(23, 300, int(random.integers(1, 60)))
        winding.extend(detour)
        winding.rewind(mark)
        np.testing.assert_array_equal(np.array(winding.extend(part)), np.array(expected))


def test_a_small_room_changes_nothing_but_what_can_be_rewound(case: Case) -> None:
    """Room for 2: sliding layers forget all they can, and the logits stay."""
    model, _ = loaded(case.checkpoint)
    session = Session(model, room=2)
    logits = [session.extend(piece, logits_from=0) for piece in pieces(case.prompt, np.random.default_rng(2))]
    assert np.abs(np.concatenate(logits) - case.logits).max() < tolerance(case)


@pytest.mark.parametrize("prefix", [0, 1, 5, 14, 15, 16, 17, 40])
def test_an_image_behind_a_cached_prefix(prefix: int) -> None:
    """Its mask is the same, whether the text before it is in the same forward or long in the cache."""
    model, _ = loaded("released")
    image = reference_case("released", "image").prompt
    prompt = join([Prompt.from_tokens(np.arange(23, 23 + prefix)), image]) if prefix else image
    whole = np.array(Session(model).extend(prompt, logits_from=0))
    start = prefix + int(image.is_vision.argmax())
    cut = Session(model)
    logits = [cut.extend(part, logits_from=0) for part in (prompt[:start], prompt[start:])]
    assert np.abs(np.concatenate(logits) - whole).max() < 4 * ROUNDING["released-image"]


def test_pieces_of_every_kind() -> None:
    """Token ids, frames as an array and an image as Patches are what the same stretches of a prompt are."""
    model, _ = loaded("resaved")
    case = reference_case("resaved", "mixed")
    session, whole = Session(model), Session(model)
    for run in case.prompt.spans():
        expected = whole.extend(run)
        if run.token_types[0] == 0:
            actual = session.extend(run.token_ids.tolist())
        elif len(run.frames):
            actual = session.extend(run.frames)
        else:
            actual = session.extend(Patches(run.patches, run.patch_xy))
        np.testing.assert_array_equal(np.array(actual), np.array(expected))


def test_frames_and_token_ids_enter_without_a_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame comes 25 times a second. Two forwards of them give a Prompt's logits, to the bit."""
    model, _ = loaded("resaved")
    frames = np.random.default_rng(3).normal(size=(600, 640)).astype(np.float64)
    ids = np.arange(23, 323).repeat(2)
    whole, session = Session(model), Session(model)
    expected = [whole.extend(Prompt.from_tokens(ids)), whole.extend(Prompt.from_frames(frames, 300))]
    monkeypatch.delattr(Prompt, "__init__")
    for piece, logits in zip((ids, frames), expected, strict=True):
        np.testing.assert_array_equal(np.array(session.extend(piece)), np.array(logits))
    assert (session.forwards, session.computed) == (whole.forwards, whole.computed) == (4, 1200)


def test_last_logits_are_the_last_of_all() -> None:
    """And unread logits cost no head: extend returns them lazily."""
    case = reference_case("released", "text")
    model, _ = loaded("released")
    last = Session(model).extend(case.prompt)
    every = Session(model).extend(case.prompt, logits_from=0)
    assert every.shape == (len(case.prompt), 371)
    np.testing.assert_allclose(np.array(last), np.array(every[-1]), atol=1e-5)


def test_logits_from_a_row_on() -> None:
    """They are the last of all logits, also where the row lies in the second of two forwards."""
    model, _ = loaded("resaved")
    ids = np.arange(23, 323).repeat(2)
    every = np.array(Session(model).extend(ids, logits_from=0))
    for first in (0, 1, 511, 512, 599):
        logits = Session(model).extend(ids, logits_from=first)
        assert logits.shape == (600 - first, 371)
        np.testing.assert_allclose(np.array(logits), every[first:], atol=1e-5)
    session = Session(model)
    for first in (-1, 600):
        with pytest.raises(ValueError, match=f"Expected logits_from to be a row of the piece, 0 to 599, got {first}"):
            session.extend(ids, logits_from=first)
    assert session.position == 0


def test_the_hidden_state_is_that_of_the_last_position() -> None:
    """Also after a rewind within the rows whose logits were returned; elsewhere it is refused."""
    model, _ = loaded("resaved")
    session = Session(model)
    with pytest.raises(ValueError, match="The hidden state of position -1 is not kept; extend the session"):
        _ = session.hidden
    logits = np.array(session.extend(np.arange(23, 53), logits_from=20))
    for position in (30, 25, 21):
        session.rewind(position)
        np.testing.assert_allclose(np.array(model.logits(session.hidden)[0, 0]), logits[position - 21], atol=1e-5)
    session.rewind(20)
    with pytest.raises(ValueError, match="The hidden state of position 19 is not kept"):
        _ = session.hidden
    stepped = np.array(session.step(mx.array(43)))
    np.testing.assert_allclose(np.array(model.logits(session.hidden)[0, 0]), stepped, atol=1e-5)


def test_steps_are_extensions(released: tuple[Model, Processor]) -> None:
    """Token by token through ``step``: the logits of one pass."""
    case = reference_case("released", "text")
    session = Session(released[0])
    stepped = [np.array(session.step(mx.array(token))) for token in case.prompt.token_ids.tolist()]
    assert np.abs(np.stack(stepped) - case.logits).max() < tolerance(case)


def test_steps_return_the_last_logits(released: tuple[Model, Processor]) -> None:
    """``logits_from`` leaves out those of the first tokens; the hidden state of the last one is kept."""
    session = Session(released[0])
    session.extend([30, 31])
    every = np.array(session.step(mx.array([40, 41, 42, 43])))
    session.rewind(2)
    some = np.array(session.step(mx.array([40, 41, 42, 43]), logits_from=2))
    np.testing.assert_allclose(some, every[2:], atol=1e-5)
    np.testing.assert_allclose(np.array(released[0].logits(session.hidden)[0, 0]), every[3], atol=1e-5)


def test_a_long_prompt_is_cut_into_forwards_that_keep_images_whole() -> None:
    """512 positions at most, unless an image is longer."""
    video = reference_case("released", "video").prompt
    prompt = join([video, video])
    sizes = [len(chunk) for chunk in prompt.chunks(repeat(100))]
    assert sum(sizes) == len(prompt) and max(sizes) <= 100
    assert [len(chunk) for chunk in prompt.chunks(repeat(20)) if chunk.is_vision.any()] == [63] * 8
    session = Session(loaded("released")[0])
    session.extend(prompt)
    assert (session.forwards, session.computed, session.position) == (2, len(prompt), len(prompt))


def test_marks_die_with_a_rewind_past_them(released: tuple[Model, Processor]) -> None:
    """A mark whose place was rewritten does not silently lead to other content."""
    session = Session(released[0])
    session.extend([30, 31, 32])
    early = session.mark()
    session.extend([33, 34])
    late = session.mark()
    session.rewind(early)
    session.extend([40, 41, 42])
    with pytest.raises(
        ValueError, match=r"Mark\(5\) is not a mark of this session, or an earlier rewind has passed it; make a new one"
    ):
        session.rewind(late)
    assert session.position == 6
    session.rewind(early)
    assert session.position == 3


def test_another_sessions_mark_is_refused(released: tuple[Model, Processor]) -> None:
    one, other = Session(released[0]), Session(released[0])
    one.extend([30, 31])
    other.extend([30, 31])
    with pytest.raises(ValueError, match="is not a mark of this session"):
        one.rewind(other.mark())


def test_a_rewind_into_an_image_is_refused() -> None:
    """What stays of it would have seen what is gone."""
    case = reference_case("released", "image")
    session = Session(loaded("released")[0])
    session.extend(case.prompt)
    with pytest.raises(ValueError, match="Position 30 lies inside the image at 5–65: rewind to 5 or 65"):
        session.rewind(30)
    session.rewind(5)
    assert session.position == 5


def test_a_rewind_beyond_the_room_is_refused() -> None:
    """And the session goes on as if it had not been asked."""
    case = reference_case("released", "text")
    model, _ = loaded("released")
    session, untouched = Session(model, room=8), Session(model, room=8)
    for each in (session, untouched):
        each.extend(np.arange(30, 130))
    with pytest.raises(ValueError, match="within the last 8 to rewind to, got 50 at 100"):
        session.rewind(50)
    np.testing.assert_array_equal(np.array(session.extend(case.prompt)), np.array(untouched.extend(case.prompt)))


@pytest.mark.parametrize("room", [2, 512])
def test_memory_is_the_window_the_room_and_little_more(room: int) -> None:
    """To the byte: the sliding layers' share stays, however long a piece is; only the two full layers grow."""
    model, _ = loaded("released")
    session = Session(model, room=room)
    sliding = 10 * (2 * 2 * 32 * 4) * (15 + room + 64)  # ten layers; keys and values of two heads of 32 in float32
    for length, capacity in ((1100, 1280), (1, 1280), (300, 1792)):
        session.extend(np.full(length, 30))
        assert session.nbytes == sliding + 2 * (80 * 4) * capacity
    assert Session(model).nbytes == 0


def test_buffers_of_all_lengths_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every guess of a live transcription has another length; MLX keeps the buffers of each for reuse."""
    model, _ = loaded("released")
    before = mx.set_cache_limit(2**40)
    kept = []
    try:
        for limit in (2**40, 1_000_000):
            monkeypatch.setattr("mlx_gemma4.session.KEPT_BUFFERS", limit)
            mx.clear_cache()
            session = Session(model)
            session.extend([30] * 10)
            for length in range(1, 41):
                session.extend(np.full(length, 30), logits_from=0)
                session.rewind(10)
            kept.append(mx.get_cache_memory())
    finally:
        mx.set_cache_limit(before)
    assert kept[1] <= 1_000_000 < 2_000_000 < kept[0]


def test_an_interrupted_piece_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a forward: the session is as before the piece."""
    model, _ = loaded("released")
    session, untouched = Session(model), Session(model)
    for each in (session, untouched):
        each.extend(np.arange(30, 60))
    real, calls = MLP.__call__, iter(range(100))

    def interrupted(mlp: MLP, x: mx.array) -> mx.array:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return real(mlp, x)

    with monkeypatch.context() as patch:
        patch.setattr(MLP, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.extend([30, 31, 32])
    assert session.position == 30
    np.testing.assert_array_equal(np.array(session.extend([33])), np.array(untouched.extend([33])))


def test_what_does_not_fit_is_refused(released: tuple[Model, Processor]) -> None:
    """Each with its own message, and the session unchanged."""
    model, _ = released
    image = reference_case("released", "image").prompt
    session = Session(model)
    session.extend([30])
    half = Prompt(image.token_ids, image.token_types, image.frames, image.patches[:-1], image.patch_xy[:-1])
    far = Prompt(image.token_ids, image.token_types, image.frames, image.patches, image.patch_xy + 64)
    for piece, message in (
        ([], "There is nothing to extend the session with"),
        ([30, 371], "Expected token ids from 0 to 370, got 371"),
        ([-1], "Expected token ids from 0 to 370, got -1"),
        (np.zeros((2, 320), np.float32), "Expected audio frames of 640 values each, got 320"),
        (np.full((1, 640), np.nan, np.float32), "The audio frames contain NaN or infinity"),
        (half, "The prompt has 60 image placeholders but 59 patches"),
        (far, "Expected patch_xy from 0 to 63, got 64 to "),
        (5, r"Expected a Prompt, Patches, token ids \[L\] or audio frames"),
        (np.zeros((2, 2, 2)), r"Expected a Prompt, Patches, token ids \[L\] or audio frames"),
    ):
        with pytest.raises(ValueError, match=message):
            session.extend(piece)
    vision = image[5:65]
    session.extend(vision)
    with pytest.raises(ValueError, match="An image follows another without text in between"):
        session.extend(vision)
    assert session.position == 61


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        ("image", Patches(np.zeros((1, 6912), np.float32), np.zeros((1, 2), np.int32))),
        ("audio", np.zeros((1, 640), np.float32)),
    ],
)
def test_media_without_a_placeholder_are_refused(
    released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, kind: str, piece: Patches | np.ndarray
) -> None:
    config = released[0].config
    monkeypatch.setattr(released[0], "config", replace(config, token_ids=replace(config.token_ids, **{kind: None})))
    with pytest.raises(ValueError, match=f"The checkpoint takes no {kind}: its config.json names no {kind} token"):
        Session(released[0]).extend(piece)


def test_too_little_room_is_refused(released: tuple[Model, Processor]) -> None:
    with pytest.raises(ValueError, match="Expected room for 2 or more positions, got 1"):
        Session(released[0], room=1)
