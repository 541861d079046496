"""Side by side is one after the other; and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from golden import heard
from reference_cases import SHORT, media_file, speech_prompt

from mlx_gemma4 import Model, Processor, Sampling, Session, Transcriber, load_audio
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs import batch
from mlx_gemma4.outputs.batch import Question, decode_batch
from mlx_gemma4.outputs.draft import answer
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.programs.segments import make_endpointer, transcribe, transcribe_all

NAMES = ("hibari-03.wav", "hibari-01.wav", "pico-00.wav", "long-0.wav", "flite-04.wav", "espeak-00.wav")
ENDS = 15
"""Every such token ends an answer to a random question."""
PREFIX = [2, 30, 31, 32, 33]


@dataclass
class Asked:
    """Questions behind a prefix, and the answer to each of them alone."""

    session: Session
    sampler: Sampler
    stop_ids: set[int]
    questions: list[Question] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)

    def add(self, question: Question) -> None:
        start = self.session.position
        tokens = answer(
            self.session, question.prompt, self.sampler, stop_ids=self.stop_ids, max_tokens=question.max_tokens
        )
        self.session.rewind(start)
        self.questions.append(question)
        self.answers.append(tokens)

    def batch(self, size: int, *, first_alone: bool = False) -> Iterator[list[int]]:
        return decode_batch(
            self.session,
            self.questions,
            self.sampler,
            stop_ids=self.stop_ids,
            batch_size=size,
            first_alone=first_alone,
        )


def asked(checkpoint: str, seed: int, count: int = 12) -> Asked:
    """Random questions; many tokens end an answer, so that some end at once and some at their limit."""
    model, _ = loaded(checkpoint)
    random = np.random.default_rng(seed)
    session = Session(model, room=400)
    session.extend(PREFIX)
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    made = Asked(session, sampler, set(range(0, model.config.text_config.vocab_size, ENDS)))
    for _ in range(count):
        tokens = random.integers(6, 300, random.integers(1, random.choice([5, 40, 80]))).tolist()
        made.add(Question(Prompt.from_tokens(tokens), int(random.choice([1, 4, 30]))))
    return made


@pytest.fixture(scope="module", params=[("released", 0), ("resaved", 2)], ids=["released", "resaved"])
def random_questions(request: pytest.FixtureRequest) -> Asked:
    return asked(*request.param)


@pytest.mark.parametrize(("size", "first_alone"), [(1, False), (2, True), (3, False), (5, True), (40, False)])
def test_answers_are_those_one_by_one(random_questions: Asked, size: int, first_alone: bool) -> None:
    """In order, whatever the size of the batch; the session is as before whenever one is yielded."""
    found = []
    for tokens in random_questions.batch(size, first_alone=first_alone):
        found.append(tokens)
        assert random_questions.session.position == len(PREFIX)
    assert found == random_questions.answers
    assert len({len(tokens) for tokens in found}) > 3


def test_answers_to_sound(demo: tuple[Model, Processor]) -> None:
    """Short and long ones, some ended by the limit."""
    model, processor = demo
    prompts = [speech_prompt(processor, media_file(name)) for name in NAMES]
    lengths = [len(heard(name, "short").tokens) for name in NAMES]
    limits = [20, 20, max(1, lengths[2] - 2), 20, 1, 20]
    session = Session(model, room=2000)
    session.extend(prompts[0][:8])
    made = Asked(session, Sampler(Sampling(), model.config.text_config.vocab_size), set(processor.stop_ids))
    for prompt, limit in zip(prompts, limits, strict=True):
        made.add(Question(prompt[8:], limit))
    assert list(made.batch(4)) == made.answers
    assert [len(tokens) for tokens in made.answers] == [min(pair) for pair in zip(lengths, limits, strict=True)]


@dataclass
class Watched:
    """What a batch does, in order: ("ask", positions), ("step", rows) and ("read", 0)."""

    events: list[tuple[str, int]] = field(default_factory=list)

    def steps(self) -> list[int]:
        return [rows for event, rows in self.events if event == "step"]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched, forward, read = Watched(), Model.__call__, batch.check_finite

    def counted(model: Model, h: mx.array, *arguments: object, **options: object) -> mx.array:
        is_step = isinstance(arguments[0], batch.BatchCache)
        watched.events.append(("step", h.shape[0]) if is_step else ("ask", h.shape[1]))
        return forward(model, h, *arguments, **options)  # type: ignore[arg-type]

    def checked(*arguments: object) -> None:
        watched.events.append(("read", 0))
        read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "__call__", counted)
    monkeypatch.setattr(batch, "check_finite", checked)
    return watched


@pytest.mark.parametrize("size", [1, 3, 8])
def test_an_answer_costs_a_row_for_each_token(random_questions: Asked, size: int, watched: Watched) -> None:
    """One forward for its question, one row of a step for each token: for the first none, and one after the last, which
    is queued before the end is known. No step has more rows than there are open answers, or one more for each that
    ended with the step before."""
    answers = list(random_questions.batch(size))
    assert [length for event, length in watched.events if event == "ask"] == [
        len(question.prompt) for question in random_questions.questions
    ]
    tokens, idle = sum(map(len, answers)), sum(watched.steps()) - sum(len(answer) - 1 for answer in answers)
    assert tokens - len(answers) <= sum(watched.steps()) <= tokens
    assert 0 <= idle <= len(answers)
    assert max(watched.steps()) == min(size, len(answers))
    if size == 1:
        assert len(watched.steps()) == sum(watched.steps())


def test_the_host_never_keeps_the_device_waiting(random_questions: Asked, watched: Watched) -> None:
    """A step is queued before the tokens before it are read, unless all answers end with them."""
    list(random_questions.batch(4))
    events = [event for event, _ in watched.events if event != "ask"]
    unqueued = [one for one, two in zip(["read", *events], events, strict=False) if one == two == "read"]
    assert events.count("read") - events.count("step") == len(unqueued) <= 1 + events.count("read") // 10
    assert "step" in events and ("step", "step") not in list(pairwise(events))


def test_questions_are_taken_when_there_is_a_place(random_questions: Asked) -> None:
    """Never more than the batch has rows for: memory does not grow with the number of questions."""
    taken = ended = 0

    def questions() -> Iterator[Question]:
        nonlocal taken
        for question in random_questions.questions:
            taken += 1
            yield question

    made = random_questions
    lazily = decode_batch(made.session, questions(), made.sampler, stop_ids=made.stop_ids, batch_size=3)
    assert taken == 0
    for _ in lazily:
        ended += 1
        # answers may have ended behind one that goes on, for as many steps as that one takes
        assert taken <= ended + 3 + 30 * 3
    assert taken == ended == len(made.questions)


def test_the_first_answer_comes_early(random_questions: Asked, watched: Watched) -> None:
    """It is decoded alone: nothing else is prefilled before it is yielded."""
    made = random_questions
    next(answers := made.batch(8, first_alone=True))
    assert [event for event, _ in watched.events].count("ask") == 1
    assert set(watched.steps()) <= {1}
    list(answers)
    assert max(watched.steps()) == 8


def test_a_batch_has_a_row(random_questions: Asked) -> None:
    with pytest.raises(ValueError, match=r"^Expected a batch_size of 1 or more, got 0$"):
        next(random_questions.batch(0))


# recordings


def joined(names: tuple[str, ...]) -> np.ndarray:
    """Recordings with pauses between."""
    pause = np.zeros(16_000, np.float32)
    return np.concatenate([part for name in names for part in (load_audio(media_file(name)), pause)])


def test_a_long_recording_has_the_same_text_in_any_batch(demo: tuple[Model, Processor]) -> None:
    """Utterances one by one, and three together; times and all."""
    samples = joined(NAMES)
    transcriber = Transcriber(*demo, text=SHORT, max_segment=4)
    one, three = (
        [(each.start, each.end, each.text, each.tokens, each.complete) for each in segments]
        for segments in (list(transcribe([samples], transcriber, batch_size=count)) for count in (1, 3))
    )
    assert one == three
    assert len(one) == 7
    alone = Transcriber(*demo, text=SHORT)
    for start, end, text, tokens, complete in one:
        [segment] = alone.transcribe(samples[round(16_000 * start) : round(16_000 * end)])
        assert (segment.text, segment.tokens, segment.complete) == (text, tokens, complete)


def test_recordings_share_a_batch(demo: tuple[Model, Processor], watched: Watched) -> None:
    """In order, each with its end, silent ones and those without sound included."""
    transcriber = Transcriber(*demo, text=SHORT)
    silence = np.zeros(16_000, np.float32)
    sounds = [[silence], *([load_audio(media_file(name))] for name in NAMES), [], [silence]]
    expected = []
    for number, blocks in enumerate(sounds):
        expected += [(number, segment) for segment in transcribe(blocks, transcriber, batch_size=1)]
        expected.append((number, None))
    watched.events.clear()
    recordings = ((blocks, make_endpointer(transcriber)) for blocks in sounds)
    assert list(transcribe_all(recordings, transcriber, batch_size=4)) == expected
    assert max(watched.steps()) == 4


def test_what_was_heard_before_a_problem_is_transcribed(demo: tuple[Model, Processor]) -> None:
    """The problem is raised when everything before it is known."""
    transcriber = Transcriber(*demo, text=SHORT)

    def blocks() -> Iterator[np.ndarray]:
        yield joined(NAMES[:3])
        raise ValueError("it is cut short")

    expected = list(transcribe([joined(NAMES[:3])], transcriber, batch_size=1))
    found = []
    with pytest.raises(ValueError, match=r"^it is cut short$"):
        for segment in transcribe(blocks(), transcriber):
            found.append(segment)
    assert found == expected and len(found) == 3


def test_an_open_segment_is_not_mixed_in(demo: tuple[Model, Processor]) -> None:
    """Neither before the first stretch nor later."""
    transcriber = Transcriber(*demo)
    frames = np.zeros((2, 640), np.float32)
    segments = transcriber.transcribe_batch([(0, frames), (2, frames)], batch_size=1)
    next(segments)
    list(transcriber.feed(frames))
    message = r"^A segment of 2 frames is open; call finish\(\) first$"
    with pytest.raises(ValueError, match=message):
        next(segments)
    with pytest.raises(ValueError, match=message):
        transcriber.transcribe_batch([(0, frames)])
