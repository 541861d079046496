"""Any exception as the error that a client sees."""

from __future__ import annotations

import sys
import traceback

from starlette.exceptions import HTTPException

from mlx_gemma4.decoder.budget import MemoryFull
from mlx_gemma4.serve.engine import Busy
from mlx_gemma4.serve.protocols.failure import KINDS, Failure

FRAMES = 6
"""Places of an unexpected error that are noted."""


def failure_of(error: BaseException) -> Failure:
    """The Failure that an exception is to a client.

    An unexpected one is noted on stderr by its type and place alone: its message may hold what a user wrote.
    """
    if isinstance(error, Failure):
        return error
    if isinstance(error, Busy):
        return Failure(503, str(error), code="server_overloaded")
    if isinstance(error, MemoryFull):
        return Failure(503, str(error), code="memory_full")
    if isinstance(error, HTTPException):
        return Failure(error.status_code if error.status_code in KINDS else 400, str(error.detail))
    frames = reversed(traceback.extract_tb(error.__traceback__)[-FRAMES:])
    places = ", from ".join(f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in frames)
    print(f"A request failed with {type(error).__name__} in {places}", file=sys.stderr, flush=True)
    return Failure(
        500, f"The server failed with {type(error).__name__}; its terminal says where", code="internal_error"
    )
