"""Calls held to the declared functions: what the grammar allows is valid, and what templates write is allowed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from conftest import loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from test_tools import written

from mlx_gemma4 import Conversation, Model, Processor, Sampling, stream_generate
from mlx_gemma4.cli.shared.tools import note_unbound
from mlx_gemma4.outputs.grammar.calls import bound_calls, call_constraint
from mlx_gemma4.outputs.grammar.constraint import IN_THOUGHT, THINKING, Constraint
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.grammar.unheld import unheld
from mlx_gemma4.outputs.grammar.values import MOST_IN_ANY_ORDER
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.tools.calls import ToolCall, read_calls

Tool = dict[str, Any]
STOPS = (1, 5, 20)


def tool(name: str, properties: Mapping[str, Any], *required: str, **more: Any) -> Tool:
    parameters = {"type": "object", "properties": dict(properties), "required": list(required), **more}
    return {"type": "function", "function": {"name": name, "description": "Do it.", "parameters": parameters}}


LIGHTS = tool(
    "lights",
    {
        "room": {"type": "string", "maxLength": 6},
        "level": {"type": "integer", "minimum": 0, "maximum": 10},
        "scene": {"enum": ["day", "night"]},
    },
    "room",
)
TOOLS = [LIGHTS, tool("lights_off", {}), tool("play", {"song": {"type": "string"}}, "song")]


def constraint_of(tools: list[Tool], choice: str = "required") -> Constraint:
    constraint = call_constraint(tools, loaded("released")[1].tokenizer, choice)
    assert constraint is not None
    return constraint


def accepts(constraint: Constraint, markup: str, before: str | None = None) -> bool:
    """Whether a whole answer is allowed, with an end behind it."""
    _, processor = loaded("released")
    state = Matcher(constraint, vocabulary(processor), before)
    ids = processor.tokenizer.encode_markup(markup)
    return state.follow(ids, len(ids) + 1).tokens == ids and state._matcher.is_accepting()


def call(arguments: str, name: str = "lights") -> str:
    return f"<|tool_call>call:{name}{arguments}<tool_call|>"


def walk(constraint: Constraint, seed: int, most: int = 150) -> list[int] | None:
    """A random answer, evenly chosen among what is allowed; None if it is longer."""
    _, processor = loaded("released")
    state, random = Matcher(constraint, vocabulary(processor)), np.random.default_rng(seed)
    tokens = state.advance()
    while len(tokens) < most:
        bits = np.unpackbits(state.mask().view(np.uint8), bitorder="little")[:371]
        # what ends strings and lists comes more often, so that most answers end
        weights = bits * np.where(np.isin(np.arange(371), [*STOPS, 19, 22]), 30.0, 1.0)
        token = int(random.choice(371, p=weights / weights.sum()))
        tokens.append(token)
        if token in STOPS:
            break
        state.take([token])
        tokens += state.advance()
        if tokens[-1] in STOPS:
            break
    return tokens[:-1] if tokens[-1] in STOPS else None


def calls_in(tokens: list[int], tools: list[Tool]) -> list[ToolCall]:
    """The calls of an answer that has nothing else."""
    text = loaded("released")[1].tokenizer.decode(tokens, skip_special=False)
    blocks = text.removeprefix("<|tool_call>").removesuffix("<tool_call|>").split("<tool_call|><|tool_call>")
    return [found for block in blocks for found in read_calls(block, tools, lambda: "1")]


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        ('{room:<|"|>hall<|"|>}', True),
        ('{level:3,room:<|"|>hall<|"|>}', True),
        ('{room:<|"|>hall<|"|>,scene:<|"|>night<|"|>,level:10}', True),
        ('{room:<|"|><|"|>}', True),
        ("{}", False),
        ("{level:3}", False),
        ('{room:<|"|>hall<|"|>,}', False),
        ('{room:<|"|>hall<|"|>,room:<|"|>hall<|"|>}', False),
        ('{room:<|"|>hall<|"|>,colour:1}', False),
        ('{room:<|"|>hall<|"|>,level:11}', False),
        ('{room:<|"|>hall<|"|>,level:<|"|>3<|"|>}', False),
        ('{room:<|"|>hall<|"|>,scene:<|"|>dusk<|"|>}', False),
        ('{room:<|"|>too long<|"|>}', False),
        ("{room:hall}", False),
    ],
)
def test_arguments(arguments: str, holds: bool) -> None:
    """In any order, each once, all that are required, of their types and within their bounds."""
    assert accepts(constraint_of(TOOLS), call(arguments)) == holds


def test_names() -> None:
    """Declared ones, also where one begins like another."""
    constraint = constraint_of(TOOLS)
    assert accepts(constraint, call("{}", "lights_off"))
    for name in ("light", "lights_o", "lights_offs", "stop"):
        assert not accepts(constraint, call("{}", name))


def test_choices() -> None:
    """auto: anything, calls bound; none: no calls; required: calls alone; a name: one call of it."""
    on, off = call('{room:<|"|>hall<|"|>}'), call("{}", "lights_off")
    thought = "<|channel>thought\nHm.<channel|>"
    for choice, allowed in {
        "auto": ["", "Hi.", on, f"Yes.{on}{off}Done.", f"{thought}{on}", f"<|channel>thought\nHm.{on}"],
        "none": ["", "Hi.", f"{thought}No."],
        "required": [on, on + off],
        "lights": [on],
    }.items():
        constraint = constraint_of(TOOLS, choice)
        for markup in ("", "Hi.", on, on + off, f"Yes.{on}{off}Done.", f"{thought}{on}", f"{thought}No.", on + on, off):
            expected = markup in allowed or (choice == "auto") or (choice == "required" and markup in (on + on, off))
            assert accepts(constraint, markup) == expected, (choice, markup)
        assert all(accepts(constraint, markup) for markup in allowed)
        assert not accepts(constraint, call("{}"))
    assert accepts(constraint_of(TOOLS), f"So.<channel|>{off}", before=IN_THOUGHT)


def test_a_form_beside_calls() -> None:
    """The answer is calls or has the form; a thought may come first."""
    form = Constraint.json_schema({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]})
    on, json, thought = call('{room:<|"|>hall<|"|>}'), '{"on": true}', "<|channel>thought\nHm.<channel|>"
    for choice, allowed in {
        "auto": [on, on + on, json],
        "none": [json],
        "required": [on, on + on],
        "lights": [on],
    }.items():
        constraint = call_constraint(TOOLS, loaded("released")[1].tokenizer, choice, form)
        assert constraint is not None
        for markup in ("", "Hi.", on, on + on, json, on + json, json + on, json + json, '{"on": 3}', call("{}")):
            assert accepts(constraint, markup) == (markup in allowed), (choice, markup)
            assert accepts(constraint, thought + markup, before=THINKING) == (markup in allowed), (choice, markup)


def test_choices_that_cannot_be() -> None:
    _, processor = loaded("released")
    with pytest.raises(ValueError, match=r"^There is no function 'stop' to call, only lights, lights_off, play$"):
        call_constraint(TOOLS, processor.tokenizer, "stop")
    with pytest.raises(ValueError, match=r"^A call is required, and no function is declared: declare one, or requi"):
        call_constraint([], processor.tokenizer, "required")
    assert call_constraint(TOOLS, loaded("demo")[1].tokenizer) is None  # it has no tokens for calls


def test_strings_hold_anything_but_their_end() -> None:
    """Markers that are spelled in characters too; ``<|"|>`` in characters could not be told from the end."""
    constraint = constraint_of(TOOLS)
    for text in ("a\n}{,:[]", "<tool_call|>x", '<|"|', "\"'", "日本\0"):
        markup = processor_quoted(text)
        assert accepts(constraint, call(f'{{song:<|"|>{markup}<|"|>}}', "play")), text
    assert not accepts(constraint, call(f'{{song:<|"|>{processor_quoted("<|")}"|><|"|>}}', "play"))


