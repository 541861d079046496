"""Sessions whose full layers store keys and values in 8 or 4 bits: they do all that others do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import loaded
from drafters import eager, random_model
from reference_cases import REFERENCE, demo_prompts

from mlx_gemma4 import Model, Sampling, Session, load
from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.cli import main
from mlx_gemma4.decoder.memory import position_bytes
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.measure.quality import measure
from mlx_gemma4.outputs.batch import Question, decode_batch
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step

DEMO = demo_folder() / "checkpoint"
MOST = {8: 0.06, 4: 0.9}
"""Of the root mean square difference of logits, beside those of plain keys and values."""


@pytest.fixture(params=[8, 4])
def bits(request: pytest.FixtureRequest) -> Iterator[int]:
    model = loaded("demo")[0]
    model.kv_bits = request.param
    yield request.param
    model.kv_bits = None


@pytest.fixture
def prompt() -> Prompt:
    return demo_prompts(loaded("demo")[1])["audio"]


def logits(model: Model, prompt: Prompt) -> np.ndarray:
    return np.array(Session(model).extend(prompt, logits_from=0))


def test_what_is_lost(bits: int, prompt: Prompt) -> None:
    """Logits differ, and little; only full layers hold less."""
    model = loaded("demo")[0]
    session = Session(model)
    session.extend(prompt)
    quantized = logits(model, prompt)
    model.kv_bits = None
    plain = logits(model, prompt)
    other = Session(model)
    other.extend(prompt)
    assert 0 < np.sqrt(np.square(quantized - plain).mean()) < MOST[bits]
    text = model.config.text_config
    saved = position_bytes(text, 4) - position_bytes(text, 4, bits)
    capacity = other._cache.layers[-1].arrays[0].shape[2]
    assert other.nbytes - session.nbytes == saved * capacity


def test_a_cut_and_a_rewind_change_little_more_than_rounding(bits: int, prompt: Prompt) -> None:
    """A number may fall into the next step where rounding differs, so that logits differ by more than rounding."""
    model = loaded("demo")[0]
    whole, session = logits(model, prompt), Session(model)
    for start in range(0, len(prompt), 37):
        session.extend([5, 6, 7])
        session.rewind(session.position - 3)
        rows = np.array(session.extend(prompt[start : start + 37], logits_from=0))
        difference = rows - whole[start : start + 37]
        assert np.sqrt(np.square(difference).mean()) < MOST[bits] / 4


def test_batches_and_drafts_say_the_same(bits: int, prompt: Prompt) -> None:
    model = loaded("demo")[0]
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    session = Session(model, room=400)
    session.extend(prompt[:-1])
    answers = []
    for drafter in (None, eager(random_model(model))):
        session.rewind(len(prompt) - 1)
        first = session.extend(prompt[-1:])
        drafts = None if drafter is None else drafter.begin(session, prompt.token_ids)
        answers.append(list(generate_step(session, first, sampler, max_tokens=12, drafts=drafts)))
        assert drafter is None or drafter.drafted > 5
    session.rewind(len(prompt) - 1)
    questions = [Question(prompt[-1:], 12), Question(prompt[-1:], 5)]
    answers += list(decode_batch(session, questions, sampler, stop_ids=()))
    assert answers[0] == answers[1] == answers[2] and answers[3] == answers[0][:5]


def test_forks_and_files(bits: int, prompt: Prompt, tmp_path: Path) -> None:
    """To the bit; and a file is bound to the bits."""
    model = loaded("demo")[0]
    session, path = Session(model), tmp_path / "kept"
    session.extend(prompt)
    session.save(path)
    forked, read = session.fork(), Session.load(model, path)
    expected = np.array(session.extend([20, 21]))
    np.testing.assert_array_equal(np.array(forked.extend([20, 21])), expected)
    np.testing.assert_array_equal(np.array(read.extend([20, 21])), expected)
    for other, mine in ((None, "without --kv-bits"), (12 - bits, f"with --kv-bits {12 - bits}")):
        model.kv_bits = other
        with pytest.raises(ValueError) as refused:
            Session.load(model, path)
        assert str(refused.value) == (
            f"{path} was written with --kv-bits {bits}, and this session is {mine}: start with --kv-bits {bits}, or "
            "name another file"
        )


def test_loading_with_bits() -> None:
    """The plan knows them, and so does every session."""
    plain, quantized = (load("demo", context=2048, kv_bits=bits)[0] for bits in (None, 4))
    assert (plain.kv_bits, quantized.kv_bits) == (None, 4)
    assert plain.budget.plan is not None and quantized.budget.plan is not None
    saved = position_bytes(plain.config.text_config, 2) - position_bytes(plain.config.text_config, 2, 4)
    assert plain.budget.plan.positions - quantized.budget.plan.positions == 2048 * saved
    with pytest.raises(ValueError, match=r"^Expected 4 or 8 bits for keys and values, got 2$"):
        load("demo", kv_bits=2)


def test_the_loss_is_measured() -> None:
    """Of the demo against itself: each part has one, and no module has an error of its own."""
    measured = [
        measure(DEMO, DEMO, text="Go back seven meters.", recordings=[], hear=False, kv_bits=bits) for bits in (8, 4)
    ]
    assert 0 < measured[0].logit_error < measured[1].logit_error
    assert {module.error for each in measured for module in each.modules} == {0}
    assert measured[0].layers[:3] == [0, 0, 0] and measured[0].layers[3] > 0  # its first full layer


def test_a_command_stores_less(capsys: pytest.CaptureFixture[str]) -> None:
    """And says the same, where the answer is clear."""
    command = ["generate", "--model", "demo", "--dtype", "float32", "-p", "Hello", "--max-tokens", "4"]
    assert main([*command, "--kv-bits", "8"]) == 0
    quantized = capsys.readouterr().out
    assert main(command) == 0
    assert capsys.readouterr().out == quantized


def test_heads_that_cannot_be_divided(refused: Callable[..., str]) -> None:
    """Before a weight is read."""
    checkpoint = REFERENCE / "released" / "checkpoint"
    message = refused("chat", "--model", str(checkpoint), "--kv-bits", "8")
    assert message.startswith("Keys and values of this checkpoint cannot be stored in 8 bits: its full layers store")
