"""Side by side is one after the other; and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from golden import heard, said
from reference_cases import SHORT, media_file, speech_prompt

from mlx_gemma4 import Model, Processor, Sampling, Session, Transcriber, load_audio
from mlx_gemma4.decoder.batch_cache import BatchCache
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs import batch
from mlx_gemma4.outputs.answer import answer
from mlx_gemma4.outputs.batch import Question, decode_batch, decode_steps
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


def asked(checkpoint: str, seed: int, count: int = 10) -> Asked:
    """Random questions; many tokens end an answer, so that some end at once and some at their limit."""
    model, _ = loaded(checkpoint)
    random = np.random.default_rng(seed)
    session = Session(model, room=400)
    session.extend(PREFIX)
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    made = Asked(session, sampler, set(range(0, model.config.text_config.vocab_size, ENDS)))
    for _ in range(count):
        tokens = random.integers(6, 300, random.integers(1, random.choice([5, 40]))).tolist()
        made.add(Question(Prompt.from_tokens(tokens), int(random.choice([1, 4, 20]))))
    return made


@pytest.fixture(scope="module", params=[("released", 0), ("resaved", 2)], ids=["released", "resaved"])
def random_questions(request: pytest.FixtureRequest) -> Asked:
    return asked(*request.param)


def test_answers_to_sound(demo: tuple[Model, Processor]) -> None:
    """Short and long ones, some ended by the limit: the tokens that the reference decodes for each alone."""
    model, processor = demo
    prompts = [speech_prompt(processor, media_file(name)) for name in NAMES]
    answers = [heard(name, "short").tokens for name in NAMES]
    limits = [20, 20, max(1, len(answers[2]) - 2), 20, 1, 20]
    session = Session(model, room=2000)
    session.extend(prompts[0][:8])
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    questions = [Question(prompt[8:], limit) for prompt, limit in zip(prompts, limits, strict=True)]
    found = list(decode_batch(session, questions, sampler, stop_ids=processor.stop_ids, batch_size=4))
    assert found == [tokens[:limit] for tokens, limit in zip(answers, limits, strict=True)]


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
        is_step = isinstance(arguments[0], BatchCache)
        watched.events.append(("step", h.shape[0]) if is_step else ("ask", h.shape[1]))
        return forward(model, h, *arguments, **options)  # type: ignore[arg-type]

    def checked(*arguments: object) -> None:
        watched.events.append(("read", 0))
        read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "__call__", counted)
    monkeypatch.setattr(batch, "check_finite", checked)
    return watched


@pytest.mark.parametrize(("size", "first_alone"), [(1, False), (2, True), (4, False), (40, False)])
def test_answers_are_those_one_by_one(random_questions: Asked, size: int, first_alone: bool, watched: Watched) -> None:
    """In order, whatever the size of the batch; the session is as before whenever one is yielded.

    Each costs a forward for its question and, in steps, one row for each token. The first token needs none, but one
    row is computed behind the last, because a step is queued before the tokens of the one before are read: the device
    never waits for the host. There is no such step where all answers are known to end.
    """
    found = []
    for tokens in random_questions.batch(size, first_alone=first_alone):
        found.append(tokens)
        assert random_questions.session.position == len(PREFIX)
    assert found == random_questions.answers
    assert len({len(tokens) for tokens in found}) > 3
    asked = [length for event, length in watched.events if event == "ask"]
    assert asked == [len(question.prompt) for question in random_questions.questions]
    assert max(watched.steps()) == min(size, len(found))
    limits = [question.max_tokens for question in random_questions.questions]
    at_limit = sum(len(tokens) == limit for tokens, limit in zip(found, limits, strict=True))
    tokens = sum(map(len, found))
    assert tokens - at_limit <= sum(watched.steps()) <= tokens
    events = [event for event, _ in watched.events if event != "ask"]
    assert ("step", "step") not in list(pairwise(events))
    assert [("read", "read")] * at_limit >= [pair for pair in pairwise(["read", *events]) if pair == ("read", "read")]


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
        assert taken <= ended + 3 + 20 * 3
    assert taken == ended == len(made.questions)


def test_the_first_answer_comes_early(random_questions: Asked, watched: Watched) -> None:
    """It is decoded alone: nothing else is prefilled before it is yielded."""
    made = random_questions
    next(answers := made.batch(8, first_alone=True))
    assert [event for event, _ in watched.events].count("ask") == 1
    assert set(watched.steps()) <= {1}
    list(answers)
    assert max(watched.steps()) == 8


def test_a_question_that_does_not_fit_costs_no_answer(random_questions: Asked) -> None:
    """It is refused when those before it are answered."""
    made = random_questions
    wrong = Question(Prompt.from_tokens([999]), 4)
    questions = [*made.questions[:3], wrong, *made.questions[3:]]
    answers = decode_batch(made.session, questions, made.sampler, stop_ids=made.stop_ids, batch_size=4)
    assert [next(answers) for _ in range(3)] == made.answers[:3]
    with pytest.raises(ValueError, match="Expected token ids from 0 to 370, got 999"):
        next(answers)
    assert made.session.position == len(PREFIX)


def test_a_batch_has_a_row(random_questions: Asked) -> None:
    with pytest.raises(ValueError, match=r"^Expected a batch_size of 1 or more, got 0$"):
        next(random_questions.batch(0))


# recordings


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(*loaded("demo"), text=SHORT, max_segment=4)


def joined(*names: str) -> np.ndarray:
    """Recordings with pauses between."""
    pause = np.zeros(16_000, np.float32)
    return np.concatenate([part for name in names for part in (load_audio(media_file(name)), pause)])


def test_utterances_of_a_batch_are_those_alone(transcriber: Transcriber) -> None:
    """Their texts and all that is told of them; one recording is longer than a segment."""
    samples = joined("hibari-03.wav", "pico-00.wav", "long-0.wav", "espeak-00.wav")
    found = list(transcribe([samples], transcriber, batch_size=3))
    assert len(found) == 5
    for each in found:
        [alone] = transcriber.transcribe(samples[round(16_000 * each.start) : round(16_000 * each.end)])
        assert (each.text, each.tokens, each.complete) == (alone.text, alone.tokens, alone.complete)
        assert each.end - each.start == pytest.approx(alone.end)


def test_recordings_share_a_batch(transcriber: Transcriber, watched: Watched) -> None:
    """In order, each with its end, silent ones and those without sound included."""
    names = ("hibari-03.wav", "flite-04.wav", "pico-00.wav")
    silence = np.zeros(16_000, np.float32)
    sounds = [[silence], *([load_audio(media_file(name))] for name in names), [], [silence]]
    recordings = ((blocks, make_endpointer(transcriber)) for blocks in sounds)
    found = [(number, segment and segment.text) for number, segment in transcribe_all(recordings, transcriber)]
    texts = [(number, text) for number, name in enumerate(names, 1) for text in (said(name, "short"), None)]
    assert found == [(0, None), *texts, (4, None), (5, None)]
    assert max(watched.steps()) == 2


def test_what_was_heard_before_a_problem_is_transcribed(transcriber: Transcriber) -> None:
    """The problem is raised when everything before it is known."""

    def blocks() -> Iterator[np.ndarray]:
        yield joined("hibari-03.wav", "flite-04.wav")
        raise ValueError("it is cut short")

    recordings = [(blocks(), make_endpointer(transcriber)) for blocks in (lambda: [np.zeros(640, np.float32)], blocks)]
    found = []
    with pytest.raises(ValueError, match=r"^it is cut short$"):
        for number, segment in transcribe_all(recordings, transcriber):
            found.append((number, segment and segment.text))
    assert found == [(0, None), (1, said("hibari-03.wav", "short")), (1, said("flite-04.wav", "short"))]


def test_an_open_segment_is_not_mixed_in(demo: tuple[Model, Processor]) -> None:
    """Neither before the first stretch nor later."""
    transcriber = Transcriber(*demo, text=SHORT)
    frames = np.zeros((2, 640), np.float32)
    segments = transcriber.transcribe_batch([(0, frames), (2, frames)], batch_size=1)
    next(segments)
    list(transcriber.feed(frames))
    message = r"^A segment of 2 frames is open; call finish\(\) first$"
    with pytest.raises(ValueError, match=message):
        next(segments)
    with pytest.raises(ValueError, match=message):
        transcriber.transcribe_batch([(0, frames)])


def test_questions_that_come_late_change_no_answer(random_questions: Asked) -> None:
    """Answers that have begun go on meanwhile, and None is yielded while there are none."""
    made = random_questions
    expected = made.answers

    def late() -> Iterator[Question | None]:
        yield None
        for number, question in enumerate(made.questions):
            yield question
            yield from [None] * (number % 3 * 8)
        yield None

    found = list(decode_steps(made.session, late(), made.sampler, stop_ids=made.stop_ids, batch_size=3))
    assert found[:2] == [None, None]
    assert [answer for answer in found if answer is not None] == expected
