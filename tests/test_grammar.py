"""What an answer may be: what is compiled and refused, the vocabulary behind it, and what must come next."""

from __future__ import annotations

import gc
import json
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import loaded
from json_schemas import SCHEMAS

from mlx_gemma4 import Constraint, Processor
from mlx_gemma4.decoder.config import GenerationConfig
from mlx_gemma4.inputs.text.tokenizer import JsonTokenizer
from mlx_gemma4.outputs.grammar.closed import closed
from mlx_gemma4.outputs.grammar.matcher import IN_THOUGHT, THINKING, Matcher, thoughts_before
from mlx_gemma4.outputs.grammar.vocabulary import Vocabulary, vocabulary


def matcher(constraint: Constraint, checkpoint: str = "released", before: str | None = None) -> Matcher:
    return Matcher(constraint, vocabulary(loaded(checkpoint)[1]), before)


def tokens(text: str, checkpoint: str = "released") -> list[int]:
    return loaded(checkpoint)[1].tokenizer.encode(text)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def allowed(words: np.ndarray, size: int = 371) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")[:size]).tolist())


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, 'Unimplemented keys: ["uniqueItems"]'),
        ({"not": {}}, 'Unimplemented keys: ["not"]'),
        ({"type": "colour"}, "Invalid type: colour"),
        ({"enum": []}, "Unsatisfiable schema: anyOf is empty"),
        (
            {"type": "integer", "minimum": 5, "maximum": 3},
            "Unsatisfiable schema: minimum (5) is greater than maximum (3)",
        ),
        ({"type": "string", "format": "colour"}, "Unknown format: colour"),
        ({"$ref": "#/x"}, "Pointer '/x' does not exist"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around, including look-ahead and look-behind, is not supported"),
        (False, "it is false, which no answer satisfies"),
        ({"enum": {1, 2}}, "Object of type set is not JSON serializable"),
        ({"const": float("nan")}, "expected value at line 1 column 41"),
        (nested(300), "recursion limit exceeded at line 1 column 3379"),
        (nested(5000), "it is nested too deeply"),
    ],
)
def test_schemas_that_cannot_be_followed(schema: Any, reason: str) -> None:
    """The reason is one line."""
    with pytest.raises(ValueError) as error:
        Constraint.json_schema(schema)
    assert str(error.value) == f"Cannot compile the JSON schema: {reason}"


def linked(count: int) -> dict[str, Any]:
    """Definitions that refer to one another, like a chain."""
    definitions: dict[str, Any] = {
        f"a{number}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/a{number + 1}"}}, "required": ["x"]}
        for number in range(count)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{count}": {"type": "integer"}}}


def test_long_chains_of_references() -> None:
    """llguidance follows them by recursion: on the stack of a thread, the process would end."""
    made: list[Matcher] = []
    thread = threading.Thread(target=lambda: made.append(matcher(Constraint.json_schema(linked(1500)))))
    thread.start()
    thread.join()
    assert allowed(made[0].mask()) == set(tokens("{"))
    message = r"^Cannot compile the JSON schema: its definitions have 9,006 levels, more than 6,000$"
    with pytest.raises(ValueError, match=message):
        Constraint.json_schema(linked(3000))


def test_other_constraints_that_cannot_be_followed() -> None:
    for make, message in (
        (lambda: Constraint.regex("[a"), "Cannot compile the regular expression: unclosed character class"),
        (lambda: Constraint.lark("start: foo"), 'Cannot compile the grammar: at 1(8): unknown name: "foo"'),
        (lambda: Constraint.choice([]), "Expected one or more strings to choose from, none of them empty, got []"),
        (lambda: Constraint.choice("ab"), "Expected one or more strings to choose from, none of them empty, got 'ab'"),
        (lambda: Constraint.choice(["a", ""]), "Expected one or more strings to choose from, none of them empty, "),
        (lambda: Constraint.json_schema("{}"), "Expected a JSON schema as an object or a boolean, got '{}'"),
        (
            lambda: Constraint.json_schema({"x-guidance": 1}),
            'Expected "x-guidance" of a JSON schema as an object, got 1',
        ),
    ):
        with pytest.raises(ValueError) as error:
            make()
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_grammars_that_no_text_satisfies() -> None:
    for constraint in (Constraint.regex(r"[^\s\S]"), Constraint.lark("start: a\na: a")):
        with pytest.raises(ValueError, match=rf"^No text is what the {constraint.kind} asks for; change it$"):
            matcher(constraint)


