"""The loop and the inputs of a conversation: the order of what arrives, and what is dropped."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from reference_cases import media_file
from scripted_lines import Lines

from mlx_gemma4 import Endpointer, Endpointing, FileSource, Model, Processor, generate, load_audio
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.see.scene import Scene
from mlx_gemma4.live.talk.arrivals import Arrived, Inbox, Replay
from mlx_gemma4.live.talk.assistant import Assistant, Talking
from mlx_gemma4.live.talk.events import Answered, AssistantEvent, Heard, Looked, Said, SightLost
from mlx_gemma4.live.talk.loop import converse
from mlx_gemma4.live.talk.typed import TypedLines

FRAME = 640
PICTURE, OTHER = (load_image(media_file(name)) for name in ("picture-01.png", "picture-02.png"))
SPEECH = load_audio(media_file("hibari-03.wav"))[: 40 * FRAME]
SOUND = np.concatenate([np.zeros(FRAME * 10), SPEECH, np.zeros(FRAME * 20)]).astype(np.float32)


class Pictures:
    """Shots, one after the other; the end waits for an event."""

    is_live = False
    problem: str | None = None

    def __init__(self, *shots: tuple[np.ndarray, float], gate: threading.Event | None = None) -> None:
        self._shots = [Shot(pixels, seconds, 0.0) for pixels, seconds in shots]
        self._gate = gate

    def read(self) -> Shot | None:
        if not self._shots and self._gate is not None:
            self._gate.wait(10)
        return self._shots.pop(0) if self._shots else None

    def stop(self) -> None:
        if self._gate is not None:
            self._gate.set()


class Sounds:
    lost_seconds = 0.0
    problem = None
    can_wait = False

    def __init__(self, *blocks: np.ndarray, error: Exception | None = None) -> None:
        self._blocks, self._error = list(blocks), error

    def read(self) -> np.ndarray | None:
        if not self._blocks and self._error is not None:
            raise self._error
        return self._blocks.pop(0) if self._blocks else None

    def stop(self) -> None:
        self._blocks = []


def assistant(demo: tuple[Model, Processor]) -> Assistant:
    settings = Endpointing(silence=0.4, pre_roll=0.0, tail=0.2, min_speech=0.04)
    return Assistant(*demo, Endpointer(lambda frame: float(np.abs(frame).max() > 0), settings), Talking(max_tokens=8))


def test_a_recording_and_a_clip_arrive_in_the_order_of_their_times(demo: tuple[Model, Processor]) -> None:
    """Only pictures that differ are computed; the answer is that of the offline prompt."""
    engine = assistant(demo)
    clip = Pictures(*((PICTURE if number < 8 else OTHER, number / 25) for number in range(10)))
    arrivals = Replay(FileSource(SOUND, fast=True), clip)
    events = list(converse(engine, arrivals, scene=Scene()))
    looked = [event.time for event in events if isinstance(event, Looked)]
    assert looked == [0.0, 8 / 25]
    (heard,) = [event for event in events if isinstance(event, Heard)]
    (answer,) = [event for event in events if isinstance(event, Answered)]
    frames = SOUND[round(heard.start * 16000) : round(heard.end * 16000)]
    content = [{"type": "image", "image": OTHER}, {"type": "audio", "audio": frames}]
    prompt = demo[1].prompt([{"role": "user", "content": content}])
    assert answer.text == generate(*demo, prompt, max_tokens=8)
    assert "".join(event.text for event in events if isinstance(event, Said)) == answer.text


def test_sound_is_never_dropped_and_pictures_are_counted() -> None:
    gate = threading.Event()
    inbox = Inbox(Sounds(*np.split(SOUND[: 8 * FRAME], 8)), Pictures((PICTURE, 0.0), (OTHER, 1.0), gate=gate))
    with inbox:
        gate.wait(0.2)
        blocks, shots = [], []
        while (arrived := inbox.take(wait=True)) is not None:
            blocks += arrived.sound
            shots += [arrived.shot.time] if arrived.shot is not None else []
    np.testing.assert_array_equal(np.concatenate(blocks), SOUND[: 8 * FRAME])
    assert shots[-1] == 1.0 and len(shots) + inbox.dropped == 2


def test_typed_lines_are_questions(demo: tuple[Model, Processor]) -> None:
    """Without sound, the conversation ends with the lines, and stops the camera."""
    gate = threading.Event()
    engine = assistant(demo)
    with Inbox(None, Pictures((PICTURE, 0.0), gate=gate), Lines("Describe the image.")) as inbox:
        events = list(converse(engine, inbox))
    assert [type(event) for event in events if isinstance(event, Answered)] == [Answered]
    assert gate.is_set(), "the camera was stopped"


def test_the_camera_may_end_after_the_lines() -> None:
    gate = threading.Event()
    with Inbox(None, Pictures((PICTURE, 0.0), gate=gate), Lines("What is this?")) as inbox:
        typed: list[str] = []
        while not typed:
            arrived = inbox.take(wait=True)
            assert arrived is not None
            typed += arrived.typed
        gate.set()
        assert typed == ["What is this?"] and inbox.take(wait=True) is None


def test_piped_questions_wait_for_the_previous_answer(demo: tuple[Model, Processor]) -> None:
    """The answers are those of an offline chat."""
    questions = ["Describe the image.", "What is it?", "And now?"]
    engine = assistant(demo)
    with Inbox(None, Pictures((PICTURE, 0.0)), Lines(*questions, can_wait=True)) as inbox:
        events = [event for event in converse(engine, inbox) if not isinstance(event, Said)]
    messages: list[dict[str, object]] = []
    answers = []
    for question in questions:
        content = [{"type": "image", "image": PICTURE}, {"type": "text", "text": question}]
        messages.append({"role": "user", "content": content})
        answers.append(generate(*demo, demo[1].prompt(messages), max_tokens=8))
        messages.append({"role": "assistant", "content": answers[-1]})
    assert [type(event) for event in events] == [Looked, Answered, Answered, Answered]
    assert [event.text for event in events if isinstance(event, Answered)] == answers
    assert {event.reason for event in events if isinstance(event, Answered)} <= {"stop", "length"}


def test_piped_lines_come_one_by_one_and_typed_lines_at_once() -> None:
    """Only the next line of a pipe is read ahead. A typed line is delivered although an answer is being given."""
    lines = Lines(*(f"Question {number}?" for number in range(5)), can_wait=True, stays_open=True)
    with Inbox(Dead(), None, lines) as inbox:
        for number in range(3):
            arrived = inbox.take(wait=True)
            assert arrived is not None and arrived.piped == f"Question {number}?"
            arrived = inbox.take(wait=False, ready=False)
            assert arrived is not None and not arrived
        assert lines._lines
    with Inbox(Dead(), None, Lines("Stop.", stays_open=True)) as inbox:
        arrived = inbox.take(wait=True, ready=False)
        assert arrived is not None and arrived.typed == ["Stop."]


@pytest.mark.parametrize("can_wait", [False, True])
def test_a_question_waits_for_the_first_picture(can_wait: bool) -> None:
    """If none comes, that is reported before the question is answered."""
    shown = threading.Event()

    class Slow(Pictures):
        def read(self) -> Shot | None:
            shown.wait(10)
            return super().read()

    with Inbox(Dead(), Slow((PICTURE, 0.0)), Lines("What is this?", can_wait=can_wait)) as inbox:
        assert not inbox.take(wait=False) and not inbox.take(wait=False)
        shown.set()
        arrived = inbox.take(wait=True)
        assert arrived is not None and arrived.shot is not None
        arrived = arrived if arrived.typed or arrived.piped else inbox.take(wait=True)
        assert arrived is not None and [*arrived.typed, *filter(None, [arrived.piped])] == ["What is this?"]
    with Inbox(None, Camera(gate=threading.Event()), Lines("And this?"), stale_seconds=0.1) as inbox:
        deliveries = list(iter(lambda: inbox.take(wait=True), None))
    assert [(arrived.lost, arrived.typed) for arrived in deliveries] == [
        ("No picture has come for 0.1 s.", []),
        (None, ["And this?"]),
    ]


def test_piped_questions_are_answered_after_the_sound(demo: tuple[Model, Processor]) -> None:
    """All lines that are in the pipe, although it stays open."""
    silent = threading.Event()

    class Speech(Sounds):
        def read(self) -> np.ndarray | None:
            block = super().read()
            if block is None:
                silent.set()
            return block

    lines = Lines("Describe the image.", "What is it?", can_wait=True, after=silent, stays_open=True)
    with Inbox(Speech(SOUND), None, lines) as inbox:
        answers = [event for event in converse(assistant(demo), inbox) if isinstance(event, Answered)]
    assert len(answers) == 3 and {answer.reason for answer in answers} <= {"stop", "length"}


# lines from a file descriptor


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def test_lines_of_a_pipe(pipe: tuple[int, int]) -> None:
    """With any line ends; the last line may have none. Bytes that are not UTF-8 are replaced."""
    os.write(pipe[1], "one\r\nzwölf\n\n\xff".encode("latin-1"))
    os.close(pipe[1])
    lines = TypedLines(pipe[0])
    assert lines.can_wait
    assert list(iter(lines.read, None)) == ["one", "zw\ufffdlf", "", "\ufffd"]


def test_a_terminal_cannot_wait() -> None:
    terminal, end = os.openpty()
    assert not TypedLines(end).can_wait
    os.close(end)
    os.close(terminal)


def test_finish_ends_after_the_lines_that_arrived(pipe: tuple[int, int]) -> None:
    """Although the pipe stays open."""
    lines = TypedLines(pipe[0])
    os.write(pipe[1], b"one\ntwo\nthr")
    lines.finish()
    assert list(iter(lines.read, None)) == ["one", "two", "thr"]


def test_stop_ends_the_lines_at_once(pipe: tuple[int, int]) -> None:
    lines = TypedLines(pipe[0])
    os.write(pipe[1], b"one\ntwo\n")
    assert lines.read() == "one"
    lines.finish()
    lines.stop()
    assert lines.read() == "two" and lines.read() is None
    waiting = TypedLines(pipe[0])
    threading.Timer(0.1, waiting.stop).start()
    assert waiting.read() is None


def test_sound_that_can_wait_is_read_when_there_is_room() -> None:
    """A pipe or a file that is faster than the model does not fill the memory, and nothing is lost."""

    class Endless(Sounds):
        can_wait = True
        read_blocks = 0

        def read(self) -> np.ndarray | None:
            self.read_blocks += self.read_blocks < 200
            return np.ones(16_000, np.float32) if self.read_blocks < 200 else None

    source = Endless()
    heard = 0
    with Inbox(source) as inbox:
        while (arrived := inbox.take(wait=True)) is not None:
            heard += sum(map(len, arrived.sound))
            assert sum(map(len, arrived.sound)) <= 30 * 16_000
    assert heard == 199 * 16_000


def test_stop_frees_a_source_that_waits_for_room() -> None:
    """The session ends at once, with all sound that was read."""

    class Endless(Sounds):
        can_wait = True

        def read(self) -> np.ndarray | None:
            return np.ones(16_000, np.float32) if self._blocks is not None else None

        def stop(self) -> None:
            self._blocks = None

    with Inbox(Endless()) as inbox:
        arrived = inbox.take(wait=True)
        inbox.stop()
        while arrived is not None:
            arrived = inbox.take(wait=True)


def test_take_raises_the_error_of_a_source() -> None:
    with Inbox(Sounds(error=ValueError("unplugged"))) as inbox, pytest.raises(ValueError, match=r"^unplugged$"):
        inbox.take(wait=True)


def test_take_without_wait_returns_at_once() -> None:
    gate = threading.Event()
    with Inbox(None, Pictures(gate=gate)) as inbox:
        arrived = inbox.take(wait=False)
        assert arrived is not None and not arrived


class Endless(Pictures):
    """A camera that never waits and never ends."""

    def read(self) -> Shot | None:
        return Shot(PICTURE, 0.0, 0.0)

    def stop(self) -> None:
        pass


class Dead(Sounds):
    """Sound that never comes, from a device that cannot be stopped."""

    def read(self) -> np.ndarray | None:
        threading.Event().wait()
        return None


def drain(inbox: Inbox) -> None:
    while inbox.take(wait=True) is not None:
        pass


def test_a_fast_camera_ends_with_the_sound() -> None:
    camera = Pictures(*[(PICTURE, 0.0)] * 100_000)
    with Inbox(Sounds(SOUND[:FRAME]), camera) as inbox:
        drain(inbox)
    assert camera._shots


@pytest.mark.parametrize("sound", [Dead(), None])
def test_stop_ends_sources_that_do_not_end_by_themselves(sound: Sounds | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without sound."""
    monkeypatch.setattr("mlx_gemma4.live.talk.arrivals.STOP_SECONDS", 0.01)
    with Inbox(sound, Pictures(gate=threading.Event())) as inbox:
        inbox.stop()
        drain(inbox)


