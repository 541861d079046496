"""Forty JSON schemas as programs write them: what answers of a model are held to, judged by the jsonschema package."""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string"}
SHORT: dict[str, Any] = {"type": "string", "maxLength": 12}
NUMBER: dict[str, Any] = {"type": "number"}
WHOLE: dict[str, Any] = {"type": "integer"}
FLAG: dict[str, Any] = {"type": "boolean"}
REF: dict[str, Any] = {"$ref": "#/$defs/e"}


def thing(properties: dict[str, Any], *optional: str, **more: Any) -> dict[str, Any]:
    """An object whose properties are required, but for some."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


def some(items: Any, most: int = 3, least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


MONEY = {"type": "string", "pattern": "^[0-9]{1,5}\\.[0-9]{2}$"}
DAY = {"type": "string", "format": "date"}

SCHEMAS: dict[str, dict[str, Any]] = {
    "receipt": thing(
        {
            "shop": SHORT,
            "day": DAY,
            "items": some(thing({"name": SHORT, "price": MONEY, "count": {"type": "integer", "minimum": 1}}), least=1),
            "total": MONEY,
            "currency": {"enum": ["EUR", "USD", "JPY", "GBP"]},
        }
    ),
    "invoice": thing(
        {
            "number": {"type": "string", "pattern": "^INV-[0-9]{4}$"},
            "customer": thing({"name": SHORT, "vat": {"type": ["string", "null"], "maxLength": 10}}),
            "lines": some(thing({"text": SHORT, "net": NUMBER, "rate": {"enum": [0, 7, 19]}})),
            "paid": FLAG,
        }
    ),
    "person": thing({"name": SHORT, "age": {"type": "integer", "minimum": 0, "maximum": 130}, "mail": TEXT}, "mail"),
    "address": thing(
        {"street": SHORT, "city": SHORT, "zip": {"type": "string", "pattern": "^\\d{5}(-\\d{4})?$"}, "country": SHORT},
        "country",
        additionalProperties=False,
    ),
    "weather": thing(
        {
            "place": SHORT,
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "temperature": {"type": "number", "minimum": -90, "maximum": 60},
            "wind": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 120},
        }
    ),
    "sentiment": thing({"label": {"enum": ["positive", "neutral", "negative"]}, "score": {"minimum": 0, "maximum": 1}}),
    "yes or no": thing({"answer": {"const": "yes"}, "sure": FLAG}),
    "boxes": some(thing({"label": SHORT, "box_2d": some(WHOLE, 4, 4)})),
    "point": {"type": "array", "prefixItems": [NUMBER, NUMBER], "items": False, "minItems": 2},
    "colour": {"type": "string", "enum": ["red", "green", "blue", "light blue", "blue-green"]},
    "hex": {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
    "even": {"type": "integer", "multipleOf": 2, "minimum": 10, "maximum": 98},
    "anything": {},
    "any list": {"type": "array", "items": {}, "maxItems": 2},
    "map of numbers": {"type": "object", "additionalProperties": NUMBER},
    "map by pattern": {
        "type": "object",
        "patternProperties": {"^k[0-9]$": WHOLE},
        "additionalProperties": False,
    },
    "empty object": {"type": "object", "properties": {}, "additionalProperties": False},
    "optional all": thing({"a": WHOLE, "b": SHORT, "c": FLAG}, "a", "b", "c", additionalProperties=False),
    "nullable": thing({"a": {"type": ["integer", "null"]}, "b": {"anyOf": [FLAG, {"type": "null"}]}}),
    "shapes": {
        "anyOf": [
            thing({"kind": {"const": "circle"}, "radius": NUMBER}),
            thing({"kind": {"const": "square"}, "side": NUMBER}),
            thing({"kind": {"const": "path"}, "points": some(some(NUMBER, 2, 2))}),
        ]
    },
    "commands": {
        "oneOf": [
            thing({"op": {"const": "add"}, "path": SHORT, "value": WHOLE}, additionalProperties=False),
            thing({"op": {"const": "remove"}, "path": SHORT}, additionalProperties=False),
        ]
    },
    "tree": {
        "$defs": {"node": thing({"value": WHOLE, "children": some({"$ref": "#/$defs/node"}, 2)})},
        "$ref": "#/$defs/node",
    },
    "linked list": {
        "$defs": {"cell": thing({"head": FLAG, "tail": {"anyOf": [{"$ref": "#/$defs/cell"}, {"type": "null"}]}})},
        "$ref": "#/$defs/cell",
    },
    "expression": {
        "$defs": {"e": {"anyOf": [WHOLE, thing({"op": {"enum": ["+", "*"]}, "left": REF, "right": REF})]}},
        **REF,
    },
    "pydantic": {
        "$defs": {
            "Colour": {"enum": ["red", "blue"], "title": "Colour", "type": "string"},
            "Item": {
                "properties": {
                    "colour": {"$ref": "#/$defs/Colour"},
                    "size": {"anyOf": [WHOLE, {"type": "null"}], "default": None, "title": "Size"},
                },
                "required": ["colour"],
                "title": "Item",
                "type": "object",
            },
        },
        "properties": {
            "items": {"items": {"$ref": "#/$defs/Item"}, "title": "Items", "type": "array", "maxItems": 3},
            "first": {"allOf": [{"$ref": "#/$defs/Item"}], "description": "the first one"},
        },
        "required": ["items", "first"],
        "title": "Basket",
        "type": "object",
    },
    "merged": {
        "allOf": [
            {"type": "object", "properties": {"a": WHOLE}, "required": ["a"]},
            {"type": "object", "properties": {"b": FLAG}, "required": ["b"]},
        ]
    },
    "dates": thing(
        {
            "day": DAY,
            "time": {"type": "string", "format": "time"},
            "moment": {"type": "string", "format": "date-time"},
            "id": {"type": "string", "format": "uuid"},
            "host": {"type": "string", "format": "ipv4"},
        }
    ),
    "odd keys": thing(dict.fromkeys(('"quoted"', "back\\slash", "über.größe", "<|turn>", "line\nbreak"), FLAG)),
    "odd values": {
        "enum": ["<eos>", '<|"|>', "\u0000", "日本語 🎌", "a\\b", "\t", "", None, True, 0, -1.5, [1], {"": 1}]
    },
    "two hundred keys": thing({f"key_{number:03}": FLAG for number in range(200)}),
    "five hundred choices": thing({"city": {"enum": [f"city {number}" for number in range(500)]}}),
    "deep": thing({"a": thing({"b": thing({"c": thing({"d": thing({"e": some(thing({"f": FLAG}), 2)})})})})}),
    "bounds of text": thing({"one": {**SHORT, "minLength": 1, "maxLength": 1}, "few": {**SHORT, "minLength": 2}}),
    "chat turns": some(thing({"role": {"enum": ["user", "assistant"]}, "content": SHORT}), 3, 1),
    "geojson": thing(
        {
            "type": {"const": "Feature"},
            "geometry": thing({"type": {"const": "Point"}, "coordinates": some(NUMBER, 3, 2)}),
            "properties": {"type": "object", "additionalProperties": SHORT},
        }
    ),
    "package": thing(
        {
            "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,20}$"},
            "version": {"type": "string", "pattern": "^(0|[1-9]\\d?)\\.(0|[1-9]\\d?)\\.(0|[1-9]\\d?)$"},
            "private": FLAG,
            "dependencies": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^\\^[0-9]$"}},
        },
        "dependencies",
    ),
    "function call": thing(
        {
            "name": {"enum": ["set_light", "play"]},
            "arguments": {"anyOf": [thing({"room": SHORT, "on": FLAG}), thing({"song": SHORT})]},
        }
    ),
    "steps": thing({"steps": some(thing({"why": SHORT, "result": SHORT}), 3, 1), "answer": NUMBER}),
    "table": some(some({"type": ["string", "number", "boolean", "null"], "maxLength": 8}, 3, 3), 3, 1),
    "long texts": thing({"title": TEXT, "summary": TEXT, "tags": {"type": "array", "items": TEXT}}),
}
