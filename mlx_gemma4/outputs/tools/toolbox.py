"""Loads functions that a model may call, from a Python file that defines them or a JSON file that declares them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.declarations import read_tools
from mlx_gemma4.outputs.tools.execution import run
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.outputs.tools.signature import function_schema
from mlx_gemma4.outputs.tools.sources import Tools, unknown

TIME_LIMIT = 30.0
"""Seconds that a function may take."""
MAX_TIME_LIMIT = 86_400.0
"""Seconds: a day."""
MODULE = "mlx_gemma4_tools"
"""The name under which the user's file is imported."""


def load_tools(path: str | os.PathLike[str], *, time_limit: float = TIME_LIMIT) -> Tools:
    """Load the functions of a Python file (``.py``), or the declarations of a JSON file (any other suffix).

    Raises:
        ValueError: The file cannot be read, or has no functions.
    """
    if Path(path).suffix.lower() == ".py":
        return Toolbox(path, time_limit=time_limit)
    return Declarations(path)


class Declarations:
    """Functions that a JSON file declares. This package shows their calls; another program may run them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.source = os.fspath(path)
        self.schemas = read_tools(path)

    def runs(self, name: str) -> bool:
        return False

    def call(self, call: ToolCall) -> ToolResult:
        return ToolResult.error(f"{call.name} is not available: nothing here can run it")

    def close(self) -> None: ...


class Toolbox:
    """The functions of a Python file without a leading underscore.

    Args:
        path: The file. It is executed; what it prints goes to stderr.
        time_limit: Seconds that a function may take.

    Raises:
        ValueError: The file does not exist, fails, or has no functions; or a function lacks a docstring or a type
            (``function_schema``).
    """

    def __init__(self, path: str | os.PathLike[str], *, time_limit: float = TIME_LIMIT) -> None:
        if not 0 < time_limit <= MAX_TIME_LIMIT:
            raise ValueError(
                f"The time limit of tools must be more than 0 and at most {MAX_TIME_LIMIT:g} seconds, "
                f"got {time_limit:g}"
            )
        self.source = os.fspath(path)
        self._time_limit = time_limit
        module = _load(Path(path))
        self._functions: dict[str, Callable[..., Any]] = {
            name: value for name, value in vars(module).items() if not name.startswith("_") and _is_own(value, module)
        }
        if not self._functions:
            raise ValueError(f"{path} defines no functions without a leading underscore")
        self.schemas = [function_schema(name, function) for name, function in self._functions.items()]

    def runs(self, name: str) -> bool:
        return name in self._functions

    def call(self, call: ToolCall) -> ToolResult:
        function = self._functions.get(call.name)
        if function is None:
            return unknown(call.name, list(self._functions))
        return run(function, call.arguments, self._time_limit)

    def close(self) -> None: ...


def _is_own(value: Any, module: ModuleType) -> bool:
    """Whether the file defines this function, perhaps decorated, and does not import it."""
    is_function = inspect.isfunction(value) or (callable(value) and hasattr(value, "__wrapped__"))
    return is_function and getattr(value, "__module__", None) == module.__name__


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"There is no Python file of functions at {path}")
    spec = spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file; its name must end in .py")
    module = module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses look up their module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # for imports of files beside it; last, so that installed packages come first
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # from the user's file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"The Python file of functions fails: {path} raises {reason}") from error
    return module