def processor_quoted(text: str) -> str:
    """Text in markup, of which no part becomes a control token."""
    quoted: str = loaded("released")[1].tokenizer.markup.quote(text)
    return quoted


def test_keys_that_must_be_quoted() -> None:
    """They are written so that they can be read."""
    odd = tool("f", {"a:b": {"type": "integer"}, "first name": {"type": "boolean"}, "größe.x-y": {}}, "a:b")
    constraint = constraint_of([odd])
    markup = call('{<|"|>a:b<|"|>:1,<|"|>first name<|"|>:true,größe.x-y:null}', "f")
    assert accepts(constraint, markup)
    assert not accepts(constraint, call("{a:b:1}", "f"))
    (found,) = calls_in(loaded("released")[1].tokenizer.encode_markup(markup), [odd])
    assert (found.arguments, found.problem) == ({"a:b": 1, "first name": True, "größe.x-y": None}, None)


def test_more_keys_than_can_come_in_any_order() -> None:
    """They come in the order of templates; optional ones may be left out."""
    names = [f"k{number:02}" for number in range(MOST_IN_ANY_ORDER + 5)]
    constraint = constraint_of([tool("f", {name: {"type": "boolean"} for name in names}, names[1], names[-1])])
    assert accepts(constraint, call(f"{{{names[1]}:true,{names[-1]}:false}}", "f"))
    assert accepts(constraint, call("{" + ",".join(f"{name}:true" for name in names) + "}", "f"))
    assert not accepts(constraint, call(f"{{{names[-1]}:true,{names[1]}:false}}", "f"))
    assert not accepts(constraint, call(f"{{{names[1]}:true}}", "f"))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "string", "pattern": "^[a-c]+$"}, ['<|"|>abc<|"|>'], ['<|"|>abd<|"|>', '<|"|><|"|>']),
        ({"type": "string", "pattern": "b/\\d"}, ['<|"|>ab/7c<|"|>'], ['<|"|>ab7c<|"|>']),
        ({"type": "string", "pattern": "(?=a)"}, ['<|"|>b<|"|>'], ["b"]),
        ({"type": "string", "pattern": "^a|b$"}, ['<|"|>cb<|"|>'], ["cb"]),
        ({"type": "string", "pattern": "^[^x]\\$$"}, ['<|"|>a$<|"|>'], ['<|"|>x$<|"|>', '<|"|>a<|"|>']),
        ({"type": "string", "pattern": "^(0|1)\\.[|$]$"}, ['<|"|>0.|<|"|>', '<|"|>1.$<|"|>'], ['<|"|>0.x<|"|>']),
        ({"type": "string", "pattern": "^"}, ['<|"|>a<|"|>'], ["a"]),
        ({"type": "string", "minLength": 2}, ['<|"|>ab<|"|>'], ['<|"|>a<|"|>']),
        ({"const": ""}, ['<|"|><|"|>'], ['<|"|>a<|"|>', "null"]),
        ({"enum": [1, True, None, "x"]}, ["1", "true", "null", '<|"|>x<|"|>'], ["2", "false", "x"]),
        ({"type": "STRING", "nullable": True}, ["null", "None", '<|"|>a<|"|>'], ["NULL", "1"]),
        ({"type": ["integer", "null"]}, ["-5", "null"], ["5.5", "05"]),
        ({"type": "number"}, ["-5", "5.25", "1e-05"], ["+5", ".5", "9" * 20, "1e999"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0.5", "1"], ["0", "1.5", "-1"]),
        ({"type": "integer", "multipleOf": 5}, ["10", "-5"], ["7"]),
        ({"type": "array", "items": {"type": "boolean"}}, ["[]", "[true,false]"], ["[1]", "[true,]", "true"]),
        ({"type": "array", "minItems": 1, "maxItems": 2}, ["[1]", '[<|"|>a<|"|>,[]]'], ["[]", "[1,2,3]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "array", "maxItems": 1}, ["[]", "[null]"], ["[1,1]"]),
        ({"type": "object"}, ["{}", "{a:1,b:{c:[]}}"], ["[]", "{a}"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, ["{x:1}"], ["{x:true}"]),
        (
            {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
            ["{a:1,b:2}", "{}", "{b:1}"],
            ["{a:1,a:2}"],
        ),
        ({"anyOf": [{"type": "integer"}, {"type": "array"}]}, ["1", "[]"], ["true"]),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            },
            ["{a:1}", "{b:1}", "{a:1,b:1}"],
            ["{}"],
        ),
        ({"allOf": [{"type": "boolean"}]}, ["true"], ["1"]),
        ({"properties": {"a": {"type": "integer"}}}, ["{a:1}"], ["{a:true}"]),
        ({"items": {"type": "integer"}}, ["[1]"], ["[true]"]),
        ({"minimum": 0, "maximum": 1}, ["0.5"], ["2", "true"]),
        ({"maxLength": 1}, ['<|"|>a<|"|>'], ['<|"|>ab<|"|>', "1"]),
        ({"enum": [[1, "a"], {"k": 1, "a b": []}]}, ['[1,<|"|>a<|"|>]', '{<|"|>a b<|"|>:[],k:1}'], ["[1]", "{k:1}"]),
        ({}, ["1", "true", '<|"|>a<|"|>', "[{a:null}]"], ["a"]),
        (True, ["1"], ["a"]),
    ],
)
def test_values(schema: Any, right: list[str], wrong: list[str]) -> None:
    constraint = constraint_of([tool("f", {"x": schema}, "x")])
    for value in right:
        assert accepts(constraint, call(f"{{x:{value}}}", "f")), value
    for value in wrong:
        assert not accepts(constraint, call(f"{{x:{value}}}", "f")), value


def test_recursive_schemas() -> None:
    """References into the function's own schema, also by way of allOf and to the whole."""
    node = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"allOf": [{"$ref": "#/$defs/node"}]}},
        "required": ["value"],
    }
    constraint = constraint_of([tool("f", {"head": {"$ref": "#/$defs/node"}}, **{"$defs": {"node": node}})])
    assert accepts(constraint, call("{head:{value:1,next:{next:{value:3},value:2}}}", "f"))
    assert not accepts(constraint, call("{head:{next:{value:1}}}", "f"))
    whole = constraint_of([tool("f", {"inner": {"$ref": "#"}, "circle": {"$ref": "#/properties/circle"}})])
    assert accepts(whole, call("{inner:{inner:{circle:5}}}", "f"))


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("date", ["2024-02-29", "1999-12-31", "2000-04-30"], ["2024-02-30", "2024-04-31", "2024-13-01", "24-01-01"]),
        ("time", ["00:00:00Z", "23:59:59.125+05:30"], ["24:00:00Z", "10:00:00", "10:60:00Z"]),
        ("date-time", ["2024-01-01T10:00:00Z"], ["2024-01-01 10:00:00Z", "2024-01-01"]),
        ("email", ["a.b+c@example.co.uk"], ["a@b", "a b@example.com", "@example.com", "a..b@example.com"]),
        ("hostname", ["a-b.example"], ["-a.example", "a..b", "a_b"]),
        ("ipv4", ["255.0.10.199"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "g23e4567-e89b"]),
        ("colour", ["anything"], []),
    ],
)
def test_formats(form: str, right: list[str], wrong: list[str]) -> None:
    constraint = constraint_of([tool("f", {"x": {"type": "string", "format": form}}, "x")])
    for value, expected in [*((value, True) for value in right), *((value, False) for value in wrong)]:
        assert accepts(constraint, call(f'{{x:<|"|>{value}<|"|>}}', "f")) == expected, value


