"""Live watching: a change is told once, a still scene costs nothing, and what is seen is what a fresh prompt sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise

import numpy as np
import pytest
from golden import GOLDEN, named, seen
from reference_cases import DESCRIBE, PICTURES, media_file

from mlx_gemma4 import Model, Processor, Sampling, Session, Watcher, generate
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.inputs.vision.video import Film
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.see.views import Asking, Glance, Memory
from mlx_gemma4.live.see.watcher import Sighting, Watching
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step

NAMES = [told["image"] for told in PICTURES if GOLDEN["pictures"][told["image"]]["text"] is not None]
"""Those whose answers end."""
PIXELS = {name: load_image(media_file(name)) for name in NAMES}


def shots(names: Sequence[str], *, every: float = 1.0, noise: float = 0.0) -> list[Shot]:
    """Pictures one after the other."""
    random = np.random.default_rng(0)
    added = [random.normal(0, noise, PIXELS[name].shape) for name in names]
    pixels = [
        np.clip(PIXELS[name] + more, 0, 255).round().astype(np.uint8) for name, more in zip(names, added, strict=True)
    ]
    return [Shot(each, index * every, 1000 + index * every, 3 * index) for index, each in enumerate(pixels)]


def told(watcher: Watcher, shots: Sequence[Shot]) -> list[Sighting]:
    return [answer for answer in map(watcher.see, shots) if answer is not None]


def forwards(names: Sequence[str]) -> list[int]:
    """Of each question, when the last answer is the draft of the next: one for the picture, one for the draft, and one
    for each token beyond it."""
    counts, draft = [], list[int]()
    for name in names:
        [first, *rest] = seen(name).tokens
        held = 0
        if draft[:1] == [first]:
            held = next((i for i, (a, b) in enumerate(zip(rest, draft[1:], strict=False)) if a != b), len(draft) - 1)
        counts.append(1 + (1 + len(rest) - min(held + 1, len(rest)) if rest else 0))
        draft = seen(name).tokens
    return counts


def test_each_change_is_told_once(demo: tuple[Model, Processor]) -> None:
    """Ten frames of each picture: ten times the text that the reference gives for it, for one question each."""
    names = NAMES[:5]
    watcher = Watcher(*demo, Watching(settle=0))
    film = shots([name for name in names for _ in range(10)], every=0.1)
    before = watcher.forwards
    answers = told(watcher, film)
    assert [answer.text for answer in answers] == [named(name) for name in names]
    assert [answer.time for answer in answers] == pytest.approx([index * 1.0 for index in range(len(names))])
    assert [answer.dropped for answer in answers] == [30 * index for index in range(len(names))]
    assert {(answer.reason, answer.complete) for answer in answers} == {("change", True)}
    assert [answer.tokens for answer in answers] == [len(seen(name).tokens) for name in names]
    assert [answer.forwards for answer in answers] == forwards(names)
    assert watcher.forwards - before == sum(forwards(names))
    looks = watcher.looks
    assert (looks.shots, looks.changes, looks.asked, looks.told) == (10 * len(names), *[len(names)] * 3)


def test_a_still_scene_costs_nothing(demo: tuple[Model, Processor]) -> None:
    """A hundred frames with a sensor's noise: one question, and not a single forward after it."""
    watcher = Watcher(*demo, Watching(settle=0))
    film = shots([NAMES[0]] * 100, every=0.5, noise=8)
    assert watcher.see(film[0]) is not None
    before = watcher.forwards
    assert [watcher.see(shot) for shot in film[1:]] == [None] * 99
    assert watcher.forwards == before


def test_nothing_before_the_picture_is_computed_again(demo: tuple[Model, Processor]) -> None:
    """The turn's head once; per look the picture, the question and the answer. The session does not grow."""
    model, processor = demo
    asking = Asking(model, processor, question=DESCRIBE, system=None, max_tokens=100)
    view = Glance(asking)
    content = [{"type": "image", "image": PIXELS[NAMES[0]]}, {"type": "text", "text": DESCRIBE}]
    whole = len(processor.prompt([{"role": "user", "content": content}]))
    head = view.session.computed
    assert head == view.session.position > 0
    for name in NAMES[:3]:
        before = view.session.computed
        view.take(PIXELS[name], 0.0)
        assert view.ask() == seen(name).tokens
        assert view.session.computed - before == whole - head + len(seen(name).tokens) - 1
        assert view.session.position == whole - len(view.tail)