def test_choices_of_odd_texts() -> None:
    """Control characters, quotation marks, and control tokens in characters."""
    for text in ("\0", "\x7f\x85", "a\nb", '"', "\\n", "<|turn>", "日本"):
        assert matcher(Constraint.choice([text, "other"])).follow(tokens(text), 99).tokens == tokens(text)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ImportError, match=r"^Answers that follow a grammar need the package llguidance: pip install l"):
        Constraint.regex("a")


def test_tokens_that_the_vocabulary_does_not_have() -> None:
    """A grammar that names one is refused with this checkpoint."""
    with pytest.raises(ValueError, match=r"^Cannot compile the grammar: .*unknown special token"):
        matcher(Constraint.lark('start: <|tool_call> "a"'), "demo")
    assert matcher(Constraint.lark('start: <|tool_call> "a"')).advance() == [18, *tokens("a"), 5]


def test_suppressed_tokens_cannot_be_asked_for() -> None:
    """By name nor by number."""
    _, processor = loaded("released")
    assert 10 in processor.suppressed_ids
    with pytest.raises(ValueError, match=r"^Cannot compile the grammar: .*unknown special token"):
        matcher(Constraint.lark("start: <|image|>"))
    with pytest.raises(ValueError, match=r"^The grammar asks for a token that is never chosen; leave that token out$"):
        matcher(Constraint.lark("start: <[10]>"))


@pytest.mark.parametrize("checkpoint", ["demo", "released"])
def test_every_token_of_a_text_is_spelled(checkpoint: str) -> None:
    """The bytes of the tokens are what decoding them gives; control tokens and unknown ids have none."""
    _, processor = loaded(checkpoint)
    tokenizer, size = processor.tokenizer, processor.config.text_config.vocab_size
    spellings = tokenizer.spellings(size + 2)
    assert spellings[size:] == [None, None]
    assert {spelling for spelling in spellings if spelling and len(spelling) == 1} == {bytes([b]) for b in range(256)}
    for token_id, spelling in enumerate(spellings[:size]):
        if spelling is None:
            assert tokenizer.decode([token_id]) == ""
        elif b"\xff" not in spelling:
            assert tokenizer.decode([token_id]) == spelling.decode(errors="replace")


