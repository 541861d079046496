"""Arguments of calls against declared schemas: what fits, as which type, and what a model is told of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_gemma4.outputs.tools.schema import fit_arguments
from mlx_gemma4.outputs.tools.syntax import read_block


def fitted(arguments: str, schema: dict[str, Any]) -> dict[str, Any]:
    (call,) = read_block(f"call:f{{{arguments}}}")
    return fit_arguments(call.arguments, schema)


def one(value: str, schema: dict[str, Any]) -> Any:
    """One argument ``a``."""
    return fitted(f"a:{value}", {"type": "object", "properties": {"a": schema}, "required": ["a"]})["a"]


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("007", {"type": "string"}, "007"),
        ("1.50", {"type": "string"}, "1.50"),
        ("true", {"type": "STRING"}, "true"),
        ("None", {"type": "string"}, "None"),
        ("", {"type": "string"}, ""),
        ("5.0", {"type": "integer"}, 5),
        ("5", {"type": "integer"}, 5),
        ('<|"|>5<|"|>', {"type": "integer"}, 5),
        ('<|"|>-1e5<|"|>', {"type": "number"}, -100000.0),
        ("2", {"type": "number"}, 2),
        ("True", {"type": "boolean"}, True),
        ('<|"|>false<|"|>', {"type": "boolean"}, False),
        ("null", {"type": "null"}, None),
        ("None", {"type": "string", "nullable": True}, None),
        ("null", {"type": ["string", "null"]}, None),
        ("5", {"type": ["string", "integer"]}, 5),
        ('<|"|>5<|"|>', {"type": ["integer", "string"]}, "5"),
        ("five", {"type": ["integer", "string"]}, "five"),
        ("[1,2.0]", {"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ("[007]", {"type": "array", "items": {"type": "string"}}, ["007"]),
        ("[x,1]", {"type": "array"}, ["x", 1]),
        ("{b:{c:7}}", {"type": "object"}, {"b": {"c": 7}}),
        ("{b:7}", {"type": "object", "properties": {"b": {"type": "string"}}}, {"b": "7"}),
        ("{x:7,y:8}", {"type": "object", "additionalProperties": {"type": "string"}}, {"x": "7", "y": "8"}),
        ("b", {"type": "string", "enum": ["a", "b"]}, "b"),
        ("2", {"enum": ["2", "3"]}, "2"),
        ("2", {"enum": [1, 2]}, 2),
        ("2", {"const": 2}, 2),
        ("2", {}, 2),
        ('<|"|>2<|"|>', {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "2"),
        ("{b:1}", {"anyOf": [{"type": "string"}, {"type": "object"}]}, {"b": 1}),
        ("null", {"oneOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ("3", {"allOf": [{"type": "string"}]}, "3"),
    ],
)
def test_values_become_the_declared_type(value: str, schema: dict[str, Any], expected: Any) -> None:
    found = one(value, schema)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("value", "schema", "problem"),
    [
        ("5", {"type": "boolean"}, "a must be true or false, got '5'"),
        ("true", {"type": "number"}, "a must be a number, got 'true'"),
        ("five", {"type": "number"}, "a must be a number, got 'five'"),
        ("5.5", {"type": "integer"}, "a must be an integer, got '5.5'"),
        ("NaN", {"type": "number"}, "a must be a number, got 'NaN'"),
        ("", {"type": "integer"}, "a must be an integer, got ''"),
        ("[1]", {"type": "string"}, "a must be a string, got a list"),
        ("{}", {"type": "array"}, "a must be a list, got an object"),
        ("x", {"type": "object"}, "a must be an object, got 'x'"),
        ("x", {"type": "null"}, "a must be null, got 'x'"),
        ("None", {"type": "integer"}, "a must be an integer, got 'None'"),
        ("x", {"type": ["integer", "null"]}, "a must be integer or null, got 'x'"),
        ("[1,x]", {"type": "array", "items": {"type": "number"}}, "a[1] must be a number, got 'x'"),
        ("{b:1}", {"type": "object", "properties": {"c": {}}}, "there is no argument 'a.b', only c"),
        ("{}", {"type": "object", "required": ["b"]}, "the argument 'a.b' is missing"),
        ("c", {"type": "string", "enum": ["a", "b"]}, "a must be one of 'a', 'b', got 'c'"),
        ("true", {"enum": [1]}, "a must be one of 1, got True"),
        ("1", {"type": "number", "minimum": 2}, "a must be at least 2, got 1"),
        ("3", {"type": "number", "exclusiveMaximum": 3}, "a must be less than 3, got 3"),
        ("ab", {"type": "string", "minLength": 3}, "a must have at least 3 characters, got 'ab'"),
        ("[1,2]", {"type": "array", "maxItems": 1}, "a must have at most 1 items, got a list"),
        (
            "x",
            {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
            "a must be an integer, got 'x'; or a must be true or false, got 'x'",
        ),
    ],
)
def test_what_does_not_fit_is_told(value: str, schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        one(value, schema)
    assert str(caught.value) == problem


def test_unknown_missing_and_optional_arguments() -> None:
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    assert fitted("a:x,b:null", schema) == {"a": "x"}, "null leaves an optional argument out"
    with pytest.raises(ValueError, match=r"^the argument 'a' is missing$"):
        fitted("b:1", schema)
    with pytest.raises(ValueError, match=r"^there is no argument 'c', only a, b$"):
        fitted("a:x,c:1", schema)
    with pytest.raises(ValueError, match=r"^there is no argument 'c', none is declared$"):
        fitted("c:1", {})
    assert fitted("a:x,c:1", {**schema, "additionalProperties": True}) == {"a": "x", "c": 1}


def test_references_into_the_schema() -> None:
    tree = {"type": "object", "properties": {"name": {"type": "string"}, "under": {"$ref": "#/$defs/tree"}}}
    schema = {"properties": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": tree}}
    assert fitted("tree:{name:1,under:{name:2}}", schema) == {"tree": {"name": "1", "under": {"name": "2"}}}
    with pytest.raises(ValueError, match=r"^there is no argument 'tree\.under\.x', only name, under$"):
        fitted("tree:{under:{x:1}}", schema)


def test_references_in_circles_end() -> None:
    circle = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}
    schema = {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"], "$defs": {"a": circle}}
    with pytest.raises(ValueError, match=r"takes more than 100000 steps to check"):
        fitted("a:1", schema)
