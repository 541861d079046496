"""Prompts: the reference's ids, types, patches and frames from the same messages; slices and sums."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import loaded
from PIL import Image
from reference_cases import Case, media_file, reference_case

from mlx_gemma4 import Model, Processor
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.inputs.text.template import ChatTemplate


def messages(case: Case) -> list[dict[str, Any]]:
    """A case's messages, its media from files (the video from its frames)."""
    media = case.folder / "media"

    def part(kind: str, value: Any) -> dict[str, Any]:
        if kind == "text":
            return {"type": "text", "text": value}
        if kind == "video":
            return {"type": "video", "video": (np.load(media / f"video{value}.npy"), 2.0)}
        return {"type": kind, kind: media / f"{kind}{value}.{'png' if kind == 'image' else 'wav'}"}

    return [
        {"role": role, "content": [part(kind, value) for kind, value in content]} for role, content in case.messages
    ]


def assert_same_prompt(actual: Prompt, expected: Prompt) -> None:
    np.testing.assert_array_equal(actual.token_ids, expected.token_ids)
    np.testing.assert_array_equal(actual.token_types, expected.token_types)
    np.testing.assert_array_equal(actual.frames, expected.frames)
    np.testing.assert_array_equal(actual.patch_xy, expected.patch_xy)
    np.testing.assert_array_equal(actual.patches, expected.patches)


def test_a_prompt_is_the_references(case: Case) -> None:
    """Ids, types, frames, positions, and every pixel after scaling."""
    _, processor = loaded(case.checkpoint)
    assert_same_prompt(processor.prompt(messages(case)), case.prompt)


def test_rendered_text_is_expanded_as_the_reference_does(case: Case) -> None:
    """From the rendered prompt, with media given by kind."""
    _, processor = loaded(case.checkpoint)
    parts = [part for message in messages(case) for part in message["content"]]
    media = {kind: [part[kind] for part in parts if kind in part] for kind in ("image", "audio", "video")}
    prompt = processor.expand(case.text, images=media["image"], audios=media["audio"], videos=media["video"])
    assert_same_prompt(prompt, case.prompt)


def test_media_in_memory_are_media_in_files(demo: tuple[Model, Processor]) -> None:
    """A path, a PIL image and an array give the same patches; so do a path and samples."""
    _, processor = demo
    path = media_file("picture-02.png")
    with Image.open(path) as image:
        expected = processor.patches(path)
        for source in (image, np.asarray(image.convert("RGB")), str(path)):
            np.testing.assert_array_equal(processor.patches(source).pixels, expected.pixels)
    wav = media_file("pico-04.wav")
    samples, _ = soundfile.read(wav, dtype="float32")
    from_file, from_samples = (
        processor.prompt([{"role": "user", "content": [{"type": "audio", "audio": source}]}])
        for source in (wav, samples)
    )
    assert_same_prompt(from_file, from_samples)


def test_slices_joined_are_the_whole(case: Case) -> None:
    """Run by run and put together again."""
    assert_same_prompt(join(case.prompt.spans()), case.prompt)
    assert_same_prompt(join(case.prompt.chunks(repeat(7))), case.prompt)


def test_a_slice_takes_its_own_media() -> None:
    """The second image of two, without the first."""
    prompt = reference_case("released", "two-images").prompt
    starts = np.flatnonzero(np.diff(prompt.is_vision.astype(int), prepend=0) == 1)
    first = int(prompt.is_vision[: starts[1]].sum())
    np.testing.assert_array_equal(prompt[int(starts[1]) :].patches, prompt.patches[first:])
    np.testing.assert_array_equal(prompt[: int(starts[1])].patch_xy, prompt.patch_xy[:first])


def test_a_cut_inside_an_image_is_refused() -> None:
    prompt = reference_case("released", "image").prompt
    with pytest.raises(ValueError, match=r"^The cut goes through an image, at 30 of 72"):
        prompt[:30]
    with pytest.raises(ValueError, match="with step 1, got 2"):
        prompt[::2]


