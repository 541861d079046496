"""Tokens out: greedy decoding, streaming, stopping, what a session holds afterwards."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from golden import heard, said
from reference_cases import demo_prompts, media_file, reference_case

from mlx_gemma4 import Model, PrefixStore, Processor, Sampling, Session, generate, stream_generate
from mlx_gemma4.decoder.config import GenerationConfig
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.channels import Thoughts
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.pace import MOST_DRAFTED
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step
from mlx_gemma4.outputs.tools.calls import parse_tool_calls


def argmax_loop(model: Model, prompt: Prompt, count: int) -> list[int]:
    """The slow, obvious way: the whole sequence again for every token."""
    ids: list[int] = []
    for _ in range(count):
        piece = prompt + Prompt.from_tokens(ids) if ids else prompt
        ids.append(int(mx.argmax(Session(model).extend(piece)).item()))
    return ids


def test_greedy_is_an_argmax_loop(released: tuple[Model, Processor]) -> None:
    """Queued steps and a cache change nothing."""
    model, _ = released
    prompt = reference_case("released", "audio").prompt
    session = Session(model)
    sampler = Sampler(Sampling(), 371)
    assert list(generate_step(session, session.extend(prompt), sampler, max_tokens=12)) == argmax_loop(
        model, prompt, 12
    )


@pytest.mark.parametrize("taken", [0, 1, 2, 7])
def test_a_closed_generator_leaves_all_tokens_but_the_last(released: tuple[Model, Processor], taken: int) -> None:
    """What was computed ahead is forgotten."""
    model, _ = released
    prompt = reference_case("released", "text").prompt
    session = Session(model)
    steps = generate_step(session, session.extend(prompt), Sampler(Sampling(), 371), max_tokens=50)
    tokens = [next(steps) for _ in range(taken)]
    steps.close()
    assert session.position == len(prompt) + max(taken - 1, 0)
    again = Session(model)
    again.extend(prompt)
    for token in tokens[:-1]:
        again.step(mx.array(token))
    probe = np.array(session.extend([40]))
    np.testing.assert_array_equal(probe, np.array(again.extend([40])))


def test_streamed_text_is_the_text(demo: tuple[Model, Processor]) -> None:
    """Pieces joined are what ``generate`` returns, with counts that add up and one finish_reason."""
    model, processor = demo
    prompt = demo_prompts(processor)["audio"]
    responses = list(stream_generate(model, processor, prompt))
    assert "".join(each.text for each in responses) == said("hibari-03.wav", "short")
    assert "".join(each.text for each in responses) == generate(model, processor, prompt)
    assert [each.finish_reason for each in responses] == [None] * (len(responses) - 1) + ["stop"]
    tokens = [token for each in responses for token in each.tokens]
    assert tokens == heard("hibari-03.wav", "short").tokens
    assert (len(tokens), tokens[-1] in processor.stop_ids) == (responses[-1].generation_tokens, True)
    assert responses[-1].prompt_tokens == len(prompt)
    assert responses[-1].peak_memory > 0 and responses[-1].generation_tps > 0 and responses[-1].prompt_tps > 0


def test_an_answer_is_stopped_at_max_tokens(demo: tuple[Model, Processor]) -> None:
    model, processor = demo
    session = Session(model)
    prompt = demo_prompts(processor)["audio"]
    responses = list(stream_generate(model, processor, prompt, max_tokens=2, session=session))
    assert "".join(each.text for each in responses) == processor.decode(heard("hibari-03.wav", "short").tokens[:2])
    assert (responses[-1].finish_reason, session.position) == ("length", len(prompt) + 1)
    with pytest.raises(ValueError, match="Expected max_tokens of 1 or more, got 0"):
        next(stream_generate(model, processor, prompt, max_tokens=0))


def test_a_session_of_its_own_has_room_for_what_is_rewound(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that is computed ahead, and a whole draft; room costs the 12B 0.3 MB a position."""
    rooms: list[int] = []

    class Noted(Session):
        def __init__(self, model: Model, *, room: int) -> None:
            rooms.append(room)
            super().__init__(model, room=room)

    monkeypatch.setattr("mlx_gemma4.outputs.generate.Session", Noted)
    for drafter in (None, Drafter()):
        list(stream_generate(*demo, "hello", max_tokens=2, drafter=drafter))
    assert rooms == [2, 2 + MOST_DRAFTED]


