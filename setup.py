"""Names the Python that is needed, before pip looks for dependencies. All else is in pyproject.toml."""

import sys

from setuptools import setup

# macOS's own python3 is 3.9, and there pip would complain about a dependency
if sys.version_info < (3, 10):  # noqa: UP036
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"mlx-gemma4 needs Python 3.10 or newer, this is {found}. Make the venv with python3.12.")

setup()
