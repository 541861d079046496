"""What of the declared functions calls are not held to: keywords of JSON schemas that their grammar does not express.

Whoever declares a function hears of them, since the arguments may be wrong in this respect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_gemma4.outputs.grammar.values import FORMATS, read_pattern
from mlx_gemma4.outputs.tools.schema import declared_types

_KEYWORDS = frozenset(
    (
        *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"),
        *("patternProperties", "propertyNames", "minProperties", "maxProperties", "unevaluatedProperties"),
        *(
            "prefixItems",
            "additionalItems",
            "unevaluatedItems",
            "uniqueItems",
            "contains",
            "minContains",
            "maxContains",
        ),
        *("$dynamicRef", "$recursiveRef"),
    )
)
_MAPS, _LISTS, _SINGLE = (
    ("properties", "$defs", "definitions"),
    ("anyOf", "oneOf", "allOf"),
    ("items", "additionalProperties"),
)


def unheld(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """``keyword of function`` for each, in order and once."""
    found = (
        f"{keyword} of {tool['function']['name']}"
        for tool in tools
        for schema in _schemas(tool["function"].get("parameters"))
        for keyword in _of(schema)
    )
    return list(dict.fromkeys(found))


def _of(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (key for key in schema if key in _KEYWORDS)
    if isinstance(form := schema.get("format"), str) and form not in FORMATS and "string" in declared_types(schema):
        yield f"format {form}"
    if isinstance(pattern := schema.get("pattern"), str) and read_pattern(pattern) is None:
        yield "pattern"
    if isinstance(parts := schema.get("allOf"), list) and (len(parts) > 1 or "type" in schema):
        yield "allOf"
    if isinstance(reference := schema.get("$ref"), str) and not reference.startswith("#"):
        yield "$ref"
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, Mapping) and isinstance(required, list) and not properties.keys() >= set(required):
        yield "required"
    if "type" in schema and not declared_types(schema):
        yield "type"


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and those inside it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    inner = [schema.get(key) for key in _SINGLE]
    for key in _MAPS:
        inner += schema[key].values() if isinstance(schema.get(key), Mapping) else ()
    for key in _LISTS:
        inner += schema[key] if isinstance(schema.get(key), list) else ()
    for each in inner:
        yield from _schemas(each)