def test_what_calls_are_not_held_to(capsys: pytest.CaptureFixture[str]) -> None:
    address = {"type": "string", "format": "uri"}
    tools = [
        tool("f", {"x": {"type": "array", "uniqueItems": True, "items": {"type": "string", "pattern": "(?=a)"}}}),
        tool("g", {"x": address, "y": {"type": "string", "format": "date"}}, "z", minProperties=1),
        tool("h", {"x": {"anyOf": [{"not": {}}, {"type": "colour"}]}, "y": {"$ref": "http://a.example/b"}, "z": True}),
        tool("i", {"x": {"$ref": "#/$defs/e"}}, **{"$defs": {"e": {"allOf": [{"minimum": 1}, {"maximum": 5}]}}}),
        tool("j", {"x": {"type": "integer", "format": "int32"}, "not": {"allOf": [{"type": "string"}]}}),
    ]
    assert unheld(tools) == [
        *("uniqueItems of f", "pattern of f", "minProperties of g", "required of g", "format uri of g"),
        *("not of h", "type of h", "$ref of h", "allOf of i"),
    ]
    assert unheld(TOOLS) == []
    note_unbound(loaded("released")[1], [*TOOLS, *tools])
    note_unbound(loaded("released")[1], TOOLS)
    assert capsys.readouterr().err == (
        "Calls are held to the declared functions, but not to uniqueItems of f, pattern of f, minProperties of g, "
        "required of g, format uri of g and 4 more.\n"
    )