def test_the_same_picture_is_not_computed_again(demo: tuple[Model, Processor]) -> None:
    """As from a file, or a test pattern. One with another pixel is."""
    asking = Asking(*demo, question=DESCRIBE, system=None, max_tokens=100)
    view = Glance(asking)
    name, counts = NAMES[0], list[int]()
    changed = PIXELS[name].copy()
    changed[0, 0, 0] ^= 1
    for pixels in (PIXELS[name], PIXELS[name].copy(), changed):
        before = view.session.computed
        view.take(pixels, 0.0)
        assert view.ask() == seen(name).tokens
        counts.append(view.session.computed - before)
    picture, answer = view.session.position - len(view._head), len(seen(name).tokens) - 1
    assert counts == [picture + len(view.tail) + answer, len(view.tail) + answer, picture + len(view.tail) + answer]


def test_a_heartbeat_asks_again(demo: tuple[Model, Processor]) -> None:
    """After a minute without a change, by the times of the shots; the last answer is read as a draft."""
    watcher = Watcher(*demo, Watching(settle=0))
    answers = told(watcher, shots([NAMES[0]] * 14, every=10))
    assert [(answer.time, answer.reason) for answer in answers] == [
        (0, "change"),
        (60, "heartbeat"),
        (120, "heartbeat"),
    ]
    assert {answer.text for answer in answers} == {named(NAMES[0])}
    assert [answer.forwards for answer in answers] == forwards([NAMES[0]] * 3)
    assert answers[1].forwards == 2


def test_a_change_puts_the_heartbeat_off(demo: tuple[Model, Processor]) -> None:
    watcher = Watcher(*demo, Watching(settle=0, heartbeat=30))
    answers = told(watcher, shots([NAMES[0]] * 2 + [NAMES[1]] * 5, every=10))
    assert [(answer.time, answer.reason) for answer in answers] == [(0, "change"), (20, "change"), (50, "heartbeat")]


def test_without_a_heartbeat_a_still_scene_is_never_asked_about(demo: tuple[Model, Processor]) -> None:
    watcher = Watcher(*demo, Watching(settle=0, heartbeat=0))
    assert len(told(watcher, shots([NAMES[0]] * 5, every=1e6))) == 1


def test_every_so_often_instead_of_on_changes(demo: tuple[Model, Processor]) -> None:
    """The picture of that moment, whatever came between."""
    watcher = Watcher(*demo, Watching(settle=0, every=0.3))
    names = [NAMES[index % 3] for index in range(10)]
    answers = told(watcher, shots(names, every=0.1))
    assert [(answer.text, answer.reason) for answer in answers] == [
        (named(names[index]), "every") for index in (0, 3, 6, 9)
    ]
    assert watcher.looks.changes == 0


def test_only_new_answers_are_told(demo: tuple[Model, Processor]) -> None:
    """Asked every second, told when something else is to be seen."""
    watcher = Watcher(*demo, Watching(settle=0, every=1, only_new=True))
    names = [NAMES[0]] * 3 + [NAMES[1]] * 2 + [NAMES[0]]
    answers = told(watcher, shots(names))
    assert [(answer.time, answer.text) for answer in answers] == [
        (0, named(NAMES[0])),
        (3, named(NAMES[1])),
        (5, named(NAMES[0])),
    ]
    assert (watcher.looks.asked, watcher.looks.told) == (6, 3)


def test_ages_are_from_the_arrival_of_the_shot(demo: tuple[Model, Processor]) -> None:
    """To the first forward, and to the whole answer."""
    ticks = count(1000.25, 0.5)
    watcher = Watcher(*demo, Watching(settle=0), clock=lambda: next(ticks))
    answer = watcher.see(shots(NAMES[:1])[0])
    assert answer is not None and (answer.begun, answer.age) == (0.25, 0.75)


def test_an_answer_that_is_cut(demo: tuple[Model, Processor]) -> None:
    """It says so."""
    for most in (1, 3):
        watcher = Watcher(*demo, Watching(settle=0, max_tokens=most))
        answer = watcher.see(shots(NAMES[:1])[0])
        assert answer is not None and (answer.tokens, answer.forwards, answer.complete) == (most, most, False)
        assert answer.text == demo[1].decode(seen(NAMES[0]).tokens[:most]).strip()


