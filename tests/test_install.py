"""What pip is told before it installs."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "setup.py"


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS's own python3 is named, and what to use instead; pip would complain about a dependency."""
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SETUP))
    assert stopped.value.code == "mlx-gemma4 needs Python 3.10 or newer, this is 3.9. Make the venv with python3.12."
