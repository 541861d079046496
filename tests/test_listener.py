"""Live transcription: streaming costs no accuracy, committed words stay, silence costs nothing, no frame is lost."""

from __future__ import annotations

import threading
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import loaded
from golden import parts
from reference_cases import RECORDINGS, SHORT, media_file

from mlx_gemma4 import Model, Processor, Transcriber, load_audio
from mlx_gemma4.inputs.audio.endpoint import Endpointer, Endpointing
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.live.hear.events import Committed, DroppedAudio, Final, ListenerEvent, Partial, Silence
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.live.hear.sources import FileSource

LONG = ("long-1.wav", "long-2.wav", "long-3.wav")
NAMES = [told["audio"] for told in RECORDINGS if told["audio"] not in LONG]
"""The others take long to hear; ``sweep_speech.py`` hears all."""
PAUSE = np.zeros(16_000, np.float32)


def make(demo: tuple[Model, Processor], *, guess_every: float = 0.5, longest: float = 15.0) -> Listener:
    transcriber = Transcriber(*demo, text=SHORT, max_segment=longest)
    return Listener(transcriber, guess_every=guess_every)


def joined(*names: str) -> np.ndarray:
    """Recordings with a second of silence around each."""
    return np.concatenate([PAUSE, *(part for name in names for part in (load_audio(media_file(name)), PAUSE))])


def heard(listener: Listener, samples: np.ndarray, sizes: list[int]) -> list[ListenerEvent]:
    """Events when sound arrives in blocks of these sizes, each followed by a step, and then all the rest at once."""
    events: list[ListenerEvent] = []
    for block in np.split(samples, np.cumsum(sizes)):
        listener.feed(block)
        events += listener.step()
    return events + listener.finish()


