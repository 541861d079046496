"""What a model may use while it runs: a session refuses what would break its context, and answers end there."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from golden import heard
from reference_cases import demo_prompts

from mlx_gemma4 import Drafter, Model, Sampling, Session, Snapshots, stream_generate
from mlx_gemma4.decoder.budget import Budget, ContextFull, MemoryFull, allocation_errors
from mlx_gemma4.decoder.memory import PROGRAM, Needs, Use, plan_memory
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.answer import answer
from mlx_gemma4.outputs.batch import Question, decode_batch
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """One whose context is 40 positions."""
    model = loaded("released")[0]
    monkeypatch.setattr(model, "budget", Budget(context=40, longest=50))
    return model


def test_a_piece_that_does_not_fit_is_refused_before_it_is_computed(model: Model) -> None:
    session, whole = Session(model), Session(model)
    ids = np.arange(41) % 300
    session.extend(ids[:38])
    with pytest.raises(ContextFull) as refused:
        session.extend(ids[38:])
    assert str(refused.value) == (
        "The context is 40 positions, of which 38 are used, and this needs 3 more; shorten it, or start with a context "
        "of 41 or more (--context)"
    )
    assert (session.position, session.forwards, session.computed, session.context) == (38, 1, 38, 40)
    logits = session.extend(ids[38:40])
    whole.extend(ids[:38])
    np.testing.assert_array_equal(np.array(logits), np.array(whole.extend(ids[38:40])))
    with pytest.raises(ContextFull, match="of which 40 are used, and this needs 1 more"):
        session.step(mx.array(5))
    assert session.position == 40


def test_no_larger_context_is_named_where_none_fits(model: Model) -> None:
    with pytest.raises(ContextFull, match=r"and this needs 51 more; shorten it, or start a new sequence$"):
        Session(model).extend([5] * 51)


def test_without_a_context_nothing_is_refused(model: Model) -> None:
    model.budget = Budget()
    session = Session(model, room=2)
    session.extend([5] * 600)
    assert session.context is None and session.position == 600


@pytest.mark.parametrize("length", [38, 39, 40])
@pytest.mark.parametrize("max_tokens", [2, 10])
def test_tokens_end_where_the_context_is_full(model: Model, length: int, max_tokens: int) -> None:
    """They are those of a longer context. The last one does not enter the session."""
    ids = [7] * length
    session = Session(model)
    few = list(generate_step(session, session.extend(ids), Sampler(Sampling(), 371), max_tokens=max_tokens))
    assert len(few) == min(max_tokens, 41 - length)
    assert session.position == length + len(few) - 1
    model.budget = Budget()
    session = Session(model)
    assert few == list(generate_step(session, session.extend(ids), Sampler(Sampling(), 371), max_tokens=len(few)))


def test_an_answer_ends_with_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without drafts: 3 tokens of the demo's answer, of which the last is not in the session."""
    model, processor = loaded("demo")
    prompt = demo_prompts(processor)["audio"]
    expected = heard("hibari-03.wav", "short").tokens
    monkeypatch.setattr(model, "budget", Budget(context=len(prompt) + 2))
    for drafter in (None, Drafter()):
        *_, last = responses = list(stream_generate(model, processor, prompt, drafter=drafter))
        tokens = [token for response in responses for token in response.tokens]
        assert (tokens, last.finish_reason) == (expected[:3], "length")
    monkeypatch.setattr(model, "budget", Budget(context=len(prompt) - 1))
    with pytest.raises(ContextFull):
        list(stream_generate(model, processor, prompt))


@pytest.mark.parametrize("free", [0, 1, 3])
def test_a_draft_is_cut_at_the_context(model: Model, free: int) -> None:
    """A guess is no part of the answer: it does not have to fit."""
    question = Prompt.from_tokens([7] * (40 - free))
    sampler = Sampler(Sampling(), 371)
    tokens = answer(Session(model), question, sampler, stop_ids=(), max_tokens=30)
    drafted = answer(Session(model), question, sampler, stop_ids=(), max_tokens=30, draft=[*tokens, 9, 9, 9, 9])
    assert drafted == tokens and 1 <= len(tokens) <= free + 1


# memory


def limited(model: Model, free: int) -> Budget:
    """A budget that leaves so many bytes beside what MLX holds now."""
    needs = Needs(model.config.text_config, 0, number=4, is_ahead=False)
    return Budget(memory=mx.get_active_memory() + free + PROGRAM, needs=needs)


