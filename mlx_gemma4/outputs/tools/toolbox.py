"""Functions that a model may call: a Python file that runs them, or a JSON file that only declares them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from mlx_gemma4.outputs.tools.declarations import read_tools
from mlx_gemma4.outputs.tools.execution import run
from mlx_gemma4.outputs.tools.signature import function_schema

TIME_LIMIT = 30.0
"""Seconds that a function may take."""
MAX_TIME_LIMIT = 86_400.0
MODULE = "mlx_gemma4_tools"


class Tools(Protocol):
    """What a model may call."""

    schemas: list[dict[str, Any]]
    """As chat templates take them."""
    runs: bool
    """False where functions are only declared."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """A function's result as text, for the model to read; a failure too."""


def load_tools(path: str | os.PathLike[str], *, time_limit: float = TIME_LIMIT) -> Tools:
    """The functions of a Python file (``.py``), or the declarations of a JSON file (any other).

    Raises:
        ValueError: The file cannot be read, or declares nothing.
    """
    if Path(path).suffix.lower() == ".py":
        return Toolbox(path, time_limit=time_limit)
    return Declarations(path)


class Declarations:
    """Functions that a JSON file declares. A program around this one may run them; here they are only shown."""

    runs = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.schemas = read_tools(path)

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        return f"error: {name} is not available: it is declared, and nothing here can run it"


class Toolbox:
    """The public functions that a Python file defines.

    Args:
        path: The file. It is executed; what it prints goes to stderr.
        time_limit: Seconds that a function may take.

    Raises:
        ValueError: No such file, no functions in it, or one that cannot be described: it needs a docstring, and each
            of its arguments a type (``function_schema``).
    """

    runs = True

    def __init__(self, path: str | os.PathLike[str], *, time_limit: float = TIME_LIMIT) -> None:
        if not 0 < time_limit <= MAX_TIME_LIMIT:
            raise ValueError(
                f"The time limit of tools must be more than 0 and at most {MAX_TIME_LIMIT:g} seconds, "
                f"got {time_limit:g}"
            )
        self._time_limit = time_limit
        module = _load(Path(path))
        self._functions: dict[str, Callable[..., Any]] = {
            name: value for name, value in vars(module).items() if not name.startswith("_") and _is_own(value, module)
        }
        if not self._functions:
            raise ValueError(f"There are no functions in {path}: it defines none without a leading underscore")
        self.schemas = [function_schema(name, function) for name, function in self._functions.items()]

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a function gives back, as text; where it fails, an error's text."""
        function = self._functions.get(name)
        if function is None:
            return f"error: there is no function {name}, only {', '.join(self._functions)}"
        return run(function, arguments, self._time_limit)


def _is_own(value: Any, module: ModuleType) -> bool:
    """A function of the file, perhaps in a decorator's wrapping; not one that it imports."""
    is_function = inspect.isfunction(value) or (callable(value) and hasattr(value, "__wrapped__"))
    return is_function and getattr(value, "__module__", None) == module.__name__


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"There is no Python file of functions at {path}")
    spec = spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"Expected a Python file (.py) of functions, got {path}")
    module = module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses look their module up
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # for what lies beside it; behind everything that is installed
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # of a program of the user's
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"The Python file of functions fails: {path} raises {told}") from error
    return module
