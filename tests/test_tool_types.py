"""Templates that read the type of each argument get one, whatever the schema says instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlx_gemma4 import Model, Processor
from mlx_gemma4.cli.shared.tools import note_unwritten
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.inputs.text.tool_types import MOST_SCHEMAS, with_types

READS_TYPES = """{% for tool in tools or [] %}{% for key, value in tool.function.parameters.properties | dictsort -%}
{{ key }}:{{ (value['type'] if value['type'] is string else value['type'][0]) | upper }}{{ '?' if value['nullable'] }},
{%- endfor %}{% endfor %}{% for message in messages %}{{ message.content }}{% endfor %}"""
"""As Gemma 4's template reads them."""
WRITES_ALL = "{{ tools | tojson }}{% for message in messages %}{{ message.content }}{% endfor %}"


def tool(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": {"properties": properties, **more}}}


def typed(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    (only,) = with_types([tool(properties, **more)])
    found: dict[str, Any] = only["function"]["parameters"]["properties"]
    return found


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 0}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        (
            {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}], "title": "A"},
            {"type": "string", "maxLength": 3, "title": "A", "nullable": True},
        ),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, {"type": "integer"}),
        ({"$ref": "#/$defs/a~1b", "description": "B."}, {"enum": ["x"], "type": "string", "description": "B."}),
        ({"$ref": "#/$defs/absent"}, {"type": "any"}),
        (
            {"allOf": [{"type": "object"}, {"properties": {"p": {}}}]},
            {"type": "object", "properties": {"p": {"type": "any"}}},
        ),
        ({"properties": {}}, {"properties": {}, "type": "object"}),
        ({"items": {"const": 5}}, {"items": {"const": 5, "type": "integer"}, "type": "array"}),
        ({"enum": [True]}, {"enum": [True], "type": "boolean"}),
        ({"enum": [None]}, {"enum": [None], "type": "any"}),
        ({"type": []}, {"type": "any"}),
        ({}, {"type": "any"}),
        (True, {"type": "any"}),
    ],
)
def test_types(schema: Any, expected: dict[str, Any]) -> None:
    assert typed({"x": schema}, **{"$defs": {"a/b": {"enum": ["x"], "description": "A."}}}) == {"x": expected}


def test_references_in_circles_end() -> None:
    node = {"properties": {"next": {"$ref": "#/$defs/node"}}}
    shown = typed(
        {"head": {"$ref": "#/$defs/node"}, "self": {"$ref": "#/properties/self"}}, **{"$defs": {"node": node}}
    )
    depth, at = 0, shown["head"]
    while "properties" in at:
        depth, at = depth + 1, at["properties"]["next"]
    assert (depth, at, shown["self"]) == (4, {"type": "any"}, {"type": "any"})
    wide = {f"k{number}": {"$ref": "#"} for number in range(60)}
    assert json.dumps(typed(wide)).count('"type"') < MOST_SCHEMAS + 100


def test_a_template_that_refuses_tools_gets_types(
    demo: tuple[Model, Processor], capsys: pytest.CaptureFixture[str]
) -> None:
    processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(READS_TYPES, {}))
    tools = [tool({"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "b": {}, "c": {"type": "number"}})]
    assert processor.render([{"role": "user", "content": "Go."}], tools=tools) == "a:STRING?,b:ANY,c:NUMBER,Go."
    note_unwritten(processor, tools)
    assert capsys.readouterr().err == ""
    broken = [tool({"a": {"type": 5}})]
    broken[0]["function"]["parameters"] = 5
    with pytest.raises(ValueError, match=r"^The checkpoint's chat template cannot render these messages: "):
        processor.render([{"role": "user", "content": "Go."}], tools=broken)


def test_a_template_that_takes_tools_gets_them_as_they_are(demo: tuple[Model, Processor]) -> None:
    processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(WRITES_ALL, {}))
    tools = [tool({"a": {"anyOf": [{"type": "string"}]}})]
    written = processor.tokenizer.markup.unquote(processor.render([{"role": "user", "content": "Go."}], tools=tools))
    assert written == f"{json.dumps(tools)}Go."
