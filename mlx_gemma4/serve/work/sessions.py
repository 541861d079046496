"""Where requests get their sessions from."""

from __future__ import annotations

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.session import MIN_ROOM, Session


class Sessions:
    """Opens a session for each request. Belongs to the engine's thread."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def open(self, prompt: Prompt) -> tuple[Session, int]:
        """A session for a prompt, and how many positions of the prompt it holds already."""
        return Session(self._model, room=MIN_ROOM), 0
