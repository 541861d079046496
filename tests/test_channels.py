"""Answers, thoughts and tool calls told apart in literal token streams."""

from __future__ import annotations

import pytest
from reference_cases import REFERENCE

from mlx_gemma4 import demo_folder
from mlx_gemma4.inputs.text.tokenizer import Tokenizer, load_tokenizer
from mlx_gemma4.outputs.channels import Channels, Kind, Thoughts

RELEASED = load_tokenizer(REFERENCE / "released" / "checkpoint")

BOTH: list[Thoughts] = ["drop", "show"]


def heard(text: str, thoughts: Thoughts, tokenizer: Tokenizer = RELEASED, prompt: str = "") -> list[tuple[Kind, str]]:
    """What comes out of a stream of the tokens of ``text``, with pieces of one kind joined."""
    channels = Channels(tokenizer, thoughts, tokenizer.encode_markup(prompt))
    said = [piece for token_id in tokenizer.encode_markup(text) for piece in channels.push(token_id)]
    joined: list[tuple[Kind, str]] = []
    for kind, piece in [*said, *channels.flush()]:
        if joined and joined[-1][0] == kind and kind != "tool_call":
            joined[-1] = (kind, joined[-1][1] + piece)
        else:
            joined.append((kind, piece))
    return joined


def pieces(text: str, thoughts: Thoughts) -> list[list[tuple[Kind, str]]]:
    """What comes out with each token, and with the end of the stream."""
    channels = Channels(RELEASED, thoughts)
    return [*(list(channels.push(token_id)) for token_id in RELEASED.encode_markup(text)), list(channels.flush())]


def test_text_comes_token_by_token() -> None:
    """Text is said as it comes, in whole characters; special tokens in it are not."""
    assert pieces("hé<turn|>", "drop") == [[("text", "h")], [], [("text", "é")], [], []]


def test_thoughts_are_dropped() -> None:
    """By default a thought is not heard, and the text around it is whole."""
    assert heard("so <|channel>thought\nhm\n<channel|> yes<turn|>", "drop") == [("text", "so  yes")]


def test_thoughts_are_shown_apart() -> None:
    """Shown, a thought is a kind of its own, without its header."""
    said = heard("so <|channel>thought\nhm\n<channel|> yes<turn|>", "show")
    assert said == [("text", "so "), ("thought", "hm\n"), ("text", " yes")]


def test_thoughts_are_kept_as_written() -> None:
    """Kept, a thought is text, with its markers and its header."""
    text = "so <|channel>thought\nhm\n<channel|> yes"
    assert heard(text + "<turn|>", "keep") == [("text", text)]


def test_kept_thoughts_stream() -> None:
    """A kept thought comes token by token like any text."""
    assert pieces("a<|channel>hé", "keep") == [
        [("text", "a")],
        [("text", "<|channel>")],
        [("text", "h")],
        [],
        [("text", "é")],
        [],
    ]


def test_header_over_several_tokens() -> None:
    """The header goes however many tokens it has, and the thought streams behind it."""
    header = RELEASED.encode_markup("thought\n")
    assert len(header) == 7
    said = pieces("<|channel>thought\nhm", "show")
    assert said == [[]] + [[]] * 7 + [[("thought", "h")], [("thought", "m")], []]


def test_text_like_the_header() -> None:
    """Only the header goes: another beginning stays, and so does its text anywhere else."""
    assert heard("<|channel>though it<channel|>", "show") == [("thought", "though it")]
    assert heard("<|channel>thought<channel|>thought\n", "show") == [("thought", "thought"), ("text", "thought\n")]
    assert heard("<|channel>thought\nthought\n<channel|>", "show") == [("thought", "thought\n")]


@pytest.mark.parametrize(
    ("thoughts", "expected"),
    [("drop", []), ("show", [("thought", "hm")]), ("keep", [("text", "<|channel>thought\nhm")])],
)
def test_unclosed_thought(thoughts: Thoughts, expected: list[tuple[Kind, str]]) -> None:
    """A thought that the end of the stream cuts off is still a thought, and gets no end that nobody wrote."""
    assert heard("<|channel>thought\nhm", thoughts) == expected


@pytest.mark.parametrize("block", ["<|channel>thought\n<channel|>", "<|channel><channel|>"])
@pytest.mark.parametrize("thoughts", BOTH)
def test_empty_thought(block: str, thoughts: Thoughts) -> None:
    """An empty thought leaves nothing."""
    assert heard(block + "yes", thoughts) == [("text", "yes")]
    assert heard(block + "yes", "keep") == [("text", block + "yes")]


def test_cut_character_at_a_marker() -> None:
    """A character cut off by a marker shows as U+FFFD where it was, and not in the next channel."""
    channels = Channels(RELEASED, "show")
    half = RELEASED.encode_markup("é")[:1]
    stream = [*half, *RELEASED.encode_markup("<|channel>a"), *half, *RELEASED.encode_markup("<channel|>b")]
    said = [piece for token_id in stream for piece in channels.push(token_id)]
    assert said == [("text", "\ufffd"), ("thought", "a"), ("thought", "\ufffd"), ("text", "b")]


