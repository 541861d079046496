"""Tool calls, read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4.outputs.tools.calls import ToolCall, parse_tool_calls, read_calls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("{}", {}),
        ('{city:<|"|>Łódź<|"|>}', {"city": "Łódź"}),
        ('{code:<|"|>if (a) { b["c"] = \'}\'; }<|"|>}', {"code": "if (a) { b[\"c\"] = '}'; }"}),
        ('{text:<|"|>one\ntwo\t\\three, four:five<|"|>}', {"text": "one\ntwo\t\\three, four:five"}),
        ('{text:<|"|>a <b> call:c{d:1}<|"|>,n:2}', {"text": "a <b> call:c{d:1}", "n": 2}),
        ("{call:1,recall:{call:2}}", {"call": 1, "recall": {"call": 2}}),
        ("{a:1,b:-2.5,c:1e3,d:0}", {"a": 1, "b": -2.5, "c": 1000.0, "d": 0}),
        ("{yes:true,no:false,none:null}", {"yes": True, "no": False, "none": None}),
        ('{list:[1,[2,<|"|>x<|"|>],[]]}', {"list": [1, [2, "x"], []]}),
        ('{o:{p:{q:<|"|>r<|"|>},s:[{t:1},{u:2}]}}', {"o": {"p": {"q": "r"}, "s": [{"t": 1}, {"u": 2}]}}),
    ],
)
def test_arguments(arguments: str, expected: dict[str, Any]) -> None:
    """Strings with anything in them, numbers, booleans, null, lists and objects."""
    assert parse_tool_calls("call:do_it" + arguments) == [{"name": "do_it", "arguments": expected}]


def test_types_of_numbers() -> None:
    """Whole numbers are int, the others float, and true is neither."""
    (call,) = parse_tool_calls("call:f{a:1,b:1.0,c:true}")
    assert [type(value) for value in call["arguments"].values()] == [int, float, bool]


def test_several_calls() -> None:
    """Calls in one text come in order."""
    assert parse_tool_calls('call:a{x:1}call:b-c{y:<|"|>z<|"|>}\ncall:a{}') == [
        {"name": "a", "arguments": {"x": 1}},
        {"name": "b-c", "arguments": {"y": "z"}},
        {"name": "a", "arguments": {}},
    ]


@pytest.mark.parametrize("name", ["ns.create", "srv:tool", "srv/tool", "get-it", "größe", "a_b.c:d/e-f", "日本"])
def test_names(name: str) -> None:
    """Names of namespaces, servers and other alphabets, as templates declare them."""
    assert parse_tool_calls(f'call:{name}{{a:<|"|>x<|"|>}}') == [{"name": name, "arguments": {"a": "x"}}]


@pytest.mark.parametrize(
    "key", ["my-key", "$ref", "a.b", "@type", "größe", "first name", "123", '<|"|>a,b:{c}<|"|>', '"a b"', "'a-b'"]
)
def test_keys(key: str) -> None:
    """Bare or quoted."""
    bare = key.replace('<|"|>', "").strip("\"'")
    assert parse_tool_calls(f"call:f{{{key}:1}}") == [{"name": "f", "arguments": {bare: 1}}]


def test_keys_with_colons() -> None:
    """A colon belongs to the key where a quoted value, a map or a list follows another one."""
    text = 'call:f{xml:lang:<|"|>en<|"|>,dc:type:[1],url:http://a.b/c?d=e:f,time:12:30}'
    expected = {"xml:lang": "en", "dc:type": [1], "url": "http://a.b/c?d=e:f", "time": "12:30"}
    assert parse_tool_calls(text)[0]["arguments"] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'x'", "x"),
        ('"x"', "x"),
        ("'it's'", "it's"),
        ("it's", "it's"),
        ("'a, b: {c}'", "a, b: {c}"),
        ('"say \\"hi\\"\\n\\u00e9 \\d"', 'say "hi"\né \\d'),
        ("'\\ud83d\\ude42 \\ud83d'", "🙂 \ufffd"),
        ("''", ""),
        ("None", None),
        ("null", None),
        ("True", True),
        ("False", False),
        ("hello", "hello"),
        ("New York", "New York"),
        ("-1e5", -100000.0),
        ("-0", 0),
        ("01234", "01234"),
        ("NaN", "NaN"),
        ("", ""),
        ("[a, 'b',\n\"c\"]", ["a", "b", "c"]),
        ('{"a": {"b": [true, null]}}', {"a": {"b": [True, None]}}),
    ],
)
def test_values_that_models_write(value: str, expected: Any) -> None:
    """Python, JSON and bare words, with spaces and new lines around them."""
    for text in (f"call:f{{a:{value}}}", f" call: f {{\n a : {value} \n}} "):
        assert parse_tool_calls(text) == [{"name": "f", "arguments": {"a": expected}}]


def test_calls_in_an_answer() -> None:
    """Each between its markers; strings may hold the markers, too."""
    text = (
        'Wait. <|tool_call>call:a{x:<|"|>call:b{}<tool_call|><|tool_call><|"|>}<tool_call|> and '
        "<|tool_call>call:b{}call:c{}<tool_call|> call:d{}"
    )
    assert parse_tool_calls(text) == [
        {"name": "a", "arguments": {"x": "call:b{}<tool_call|><|tool_call>"}},
        {"name": "b", "arguments": {}},
        {"name": "c", "arguments": {}},
    ]
    inside = 'call:a{x:<|"|><|tool_call>call:b{}<tool_call|><|"|>}'
    assert parse_tool_calls(inside) == [{"name": "a", "arguments": {"x": "<|tool_call>call:b{}<tool_call|>"}}]


def written(value: Any, quote_keys: bool) -> str:
    """An argument as chat templates write it."""
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        mark = '<|"|>' if quote_keys else ""
        pairs = (f"{mark}{key}{mark}:{written(item, quote_keys)}" for key, item in sorted(value.items()))
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(item, quote_keys) for item in value) + "]"
    return str(value)


STRINGS = st.text(st.characters(codec="utf-8")).filter(lambda text: '<|"|>' not in text)
BARE_KEYS = st.text("azÄ日059$@_./- ", min_size=1).map(str.strip).filter(bool)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS


def values(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=8)


@given(st.dictionaries(BARE_KEYS, values(BARE_KEYS)))
def test_what_templates_write_is_read(arguments: dict[str, Any]) -> None:
    """Any arguments, with the keys bare: the same values of the same types come back."""
    (call,) = parse_tool_calls("call:f" + written(arguments, quote_keys=False))
    assert repr(call["arguments"]) == repr(dict(sorted_deeply(arguments)))


@given(st.dictionaries(STRINGS, values(STRINGS)))
def test_what_templates_write_with_quoted_keys_is_read(arguments: dict[str, Any]) -> None:
    (call,) = parse_tool_calls("call:f" + written(arguments, quote_keys=True))
    assert repr(call["arguments"]) == repr(dict(sorted_deeply(arguments)))


def sorted_deeply(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_deeply(item) for key, item in sorted(value.items())}
    return [sorted_deeply(item) for item in value] if isinstance(value, list) else value


@given(st.text("call:f{}[],'\"<|>\\ax1 \n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for begin in ("", "call:f{"):
        try:
            assert parse_tool_calls(begin + text)
        except ValueError as error:
            assert str(error).startswith("Cannot read a tool call (call:name{…}) in ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no call:name{…}, at character 0"),
        ("good morning", "there is no call:name{…}, at character 0"),
        ("call:f", "there is no call:name{…}, at character 0"),
        ("call:{}", "there is no call:name{…}, at character 0"),
        ("call:f{", "it is cut short"),
        ("call:f{x", "it is cut short"),
        ("call:f{x:1", "it is cut short"),
        ('call:f{<|"|>x<|"|>', "there is no ':' after the key 'x', at character 18"),
        ('call:f{x:<|"|>abc<|"|>', "it is cut short"),
        ('call:f{x:<|"|>abc}', "a string does not end, at character 14"),
        ("call:f{x:'abc}", "a string does not end, at character 9"),
        ('call:f{x:<|"|>abc<|"|>d}', "there is no ',' or '}' after a value, at character 22"),
        ("call:f{x:1,}", "a key is missing, at character 11"),
        ("call:f{x}", "a key is missing, at character 7"),
        ("call:f{:1}", "a key is missing, at character 7"),
        ("call:f{x:[1,]}", "a value is missing, at character 12"),
        ("call:f{x:[1}", "there is no ',' or ']' after a value, at character 11"),
        ("call:f{x:1,x:2}", "the key 'x' is given twice, at character 13"),
        ("call:f{x:g{y}}", "a value has '{' in it and no quotes around it, at character 9"),
        ("call:f{x:1e999}", "the number '1e999' is out of range"),
        ("call:f{x:" + "9" * 5000 + "}", "the number '" + "9" * 200 + "'… is out of range"),
        ("call:a{x:1}call:b{y", "it is cut short"),
        ("call:a{x:1} call:b", "there is no call:name{…}, at character 11"),
        ("call:a{call:b{}}", "a value has '{' in it and no quotes around it, at character 12"),
        ("call:f" + "{x:" * 65 + "1" + "}" * 65, "more than 64 maps and lists are nested, at character 199"),
        ("call:f{x:" + "[" * 100_000, "more than 64 maps and lists are nested, at character 73"),
    ],
)
def test_malformed(text: str, words: str) -> None:
    """What cannot be read is quoted in the error, and so is a call behind a whole one."""
    shown = repr(text) if len(text) <= 200 else f"{text[:200]!r}…"
    with pytest.raises(ValueError) as caught:
        parse_tool_calls(text)
    assert str(caught.value) == f"Cannot read a tool call (call:name{{…}}) in {shown}: {words}"


LIGHTS = {
    "type": "function",
    "function": {
        "name": "lights",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
            "required": ["room"],
        },
    },
}


def test_calls_are_checked_against_what_is_declared() -> None:
    """Each call has an id of its own; one that does not fit says why."""
    ids = (f"call_{number}" for number in range(9))
    calls = read_calls("call:lights{room:007,level:5.0}call:lights{level:1}call:doors{}", [LIGHTS], lambda: next(ids))
    assert calls == [
        ToolCall("call_0", "lights", {"room": "007", "level": 5}),
        ToolCall("call_1", "lights", {"level": 1}, "the argument 'room' is missing"),
        ToolCall("call_2", "doors", {}, "there is no function doors, only lights"),
    ]


def test_a_call_that_cannot_be_read_has_a_problem() -> None:
    problem = "the call cannot be read: it is cut short"
    assert read_calls("call:lights{room:", [LIGHTS], lambda: "1") == [ToolCall("1", "lights", {}, problem)]
    assert read_calls("lights", [LIGHTS], lambda: "1")[0].name == "unknown"
    out_of_range = read_calls("call:lights{room:x,level:1e999}", [LIGHTS], lambda: "1")
    assert out_of_range == [ToolCall("1", "lights", {}, "level must be an integer, got '1e999'")]


def test_without_declarations_nothing_is_checked() -> None:
    assert read_calls("call:f{a:1}", None, lambda: "1") == [ToolCall("1", "f", {"a": 1})]