def test_byte_fallback_is_spelled(tmp_path: Path) -> None:
    """Spaces, bytes and added tokens of a tokenizer.json as Gemma 4 has it."""
    vocabulary = {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁cat": 3, "é": 4, "<|turn>": 5, "▁▁": 6, "<table>": 7}
    decoders = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [
            {**added, "id": 5, "content": "<|turn>", "special": True},
            {**added, "id": 6, "content": "▁▁", "special": False},
            {**added, "id": 7, "content": "<table>", "special": False},
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "decoder": {"type": "Sequence", "decoders": [*decoders, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "vocab": vocabulary, "merges": []},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    tokenizer = JsonTokenizer(path)
    assert tokenizer.spellings(9)[1:] == [b"\xc3", b"\xa9", b" cat", b"\xc3\xa9", None, b"  ", b"<table>", None]
    assert tokenizer.decode([1, 2, 3, 6, 7]) == "é cat  <table>"
    content["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^The bytes of the tokenizer's tokens are not known: its decoder is Metas"):
        JsonTokenizer(path).spellings(1)


def test_vocabularies_that_cannot_spell_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before anything runs: an answer could come where no token follows."""
    _, processor = loaded("demo")
    known = processor.tokenizer.spellings(640)
    without = [None if spelling in (b"x", b"\xc3") else spelling for spelling in known]
    monkeypatch.setattr(processor.tokenizer, "spellings", lambda count: without)
    with pytest.raises(ValueError, match=r"no token for 2 of the bytes, the first of which is 0x78$"):
        Vocabulary(processor)


def test_checkpoints_that_name_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    _, processor = loaded("demo")
    monkeypatch.setattr(processor, "stop_ids", frozenset())
    with pytest.raises(ValueError, match=r"^An answer of a given form needs a token that ends it, and the checkpoint"):
        Vocabulary(processor)


def test_a_vocabulary_is_made_once_and_freed() -> None:
    """Rust holds no cycle: with the 12B's vocabulary, each would be 0.2 GB."""
    _, known = loaded("demo")
    processor = Processor(known.config, known.tokenizer, known.template)
    made = weakref.ref(vocabulary(processor).tokenizer.__class__ and vocabulary(processor))
    assert vocabulary(processor) is made()
    del processor
    gc.collect()
    assert made() is None


def test_suppressed_text_is_spelled_otherwise() -> None:
    """Text that must come next never takes a suppressed token, though a prompt would."""
    _, known = loaded("demo")
    (red,) = known.tokenizer.encode("red")
    processor = Processor(
        known.config, known.tokenizer, known.template, generation=GenerationConfig(suppress_tokens=(red,))
    )
    assert red in processor.suppressed_ids
    forced = Matcher(Constraint.choice(["red"]), Vocabulary(processor)).advance()
    assert forced == [*(known.tokenizer.encode(character)[0] for character in "red"), 5]


def test_what_must_come_next_is_tokenized_as_in_a_prompt() -> None:
    """Up to the first choice; behind it up to the next; then the end. A token may begin before the choice."""
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "rose"]}}, "required": ["colour"]}
    state = matcher(Constraint.json_schema(schema), "demo")
    begin = state.advance()
    assert begin == tokens('{"colour": "', "demo")
    assert allowed(state.mask(), 640) == {*tokens("r", "demo"), *tokens("re", "demo"), *tokens("red", "demo")}
    state.take([*tokens("r", "demo"), *tokens("o", "demo")])
    assert state.advance() == [*tokens("se", "demo"), *tokens('"}', "demo"), 5]


def test_masks() -> None:
    """What may come is what the grammar allows; tokens that end the answer exactly where it may end."""
    state = matcher(Constraint.regex("ab*"))
    a, b = tokens("a")[0], tokens("b")[0]
    assert allowed(state.mask()) == {a}
    state.take([a])
    assert allowed(state.mask()) == {b, 1, 5, 20}
    assert {1, 5, 20} == set(loaded("released")[1].stop_ids)
    state.take([b, b, b])
    assert allowed(state.mask()) == {b, 1, 5, 20}


def test_ids_that_are_text_can_end_an_answer_only() -> None:
    """Where config.json names a text token as the end, no text has it."""
    _, known = loaded("demo")
    (red,) = known.tokenizer.encode("red")
    processor = Processor(
        known.config, known.tokenizer, known.template, generation=GenerationConfig(eos_token_ids=(red,))
    )
    state = Matcher(Constraint.regex("[a-z]{3,}"), Vocabulary(processor))
    assert red not in allowed(state.mask(), 640)
    state.take(known.tokenizer.encode("five"))
    assert red in allowed(state.mask(), 640)