def test_the_error_of_a_source_comes_after_its_sound() -> None:
    with Inbox(Sounds(SOUND[:FRAME], error=ValueError("unplugged"))) as inbox:
        arrived = inbox.take(wait=True)
        assert arrived is not None and len(arrived.sound) == 1
        with pytest.raises(ValueError, match="unplugged"):
            inbox.take(wait=True)


def test_what_was_heard_before_a_failure_is_answered(demo: tuple[Model, Processor]) -> None:
    events: list[object] = []
    with Inbox(Sounds(SOUND[: 45 * FRAME], error=ValueError("unplugged"))) as inbox:
        conversation = converse(assistant(demo), inbox)
        with pytest.raises(ValueError, match="unplugged"):
            for event in conversation:
                events.append(event)
    assert [type(event) for event in events if not isinstance(event, Said)] == [Heard, Answered]


def test_ctrl_c_ends_the_answer_where_it_is(demo: tuple[Model, Processor]) -> None:
    """Without waiting for the rest of it."""
    events = converse(assistant(demo), Replay(FileSource(SOUND, fast=True)))
    first = next(event for event in events if isinstance(event, Said))
    last = events.throw(KeyboardInterrupt())
    assert isinstance(last, Answered) and (last.text, last.reason) == (first.text, "interrupted")
    with pytest.raises(KeyboardInterrupt):
        next(events)


