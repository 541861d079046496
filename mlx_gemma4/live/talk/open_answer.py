"""An answer that is being generated, with the functions that it calls. Knows nothing of the question.

model's turn   On it.<|tool_call>lights{…}   <|tool_response>…   Done.
              └ next(), piece by piece ──┘└ waits ┘└ resume() ┘└ next()
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.live.talk.events import Answered
from mlx_gemma4.outputs.generate import GenerationResponse
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.session import Session

Responses = Generator[GenerationResponse, None, None]


class OpenAnswer:
    """An answer, piece by piece.

    Attributes:
        reason: Why it ended (``Answered``).
        tokens: Without the one that ended it; placeholders of results of functions are among them.
        calls: The calls since the answer last continued; ``results``: their results, by the calls' ids.
        rounds: How often the answer continued after results.
        waits: Whether results are missing.
    """

    def __init__(
        self,
        responses: Responses,
        session: Session,
        clock: Callable[[], float],
        read: Callable[[str], list[ToolCall]],
    ) -> None:
        self.reason = "interrupted"  # until it ends by itself
        self._parts: list[Prompt] = []
        """The answer up to the last results."""
        self._said: list[int] = []
        """The tokens behind them."""
        self.calls: list[ToolCall] = []
        self.results: dict[str, Prompt] = {}
        self.rounds = 0
        self.waits = False
        self._responses, self._session, self._clock, self._read = responses, session, clock, read
        self._decided, self._forwards_before = clock(), session.forwards
        self._text, self._delay, self._forwards = "", 0.0, 0
        self._started = self._is_cut = False

    @property
    def sequence(self) -> Prompt:
        """The answer with the results of functions, as the session holds it."""
        return join([*self._parts, Prompt.from_tokens(self._said)])

    @property
    def tokens(self) -> list[int]:
        tokens: list[int] = self.sequence.token_ids.tolist()
        return tokens

    @property
    def pending(self) -> list[ToolCall]:
        """Calls without a result."""
        return [call for call in self.calls if call.id not in self.results]

    def next(self) -> str | None:
        """The next piece of text, perhaps empty; None when the answer is complete or waits. Calls are never text."""
        response = next(self._responses, None)
        if response is None:
            self.waits = bool(self.calls) and not self._is_cut
            return None
        if not self._started:
            self._delay = self._clock() - self._decided
            self._forwards = self._session.forwards - self._forwards_before
            self._started = True
        ended = response.finish_reason == "stop"
        self._said += response.tokens[:-1] if ended else response.tokens
        self.reason = response.finish_reason or self.reason
        if response.kind == "tool_call":
            self._is_cut = response.finish_reason in ("length", "loop")  # a call that was cut short cannot be run
            self.calls += self._read(response.text)
            return ""
        self._text += response.text
        return response.text

    def joined_results(self) -> Prompt:
        """The results of all calls, in the order of the calls."""
        return join([self.results[call.id] for call in self.calls])

    def resume(self, responses: Responses) -> None:
        """Continue after the results; ``responses`` begins with them."""
        self._parts += [Prompt.from_tokens(self._said), self.joined_results()]
        self._said = []
        self._responses, self.calls, self.results, self.waits = responses, [], {}, False
        self.reason = "interrupted"
        self.rounds += 1

    def close(self) -> None:
        self._responses.close()

    def event(self) -> Answered:
        """The event of its end."""
        return Answered(self._text, self.reason, len(self.tokens), self._delay, self._forwards)
