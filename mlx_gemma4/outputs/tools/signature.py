"""Describes a Python function as a JSON schema for chat templates, from its docstring and its types."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
"""Python types of arguments, and their names in JSON schemas."""


def function_schema(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Describe a function.

    Arguments may be of TYPES, ``list[T]``, ``dict[str, T]``, ``Literal``, ``T | None`` and other unions, and
    ``Annotated`` with a description. Those with a default are optional.

    Raises:
        ValueError: There is no docstring, an argument has no such type, or the function is a generator.
    """
    description = inspect.getdoc(function)
    if not description:
        raise ValueError(f"{name} has no docstring; write one that says what it does")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"{name} is a generator function, which cannot be a tool; return a list instead of yielding")
    hints = _hints(name, function)
    properties, required = {}, []
    for argument, parameter in inspect.signature(function).parameters.items():
        schema = _schema(hints.get(argument))
        if schema is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(
                f"The argument {parameter} of {name} has no type that a tool can have; "
                f"use {', '.join(known.__name__ for known in TYPES)}"
            )
        properties[argument] = schema
        if parameter.default is parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments. The type of the result is not needed, and may not resolve."""
    original = inspect.unwrap(function)
    try:
        annotations = {key: hint for key, hint in original.__annotations__.items() if key != "return"}
        holder = types.SimpleNamespace(__annotations__=annotations)
        return get_type_hints(holder, getattr(original, "__globals__", {}), include_extras=True)
    except Exception as error:  # annotations are the user's code
        raise ValueError(f"The types of the arguments of {name} cannot be read: {error}") from error


def _schema(hint: Any) -> dict[str, Any] | None:
    """The schema of a type, or None where there is none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is None:
        return {"type": TYPES[hint]} if isinstance(hint, type) and hint in TYPES else None
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if origin is Literal:
        return _literal(arguments)
    if origin is Union or origin is types.UnionType:
        return _union(arguments)
    if origin is list:
        return _containing("array", "items", arguments[0])
    if origin is dict and arguments[0] is str:
        return _containing("object", "additionalProperties", arguments[1])
    return None


def _annotated(hint: Any, notes: tuple[Any, ...]) -> dict[str, Any] | None:
    schema = _schema(hint)
    described = next((note for note in notes if isinstance(note, str)), None)
    return schema if schema is None or described is None else {**schema, "description": described}


def _literal(choices: tuple[Any, ...]) -> dict[str, Any] | None:
    values = [choice for choice in choices if choice is not None]
    names = list(dict.fromkeys(TYPES.get(type(value), "") for value in values))
    if not values or "" in names:
        return None
    schema: dict[str, Any] = {"type": names[0] if len(names) == 1 else names, "enum": values}
    return schema if len(values) == len(choices) else {**schema, "nullable": True}


def _union(hints: tuple[Any, ...]) -> dict[str, Any] | None:
    """One schema with several types: old chat templates do not know ``anyOf``."""
    parts = [_schema(hint) for hint in hints if hint is not type(None)]
    merged: dict[str, Any] = {}
    names: list[str] = []
    for part in parts:
        if part is None or not isinstance(part["type"], str) or merged.keys() & part.keys() - {"type"}:
            return None
        merged |= part
        names.append(part["type"])
    if len(set(names)) < len(names) or ("enum" in merged and len(parts) > 1):
        return None
    merged["type"] = names[0] if len(names) == 1 else names
    return merged if len(parts) == len(hints) else {**merged, "nullable": True}


def _containing(kind: str, key: str, hint: Any) -> dict[str, Any] | None:
    inner = _schema(hint)
    return None if inner is None else {"type": kind, key: inner}