def test_declarations_that_are_too_large() -> None:
    """llguidance's stack would overflow, which ends the process."""
    chain = {f"a{n}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/a{n + 1}"}}} for n in range(400)}
    for tools, message in (
        (
            [tool("f", {f"k{n}": {} for n in range(5000)})],
            "of the 5,000 properties of an object, at most 900 can be held,",
        ),
        (
            [tool(f"f{n}", {f"k{m}": {} for m in range(200)}) for n in range(60)],
            "of the 200 properties of an object, at",
        ),
        ([tool(f"f{n}", {}) for n in range(2000)], "of 2,000 functions, at most 900 can be held"),
        ([tool("f", {"x": {"$ref": "#/$defs/a0"}}, **{"$defs": chain})], "a schema is nested too deeply"),
    ):
        with pytest.raises(ValueError, match=rf"^Cannot compile the tools: {message}"):
            call_constraint(tools, loaded("released")[1].tokenizer)


KEYS = st.sampled_from(["a", "b", "Zed", "first name", "x:y", "größe", "a.b-c", "true", "list"])
TEXTS = st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF), max_size=6).filter(lambda text: '<|"|>' not in text)
NUMBERS = st.integers(-(10**14), 10**14) | st.floats(-1e14, 1e14).map(lambda value: round(value, 3))
Pair = tuple[dict[str, Any], st.SearchStrategy[Any]]