def test_common_prefix_compares_media_too() -> None:
    """Same ids, another picture: what is common ends before it."""
    prompt = reference_case("released", "mixed").prompt
    assert prompt.common_prefix(prompt) == len(prompt)
    start = int(prompt.is_vision.argmax())
    assert prompt.common_prefix(prompt[:start]) == start
    other = Prompt(prompt.token_ids, prompt.token_types, prompt.frames, prompt.patches.copy(), prompt.patch_xy)
    other.patches[10, 0] += 0.5
    assert prompt.common_prefix(other) == start
    louder = Prompt(prompt.token_ids, prompt.token_types, prompt.frames.copy(), prompt.patches, prompt.patch_xy)
    louder.frames[3] *= 2
    assert prompt.common_prefix(louder) == np.flatnonzero(prompt.token_types == 3)[3]


@pytest.mark.parametrize(
    ("kind", "source"), [("image", np.zeros((48, 48, 3), np.uint8)), ("audio", np.zeros(640, np.float32))]
)
def test_media_that_the_template_drops_are_refused(
    demo: tuple[Model, Processor], kind: str, source: np.ndarray
) -> None:
    """More media than placeholders, and more placeholders than media."""
    _, processor = demo
    with pytest.raises(
        ValueError,
        match=f"^The rendered prompt has 0 {kind} placeholders for 1 {kind} inputs; each input needs one of its own$",
    ):
        processor.expand("<bos>no media here", **{f"{kind}s": [source]})
    with pytest.raises(
        ValueError,
        match=f"^The rendered prompt has 1 {kind} placeholders for 0 {kind} inputs; each input needs one of its own$",
    ):
        processor.expand(f"<bos>look: <|{kind}|>")


def test_a_template_without_video_is_no_silent_drop(demo: tuple[Model, Processor]) -> None:
    """A template that writes no video placeholder."""
    clip = (np.zeros((2, 48, 48, 3), np.uint8), 1.0)
    blind = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate("{{ messages | length }}", {}))
    with pytest.raises(ValueError, match=r"^The rendered prompt has 0 video placeholders for 1 video inputs; "):
        blind.prompt([{"role": "user", "content": [{"type": "video", "video": clip}]}])


def test_sound_beyond_the_segment_limit_is_refused(demo: tuple[Model, Processor]) -> None:
    """30 s fit, one sample more does not, and nothing is cut."""
    _, processor = demo
    samples = np.zeros(30 * 16_000 + 1, np.float32)
    content = [{"type": "audio", "audio": samples[:-1]}]
    assert (processor.prompt([{"role": "user", "content": content}]).token_types == 3).sum() == 750
    with pytest.raises(ValueError, match=r"^A prompt takes at most 30 s of sound; cut it with"):
        processor.prompt([{"role": "user", "content": [{"type": "audio", "audio": samples}]}])


def test_unknown_content_is_refused(demo: tuple[Model, Processor]) -> None:
    _, processor = demo
    with pytest.raises(ValueError, match="has the unknown type 'image_url'; write"):
        processor.prompt([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])
    with pytest.raises(ValueError, match="has no image; write"):
        processor.prompt([{"role": "user", "content": [{"type": "image", "path": "x"}]}])


def test_the_budget_of_an_image_can_be_chosen(released: tuple[Model, Processor]) -> None:
    """The largest size whose patches number at most the budget."""
    picture = {"type": "image", "image": np.zeros((480, 640, 3), np.uint8)}
    counts = [
        int((released[1].prompt([{"role": "user", "content": [picture]}], image_tokens=budget).token_types == 1).sum())
        for budget in (70, 140, 280, 560, 1120)
    ]
    assert counts == [63, 130, 266, 540, 1064]
    with pytest.raises(ValueError, match="an image budget of 70, 140, 280, 560, 1120 tokens, got 100"):
        released[1].prompt([{"role": "user", "content": [picture]}], image_tokens=100)