def test_a_piece_that_needs_too_much_memory_is_refused(model: Model) -> None:
    """Before it is computed. A session that leaves makes room for it."""
    whole, other, session = Session(model), Session(model), Session(model)
    model.budget = Budget()
    other.extend([5] * 3000)
    session.extend([7] * 30)
    expected = np.array(whole.extend([7] * 30))
    needed = limited(model, 0).bytes_for(30 + 2000, 512, session.room, session.nbytes)
    model.budget = limited(model, needed - 1_000_000)
    with pytest.raises(MemoryFull) as refused:
        session.extend([7] * 2000)
    assert str(refused.value).startswith(f"This needs {needed / 1e9:.2f} GB more, and ")
    assert str(refused.value).endswith(
        " GB are used; shorten it, drop other sessions, or start with more memory (--memory)"
    )
    assert (session.position, session.computed) == (30, 30)
    session.rewind(0)
    np.testing.assert_array_equal(np.array(session.extend([7] * 30)), expected)
    other.reset()
    session.extend([7] * 2000)
    assert session.position == 2030


def test_snapshots_make_room_before_a_piece_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go to disk; the sequence goes back to them as before."""
    monkeypatch.setattr(model, "snapshots", Snapshots())
    model.budget = Budget()
    session = Session(model, room=2)
    expected = [np.array(session.extend(np.arange(30, 90), snapshots=[20, 40])), np.array(session.extend([7] * 100))]
    held = model.snapshots.memory_used
    assert held == 2 * model.window_bytes
    needs = Needs(model.config.text_config, 0, number=4, is_ahead=False)
    needed = Budget(memory=1, needs=needs).bytes_for(260, 100, 2, session.nbytes)
    model.budget = Budget(memory=mx.get_active_memory() + needed - held + PROGRAM, needs=needs)
    session.extend([7] * 100)
    assert (model.snapshots.memory_used, model.snapshots.disk_used) == (0, held)
    session.rewind(40)
    np.testing.assert_array_equal(session.extend(np.arange(70, 90)), expected[0])


def test_steps_are_refused_too(model: Model) -> None:
    """When a buffer has to grow for which there is no memory: not at each of them."""
    model.budget = Budget()
    session = Session(model)
    session.extend([5] * 300)
    model.budget = limited(model, 10_000_000)
    session.step(mx.array(5))
    model.budget = Budget(memory=PROGRAM, needs=model.budget.needs)
    tokens = 301
    with pytest.raises(MemoryFull):
        for _ in range(300):
            session.step(mx.array(5))
            tokens += 1
    assert session.position == tokens == 512


def test_what_a_piece_needs_is_what_the_plan_says(model: Model) -> None:
    needs = Needs(model.config.text_config, 10**9, number=4)
    budget = Budget(memory=10**10, needs=needs)
    plan = plan_memory(needs, Use(room=9), 700)
    assert budget.bytes_for(700, 512, 9, 0) == plan.state + plan.forward
    assert budget.bytes_for(700, 512, 9, plan.state - 5) == 5 + plan.forward
    assert budget.bytes_for(700, 512, 9, plan.state + 5) == plan.forward


def test_a_batch_has_as_many_rows_as_there_is_memory_for(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are the same."""
    model.budget = Budget()
    questions = [Question(Prompt.from_tokens([token] * 5), 6) for token in range(7, 13)]

    def decode() -> tuple[list[list[int]], int]:
        rows = list[int]()
        original = Model.__call__

        def spy(self: Model, h: mx.array, cache: object, *arguments: object, **options: object) -> mx.array:
            rows.append(h.shape[0])
            return original(self, h, cache, *arguments, **options)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(Model, "__call__", spy)
            session = Session(model)
            session.extend([3] * 10)
            answers = list(decode_batch(session, questions, Sampler(Sampling(), 371), stop_ids=(), batch_size=4))
        return answers, max(rows)

    answers, most = decode()
    assert most == 4
    few = limited(model, 0)
    model.budget = Budget(memory=few.memory, needs=few.needs)
    monkeypatch.setattr(Session, "_check_budget", lambda *arguments: None)
    again, most = decode()
    assert most == 1 and again == answers


@pytest.mark.parametrize(
    "reason",
    [
        "[malloc] Unable to allocate 123456 bytes.",
        "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum allowed buffer size of 8.",
        "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBuffer…OutOfMemory)",
        "cudaMallocAsync(&data, size, stream) failed: out of memory",
    ],
)
def test_an_allocation_that_fails(model: Model, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one line, and the session is as before."""
    session = Session(model)
    session.extend([5] * 10)

    def full(*arrays: object) -> None:
        raise RuntimeError(reason)

    with monkeypatch.context() as patch, pytest.raises(MemoryFull) as refused:
        patch.setattr(mx, "eval", full)
        session.extend([6] * 10)
    assert str(refused.value) == (
        f"The device has no memory left ({reason}); shorten the input, close other programs, or start with a smaller "
        "context (--context)"
    )
    assert session.position == 10
    session.extend([6] * 10)


def test_other_errors_of_mlx_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"\[matmul\] shapes"), allocation_errors():
        raise RuntimeError("[matmul] shapes do not fit")