def finals(events: list[ListenerEvent]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def offline(demo: tuple[Model, Processor], samples: np.ndarray, final: Final) -> str:
    """The text of the same stretch of sound, by a transcriber that gets it whole."""
    stretch = samples[round(final.start * 16_000) : round(final.end * 16_000)]
    [segment] = Transcriber(*demo, text=SHORT).transcribe(stretch)
    return segment.text


@pytest.mark.parametrize("name", NAMES)
def test_live_text_is_offline_text(demo: tuple[Model, Processor], name: str) -> None:
    """For every recording, fed in 40 ms blocks with guesses all the way: final text = the text of the utterance when it
    is heard whole, exactly, as the reference decodes it; and it is there when the speaker stops."""
    samples = joined(name)
    events = heard(make(demo), samples, [640] * (len(samples) // 640))
    whole = [(answer.text, answer.text is not None) for answer in parts(name, "short")]
    assert [(final.text if final.complete else None, final.complete) for final in finals(events)] == whole != []
    text_was_there(events)


ARRIVING = ("dialogue.wav", "hibari-03.wav")


@pytest.fixture(scope="module")
def arrived_in_seconds() -> list[tuple[float, float, str]]:
    """Utterances of sound that arrives a second at a time."""
    events = heard(make(loaded("demo")), joined(*ARRIVING), [16_000] * 50)
    return [(each.start, each.end, each.text) for each in finals(events)]


@pytest.mark.parametrize("seed", range(2))
def test_arrival_changes_nothing_that_stands(
    demo: tuple[Model, Processor], arrived_in_seconds: list[tuple[float, float, str]], seed: int
) -> None:
    """Random blocks, late steps, any guessing interval: the same utterances and texts; committed words only grow."""
    random = np.random.default_rng(seed)
    samples = joined(*ARRIVING)
    sizes = (random.integers(0, 40_000, 60) // random.choice([1, 5, 30], 60)).tolist()
    listener = make(demo, guess_every=float(random.choice([0.0, 0.2, 1.0])))
    events = heard(listener, samples, sizes)
    assert [(each.start, each.end, each.text) for each in finals(events)] == arrived_in_seconds
    shown: dict[int, str] = {}
    for event in events:
        if isinstance(event, Committed):
            shown[event.utterance] = shown.get(event.utterance, "") + event.text
        elif isinstance(event, Partial):
            assert event.committed == shown.get(event.utterance, "")
        elif isinstance(event, Final):
            written = shown.get(event.utterance, "") + event.rest
            assert len(written.split()) >= len(event.text.split())
            assert event.revised > 0 or written == event.text


def text_was_there(events: list[ListenerEvent]) -> None:
    """When the speaker stopped: at most three forwards beyond the words that the last guess did not hold."""
    guessed = ""
    for event in events:
        if isinstance(event, Partial):
            guessed = event.committed + event.draft
        elif isinstance(event, Final):
            new = 0 if guessed == event.text else event.tokens
            assert event.forwards <= 3 + new


@pytest.mark.parametrize("name", ["hibari-01.wav", "long-1.wav"])
def test_the_text_is_there_when_the_speaker_stops(demo: tuple[Model, Processor], name: str) -> None:
    """When sound comes in large blocks, too; for 1 s as for 8 s of speech."""
    samples = joined(name)
    text_was_there(heard(make(demo), samples, [12_800] * (len(samples) // 12_800)))


def test_silence_costs_nothing(demo: tuple[Model, Processor]) -> None:
    """Ten seconds of it, digital or faint noise: no forward, one event that says how long it was."""
    noise = np.random.default_rng(0).normal(0, 1e-4, 160_000).astype(np.float32)
    for samples in (np.zeros(160_000, np.float32), noise):
        listener = make(demo)
        assert heard(listener, samples, [6400] * 25) == [Silence(0.0, 10.0)]
        assert (listener.work.forwards, listener.work.silent_frames) == (0, 250)


def test_no_frame_is_computed_twice_or_lost(demo: tuple[Model, Processor]) -> None:
    """Speech and silence add up to all that was fed; what the model computed is the speech."""
    samples = joined("dialogue.wav", "hibari-03.wav")
    listener = make(demo)
    events = heard(listener, samples, [3200] * (len(samples) // 3200))
    work = listener.work
    assert work.speech_frames + work.silent_frames == -(-len(samples) // 640)
    assert work.audio_computed == work.speech_frames
    assert work.utterances == len(finals(events))
    assert (work.speech_frames, work.silent_frames) == (listener.endpointer.spoken, listener.endpointer.silent)
    spans = sorted((each.start, each.end) for each in events if isinstance(each, (Final, Silence)))
    assert spans[0][0] == 0.0 and all(first[1] == pytest.approx(second[0]) for first, second in pairwise(spans))


def test_speech_without_a_pause_is_cut(demo: tuple[Model, Processor]) -> None:
    """Utterances of at most 2 s, contiguous, each with the text of its sound; few frames are computed again."""
    samples = joined("long-0.wav")
    listener = make(demo, longest=2.0)
    texts = finals(heard(listener, samples, [640] * (len(samples) // 640)))
    assert [each.reason for each in texts].count("length") >= 2
    assert all(each.end - each.start <= 2.0 + 1e-6 for each in texts)
    for each in texts:
        assert each.text == offline(demo, samples, each)
    work = listener.work
    assert work.speech_frames <= work.audio_computed <= 1.5 * work.speech_frames
    assert work.speech_frames + work.silent_frames == -(-len(samples) // 640)


def test_every_utterance_starts_from_the_instruction(demo: tuple[Model, Processor]) -> None:
    """Memory stays where it was after the first of many utterances."""
    listener = make(demo)
    session = listener._transcriber.session
    prefix, sizes = session.position, []
    for _ in range(6):
        heard_once = joined("hibari-03.wav")
        listener.feed(heard_once)
        listener.step()
        sizes.append(session.nbytes)
        assert session.position == prefix
    assert sizes[1:] == sizes[1:2] * 5


def test_a_slow_model_is_late_but_right(demo: tuple[Model, Processor]) -> None:
    """Three times slower than speech: nothing is lost, the backlog is told, and the texts are the same."""
    samples = joined("pico-00.wav", "hibari-03.wav", "pico-04.wav")
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    listener = make(demo)
    source = FileSource(samples, clock=lambda: now, sleep=sleep)
    behind: list[float] = []
    events: list[ListenerEvent] = []
    while (block := source.read()) is not None:
        listener.feed(block)
        events += listener.step()
        now += 3 * len(block) / 16_000
        behind.append(listener.behind)
    events += listener.finish()
    expected = heard(make(demo), samples, [640] * (len(samples) // 640))
    assert [each.text for each in finals(events)] == [each.text for each in finals(expected)]
    assert listener.work.speech_frames + listener.work.silent_frames == -(-len(samples) // 640)
    assert max(behind) > 3 and len(behind) < 10


class Device:
    """A source that hands out blocks, and says that sound was lost in between."""

    problem = None

    def __init__(self, samples: np.ndarray) -> None:
        self.lost_seconds = 0.0
        self._blocks = iter(np.split(samples, range(8000, len(samples), 8000)))

    def read(self) -> np.ndarray | None:
        self.lost_seconds += 0.25
        return next(self._blocks, None)

    def stop(self) -> None:
        self._blocks = iter(())


def test_lost_sound_is_told_and_the_rest_goes_on(demo: tuple[Model, Processor]) -> None:
    blocks: list[Any] = []
    events = list(listen(Device(joined("pico-00.wav")), make(demo), hear=blocks.append))
    [final] = finals(events)
    assert final.text == offline(demo, joined("pico-00.wav"), final) != ""
    assert sum(each.seconds for each in events if isinstance(each, DroppedAudio)) == pytest.approx(0.25 * len(blocks))
    np.testing.assert_array_equal(np.concatenate(blocks), joined("pico-00.wav"))


def test_the_transcriber_sets_the_longest_utterance(demo: tuple[Model, Processor]) -> None:
    """Also of an endpointer that was made for another length; what cannot fit is refused."""
    transcriber = Transcriber(*demo, max_segment=10)
    made = [None, Endpointing(), Endpointer(Voice(), max_frames=700)]
    assert [Listener(transcriber, each).endpointer.max_frames for each in made] == [250, 250, 250]
    with pytest.raises(ValueError, match=r"take 11\.28 s, but an utterance may have only 10 s"):
        Listener(transcriber, Endpointing(pre_roll=11))


def test_fed_sound_is_copied(demo: tuple[Model, Processor]) -> None:
    """Devices use their buffers again."""
    samples, buffer = joined(NAMES[0]), np.zeros(640, np.float32)
    whole, copied = make(demo), make(demo)
    for block in np.split(samples, range(640, len(samples), 640)):
        whole.feed(block)
        buffer[: len(block)] = block
        copied.feed(buffer[: len(block)])
        buffer[:] = np.nan
    assert [final.text for final in finals(copied.finish())] == [final.text for final in finals(whole.finish())]


def test_nothing_is_lost_that_another_thread_feeds(demo: tuple[Model, Processor]) -> None:
    """While this one works it off."""
    listener = Listener(Transcriber(*demo, text=SHORT), Endpointer(lambda frame: 0.0))
    block = np.full(640, 1e-4, np.float32)
    feeders = [threading.Thread(target=lambda: [listener.feed(block) for _ in range(2000)]) for _ in range(2)]
    for feeder in feeders:
        feeder.start()
    events: list[ListenerEvent] = []
    while any(feeder.is_alive() for feeder in feeders):
        events += listener.step()
    (silence,) = [*events, *listener.finish()]
    assert silence == Silence(0.0, 4000 * 0.04)


class Failing(FileSource):
    """A recording whose device is gone after so many blocks; or that hands over NaN there."""

    def __init__(self, samples: np.ndarray, blocks: int, *, nan: bool = False) -> None:
        super().__init__(samples, fast=True)
        self._left, self._nan = blocks, nan

    def read(self) -> np.ndarray | None:
        self._left -= 1
        if self._left < 0 and not self._nan:
            raise OSError("the device is gone")
        block = super().read()
        return np.full(640, np.nan, np.float32) if self._left < 0 else block


def until_error(
    events: Generator[ListenerEvent, None, None], error: type[Exception], message: str
) -> list[ListenerEvent]:
    """What is yielded before an error."""
    found: list[ListenerEvent] = []
    with pytest.raises(error, match=message):
        for event in events:
            found.append(event)
    return found


@pytest.mark.parametrize(
    ("nan", "error", "message"), [(False, OSError, "is gone"), (True, ValueError, "finite samples")]
)
def test_what_was_heard_before_a_failure_is_written(
    demo: tuple[Model, Processor], nan: bool, error: type[Exception], message: str
) -> None:
    """The open utterance as its sound so far gives it; then the reason is raised."""
    samples = joined(NAMES[0])
    events = until_error(listen(Failing(samples, 60, nan=nan), make(demo)), error, message)
    (final,) = finals(events)
    assert final.text == offline(demo, samples, final) != "" and final.reason == "end of sound"


def test_a_model_that_fails_leaves_its_last_guess(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = listen(joined(NAMES[0]), make(demo))
    guess = next(event for event in events if isinstance(event, Partial))

    def broken(*arguments: Any) -> Any:
        raise ValueError("The model computes NaN")

    for name in ("compute", "guess", "finish"):
        monkeypatch.setattr(Transcriber, name, broken)
    (final,) = finals(until_error(events, ValueError, "computes NaN"))
    assert (final.text, final.reason, final.complete) == (guess.committed + guess.draft, "interrupted", False)


def test_an_interruption_leaves_the_last_guess(demo: tuple[Model, Processor]) -> None:
    """Without computing; the utterance is written once."""
    listener = make(demo)
    events = listen(joined(NAMES[0]), listener)
    guess = next(event for event in events if isinstance(event, Partial))
    forwards = listener.work.forwards
    final = events.throw(KeyboardInterrupt())
    assert isinstance(final, Final) and final.text == guess.committed + guess.draft
    assert listener.work.forwards == forwards
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert listener.abandon() == []


def test_both_delays_are_told(demo: tuple[Model, Processor]) -> None:
    """By a clock that stands still: nothing after the decision, the silence that decided after the last speech."""
    samples = joined("hibari-03.wav")
    transcriber = Transcriber(*demo, text=SHORT)
    settings = Endpointing(silence=0.6)
    listener = Listener(transcriber, settings, clock=lambda: 7.0)
    [final] = finals(heard(listener, samples, [640] * (len(samples) // 640)))
    assert (final.reason, final.delay) == ("silence", 0.0)
    assert final.after_speech == pytest.approx(0.6)
    assert all(final.start <= start < end <= final.end for start, end in final.speech)
    late = Listener(transcriber, settings, clock=lambda: 7.0)
    [final] = finals(heard(late, samples, []))
    assert final.after_speech == pytest.approx(len(samples) / 16_000 - final.speech[-1][1])


def test_the_guess_in_the_pause_is_the_final_text(demo: tuple[Model, Processor]) -> None:
    """In faint noise: as soon as the tail is complete, one guess that has heard all; no forward is left at the end.
    Frames are computed with guesses, most of them."""
    noise = np.random.default_rng(0).normal(0, 1e-4, 16_000).astype(np.float32)
    samples = np.concatenate([noise, load_audio(media_file("hibari-03.wav")), noise])
    for size in (640, 3200):
        listener = make(demo)
        events = heard(listener, samples, [size] * (len(samples) // size))
        (final,) = finals(events)
        partials = [event for event in events if isinstance(event, Partial)]
        assert (partials[-1].end, final.forwards) == (final.end, 0)
        assert partials[-1].committed + partials[-1].draft == final.text
        assert listener.work.audio_forwards < listener.work.audio_computed / 4


def test_the_pre_roll_is_no_new_speech(demo: tuple[Model, Processor]) -> None:
    """The first guess has heard half a second of speech, 13 frames, and the 12 before it."""
    samples = np.random.default_rng(0).normal(0, 0.01, 40 * 640).astype(np.float32)
    samples[: 20 * 640] /= 100
    endpointer = Endpointer(lambda frame: float(np.abs(frame).max() > 0.01), Endpointing())
    events = heard(Listener(Transcriber(*demo, text=SHORT), endpointer), samples, [640] * 40)
    first = next(event for event in events if isinstance(event, Partial))
    assert (first.start, first.end) == (pytest.approx(8 * 0.04), pytest.approx(33 * 0.04))


class Ticking:
    """A clock of a machine on which every forward takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._session = seconds, None

    def of(self, transcriber: Transcriber) -> Ticking:
        self._session = transcriber.session
        return self

    def __call__(self) -> float:
        return 0.0 if self._session is None else self._session.forwards * self._seconds


def test_work_tells_how_busy_the_model_was(demo: tuple[Model, Processor]) -> None:
    transcriber = Transcriber(*demo, text=SHORT)
    listener = Listener(transcriber, clock=Ticking(0.01).of(transcriber))
    heard(listener, joined("hibari-03.wav"), [640] * 140)
    work = listener.work
    assert work.busy == pytest.approx(0.01 * work.forwards)
    assert work.speech == pytest.approx(0.04 * work.speech_frames)
