"""Gives a type to each argument of a function, for templates that refuse schemas without one.

Gemma 4's template reads ``type`` of every property. Schemas that programs write have others beside it::

    {"anyOf": [{"type": "string"}, {"type": "null"}]}    {"type": "string", "nullable": true}
    {"$ref": "#/$defs/Colour"}                           {"type": "string", "enum": ["red", "blue"]}
    {}                                                   {"type": "any"}

The template shows the right side to the model; calls are held to the left side, and checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_DEPTH = 4
"""References inside each other that are shown: they may go in circles."""
MOST_SCHEMAS = 1000
"""Schemas of one function that are shown."""
ANY = "any"
_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_OPTIONS = ("anyOf", "oneOf")


def with_types(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The tools, with a type at each property of their parameters."""
    return [_tool(tool) for tool in tools]


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    parameters = function.get("parameters") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(parameters, Mapping):
        return tool
    return {**tool, "function": {**function, "parameters": _Typed(parameters).inside(parameters, 0)}}


class _Typed:
    """Schemas inside ``root``, with types. ``depth`` counts references."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._count = 0

    def inside(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """A schema, with types at those inside it."""
        result = dict(schema)
        properties, items = schema.get("properties"), schema.get("items")
        if isinstance(properties, Mapping):
            result["properties"] = {key: self._typed(inner, depth) for key, inner in properties.items()}
        if isinstance(items, Mapping):
            result["items"] = self._typed(items, depth)
        return result

    def _typed(self, schema: Any, depth: int) -> dict[str, Any]:
        merged, depth = self._merged(schema, depth)
        types = merged.get("type")
        if not (isinstance(types, str) or (isinstance(types, (list, tuple)) and types)):
            merged["type"] = _guessed(merged)
        return self.inside(merged, depth)

    def _merged(self, schema: Any, depth: int) -> tuple[dict[str, Any], int]:
        """A schema with what it refers to, and with the first of its alternatives that is not null."""
        self._count += 1
        if not isinstance(schema, Mapping) or depth > MOST_DEPTH or self._count > MOST_SCHEMAS:
            return {}, depth
        parts = _list(schema, "allOf")
        if isinstance(schema.get("$ref"), str):
            parts.append(self._resolved(schema["$ref"]))
            depth += 1
        options = [self._merged(option, depth)[0] for key in _OPTIONS for option in _list(schema, key)]
        wanted = [option for option in options if option.get("type") != "null"]
        result: dict[str, Any] = {}
        for part in [*(self._merged(part, depth)[0] for part in parts), *wanted[:1]]:
            result |= part
        result |= {key: value for key, value in schema.items() if key not in ("$ref", "allOf", *_OPTIONS)}
        return (result if len(wanted) == len(options) else {**result, "nullable": True}), depth

    def _resolved(self, reference: str) -> Any:
        found: Any = self._root
        for key in reference.removeprefix("#").split("/")[1:]:
            found = found.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found


def _guessed(schema: Mapping[str, Any]) -> str:
    if "properties" in schema or "items" in schema:
        return "object" if "properties" in schema else "array"
    values = _list(schema, "enum") or ([schema["const"]] if "const" in schema else [])
    return _NAMES.get(type(values[0]), ANY) if values else ANY


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    found = schema.get(key)
    return list(found) if isinstance(found, (list, tuple)) else []