def test_a_draft_is_followed_and_taken_back() -> None:
    """What is forced is filled in; a wrong token ends it; the masks are those of walking token by token."""
    schema = {"type": "object", "properties": {"a": {"enum": ["xy", "zy"]}, "b": {"type": "boolean"}}}
    schema["required"] = ["a", "b"]
    state = matcher(Constraint.json_schema(schema))
    state.advance()
    x, t = tokens("x")[0], tokens("t")[0]
    run = tokens('y", "b": ')
    guess = state.follow([x, *run, t, tokens("?")[0]], 30)
    assert guess.tokens == [x, *run, t, *tokens("rue}")] and not guess.is_open
    assert guess.forced == [False, *[True] * len(run), False, *[True] * 4]
    masks = state.masks(guess)
    assert len(masks) == len(guess.tokens) + 1
    assert allowed(masks[0]) == {x, tokens("z")[0]}
    assert allowed(masks[1 + len(run)]) == {t, tokens("f")[0]}
    assert allowed(masks[1]) == set(range(371))  # its token is forced
    assert allowed(state.mask()) == allowed(masks[0])  # all is taken back
    assert state.follow([t], 30).tokens == []
    short = state.follow([x, *run, t], 1 + len(run) + 2)
    assert short.tokens == [x, *run, t] and not short.is_open
    state.masks(short)
    other = state.follow([x, t], 30)
    assert other.tokens == [x, *run] and other.is_open
    state.masks(other)
    assert state.follow([5], 30).tokens == []


def test_thoughts_are_free() -> None:
    """Where the prompt switches thinking on, or ends inside a thought; nothing else is free."""
    _, processor = loaded("released")
    tokenizer = processor.tokenizer
    begin, end = (tokenizer.token_id(marker) for marker in ("<|channel>", "<channel|>"))
    think = tokenizer.token_id("<|think|>")
    assert begin is not None and end is not None and think is not None
    assert thoughts_before(tokenizer, [2, 40]) is None
    assert thoughts_before(tokenizer, [2, think, 40]) == THINKING
    assert thoughts_before(tokenizer, [2, think, 4, begin, 40]) == IN_THOUGHT
    assert thoughts_before(tokenizer, [2, 4, begin, 40, end]) is None
    assert thoughts_before(loaded("demo")[1].tokenizer, [2]) is None
    a = tokens("a")[0]
    state = matcher(Constraint.choice(["ab"]), before=THINKING)
    assert allowed(state.mask()) == {begin, a}
    state.take([begin, *tokens("thought\nIt is {é")])
    free = allowed(state.mask())
    assert set(tokens("abc xyz {}[]")) <= free and end in free
    assert not free & {begin, 1, 5, 20, 18, 10}
    state.take([end])
    assert state.advance() == [*tokens("ab"), 5]
    state = matcher(Constraint.choice(["ab"]), before=IN_THOUGHT)
    state.take([*tokens("so be it"), end])
    assert state.advance() == [*tokens("ab"), 5]


def test_objects_are_closed() -> None:
    """Where they declare their properties; a schema that merges objects, or speaks of others, stays as it is."""
    inner = {"type": "object", "properties": {"b": {}}}
    for schema, expected in (
        (inner, {**inner, "additionalProperties": False}),
        ({"items": inner}, {"items": {**inner, "additionalProperties": False}}),
        ({"$defs": {"x": inner}, "$ref": "#/$defs/x"}, None),
        ({"properties": {"a": {"allOf": [inner]}}}, None),
    ):
        expected = expected or json.loads(
            json.dumps(schema).replace('{"b": {}}', '{"b": {}}, "additionalProperties": false')
        )
        if "allOf" in json.dumps(schema):
            expected["additionalProperties"] = False
        assert closed(schema) == expected
    for schema in (
        {**inner, "additionalProperties": True},
        {**inner, "required": ["c"]},
        {**inner, "minProperties": 2},
        {"allOf": [inner, {"properties": {"c": {}}}]},
        {**inner, "anyOf": [{"properties": {"c": {}}}]},
        {},
        {"properties": 1},
    ):
        assert closed(schema) == schema


def test_forty_schemas_compile() -> None:
    assert len(SCHEMAS) == 40
    for schema in SCHEMAS.values():
        assert Constraint.json_schema(schema).kind == "JSON schema"
