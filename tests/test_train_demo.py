"""The parts of the demo's training that need no torch: texts, pictures, sound and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from examples.train_demo import pictures, sound, tests, texts
from examples.train_demo.align import next_words, words_so_far
from examples.train_demo.recordings import Recording
from mlx_gemma4 import Model, Processor


def test_held_out_texts_are_never_trained_on() -> None:
    """A fifth of all texts of several words; single words and commands never."""
    random = Random(0)
    trained = {texts.random_text(random) for _ in range(3000)}
    held_out = {texts.random_text(random, held_out=True) for _ in range(3000)}
    assert not trained & held_out
    assert all(" " in text for text in held_out)
    assert not held_out & set(texts.COMMANDS)
    share = np.mean([texts.is_held_out(" ".join(random.choices(texts.DIGITS, k=4))) for _ in range(4000)])
    assert share == pytest.approx(0.2, abs=0.02)


def test_each_number_is_trained_on_in_each_of_its_places() -> None:
    for number in texts.NUMBERS:
        assert not texts.is_held_out(f"volume {number}")
        assert not all(texts.is_held_out(f"{command} {number} meters") for command in ("go forward", "go back"))


def test_the_answer_names_the_change_of_the_second_frame() -> None:
    """The frames differ in one thing, or only in their noise."""
    random, seen = Random(1), set()
    for _ in range(200):
        before = pictures.random_picture(random)
        after, said = pictures.changed(before, random)
        names = ("colour", "shape", "place")
        differing = [name for name in names if getattr(before, name) != getattr(after, name)]
        kind = {"it turned": "colour", "it became": "shape", "it moved": "place"}.get(" ".join(said.split()[:2]))
        assert differing == ([] if kind is None else [kind])
        assert kind is None or said.split()[-1] == getattr(after, kind)
        assert replace(after, **{name: getattr(before, name) for name in names}, seed=before.seed) == before
        seen.add(kind)
    assert seen == {None, "colour", "shape", "place"}


def test_patches_are_those_of_the_processor(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    """Training and inference get the same patches, bit for bit."""
    image = pictures.draw(pictures.random_picture(Random(2)))
    Image.fromarray(image).save(tmp_path / "picture.png")
    prompt = demo[1].prompt([{"role": "user", "content": [{"type": "image", "image": tmp_path / "picture.png"}]}])
    np.testing.assert_array_equal(pictures.patches(image), prompt.patches)
    np.testing.assert_array_equal(pictures.POSITIONS, prompt.patch_xy)


def test_words_are_labelled_in_their_frames() -> None:
    """A single word has its place. In a text of several words, their number is known, but not the place of each."""
    tone = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16)
    speech = sound.Speech({"a": [Recording("seven", "a", tone), Recording("turn left", "a", tone)]}, {"a": 1.0})
    utterance = speech.say("seven", Random(3))
    frames, labels = sound.heard(utterance, Random(3), 0.0)
    words, counts = labels.T
    loud = np.sqrt(np.mean(frames**2, axis=1)) > 0.5 * np.sqrt(np.mean(frames**2, axis=1)).max()
    said = words == sound.WORD_IDS["seven"]
    assert said.sum() > 5
    assert np.all(loud[said][:-1]) and not np.any(loud[:2]) and not np.any(said[:2])
    assert np.all(counts[said] == 1) and counts[0] == 0 and counts[-1] == 1
    _, labels = sound.heard(speech.say("turn left", Random(3)), Random(3), 0.0)
    words, counts = labels.T
    assert set(words) == {sound.UNKNOWN, sound.SILENCE}
    assert list(dict.fromkeys(counts)) == [0, sound.UNKNOWN, 2]


def test_a_word_said_twice_counts_twice() -> None:
    tone = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16)
    speech = sound.Speech({"a": [Recording("seven", "a", tone)]}, {"a": 1.0})
    random = Random(1)
    utterance = next(
        each
        for each in (speech.utterance(random, 4, words_apart=True) for _ in range(50))
        if each.text == "seven seven seven"
    )
    _, labels = sound.heard(utterance, Random(3), 0.0)
    counts = labels[labels[:, 0] == sound.WORD_IDS["seven"], 1]
    assert list(dict.fromkeys(counts)) == [1, 2, 3]


def test_long_utterances_are_of_every_length_up_to_15_seconds() -> None:
    """Of single words and of whole texts, also with long pauses. The other utterances are mostly short."""
    tone = np.full(8000, 8000, np.int16)
    speech = sound.Speech({"a": [Recording("seven", "a", tone), Recording("turn left", "a", tone)]}, {"a": 1.0})
    random = Random(6)
    for apart, words in ((True, 26), (False, 20)):
        made = [speech.utterance(random, words, words_apart=apart, long=True) for _ in range(200)]
        lengths = [len(each.text.split()) for each in made]
        assert max(lengths) == words and np.mean(lengths) == pytest.approx((3 + words) / 2, abs=1.5)
        assert max(len(each.samples) for each in made) < 15.5 * sound.RATE
    short = [len(speech.utterance(random, 20, words_apart=False).text.split()) for _ in range(200)]
    assert np.median(short) < 4


def test_a_few_utterances_mix_voices_of_several_engines() -> None:
    tones = {name: (8000 * np.sin(np.arange(8000) / slow)).astype(np.int16) for name, slow in (("a", 5), ("b", 50))}
    each = {
        name: [Recording(word, name, tone)] for (name, tone), word in zip(tones.items(), ("yes", "no"), strict=True)
    }
    speech = sound.Speech(each, {"a": 1.0, "b": 1.0})
    random = Random(7)
    made = [speech.utterance(random, 8, words_apart=False, long=True) for _ in range(400)]
    several = np.mean([{"yes", "no"} <= set(utterance.text.split()) for utterance in made])
    assert several == pytest.approx(0.1, abs=0.04)


def test_long_test_recordings_have_the_words_of_their_text() -> None:
    tone = np.full(12000, 8000, np.int16)
    items = [Recording(text, "a", tone[:length]) for text, length in (("yes", 8000), ("go back", 12000))]
    random = Random(8)
    for _ in range(20):
        joined = tests.in_a_row(items, random)
        assert 8 * sound.RATE < len(joined.samples) <= 14 * sound.RATE
        said = joined.text.replace("go back", "back").split()
        assert (joined.samples != 0).sum() == sum(8000 if word == "yes" else 12000 for word in said)


def test_the_most_likely_path_counts_words() -> None:
    """Three utterances at once: one repeats a word, one is too short for its words, one has none."""
    likely = np.log(np.full((12, 3), 0.01))
    likely[np.arange(12), [0, 0, 1, 0, 0, 1, 0, 0, 0, 2, 0, 0]] = np.log(0.98)
    said = [1, 1, 2]
    counts = words_so_far(np.concatenate([likely, likely[:3], likely]), [12, 3, 12], [said, said, []])
    np.testing.assert_array_equal(counts[:12], [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(counts[12:15], sound.UNKNOWN)
    np.testing.assert_array_equal(counts[15:], 0)


def test_each_word_of_an_answer_has_its_frames() -> None:
    """Also the second of two equal words. The end of an answer has none, and neither has an answer to silence."""
    no = sound.UNKNOWN
    counts = np.array([[no, 0, 1, 1, 2, 2, no, no, no, no], [no, 0, 0, no, no, no, no, no, no, no]])
    writes = np.zeros(counts.shape, bool)
    writes[0, 7:] = writes[1, 5] = True
    rows, columns, there = next_words(counts, writes)
    np.testing.assert_array_equal(rows, [0, 0])
    np.testing.assert_array_equal(columns, [7, 8])
    np.testing.assert_array_equal(there.nonzero(), [[0, 0, 1, 1], [2, 3, 4, 5]])


def test_noise_has_no_labels() -> None:
    frames, labels = sound.heard(None, Random(4), 1.0)
    assert frames.shape == (len(labels), 640) and np.abs(frames).max() > 0
    assert not labels.any()


def test_the_labels_of_a_picture_are_its_name() -> None:
    random = Random(5)
    for _ in range(50):
        picture = pictures.random_picture(random)
        colour, shape, place = picture.numbers
        assert texts.named(texts.COLOURS[colour], texts.SHAPES[shape], texts.PLACES[place]) == picture.name
