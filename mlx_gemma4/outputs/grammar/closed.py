"""Closes the objects of a JSON schema: without it, a model may invent keys for ever where few are declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MERGED = ("allOf", "anyOf", "oneOf", "$ref")
"""Keywords whose schemas are merged with the one beside them."""
OPEN = ("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames", "minProperties")
"""Keywords that say which other keys an object may have."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, but where an object declares its properties and says nothing of others, there are no others.

    What it allows is allowed by the schema, too. A schema that merges objects stays as it is: each of them may declare
    what the others do not.
    """
    if any(map(_merges, _all(schema))):
        return schema
    closed_schema: Mapping[str, Any] = _closed(schema)
    return closed_schema


def _merges(schema: Mapping[str, Any]) -> bool:
    parts = schema.get("allOf")
    several = isinstance(parts, list) and len(parts) > 1
    return several or ("properties" in schema and any(key in schema for key in MERGED))


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for key in _MAPS:
        if isinstance(schema.get(key), Mapping):
            result[key] = {name: _closed(inner) for name, inner in schema[key].items()}
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            result[key] = [_closed(inner) for inner in schema[key]]
    for key in _SINGLE:
        if key in schema:
            result[key] = _closed(schema[key])
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and not any(key in schema for key in OPEN):
        required = schema.get("required")
        if set(required if isinstance(required, list) else ()) <= properties.keys():
            result["additionalProperties"] = False
    return result


def _all(schema: Any) -> Iterator[Mapping[str, Any]]:
    """A schema and those inside it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key in _MAPS:
        for inner in schema[key].values() if isinstance(schema.get(key), Mapping) else ():
            yield from _all(inner)
    for key in _LISTS:
        for inner in schema[key] if isinstance(schema.get(key), list) else ():
            yield from _all(inner)
    for key in _SINGLE:
        yield from _all(schema.get(key))
