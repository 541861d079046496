"""Where a checkpoint keeps its chat templates: in files of their own, or inside one of its JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import has_file, read_bytes
from mlx_gemma4.checkpoint.json_file import read_json, shown

DEFAULT, TOOL_USE = "default", "tool_use"
"""The templates that are used: for chats with tools the second, if it exists."""

MOST_BYTES = 2**20
"""Bytes of a template."""
FILE = "chat_template.jinja"
ADDITIONAL = "additional_chat_templates"
"""The folder of templates with other names."""
TABLES = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
"""Where older exports keep them, in order of preference."""


def read_templates(folder: Path) -> dict[str, str]:
    """The chat templates of a checkpoint by name, if it has any.

    Raises:
        ValueError: A template is not text, or a list of templates is not one of names with templates.
    """
    others = {name: folder / ADDITIONAL / f"{name}.jinja" for name in (DEFAULT, TOOL_USE)}
    templates = {name: _read(path, folder) for name, path in others.items() if has_file(path, folder)}
    if has_file(folder / FILE):
        templates[DEFAULT] = _read(folder / FILE, folder)
    if templates:
        return templates
    for name in TABLES:
        held = read_json(folder / name).get("chat_template") if has_file(folder / name) else None
        if held is not None:
            return _named(held, folder / name)
    return {}


def _read(path: Path, folder: Path) -> str:
    try:
        return read_bytes(path, MOST_BYTES, folder).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"The chat template in {path} is not UTF-8: {error}") from error


def _named(held: Any, path: Path) -> dict[str, str]:
    """One template; an object of them by name; or a list of objects with a name and a template."""
    if isinstance(held, str):
        held = {DEFAULT: held}
    elif isinstance(held, list) and all(isinstance(each, dict) for each in held):
        held = {each.get("name"): each.get("template") for each in held}
    if not isinstance(held, Mapping) or not all(isinstance(each, str) for pair in held.items() for each in pair):
        raise ValueError(f"Expected a chat template, or a list of named ones, in {path}, got {shown(held)}")
    return dict(held)