def messages(system: str | None, question: str, kind: str, medium: object) -> list[dict[str, object]]:
    before: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": [{"type": kind, kind: medium}, {"type": "text", "text": question}]}]


@pytest.mark.parametrize("image_tokens", [None, 140])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_answers_are_those_of_a_fresh_prompt(
    released: tuple[Model, Processor], system: str | None, image_tokens: int | None
) -> None:
    """For any question, system message and budget, on a checkpoint that has learned nothing."""
    model, processor = released
    options = {"system": system, "image_tokens": image_tokens, "max_tokens": 6, "settle": 0}
    watcher = Watcher(model, processor, Watching(question="What is this?", **options))  # type: ignore[arg-type]
    for shot in shots(NAMES[:2]):
        small = shot.pixels[::2, ::4]
        prompt = processor.prompt(messages(system, "What is this?", "image", small), image_tokens=image_tokens)
        answer = watcher.see(Shot(small, shot.time, 0.0))
        assert answer is not None
        assert answer.text == generate(model, processor, prompt, max_tokens=6).strip()


def test_pictures_of_any_shape_after_each_other(demo: tuple[Model, Processor]) -> None:
    """From the fewest patches to the most: the room for rewinds is large enough."""
    model, processor = demo
    watcher = Watcher(model, processor, Watching(settle=0, max_tokens=5))
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate([(1, 1), (2, 60), (60, 2), (480, 640), (1, 1)]):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        prompt = processor.prompt(messages(None, DESCRIBE, "image", pixels))
        answer = watcher.see(Shot(pixels, float(index), 0.0))
        assert answer is not None and answer.text == generate(model, processor, prompt, max_tokens=5).strip()


# memory


class Recorded:
    """A memory, and what its session holds."""

    def __init__(self, checkpoint: tuple[Model, Processor], *, size: int, system: str | None = None) -> None:
        asking = Asking(*checkpoint, question="What happened?", system=system, max_tokens=4)
        self.memory = Memory(asking, size=size)
        self.session = self.memory.session
        self._extend = self.session.extend
        self._held = self.memory._head
        self.session.extend = self._record  # type: ignore[method-assign]

    def _record(self, piece: Prompt, **options: bool) -> object:
        self._held = self.held + piece
        return self._extend(piece, **options)

    @property
    def held(self) -> Prompt:
        return self._held[: self.session.position]


