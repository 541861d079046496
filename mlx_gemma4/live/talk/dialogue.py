"""A conversation in one session of bounded length: finished turns, and the user's open turn.

    ┌ opening ┬ turn 1 ┬ turn 2 ┬ … ┬ open turn: picture │ sound … ┐
    │ system  │ question, answer    │ ``content``, in pieces       │        ≤ ``context`` positions
    └─────────┴─────────────────────┴──────────────────────────────┘
              ▲                     ▲ ``_start``: a new picture rewinds to here, before anybody speaks
              └ when the longest possible turn might not fit, the oldest turns leave, whole,
                until at most half of the context is used

After that the remaining turns are computed again, exactly as a new session would compute them. The opening, which has
not moved, stays.
"""

from __future__ import annotations

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.live.talk.turns import Turns
from mlx_gemma4.session import Session


class Dialogue:
    """The turns of a conversation in a session.

    Args:
        context: Positions of the sequence, at most.
        turn: Positions of the longest possible turn, including its answer.
        room: Positions that can be rewound.

    Raises:
        ValueError: A single turn does not fit into ``context``.
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
        self.session.snapshot()  # the opening serves again when the oldest turns leave

    @property
    def sequence(self) -> Prompt:
        """The whole sequence as one prompt, up to the end of the open turn."""
        return join([self._turns.opening, *self._finished, *self.content])

    @property
    def left(self) -> int:
        """Positions left in the context."""
        return self._context - self.session.position

    def put(self, piece: Prompt) -> None:
        """Append a piece to the open turn; ``compute`` computes it."""
        self.content.append(piece)
        self._waiting.append(piece)

    def compute(self) -> None:
        """Compute all waiting pieces in one forward."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.session.extend(join(waiting))

    def restart(self) -> None:
        """Empty the open turn."""
        self.compute()
        self._rewind(self._start, self.sequence)
        self.content = []

    def trim(self, count: int) -> None:
        """Remove the last ``count`` positions of the open turn, computed or not."""
        while count > 0:
            last = self.content.pop()
            if len(last) > count:
                self.content.append(last[: len(last) - count])
            count -= len(last)
        self.reopen()

    def drop_pictures(self) -> None:
        """Remove the pictures from the open turn; the pieces behind them wait to be computed again."""
        kept = [piece for piece in self.content if not len(piece.patches)]
        if len(kept) < len(self.content):
            self.restart()
            for piece in kept:
                self.put(piece)

    def question(self) -> Prompt:
        """What is left to compute before the answer: the waiting pieces and the end of the turn."""
        waiting, self._waiting = self._waiting, []
        return join([*waiting, self._turns.closing])

    def reopen(self) -> None:
        """Remove the end of the turn and the answer. Pieces that were not computed yet wait again."""
        content = join(self.content)
        held = min(len(content), self.session.position - self._start)
        self._rewind(self._start + held, self.sequence)
        self._waiting = [content[held:]] if held < len(content) else []

    def finish(self, answer: Prompt) -> int:
        """End the turn with the answer and begin the next. Returns how many turns left.

            in the cache    content  closing  answer            as it was computed to answer
            finished turn   content  resumed  answer  bridge    as the template writes it inside a longer chat

        If ``closing`` and ``resumed`` are alike, only the bridge is left to compute; otherwise everything after the
        content.
        """
        content = join(self.content)
        turn = self._turns.finished(content, answer)
        kept = min(self._still_valid(len(content), len(answer)), self.session.position - self._start)
        self._rewind(self._start + kept, join([self._turns.opening, *self._finished, turn]))
        self._waiting = [turn[kept:]]
        self._finished.append(turn)
        self._start += len(turn)
        self.content = []
        return self._forget()

    def _still_valid(self, content: int, answer: int) -> int:
        """How many cached positions of the turn are also those of the finished turn."""
        closing, resumed = self._turns.closing, self._turns.resumed
        if len(closing) == len(resumed) == closing.common_prefix(resumed):
            return content + len(closing) + answer
        return content

    def _rewind(self, position: int, sequence: Prompt) -> None:
        """Rewind to a position. If it is out of reach, as after long function results, compute the turns again."""
        kept = self.session.keep(position)
        if kept < position:
            self.session.extend(sequence[kept:position])

    def _forget(self) -> int:
        """Remove the oldest turns if the longest turn might not fit. Returns how many left."""
        if self._start + self._turn <= self._context:
            return 0
        before = len(self._finished)
        while self._finished and self._start > self._context // 2:
            self._start -= len(self._finished.pop(0))
        kept = self.session.keep(len(self._turns.opening))
        self._waiting = [piece for piece in (self._turns.opening[kept:], *self._finished) if len(piece)]
        return before - len(self._finished)
