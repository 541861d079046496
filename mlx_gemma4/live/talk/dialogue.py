"""A conversation in one bounded session: turns that are over, and the user's turn that is open, piece by piece.

The sequence holds ``context`` positions at most. When the next turn might not fit, the oldest turns leave, whole, until
at most half of it is held; the rest is computed anew, exactly as a fresh session would.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.live.talk.turns import Turns
from mlx_gemma4.session import Session


class Dialogue:
    """What was said, and what is being said.

    Args:
        context: Positions, at most.
        turn: Positions of the longest turn, its answer included.
        room: Positions that can be taken back.

    Raises:
        ValueError: There is no room for a single turn.
    """

    def __init__(self, model: Model, turns: Turns, *, context: int, turn: int, room: int) -> None:
        least = len(turns.opening) + turn
        if context < least:
            raise ValueError(
                f"Expected a context of {least} positions or more, for a picture, an utterance and an answer, "
                f"got {context}"
            )
        self.session = Session(model, room=room)
        self.content: list[Prompt] = []
        """The open turn, in pieces."""
        self._turns, self._context, self._turn = turns, context, turn
        self._finished: list[Prompt] = []
        self._waiting = [turns.opening]
        self._start = len(turns.opening)
        self.compute()

    @property
    def sequence(self) -> Prompt:
        """All of it as one prompt, up to the end of the open turn."""
        return join([self._turns.opening, *self._finished, *self.content])

    @property
    def left(self) -> int:
        """Positions that the context has left."""
        return self._context - self.session.position

    def put(self, piece: Prompt) -> None:
        """Say something in the open turn; it waits to be computed."""
        self.content.append(piece)
        self._waiting.append(piece)

    def compute(self) -> None:
        """Compute all that waits, in one go."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.session.extend(join(waiting))

    def restart(self) -> None:
        """Take back all of the open turn."""
        self.compute()
        self._rewind(self._start, self.sequence)
        self.content = []

    def trim(self, count: int) -> None:
        """Take back the last ``count`` positions of the open turn."""
        self.session.rewind(self.session.position - count)
        while count > 0:
            last = self.content.pop()
            if len(last) > count:
                self.content.append(last[: len(last) - count])
            count -= len(last)

    def drop_pictures(self) -> None:
        """Take the pictures out of the open turn; what stands behind them waits to be computed anew."""
        kept = [piece for piece in self.content if not len(piece.patches)]
        if len(kept) < len(self.content):
            self.restart()
            for piece in kept:
                self.put(piece)

    def question(self) -> Prompt:
        """What is left to compute before the answer: all that waits, and the end of the turn."""
        waiting, self._waiting = self._waiting, []
        return join([*waiting, self._turns.closing])

    def reopen(self) -> None:
        """Take back the end of the turn, and the answer; what an answer was yet to compute waits again."""
        content = join(self.content)
        held = min(len(content), self.session.position - self._start)
        self._rewind(self._start + held, self.sequence)
        self._waiting = [content[held:]] if held < len(content) else []

    def finish(self, answer: Sequence[int]) -> int:
        """End the turn with the answer's tokens and begin the next; how many turns had to leave for it."""
        content = join(self.content)
        turn = self._turns.finished(content, answer)
        kept = min(self._alike(len(content), len(answer)), self.session.position - self._start)
        self._rewind(self._start + kept, join([self._turns.opening, *self._finished, turn]))
        self._waiting = [turn[kept:]]
        self._finished.append(turn)
        self._start += len(turn)
        self.content = []
        return self._forget()

    def _alike(self, content: int, answer: int) -> int:
        """How much of a turn is in the cache as it is to stay there: templates may drop a thought's place."""
        closing, resumed = self._turns.closing, self._turns.resumed
        if len(closing) == len(resumed) == closing.common_prefix(resumed):
            return content + len(closing) + answer
        return content

    def _rewind(self, position: int, sequence: Prompt) -> None:
        """Go back to a position; where that is out of reach, as behind long results of functions, compute anew."""
        if position >= self.session.earliest:
            self.session.rewind(position)
        else:
            self.session.reset()
            self.session.extend(sequence[:position])

    def _forget(self) -> int:
        if self._start + self._turn <= self._context:
            return 0
        before = len(self._finished)
        while self._finished and self._start > self._context // 2:
            self._start -= len(self._finished.pop(0))
        self.session.reset()
        self._waiting = [self._turns.opening, *self._finished]
        return before - len(self._finished)
