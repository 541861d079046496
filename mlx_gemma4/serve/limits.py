"""What one request may cost."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of requests. What is beyond them is refused with a clear message, or cut where the protocol can say so."""

    context: int | None = None
    """Positions of a session: a prompt and its answer; None: what the model has memory for."""
    answer_tokens: int = 8192
    """Tokens of an answer whose request has no limit of its own."""
    stop_loops: bool = True
    """Whether an answer that repeats itself is ended."""
    body: int = 64 * MB
    """Bytes of a JSON body, media included."""
    upload: int = 2000 * MB
    """Bytes of an uploaded recording. It goes to a temporary file."""
    media: int = 64
    """Pictures, sounds and videos of a request."""
    sound_seconds: float = 24 * 3600.0
    """Seconds of an uploaded recording."""
    idle: float = 60.0
    """Seconds in which a client must send or take the next bytes."""
    fetch: float = 20.0
    """Seconds in which a picture, sound or video must arrive that the server fetches."""
    session_idle: float = 600.0
    """Seconds after which a Realtime session ends if its client says nothing."""