def test_blocks_before_a_bad_one_are_delivered() -> None:
    """Also if the source reuses its buffer."""
    buffer = SOUND[:FRAME].copy()
    with Inbox(Sounds(buffer, np.full(FRAME, np.nan, np.float32))) as inbox:
        arrived = inbox.take(wait=True)
        assert arrived is not None
        buffer[:] = 1.0
        np.testing.assert_array_equal(np.concatenate(arrived.sound), SOUND[:FRAME])
        with pytest.raises(ValueError, match="finite samples in what was heard"):
            inbox.take(wait=True)


# a camera that dies


class Camera(Pictures):
    """A live camera: it ends with a problem, or gives nothing until its gate opens."""

    is_live = True

    def read(self) -> Shot | None:
        shot = super().read()
        if shot is None:
            self.problem = "The pictures from camera 0 ended."
        return shot


def problems(events: list[AssistantEvent]) -> list[str]:
    return [event.problem for event in events if isinstance(event, SightLost)]


def test_a_question_after_the_camera_ended_is_not_about_its_last_picture(demo: tuple[Model, Processor]) -> None:
    """The end is reported once, the picture leaves the open turn, and the answer is that of the prompt without it."""
    seen = threading.Event()
    engine = assistant(demo)
    events: list[AssistantEvent] = []
    with Inbox(None, Camera((PICTURE, 0.0)), Lines("Describe the image.", after=seen)) as inbox:
        for event in converse(engine, inbox, scene=Scene()):
            events.append(event)
            if isinstance(event, SightLost):
                seen.set()
    assert problems(events) == ["The pictures from camera 0 ended."]
    [answer] = [event for event in events if isinstance(event, Answered)]
    content = [{"type": "text", "text": "Describe the image."}]
    assert answer.text == generate(*demo, demo[1].prompt([{"role": "user", "content": content}]), max_tokens=8)


