"""Lessons: chats with sound and pictures whose answers are learned, in reproducible batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from . import pictures, texts
from .sound import Speech, heard

AUDIO_KIND, IMAGE_KIND, VIDEO_KIND = 3, 1, 2
SHARES = {"describe": 13, "ask aloud": 16, "changes": 16, "turns": 5}
"""Weights of the kinds of lessons, besides transcription (``Stage.transcribe``)."""
PICTURES_ALONE = 0.2
"""Share of pictures where only auxiliary losses are learned (``Stage.alone``); the rest is speech."""


@dataclass(frozen=True)
class Stage:
    """How hard lessons are."""

    max_words: int
    strength: float
    """Of rooms, lines and noise (``sound.heard``)."""
    words_apart: float
    """Share of utterances that are made of single words, so that the place of each word is known."""
    transcribe: int = 54
    """Weight of transcription, besides SHARES."""
    long: float = 0.0
    """Share of long utterances (``Speech.utterance``)."""
    alone: bool = False
    """No prompts and no answers: only the auxiliary losses (``Hints``)."""


STAGES = (
    Stage(4, 0.2, 0.9, alone=True),
    Stage(3, 0.4, 0.6),
    Stage(6, 0.6, 0.4, transcribe=90),
    Stage(36, 0.65, 0.3, transcribe=180, long=0.25),
)


@dataclass
class Lesson:
    """One sequence."""

    ids: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    scored: list[bool] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    """[F, 640] each."""
    labels: list[np.ndarray] = field(default_factory=list)
    """[F, 2] each: the word in each frame, and how many words were said up to there (``sound.heard``)."""
    said: list[str] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    """[64, 6912] each."""
    seen: list[tuple[int, int, int]] = field(default_factory=list)
    """Colour, shape and place in each (``pictures.Picture.numbers``)."""


class Teacher:
    """Makes lessons from recordings. Without recordings it only writes turns. Knows no model."""

    def __init__(self, tokenizer: Any, speech: Speech | None = None) -> None:
        self._tokenizer = tokenizer
        self._speech = speech
        self._cache: dict[str, list[int]] = {}
        self._markers = {
            name: tokenizer.convert_tokens_to_ids(name)
            for name in ("<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>")
        }

    def lesson(self, random: Random, stage: Stage) -> Lesson:
        """One of any kind."""
        lesson = Lesson()
        if stage.alone:
            if random.random() < PICTURES_ALONE:
                self.picture(lesson, pictures.random_picture(random))
            else:
                self._utterance(lesson, random, stage)
            return lesson
        kind = random.choices(["transcribe", *SHARES], [stage.transcribe, *SHARES.values()])[0]
        make = {
            "transcribe": self._transcribe,
            "describe": self._describe,
            "ask aloud": self._ask_aloud,
            "changes": self._changes,
            "turns": self._turns,
        }[kind]
        self.text(lesson, "<bos>")
        make(lesson, random, stage)
        return lesson

    def _transcribe(self, lesson: Lesson, random: Random, stage: Stage) -> None:
        self.text(lesson, "<|turn>user\n" + _weighted(texts.TRANSCRIBE, random))
        answer = ""
        if random.random() < 0.04:
            self.sound(lesson, *heard(None, random, stage.strength), "")
        else:
            answer = self._utterance(lesson, random, stage)
        self.answer(lesson, answer)

    def _utterance(self, lesson: Lesson, random: Random, stage: Stage) -> str:
        """Add an utterance; returns its text."""
        assert self._speech is not None
        apart = random.random() < stage.words_apart
        long = random.random() < stage.long
        utterance = self._speech.utterance(random, stage.max_words, words_apart=apart, long=long)
        self.sound(lesson, *heard(utterance, random, stage.strength), utterance.text)
        return utterance.text

    def _describe(self, lesson: Lesson, random: Random, stage: Stage) -> None:
        picture = pictures.random_picture(random)
        self.text(lesson, "<|turn>user\n")
        self.picture(lesson, picture)
        self.text(lesson, random.choice(texts.DESCRIBE))
        self.answer(lesson, picture.name)

    def _ask_aloud(self, lesson: Lesson, random: Random, stage: Stage) -> None:
        """A picture and a spoken question in one turn, in either order."""
        picture = pictures.random_picture(random)
        self.text(lesson, "<|turn>user\n")
        first = random.random() < 0.5
        if first:
            self.picture(lesson, picture)
        self.text(lesson, random.choices(texts.ASK, (0.6, 0.2, 0.2))[0])
        answer = self._question(lesson, picture, random, stage)
        if not first:
            self.picture(lesson, picture)
        self.answer(lesson, answer)

    def _changes(self, lesson: Lesson, random: Random, stage: Stage) -> None:
        """Two frames of a video."""
        before = pictures.random_picture(random)
        after, answer = pictures.changed(before, random)
        start = random.randrange(50)
        self.text(lesson, "<|turn>user\n")
        for number, picture in enumerate((before, after)):
            self.text(lesson, f"{' ' * number}00:{start + number * random.choice((1, 1, 2, 5)):02d} ")
            self.picture(lesson, picture, video=True)
        self.text(lesson, random.choice(texts.CHANGED))
        self.answer(lesson, answer)

    def _turns(self, lesson: Lesson, random: Random, stage: Stage) -> None:
        """Several turns about one picture, typed and spoken."""
        picture = pictures.random_picture(random)
        self.text(lesson, "<|turn>user\n")
        self.picture(lesson, picture)
        self.text(lesson, random.choice(texts.DESCRIBE))
        self.answer(lesson, picture.name)
        for _ in range(random.choice((1, 2, 2))):
            self.text(lesson, "\n<|turn>user\n")
            if random.random() < 0.5:
                about = random.choice(list(texts.TYPED))
                self.text(lesson, random.choice(texts.TYPED[about]))
                self.answer(lesson, picture.about(about))
            else:
                self.answer(lesson, self._question(lesson, picture, random, stage))

    def _question(self, lesson: Lesson, picture: pictures.Picture, random: Random, stage: Stage) -> str:
        """Add a spoken question about a picture; returns the right answer."""
        about = random.choice(list(texts.QUESTIONS))
        assert self._speech is not None
        utterance = self._speech.say(random.choice(texts.QUESTIONS[about]), random)
        self.sound(lesson, *heard(utterance, random, stage.strength), utterance.text)
        return picture.about(about)

    def text(self, lesson: Lesson, text: str) -> None:
        if text not in self._cache:
            self._cache[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        self._extend(lesson, self._cache[text], 0)

    def answer(self, lesson: Lesson, text: str) -> None:
        """The end of the user's turn, and the model's."""
        self.text(lesson, "<turn|>\n<|turn>model\n")
        before = len(lesson.ids)
        self.text(lesson, text + "<turn|>")
        lesson.scored[before:] = [True] * (len(lesson.ids) - before)

    def sound(self, lesson: Lesson, frames: np.ndarray, labels: np.ndarray, said: str) -> None:
        marker = self._markers
        self._extend(lesson, [marker["<|audio>"]], 0)
        self._extend(lesson, [marker["<|audio|>"]] * len(frames), AUDIO_KIND)
        self._extend(lesson, [marker["<audio|>"]], 0)
        lesson.frames.append(frames)
        lesson.labels.append(labels)
        lesson.said.append(said)

    def picture(self, lesson: Lesson, picture: pictures.Picture, *, video: bool = False) -> None:
        """Draw a picture and add it."""
        self.image(lesson, pictures.patches(pictures.draw(picture)), video=video)
        lesson.seen.append(picture.numbers)

    def image(self, lesson: Lesson, patches: np.ndarray, *, video: bool = False) -> None:
        """Add a picture: patches [64, 6912]."""
        marker, count = self._markers, len(pictures.POSITIONS)
        self._extend(lesson, [marker["<|image>"]], 0)
        placeholder = marker["<|video|>" if video else "<|image|>"]
        self._extend(lesson, [placeholder] * count, VIDEO_KIND if video else IMAGE_KIND)
        self._extend(lesson, [marker["<image|>"]], 0)
        lesson.images.append(patches)

    def _extend(self, lesson: Lesson, ids: Sequence[int], kind: int) -> None:
        lesson.ids += ids
        lesson.kinds += [kind] * len(ids)
        lesson.scored += [False] * len(ids)


def batches(teacher: Teacher, stage: Stage, seed: int, budget: int, pool: int = 96) -> Iterator[list[Lesson]]:
    """Batches of at most ``budget`` positions, of lessons of similar length; the same for the same seed."""
    random = Random(seed)
    lessons = sorted((teacher.lesson(random, stage) for _ in range(pool)), key=lambda lesson: len(lesson.ids))
    groups: list[list[Lesson]] = [[]]
    for lesson in lessons:
        if groups[-1] and (len(groups[-1]) + 1) * len(lesson.ids) > budget:
            groups.append([])
        groups[-1].append(lesson)
    random.shuffle(groups)
    yield from groups


def _weighted(choices: dict[str, float], random: Random) -> str:
    return random.choices(list(choices), list(choices.values()))[0]