def test_multi_byte_characters_come_whole(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 'é🙂日' is several tokens of the byte-level demo; no piece holds half of one."""
    model, processor = demo
    said = processor.tokenizer.encode_markup("é🙂日!")
    assert len(said) > 6
    forced = iter([*said, next(iter(processor.stop_ids))] + [0] * 3)
    monkeypatch.setattr(Sampler, "__call__", lambda self, logits: mx.array(next(forced)))
    pieces = [each.text for each in stream_generate(model, processor, "say it", max_tokens=50)]
    assert [piece for piece in pieces if piece] == ["é", "🙂", "日", "!"]


def test_every_stop_token_ends_an_answer(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of generation_config and those of config."""
    model, processor = demo
    assert processor.stop_ids == {processor.tokenizer.token_id(name) for name in ("<turn|>", "<eos>")}
    for stop in processor.stop_ids:
        forced = iter([100, stop] + [100] * 3)
        monkeypatch.setattr(Sampler, "__call__", lambda self, logits, forced=forced: mx.array(next(forced)))
        responses = list(stream_generate(model, processor, "say it", max_tokens=5))
        assert (responses[-1].finish_reason, responses[-1].generation_tokens) == ("stop", 2)


def test_suppressed_tokens_are_never_said(demo: tuple[Model, Processor]) -> None:
    """With the likeliest first token suppressed, the next likeliest comes."""
    model, processor = demo
    prompt = demo_prompts(processor)["audio"]
    logits = np.array(Session(model).extend(prompt))
    first, second = np.argsort(-logits)[:2].tolist()
    strict = Processor(
        processor.config,
        processor.tokenizer,
        processor.template,
        generation=GenerationConfig(eos_token_ids=tuple(processor.stop_ids), suppress_tokens=(first,)),
    )
    tokens = [token for each in stream_generate(model, strict, prompt, max_tokens=20) for token in each.tokens]
    assert tokens[0] == second and first not in tokens


def test_a_seed_makes_sampling_repeatable(released: tuple[Model, Processor]) -> None:
    model, processor = released
    prompt = reference_case("released", "text").prompt

    def tokens(seed: int) -> list[int]:
        sampling = Sampling(temperature=1.0, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.1, seed=seed)
        responses = stream_generate(model, processor, prompt, max_tokens=16, sampling=sampling)
        return [token for each in responses for token in each.tokens]

    assert tokens(1) == tokens(1) != tokens(2)


def test_thoughts_and_calls_come_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thought, an answer and a tool call in one stream."""
    model, processor = loaded("released")
    said = processor.tokenizer.encode_markup(
        '<|channel>thought\nwhat is<channel|>the clip<|tool_call>call:f{x:<|"|>the picture<|"|>}<tool_call|>'
    )
    forced = iter([*said, 5] + [0] * 3)
    monkeypatch.setattr(Sampler, "__call__", lambda self, logits: mx.array(next(forced)))
    responses = list(stream_generate(model, processor, "say it", max_tokens=100, thoughts="show"))
    joined: dict[str, str] = {}
    for each in responses:
        joined[each.kind] = joined.get(each.kind, "") + each.text
    assert joined["thought"] == "what is" and joined["text"] == "the clip"
    [call] = [each for each in responses if each.kind == "tool_call"]
    assert call.tool_calls == [{"name": "f", "arguments": {"x": "the picture"}}]


def forced(monkeypatch: pytest.MonkeyPatch, processor: Processor, text: str, *, ends: bool = True) -> None:
    """Let the model write ``text``."""
    tokens = iter([*processor.tokenizer.encode_markup(text), *([next(iter(processor.stop_ids))] * 3 if ends else [])])
    monkeypatch.setattr(Sampler, "__call__", lambda self, logits: mx.array(next(tokens)))


CALL = '<|tool_call>call:f{x:<|"|>the picture<|"|>}<tool_call|>'


def test_calls_in_an_answer_as_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text and calls are told apart by the calls' markers."""
    model, processor = loaded("released")
    forced(monkeypatch, processor, f"the clip{CALL}yes{CALL}")
    answer = generate(model, processor, "say it", max_tokens=200)
    assert answer == f"the clip{CALL}yes{CALL}"
    assert parse_tool_calls(answer) == [{"name": "f", "arguments": {"x": "the picture"}}] * 2


def test_a_call_cut_short_in_an_answer_as_a_string(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no end."""
    model, processor = loaded("released")
    forced(monkeypatch, processor, CALL)
    count = len(processor.tokenizer.encode_markup('<|tool_call>call:f{x:<|"|>the'))
    answer = generate(model, processor, "say it", max_tokens=count)
    assert answer == '<|tool_call>call:f{x:<|"|>the'
    with pytest.raises(ValueError, match="a string does not end"):
        parse_tool_calls(answer)


@pytest.mark.parametrize(
    ("thoughts", "expected"),
    [
        ("drop", "noon"),
        ("keep", "<|channel>thought\nthe clock<channel|>noon"),
        ("show", "<|channel>thought\nthe clock<channel|>noon"),
    ],
)
def test_thoughts_in_an_answer_as_a_string(monkeypatch: pytest.MonkeyPatch, thoughts: Thoughts, expected: str) -> None:
    model, processor = loaded("released")
    forced(monkeypatch, processor, "<|channel>thought\nthe clock<channel|>noon")
    assert generate(model, processor, "say it", thoughts=thoughts) == expected


def test_a_thought_that_the_prompt_opens_is_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As templates write it after a tool's response; or when the turn before the prompt opened it."""
    model, processor = loaded("released")
    opened = processor.markup("<|turn>model\n<|channel>thought\n")
    response = processor.markup("<|tool_response>response:f{value:1}<tool_response|>")
    for prompt, before in ((opened, ()), (response, opened.token_ids.tolist())):
        forced(monkeypatch, processor, "the clock<channel|>noon")
        responses = stream_generate(model, processor, prompt, before=before)
        assert "".join(each.text for each in responses) == "noon"


def test_with_a_store_only_what_is_new_is_computed(demo: tuple[Model, Processor]) -> None:
    """The same texts, sampled ones too, and counts; a stream that is closed early gives its session back."""
    model, processor = demo
    store = PrefixStore(model)
    picture = {"type": "image", "image": media_file("picture-01.png")}
    sampling = Sampling(temperature=1.0, seed=3)
    computed = []
    for text in ("Describe the image.", "What do you see?", "Describe the image."):
        prompt = processor.prompt([{"role": "user", "content": [picture, {"type": "text", "text": text}]}])
        expected = [response.text for response in stream_generate(model, processor, prompt, sampling=sampling)]
        responses = list(stream_generate(model, processor, prompt, sampling=sampling, store=store))
        assert [response.text for response in responses] == expected
        assert generate(model, processor, prompt, store=store) == generate(model, processor, prompt)
        computed.append(responses[-1].prompt_tokens)
        assert all(not entry.in_use for entry in store._entries)
    assert computed[0] == len(prompt) and max(computed[1:]) < 20
    stream = stream_generate(model, processor, prompt, store=store)
    next(stream)
    stream.close()
    assert all(not entry.in_use for entry in store._entries)