@pytest.mark.parametrize("thoughts", ["drop", "keep", "show"])
def test_tool_call_in_one_piece(thoughts: Thoughts) -> None:
    """A call comes out when it is whole, with the quotes that are special tokens."""
    call = 'call:find{what:<|"|>a {b}<|"|>,n:2}'
    said = [piece for piece in pieces(f"ok<|tool_call>{call}<tool_call|>", thoughts) if piece]
    assert said == [[("text", "o")], [("text", "k")], [("tool_call", call)]]


def test_two_tool_calls() -> None:
    """Calls one after the other are two pieces, and a thought before them is none."""
    text = "<|channel>thought\nhm<channel|><|tool_call>call:a{}<tool_call|><|tool_call>call:b{}<tool_call|>"
    assert heard(text, "drop") == [("tool_call", "call:a{}"), ("tool_call", "call:b{}")]


@pytest.mark.parametrize("thoughts", BOTH)
def test_a_call_inside_a_thought(thoughts: Thoughts) -> None:
    """It is a call, and the thought goes on behind it, until it ends."""
    text = (
        "<|channel>thought\nhm<|tool_call>call:a{}<tool_call|>thought\nyes<|tool_call>call:b{}<tool_call|><channel|>ok"
    )
    calls = [("tool_call", "call:a{}"), ("tool_call", "call:b{}")]
    shown = [("thought", "hm"), calls[0], ("thought", "thought\nyes"), calls[1], ("text", "ok")]
    assert heard(text, thoughts) == (shown if thoughts == "show" else [*calls, ("text", "ok")])


def test_a_call_inside_a_kept_thought() -> None:
    text = "<|channel>thought\nhm<|tool_call>call:a{}<tool_call|>yes<channel|>ok"
    expected = [("text", "<|channel>thought\nhm"), ("tool_call", "call:a{}"), ("text", "yes<channel|>ok")]
    assert heard(text, "keep") == expected


def test_a_call_cut_off_inside_a_thought() -> None:
    text = "<|channel>thought\nhm<|tool_call>call:a{x"
    assert heard(text, "drop") == [("tool_call", "call:a{x")]


TURN = "<|turn>user\ntime?<turn|>\n<|turn>model\n"


@pytest.mark.parametrize("opened", ["<|channel>thought\n", "<|channel>thou", "<|channel>", "<|channel>thought\nWell, "])
@pytest.mark.parametrize("before", ["", "<|channel>thought\n<channel|>", "<|tool_call>call:a{}<tool_call|>"])
def test_a_thought_that_the_prompt_opens(opened: str, before: str) -> None:
    """It is a thought, whatever of its header stands in the prompt; kept, it is whole."""
    header = "thought\n".removeprefix(opened.removeprefix("<|channel>"))
    text = ("" if header == "thought\n" and "\n" in opened else header) + "noon it is<channel|>It is noon.<turn|>"
    prompt = TURN + before + opened
    assert heard(text, "drop", prompt=prompt) == [("text", "It is noon.")]
    assert heard(text, "show", prompt=prompt) == [("thought", "noon it is"), ("text", "It is noon.")]
    assert heard(text, "keep", prompt=prompt) == [("text", (opened + text).removesuffix("<turn|>"))]


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        TURN,
        TURN + "<|channel>thought\n<channel|>",
        "<|turn>model\n<|channel>thought\ncut off<turn|>\n" + TURN,
        "<|turn>model\n<|channel>thought\ncut off" + TURN,
    ],
)
@pytest.mark.parametrize("thoughts", ["drop", "keep", "show"])
def test_a_prompt_without_an_open_thought(prompt: str, thoughts: Thoughts) -> None:
    """Thoughts that were closed, or belong to another turn, change nothing."""
    assert heard("It is noon.", thoughts, prompt=prompt) == [("text", "It is noon.")]


def test_a_call_inside_a_thought_of_the_prompt() -> None:
    prompt = TURN + "<|channel>thought\n"
    text = "hm<|tool_call>call:a{}<tool_call|>yes<channel|>ok"
    expected = [("thought", "hm"), ("tool_call", "call:a{}"), ("thought", "yes"), ("text", "ok")]
    assert heard(text, "show", prompt=prompt) == expected


def test_unclosed_tool_call() -> None:
    """What there is of a call that was cut off comes at the end."""
    assert heard('<|tool_call>call:a{x:<|"|>b', "drop") == [("tool_call", 'call:a{x:<|"|>b')]


def test_stray_ends() -> None:
    """An end without a beginning is a special token like any other."""
    assert heard("a<channel|>b<tool_call|>c", "show") == [("text", "abc")]
    assert heard("<|channel>a<tool_call|>b<|channel>c<channel|>d", "show") == [("thought", "abc"), ("text", "d")]


@pytest.mark.parametrize("thoughts", ["drop", "keep", "show"])
def test_tokenizer_without_markers(thoughts: Thoughts) -> None:
    """Where the vocabulary has no markers, their characters are text."""
    demo = load_tokenizer(demo_folder() / "checkpoint")
    text = "<|channel>thought\nhm<channel|> <|tool_call>call:a{}<tool_call|>"
    assert heard(text, thoughts, demo) == [("text", text)]


def test_thoughts_of_another_name() -> None:
    """An unknown way with thoughts is refused."""
    with pytest.raises(ValueError, match="Expected thoughts 'drop', 'keep' or 'show', got 'hide'"):
        Channels(RELEASED, "hide")  # type: ignore[arg-type]