def leaf() -> st.SearchStrategy[Pair]:
    """A schema of a single value, and the values that it allows."""
    bounds = st.tuples(st.integers(-50, 50), st.integers(0, 40))
    return st.one_of(
        st.just(({"type": "string"}, TEXTS)),
        st.just(({"type": "string", "maxLength": 4}, TEXTS.map(lambda text: text[:4]))),
        st.just(({"type": "boolean"}, st.booleans())),
        st.just(({"type": "integer"}, st.integers(-(10**14), 10**14))),
        st.just(({"type": "number"}, NUMBERS)),
        st.just(({"type": ["string", "null"]}, TEXTS | st.none())),
        st.just(({}, TEXTS | st.booleans() | st.integers(0, 9))),
        bounds.map(
            lambda pair: (
                {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]},
                st.integers(pair[0], pair[0] + pair[1]),
            )
        ),
        st.lists(TEXTS | st.integers(0, 9) | st.none(), min_size=1, max_size=4).map(
            lambda choices: ({"enum": choices}, st.sampled_from(choices))
        ),
    )


def listed(inner: Pair) -> Pair:
    schema, values = inner
    return {"type": "array", "items": schema, "maxItems": 3}, st.lists(values, max_size=3)


def table(inner: dict[str, tuple[Pair, bool]]) -> Pair:
    properties = {key: pair[0] for key, (pair, _) in inner.items()}
    required = [key for key, (_, is_required) in inner.items() if is_required]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    needed = {key: inner[key][0][1] for key in required}
    optional = {key: pair[1] for key, (pair, is_required) in inner.items() if not is_required}
    return schema, st.fixed_dictionaries(needed, optional=optional)


