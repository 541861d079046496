"""Speech to text: the reference's words for every recording, however the sound arrives."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import loaded
from golden import GOLDEN, Answer, heard, parts, said, seen, spans
from reference_cases import (
    GOOGLE,
    LONGEST,
    PICTURES,
    PROMPTS,
    RECORDINGS,
    SHORT,
    media_file,
    picture_prompt,
    speech_prompt,
)

from mlx_gemma4 import Model, Processor, Transcriber, generate, load_audio
from mlx_gemma4.inputs.audio.frames import Framer, cut_point
from mlx_gemma4.outputs.answer import PATIENCE
from mlx_gemma4.programs.segments import transcribe_each
from mlx_gemma4.programs.transcribe import Segment, instruction

WHOLE = [told["audio"] for told in RECORDINGS if isinstance(told["text"], str)]
"""Recordings of one utterance."""


def segments(transcriber: Transcriber, samples: np.ndarray, sizes: list[int]) -> list[Segment]:
    """Sound that arrives in blocks of these sizes, and then the rest."""
    framer, found = Framer(640), []
    for block in np.split(samples, np.cumsum(sizes)):
        found += transcriber.feed(framer.push(block))
    found += transcriber.feed(framer.flush())
    last = transcriber.finish()
    return found if last is None else [*found, last]


def test_there_is_a_reference_for_every_recording() -> None:
    assert GOLDEN["recordings"].keys() == {told["audio"] for told in RECORDINGS}
    assert GOLDEN["pictures"].keys() == {told["image"] for told in PICTURES}
    assert (len(WHOLE), len(PICTURES)) == (28, 12)


def agree(segment: Segment, answer: Answer) -> bool:
    """The same text, or none of the two ended."""
    return segment.text == answer.text if segment.complete else answer.text is None


@pytest.fixture(scope="module")
def transcribers() -> dict[str, Transcriber]:
    """One for each prompt, which it has read; every segment starts from there."""
    return {prompt: Transcriber(*loaded("demo"), text=text) for prompt, text in PROMPTS.items()}


@pytest.mark.parametrize("name", WHOLE)
def test_recordings_say_what_the_reference_hears(transcribers: dict[str, Transcriber], name: str) -> None:
    """Character for character, for the short prompt, and some for Google's, with which the utterances of all are heard
    below."""
    samples = load_audio(media_file(name))
    for prompt in ("short", "google") if WHOLE.index(name) % 4 == 0 else ("short",):
        [segment] = transcribers[prompt].transcribe(samples)
        assert agree(segment, heard(name, prompt))


@pytest.mark.parametrize("name", ["hibari-03.wav", "long-0.wav"])
def test_so_says_generate(demo: tuple[Model, Processor], name: str) -> None:
    model, processor = demo
    samples = load_audio(media_file(name))
    answer = generate(model, processor, speech_prompt(processor, samples), max_tokens=LONGEST)
    assert answer.strip() == processor.decode(heard(name, "short").tokens).strip()


def test_utterances_say_what_the_reference_hears(transcribers: dict[str, Transcriber]) -> None:
    """The stretches of every recording in which endpointing finds speech, each heard alone; as they are decoded in a
    batch, side by side."""
    names = [told["audio"] for told in RECORDINGS]
    sounds = (load_audio(media_file(name)) for name in names)
    for name, found in zip(names, transcribe_each(sounds, transcribers["google"]), strict=True):
        assert [(round(each.start / 0.04), round(each.end / 0.04)) for each in found] == spans(name)
        assert all(agree(segment, answer) for segment, answer in zip(found, parts(name), strict=True))


@pytest.mark.parametrize("name", [told["image"] for told in PICTURES])
def test_pictures_are_named_as_the_reference_does(demo: tuple[Model, Processor], name: str) -> None:
    model, processor = demo
    answer = generate(model, processor, picture_prompt(processor, name), max_tokens=LONGEST)
    assert answer.strip() == processor.decode(seen(name).tokens).strip()


@pytest.mark.parametrize("name", ["hibari-03.wav", "long-0.wav"])
def test_sound_in_any_pieces_is_transcribing(demo: tuple[Model, Processor], name: str) -> None:
    """In blocks of any size, frame by frame, and with segments so short that they must be cut: equal segments."""
    samples = load_audio(media_file(name))
    random = np.random.default_rng(0)
    transcriber = Transcriber(*demo, text=SHORT, max_segment=4)
    expected = transcriber.transcribe(samples)
    for most in (700, 40_000):
        sizes = random.integers(0, most, 2 * len(samples) // most).tolist()
        heard = segments(Transcriber(*demo, text=SHORT, max_segment=4), samples, sizes)
        assert [(each.start, each.end, each.text) for each in heard] == [
            (each.start, each.end, each.text) for each in expected
        ]


def test_each_segment_is_a_transcript_of_its_own(demo: tuple[Model, Processor]) -> None:
    """Cut at pauses, with nothing lost, and nothing remembered: each is what its sound alone would give."""
    samples = load_audio(media_file("dialogue.wav"))
    transcriber = Transcriber(*demo, text=SHORT, max_segment=5)
    found = transcriber.transcribe(samples)
    assert len(found) > 2
    assert [each.start for each in found] == [0.0, *(each.end for each in found[:-1])]
    frames = transcriber.transcribe(samples)[-1].end / 0.04
    assert round(frames) == -(-len(samples) // 640)
    for each in found:
        alone = samples[round(each.start * 16_000) : round(each.end * 16_000)]
        [segment] = Transcriber(*demo, text=SHORT, max_segment=5).transcribe(alone)
        assert segment.text == each.text


def test_cuts_are_made_where_cut_point_says(demo: tuple[Model, Processor]) -> None:
    samples = load_audio(media_file("dialogue.wav"))
    transcriber = Transcriber(*demo, text=SHORT, max_segment=5)
    first = transcriber.transcribe(samples)[0]
    speech = demo[1].frames(samples)[: transcriber.max_frames]
    assert round(first.end / 0.04) == cut_point(speech) < transcriber.max_frames


def test_the_answer_costs_the_same_however_long_the_speech(demo: tuple[Model, Processor]) -> None:
    """After the last frame: one forward for the end of the prompt, and one for each token but the last.

    A long answer, whose forwards are queued, takes one more.
    """
    costs = []
    for name in ("hibari-01.wav", "hibari-00.wav", "long-1.wav"):
        transcriber = Transcriber(*demo, text=SHORT)
        session = transcriber.session
        prefix = session.position
        list(transcriber.feed(demo[1].frames(load_audio(media_file(name)))))
        fed, tail = session.computed, session.position
        segment = transcriber.finish()
        assert segment is not None
        queued = int(segment.tokens > PATIENCE + 1)
        costs.append((segment.forwards - segment.tokens - queued, session.computed - fed - segment.tokens - queued))
        assert session.position == prefix
        assert tail == prefix + round(segment.end / 0.04)
    assert len(set(costs)) == 1


def test_an_answer_that_runs_into_its_limit_says_so(demo: tuple[Model, Processor]) -> None:
    samples = load_audio(media_file("hibari-03.wav"))
    [segment] = Transcriber(*demo, text=SHORT, max_tokens=3).transcribe(samples)
    expected = demo[1].decode(heard("hibari-03.wav", "short").tokens[:3])
    assert (segment.text, segment.tokens, segment.complete) == (expected, 3, False)


def test_no_sound_is_no_segment(demo: tuple[Model, Processor]) -> None:
    transcriber = Transcriber(*demo, text=SHORT)
    assert transcriber.finish() is None
    assert segments(transcriber, np.zeros(0, np.float32), []) == []


def test_googles_prompts() -> None:
    """Published words; a language in its place, a translation on request."""
    assert instruction() == GOOGLE
    assert instruction("German").startswith("Transcribe the following speech segment in German into German text.\n\n")
    assert instruction("German", "French") == (
        "Transcribe the following speech segment in German, then translate it into French.\n"
        "When formatting the answer, first output the transcription in German, then one newline, then output the "
        "string 'French: ', then the translation in French."
    )


@pytest.mark.parametrize("seconds", [0.0, 30.1, -1.0, float("inf"), float("nan")])
def test_the_longest_segment_has_bounds(demo: tuple[Model, Processor], seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"Expected a max_segment of 0\.04 to 30 seconds, got {seconds:g}"):
        Transcriber(*demo, max_segment=seconds)


def test_guesses_cost_the_session_nothing(demo: tuple[Model, Processor]) -> None:
    """Guessing after every few frames: the same text, the same audio computed, and no forward left to do at the end."""
    samples = load_audio(media_file("hibari-03.wav"))
    frames = demo[1].frames(samples)
    transcriber = Transcriber(*demo, text=SHORT)
    for start in range(0, len(frames), 7):
        list(transcriber.feed(frames[start : start + 7]))
        position = transcriber.session.position
        guess = transcriber.guess()
        assert (guess.frames, transcriber.session.position) == (transcriber.heard, position)
    assert transcriber.guess() is guess
    segment = transcriber.finish()
    assert segment is not None
    assert (segment.text, segment.forwards) == (said("hibari-03.wav", "short"), 0)


def test_a_segment_may_end_before_what_was_heard(demo: tuple[Model, Processor]) -> None:
    """As if the rest had not been heard; a guess about more is no hindrance."""
    frames = demo[1].frames(load_audio(media_file("hibari-03.wav")))
    [expected] = Transcriber(*demo, text=SHORT).transcribe(frames[:40].reshape(-1))
    transcriber = Transcriber(*demo, text=SHORT)
    list(transcriber.feed(frames))
    transcriber.guess()
    segment = transcriber.finish(40)
    assert segment is not None and (segment.text, segment.end) == (expected.text, expected.end)
    assert transcriber.heard == 0
    list(transcriber.feed(frames[:5]))
    with pytest.raises(ValueError, match="Expected a length of 1 to 5 frames, as many as the segment has, got 6"):
        transcriber.finish(6)


def test_frames_that_wait_are_computed_with_the_guess(demo: tuple[Model, Processor]) -> None:
    """In its forward; the text is that of frames computed before, for any split, and no frame is computed twice."""
    frames = demo[1].frames(load_audio(media_file("hibari-03.wav")))
    plain = Transcriber(*demo, text=SHORT)
    list(plain.feed(frames))
    expected = plain.guess()
    transcriber = Transcriber(*demo, text=SHORT)
    for first, second in ((0, 0), (40, 0), (40, 30), (len(frames) - 1, 1)):
        transcriber.put(frames)
        transcriber.compute(first)
        transcriber.compute(second)
        assert (transcriber.heard, transcriber.waiting) == (len(frames), len(frames) - first - second)
        before, computed = transcriber.session.forwards, transcriber.audio_computed
        assert transcriber.guess() == expected
        assert transcriber.session.forwards - before == len(expected.tokens)
        assert (transcriber.waiting, transcriber.audio_computed - computed) == (0, len(frames) - first - second)
        assert transcriber.session.position == transcriber._start.position + len(frames)
        segment = transcriber.finish()
        assert segment is not None and (segment.text, segment.forwards) == (expected.text, 0)


def test_frames_behind_the_end_are_never_computed(demo: tuple[Model, Processor]) -> None:
    """A segment that ends among the frames that wait, or before them."""
    frames = demo[1].frames(load_audio(media_file("hibari-03.wav")))
    whole = Transcriber(*demo, text=SHORT)
    list(whole.feed(frames[:50]))
    expected = whole.finish()
    assert expected is not None
    for computed, total in ((20, 50), (60, 60), (50, 50)):
        transcriber = Transcriber(*demo, text=SHORT)
        transcriber.put(frames)
        transcriber.compute(computed)
        segment = transcriber.finish(50)
        assert segment is not None and segment.text == expected.text
        assert transcriber.audio_computed == total
        assert transcriber.session.position == transcriber._start.position and transcriber.heard == 0


def test_a_guess_that_fails_loses_no_frame(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that were computed with it wait again; the next guess is right."""
    frames = demo[1].frames(load_audio(media_file("hibari-03.wav")))
    transcriber = Transcriber(*demo, text=SHORT)
    transcriber.put(frames)
    transcriber.compute(30)

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transcriber.session, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            transcriber.guess()
    assert (transcriber.heard, transcriber.waiting) == (len(frames), len(frames) - 30)
    assert transcriber.guess().text == said("hibari-03.wav", "short")


def test_a_segment_takes_no_more_frames_than_its_longest(demo: tuple[Model, Processor]) -> None:
    transcriber = Transcriber(*demo, text=SHORT, max_segment=1.0)
    transcriber.put(np.zeros((20, 640), np.float32))
    message = r"A segment has at most 25 frames, but 20 \+ 6 were put; call finish\(\) first, or use feed\(\)"
    with pytest.raises(ValueError, match=message):
        transcriber.put(np.zeros((6, 640), np.float32))
    assert transcriber.heard == 20
