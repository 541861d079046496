"""Side by side is one after the other."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from golden import heard
from reference_cases import SHORT, media_file, reference_case, speech_prompt
from test_reference import ROUNDING

from mlx_gemma4 import Model, Processor, Sampling, Session, Transcriber, load_audio
from mlx_gemma4.outputs.batch import Batch, decode_batch
from mlx_gemma4.outputs.draft import answer
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.programs.segments import transcribe

NAMES = ("hibari-03.wav", "hibari-01.wav", "pico-00.wav", "long-0.wav", "flite-04.wav", "espeak-00.wav")


@pytest.mark.parametrize("checkpoint", ["released", "resaved"])
def test_logits_side_by_side_are_those_alone(checkpoint: str) -> None:
    """Sequences of 19 to 297 positions, windows of 16 and 24: the next five logits of each, to rounding."""
    model, _ = loaded(checkpoint)
    cases = [reference_case(checkpoint, name) for name in ("text", "audio", "image", "video")]
    alone, held = [], []
    steps = [30, 31, 32, 33, 34]
    for case in cases:
        session = Session(model)
        session.extend(case.prompt)
        held.append(session.held())
        alone.append(np.stack([np.array(session.step(mx.array(token))) for token in steps]))
    text = model.config.text_config
    batch = Batch(held, text.layers, window=text.sliding_window, spare=len(steps))
    for i, token in enumerate(steps):
        h = model(model.embed_tokens(mx.full((len(cases), 1), token)), batch)
        together = np.array(model.logits(h))[:, 0]
        for row, case in enumerate(cases):
            error = np.abs(together[row] - alone[row][i]).max()
            assert error < 4 * ROUNDING[f"{checkpoint}-{case.name}"], (case.name, i)


def test_answers_are_those_one_by_one(demo: tuple[Model, Processor]) -> None:
    """Short and long ones, some ended by the limit; the session is as before."""
    model, processor = demo
    prompts = [speech_prompt(processor, media_file(name)) for name in NAMES]
    prefix, questions = prompts[0][:8], [prompt[8:] for prompt in prompts]
    lengths = [len(heard(name, "short").tokens) for name in NAMES]
    limits = [20, 20, max(1, lengths[2] - 2), 20, 1, 20]
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    session = Session(model, room=2000)
    session.extend(prefix)
    expected = []
    for question, limit in zip(questions, limits, strict=True):
        expected.append(answer(session, question, sampler, stop_ids=processor.stop_ids, max_tokens=limit))
        session.rewind(8)
    found = decode_batch(session, questions, sampler, stop_ids=processor.stop_ids, max_tokens=limits)
    assert found == expected and session.position == 8
    assert [len(tokens) for tokens in found] == [min(pair) for pair in zip(lengths, limits, strict=True)]


def test_a_long_recording_has_the_same_text_in_any_grouping(demo: tuple[Model, Processor]) -> None:
    """Utterances one by one, and three together; times and all."""
    pause = np.zeros(16_000, np.float32)
    samples = np.concatenate([part for name in NAMES for part in (load_audio(media_file(name)), pause)])
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


def test_an_open_segment_is_not_mixed_in(demo: tuple[Model, Processor]) -> None:
    transcriber = Transcriber(*demo)
    list(transcriber.feed(np.zeros((2, 640), np.float32)))
    with pytest.raises(ValueError, match=r"^A segment of 2 frames is open; call finish\(\) first$"):
        transcriber.transcribe_batch([(0, np.zeros((2, 640), np.float32))])