def tables(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.dictionaries(KEYS, st.tuples(inner, st.booleans()), max_size=4).map(table)


PAIRS = tables(st.recursive(leaf(), lambda inner: inner.map(listed) | tables(inner), max_leaves=5))
TOOL_SETS = st.lists(PAIRS, min_size=1, max_size=3)


def declared(schemas: list[dict[str, Any]]) -> list[Tool]:
    names = ("get", "get_all", "ns:srv/größe.x")
    return [
        {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}
        for name, schema in zip(names, schemas, strict=False)
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=TOOL_SETS, data=st.data())
def test_what_templates_write_is_allowed_and_read(pairs: list[Pair], data: st.DataObject) -> None:
    """Any functions and arguments: the grammar allows the template's writing, and the values come back."""
    tools = declared([schema for schema, _ in pairs])
    number = data.draw(st.integers(0, len(pairs) - 1))
    arguments, name = data.draw(pairs[number][1]), tools[number]["function"]["name"]
    quoted = loaded("released")[1].tokenizer.markup.quote(arguments)
    markup = call(quoting_odd_keys(quoted), name)
    assert accepts(constraint_of(tools), markup), markup
    (found,) = calls_in(loaded("released")[1].tokenizer.encode_markup(markup), tools)
    assert found.problem is None and found.name == name
    assert without_null(found.arguments) == without_null(arguments)


def quoting_odd_keys(value: Any) -> str:
    """As templates write arguments, but with keys in quotes where they cannot be read otherwise."""
    if isinstance(value, dict):
        pairs = []
        for key, item in sorted(value.items()):
            mark = '<|"|>' if ":" in key or " " in key else ""
            pairs.append(f"{mark}{key}{mark}:{quoting_odd_keys(item)}")
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(quoting_odd_keys, value)) + "]"
    return "null" if value is None else written(value, quote_keys=False)


def without_null(value: Any) -> Any:
    """An optional argument that is null may be left out."""
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=TOOL_SETS, seed=st.integers(0, 2**32))
def test_what_is_allowed_is_valid(pairs: list[Pair], seed: int) -> None:
    """A random answer of calls can be read, and its arguments satisfy the schema."""
    tools = declared([schema for schema, _ in pairs])
    tokens = walk(constraint_of(tools), seed)
    if tokens is None:
        return
    found = calls_in(tokens, tools)
    assert found
    for each in found:
        assert each.problem is None, each
        schema = next(tool["function"] for tool in tools if tool["function"]["name"] == each.name)["parameters"]
        Draft202012Validator(schema).validate(each.arguments)


def test_answers_of_a_model(released: tuple[Model, Processor]) -> None:
    """Random weights, greedy and at temperature 2: every call that is whole can be run, alone and several."""
    model, processor = released
    found: list[ToolCall] = []
    for choice, seed in (("required", 0), ("required", 1), ("lights", 2), ("auto", 3)):
        pieces = list(
            stream_generate(
                model,
                processor,
                "Hi",
                constraint=constraint_of(TOOLS, choice),
                sampling=Sampling(temperature=2.0, seed=seed),
                max_tokens=80,
            )
        )
        for piece in pieces:
            if piece.kind == "tool_call" and piece.finish_reason is None:
                found += read_calls(piece.text, TOOLS, lambda: "1")
    assert len(found) >= 3 and all(each.problem is None for each in found)


def test_a_conversation_binds_its_calls(released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where llguidance is installed, and the vocabulary has the tokens."""
    model, processor = released
    given: list[Constraint | None] = []
    monkeypatch.setattr(
        "mlx_gemma4.programs.chat.stream_generate",
        lambda *_, constraint, **__: given.append(constraint) or stream_generate(*_, **__),
    )
    for tools in (TOOLS, None):
        list(Conversation(model, processor, tools=tools).ask("Hi", max_tokens=2))
    assert given == [bound_calls(TOOLS, processor), None] and given[0] is not None
    assert bound_calls(TOOLS, loaded("demo")[1]) is None
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert bound_calls(TOOLS, processor) is None
