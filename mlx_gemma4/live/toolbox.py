"""Functions that a model may call: read from a Python file, described by their signatures, called by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
"""Types of arguments, and what JSON schemas call them."""


class Toolbox:
    """The public functions that a Python file defines.

    Args:
        path: The file. It is executed.

    Raises:
        ValueError: No such file, no functions in it, or one that cannot be described: it needs a docstring, and each
            of its arguments a type of TYPES.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        module = _load(Path(path))
        self._functions: dict[str, Callable[..., Any]] = {
            name: value
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
        if not self._functions:
            raise ValueError(f"Expected functions in {path}, it defines none without a leading underscore")
        self.schemas = [_schema(name, function) for name, function in self._functions.items()]
        """As chat templates take them."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a function gives back, as text; an error's text where it raises one, for the model to read."""
        function = self._functions.get(name)
        if function is None:
            return f"error: there is no function {name}, only {', '.join(self._functions)}"
        try:
            return str(function(**arguments))
        except Exception as error:  # of the user's function, or arguments that it does not take
            return f"error: {type(error).__name__}: {error}"


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"Expected a Python file of functions, found none at {path}")
    spec = spec_from_file_location("mlx_gemma4_tools", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file (.py) of functions, got {path}")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of a program of the user's
        raise ValueError(f"Expected a Python file that runs, {path} raises {type(error).__name__}: {error}") from error
    return module


def _schema(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    described = inspect.getdoc(function)
    if not described:
        raise ValueError(f"Expected a docstring that tells what {name} does, found none")
    hints = get_type_hints(function)
    properties, required = {}, []
    for argument, parameter in inspect.signature(function).parameters.items():
        kind = TYPES.get(hints.get(argument))
        if kind is None or parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(
                f"Expected a type for {argument} of {name} ({', '.join(each.__name__ for each in TYPES)}), "
                f"got {parameter}"
            )
        properties[argument] = {"type": kind}
        if parameter.default is parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": described, "parameters": parameters}}
