"""Reads declarations of tools from a JSON file, in the form of OpenAI, Anthropic or MCP, for chat templates."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORM = '[{"name": …, "description": …, "parameters": {…}}, …]'
PARAMETERS = ("parameters", "input_schema", "inputSchema")
"""The key of the arguments' schema in declarations of OpenAI, Anthropic and MCP."""
MAX_DEPTH = 32
"""Schemas inside each other."""
SCHEMAS = ("properties", "$defs", "definitions")


def read_tools(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read ``[schema, …]``, ``{"tools": [schema, …]}`` or one schema.

    A schema is ``{"type": "function", "function": {"name": …}}``, or the inner object alone.

    Raises:
        ValueError: The file cannot be read, or a declaration is wrong. The message names the file and the place.
    """
    content = _read(Path(path))
    listed = content.get("tools", content) if isinstance(content, Mapping) else content
    listed = [listed] if isinstance(listed, Mapping) else listed
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"There are no tools in {path}: it must hold {FORM}")
    return check_declarations(listed, str(path))


def check_declarations(listed: Sequence[Any], where: str) -> list[dict[str, Any]]:
    """Declarations of tools in one form: ``{"type": "function", "function": {"name": …, "parameters": …}}``.

    Args:
        where: Where they are from, for messages.

    Raises:
        ValueError: A declaration is wrong; the message names the place.
    """
    tools = [_tool(item, f"tool {number} in {where}") for number, item in enumerate(listed, 1)]
    names = [tool["function"]["name"] for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two tools in {where} are called {twice[0]}: give each a name of its own")
    return tools


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ValueError(f"There is no JSON file of tools at {path}") from error
    except OSError as error:
        raise ValueError(f"The tools in {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _tool(item: Any, where: str) -> dict[str, Any]:
    function = item.get("function", item) if isinstance(item, Mapping) else item
    if not isinstance(function, Mapping):
        raise ValueError(f"{where} is not an object; the file must hold {FORM}")
    name, description = function.get("name"), function.get("description") or ""
    if (
        not isinstance(name, str)
        or not name
        or any(character in " \t\r\n{}<>|" or not character.isprintable() for character in name)
    ):
        raise ValueError(f'{where} needs a "name" without spaces, braces and <|>, got {name!r}')
    if not isinstance(description, str):
        raise ValueError(f'"description" of {where} must be text, got {description!r}')
    schema: Any = next((function[key] for key in PARAMETERS if function.get(key) is not None), {})
    _check(schema, f"the parameters of {where}", 0)
    parameters = {"type": "object", "properties": {}, **schema}
    return {"type": "function", "function": {**_others(function), "description": description, "parameters": parameters}}


def _others(function: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in function.items() if key not in PARAMETERS}


def _check(schema: Any, where: str, depth: int) -> None:
    """Check that a schema has the types on which templates and ``fit_arguments`` rely."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{where} are nested more than {MAX_DEPTH} deep")
    if not isinstance(schema, Mapping):
        raise ValueError(f"{where} must be an object, got {schema!r}")
    kind = schema.get("type", "object")
    if not (isinstance(kind, str) or (isinstance(kind, list) and kind and all(isinstance(name, str) for name in kind))):
        raise ValueError(f'"type" in {where} must be text or a list of texts, got {kind!r}')
    for key in ("required", "enum", "anyOf", "oneOf", "allOf"):
        if not isinstance(schema.get(key, []), list):
            raise ValueError(f'"{key}" in {where} must be a list, got {schema[key]!r}')
    if not all(isinstance(key, str) for key in schema.get("required", [])):
        raise ValueError(f'"required" in {where} must be a list of texts, got {schema["required"]!r}')
    for key in SCHEMAS:
        if not isinstance(schema.get(key, {}), Mapping):
            raise ValueError(f'"{key}" in {where} must be an object, got {schema[key]!r}')
    inner = [inner_schema for key in SCHEMAS for inner_schema in schema.get(key, {}).values()]
    inner += [inner_schema for key in ("anyOf", "oneOf", "allOf") for inner_schema in schema.get(key, [])]
    inner += [schema[key] for key in ("items", "additionalProperties") if not isinstance(schema.get(key, True), bool)]
    for inner_schema in inner:
        _check(inner_schema, where, depth + 1)
