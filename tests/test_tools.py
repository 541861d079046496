"""Tool calls, read."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4 import parse_tool_calls


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No function provided"),
        ("good morning", "No function provided"),
        ("call:f{x:1", "No function provided"),
        ('call:f{x:<|"|>abc}', "No function provided"),
        ("call:f{x:abc}", "Expecting value"),
        ("call:f{x:}", "Expecting value"),
        ("call:f{x:1,}", "Expecting property name|Illegal trailing comma"),
        ("call:a{x:1}call:b{y", "only some of the calls are whole"),
        ("call:a{x:1} call:b", "only some of the calls are whole"),
        ("call:a{call:b{}}", "Expecting value"),
    ],
)
def test_malformed(text: str, words: str) -> None:
    """What cannot be read is quoted in the error, and so is a call behind a whole one."""
    with pytest.raises(ValueError, match=r"Expected a tool call \(call:name\{…\}\), got ") as caught:
        parse_tool_calls(text)
    assert repr(text) in str(caught.value)
    assert caught.match(words)