def pictures(size: int) -> list[np.ndarray]:
    """Small ones: a few patches each."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (48 * (1 + index % 2), 96, 3), dtype=np.uint8) for index in range(size)]


def same(one: Prompt, other: Prompt) -> None:
    for name in ("token_ids", "token_types", "patches", "patch_xy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(("size", "system"), [(1, None), (4, "Be brief.")])
def test_a_memory_is_a_prompt_of_its_film(released: tuple[Model, Processor], size: int, system: str | None) -> None:
    """After every frame, rebuilt ones included: ids, patches, answers and logits are those of a fresh session."""
    model, processor = released
    recorded = Recorded(released, size=size, system=system)
    memory = recorded.memory
    kept: list[tuple[np.ndarray, float]] = []
    for index, pixels in enumerate(pictures(6)):
        kept.append((pixels, 7.5 * index))
        memory.take(pixels, 7.5 * index)
        if len(kept) > size:
            kept = kept[len(kept) // 2 :]
        if index % 3 == 1:
            continue
        tokens = memory.ask()
        frames = tuple(processor.patches(each, image_tokens=70) for each, _ in kept)
        film = Film(frames, tuple(seconds for _, seconds in kept))
        whole = processor.prompt(messages(system, "What happened?", "video", film))
        tail = whole[len(recorded.held) :]
        same(recorded.held + tail, whole)
        assert not tail.is_vision.any() and recorded.held.is_vision[-1]
        assert memory.film.seconds == film.seconds
        end = recorded.session.position
        logits = np.array(recorded.session.extend(tail))
        recorded.session.rewind(end)
        fresh = Session(model)
        expected = fresh.extend(whole)
        np.testing.assert_allclose(logits, np.array(expected), atol=1e-5)
        sampler = Sampler(Sampling(), model.config.text_config.vocab_size, suppress=processor.suppressed_ids)
        assert tokens == list(generate_step(fresh, expected, sampler, max_tokens=len(tokens)))
        assert len(tokens) == 4 or tokens[-1] in processor.stop_ids


def test_a_frame_is_computed_once(released: tuple[Model, Processor]) -> None:
    """With the question behind it, in one forward; what is computed besides frames is the question and its answer."""
    recorded = Recorded(released, size=8)
    session = recorded.session
    for index, pixels in enumerate(pictures(4)):
        held, computed, before = len(recorded.held), session.computed, session.forwards
        recorded.memory.take(pixels, float(index))
        tokens = recorded.memory.ask()
        new, tail = len(recorded.held) - held, len(recorded.memory._tail)
        assert session.computed - computed == new + tail + len(tokens) - 1
        assert session.forwards - before == len(tokens)
    assert int(recorded.held.is_vision.sum()) == len(recorded.held.patches)


def test_what_stands_before_the_pictures_is_computed_once(released: tuple[Model, Processor]) -> None:
    """When the older half leaves, the others are computed again, for their positions are other ones; not the head."""
    system = "Look for what moves, and say nothing about what does not. " * 4
    recorded = Recorded(released, size=4, system=system)
    head = recorded.session.computed
    assert head == recorded.session.position > 100
    for index, pixels in enumerate(pictures(9)):
        before = recorded.session.computed
        recorded.memory.take(pixels, float(index))
        tokens = recorded.memory.ask()
        if index in (0, 4, 6, 8):
            shown = len(recorded.held) - head
            computed = recorded.session.computed - before
            assert computed == shown + len(recorded.memory.tail) + len(tokens) - 1


def test_a_watcher_with_a_memory(released: tuple[Model, Processor]) -> None:
    """Changes enter and stay; a heartbeat shows the picture of its own moment behind them, which leaves again."""
    model, processor = released
    watcher = Watcher(
        model, processor, Watching(settle=0, question="What happened?", memory=4, heartbeat=30, max_tokens=4)
    )
    scenes = pictures(3)
    film = [Shot(scenes[index // 5], 10.0 * index, 0.0) for index in range(15)]
    answers = told(watcher, film)
    assert [(answer.time, answer.reason) for answer in answers] == [
        (0, "change"),
        (30, "heartbeat"),
        (50, "change"),
        (80, "heartbeat"),
        (100, "change"),
        (130, "heartbeat"),
    ]
    frames = tuple(processor.patches(each, image_tokens=70) for each in scenes)
    for answer in answers:
        shown = 1 + int(answer.time // 50)
        seen_at = [(frames[index], 50.0 * index) for index in range(shown)]
        if answer.reason == "heartbeat":
            seen_at.append((frames[shown - 1], answer.time))
        pictures_seen, seconds = zip(*seen_at, strict=True)
        prompt = processor.prompt(messages(None, "What happened?", "video", Film(pictures_seen, seconds)))
        assert answer.text == generate(model, processor, prompt, max_tokens=4).strip()


def test_a_memory_that_is_asked_every_so_often(released: tuple[Model, Processor]) -> None:
    """What changed in between is remembered without a question."""
    model, processor = released
    watcher = Watcher(model, processor, Watching(settle=0, question="What happened?", memory=8, every=4, max_tokens=4))
    scenes = pictures(5)
    answers = told(watcher, [Shot(pixels, float(index), 0.0) for index, pixels in enumerate(scenes)])
    assert [(answer.time, answer.reason) for answer in answers] == [(0, "every"), (4, "every")]
    film = Film(tuple(processor.patches(each, image_tokens=70) for each in scenes), (0.0, 1.0, 2.0, 3.0, 4.0))
    prompt = processor.prompt(messages(None, "What happened?", "video", film))
    assert answers[1].text == generate(model, processor, prompt, max_tokens=4).strip()
    assert watcher.looks.changes == 5


# a scene that goes on changing


def fade(count: int, steps: int) -> list[Shot]:
    """Ten frames a second: light, ``steps`` frames in which it goes out, and dark."""
    levels = [200] * 10 + [200 - 180 * step // steps for step in range(1, steps + 1)] + [20] * (count - 10 - steps)
    return [Shot(np.full((48, 48, 3), level, np.uint8), index / 10, 0.0) for index, level in enumerate(levels)]


@pytest.mark.parametrize(
    ("settle", "max_wait", "steps", "asked"),
    [
        (0.0, 5.0, 5, [0.0, 1.0, 1.1, 1.2, 1.3, 1.4]),
        (0.3, 5.0, 5, [0.0, 1.7]),
        (0.3, 5.0, 30, [0.0, 4.2]),
        (0.3, 1.0, 30, [0.0, 2.2, 3.5, 4.2]),
    ],
    ids=["at once", "lights off", "slowly", "at the latest"],
)
def test_a_change_is_asked_about_when_it_is_over(
    released: tuple[Model, Processor], settle: float, max_wait: float, steps: int, asked: list[float]
) -> None:
    """Or when it has gone on for long; by the times of the pictures."""
    watcher = Watcher(*released, Watching(settle=settle, max_wait=max_wait, max_tokens=1, image_tokens=70))
    answers = told(watcher, fade(60, steps))
    assert [answer.time for answer in answers] == pytest.approx(asked)


def test_a_flash_is_no_change(released: tuple[Model, Processor]) -> None:
    """What is as it was before anybody asked."""
    watcher = Watcher(*released, Watching(max_tokens=1, image_tokens=70))
    levels = [200] * 10 + [20] * 2 + [200] * 20
    film = [Shot(np.full((48, 48, 3), level, np.uint8), index / 10, 0.0) for index, level in enumerate(levels)]
    assert [answer.time for answer in told(watcher, film)] == [0.0]


def test_a_scene_that_never_rests_is_asked_about_now_and_then(released: tuple[Model, Processor]) -> None:
    """Also where it is for a moment as it was when it was last asked about; not when the pictures end there."""
    watcher = Watcher(*released, Watching(max_wait=2, max_tokens=1, image_tokens=70))
    levels = [20 + 50 * (index % 5) for index in range(100)]
    film = [Shot(np.full((48, 48, 3), level, np.uint8), index / 10, 0.0) for index, level in enumerate(levels)]
    times = [answer.time for answer in told(watcher, film)]
    assert times[0] == 0 and all(2 <= later - earlier <= 2.3 for earlier, later in pairwise(times))
    assert len(times) == 5
    watcher = Watcher(*released, Watching(max_tokens=1, image_tokens=70))
    assert len(told(watcher, film[:6])) == 1 and watcher.finish() is None


def test_a_noisy_sensor_settles_too(released: tuple[Model, Processor]) -> None:
    """Its pictures all differ a little."""
    random = np.random.default_rng(0)
    watcher = Watcher(*released, Watching(max_tokens=1, image_tokens=70))
    noisy = [np.clip(level + random.normal(0, 8, (480, 640, 3)), 0, 255) for level in [120] * 5 + [40] * 10]
    film = [Shot(pixels.astype(np.uint8), index / 10, 0.0) for index, pixels in enumerate(noisy)]
    assert [answer.time for answer in told(watcher, film)] == pytest.approx([0.0, 0.8])


def test_a_change_at_the_end_is_asked_about(released: tuple[Model, Processor]) -> None:
    """The pictures end before it has settled."""
    watcher = Watcher(*released, Watching(max_tokens=1, image_tokens=70))
    film = fade(12, 1)
    assert [answer.time for answer in told(watcher, film)] == [0.0]
    answer = watcher.finish()
    assert answer is not None and (answer.time, answer.reason) == (1.1, "change")
    assert watcher.finish() is None


# what is no question


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 0.0}, "Expected more than 0 seconds between two questions, got 0"),
        ({"every": float("nan")}, "Expected more than 0 seconds between two questions, got nan"),
        ({"heartbeat": -1.0}, "Expected a heartbeat of 0 seconds [(]none[)] or more, got -1"),
        ({"memory": -1}, "Expected a memory of 1 picture or more, got -1"),
        ({"max_tokens": 0}, "Expected max_tokens of 1 or more, got 0"),
        ({"settle": -1.0}, "Expected 0 seconds or more for a scene to settle, got -1"),
        ({"max_wait": 0.1}, "Expected a longest wait of 0.3 seconds or more, the time to settle, got 0.1"),
        ({"threshold": 2.0}, "Expected a threshold from 0 to 1, got 2.0"),
        ({"image_tokens": 100}, "Expected an image budget of 70, 140, 280, 560, 1120 tokens, got 100"),
    ],
)
def test_options_that_are_none(demo: tuple[Model, Processor], options: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}$"):
        Watcher(*demo, Watching(**options))  # type: ignore[arg-type]