def test_a_film_that_has_ended_still_shows_its_last_picture() -> None:
    with Inbox(None, Pictures((PICTURE, 0.0)), Lines("What is this?")) as inbox:
        while (arrived := inbox.take(wait=True)) is not None:
            assert arrived.lost is None


def test_a_stalled_camera_is_reported_once_until_pictures_return() -> None:
    """By the clock."""
    now = [100.0]
    gate, more = threading.Event(), threading.Event()

    class Stalling(Camera):
        def read(self) -> Shot | None:
            if not self._shots:
                gate.wait(10)
            elif len(self._shots) == 1:
                more.wait(10)
            return super().read()

    camera = Stalling((PICTURE, 0.0), (OTHER, 9.0))
    with Inbox(Dead(), camera, stale_seconds=5, clock=lambda: now[0]) as inbox:
        arrived = inbox.take(wait=True)
        assert arrived is not None and arrived.shot is not None and arrived.lost is None
        now[0] += 4.9
        arrived = inbox.take(wait=False)
        assert arrived is not None and not arrived
        now[0] += 0.1
        arrived = inbox.take(wait=True)
        assert arrived is not None and arrived.lost == "No picture has come for 5 s."
        arrived = inbox.take(wait=False)
        assert arrived is not None and not arrived
        more.set()
        arrived = inbox.take(wait=True)
        assert arrived is not None and arrived.shot is not None and arrived.lost is None
        now[0] += 5
        arrived = inbox.take(wait=True)
        assert arrived is not None and arrived.lost == "No picture has come for 5 s."
        gate.set()


def test_a_camera_that_is_stopped_is_not_lost() -> None:
    gate = threading.Event()
    with Inbox(None, Camera(gate=gate)) as inbox:
        inbox.stop()
        arrived = inbox.take(wait=True)
        assert arrived is None or arrived.lost is None


def test_the_same_picture_is_computed_again_after_sight_was_lost(demo: tuple[Model, Processor]) -> None:
    """The scene forgets the picture too."""
    deliveries = [
        Arrived(shot=Shot(PICTURE, 0.0, 0.0)),
        Arrived(lost="It stalls."),
        Arrived(shot=Shot(PICTURE, 9.0, 0.0)),
        None,
    ]
    arrivals = SimpleNamespace(take=lambda *, wait, ready: deliveries.pop(0), stop=lambda: None)
    events = list(converse(assistant(demo), arrivals, scene=Scene()))
    assert [type(event) for event in events] == [Looked, SightLost, Looked]
