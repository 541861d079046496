"""An answer that is being given, with the functions that are called in it. Knows nothing of what was asked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from mlx_gemma4.generation import GenerationResponse
from mlx_gemma4.live.assistant_events import Answered
from mlx_gemma4.prompt import Prompt, join
from mlx_gemma4.session import Session

Responses = Generator[GenerationResponse, None, None]


class OpenAnswer:
    """An answer, piece by piece.

    Attributes:
        reason: Why it ended (``Answered``).
        tokens: Without those that ended it; what called functions gave back is among them.
        called: Functions that have given nothing back yet; ``replies``: what others have.
        waits: For what they give back.
    """

    def __init__(self, responses: Responses, session: Session, clock: Callable[[], float]) -> None:
        self.reason = "stop"
        self.tokens: list[int] = []
        self.called: list[dict[str, Any]] = []
        self.replies: list[Prompt] = []
        self.waits = False
        self._responses, self._session, self._clock = responses, session, clock
        self._decided, self._before = clock(), session.forwards
        self._text, self._delay, self._forwards = "", 0.0, 0
        self._started = False

    def next(self) -> str | None:
        """The next piece, perhaps empty; None when it is over, or waits. A call that cannot be read is text."""
        response = next(self._responses, None)
        if response is None:
            self.waits = bool(self.called)
            return None
        if not self._started:
            self._delay, self._forwards = self._clock() - self._decided, self._session.forwards - self._before
            self._started = True
        ended = response.finish_reason == "stop"
        self.tokens += response.tokens[:-1] if ended else response.tokens
        self.reason = response.finish_reason or self.reason
        text = response.text
        if response.kind == "tool_call" and self._call(response):
            text = ""
        self._text += text
        return text

    def _call(self, response: GenerationResponse) -> bool:
        try:
            self.called += response.tool_calls
        except ValueError:  # cut short, or no call at all
            return False
        return True

    def resume(self, responses: Responses) -> None:
        """Go on behind the replies, which ``responses`` begins with."""
        self.tokens += join(self.replies).token_ids.tolist()
        self._responses, self.replies, self.waits = responses, [], False

    def close(self) -> None:
        self._responses.close()

    def over(self) -> Answered:
        return Answered(self._text, self.reason, len(self.tokens), self._delay, self._forwards)
