"""One thread owns MLX. It computes the forwards of all sessions, one after the other, and decides whose is next.

A job is a generator. It yields before each forward, and says what kind of forward that is::

    live sound    L . . . L . . . L . . .       first: somebody waits for each word of it
    an answer     . D D . . D D . . D D .       then the tokens of answers, in turn
    a prompt      . . . P . . . P . . . P       last: a chunk of a long prompt; no kind waits forever (``Turns``)

Tokens of several answers are computed together: a job yields the forward that it wants (``Asked``), the engine makes
one of all of them, and sends each job its result. The engine can change to another session between any two forwards,
and a job that is cancelled ends before its next one. Each job has a session of its own, so its result does not depend
on the others, but for the rounding of forwards with more rows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from mlx_gemma4.serve.priority import Turn, Turns

CLOSING = "The server is shutting down"


@dataclass(frozen=True)
class Asked:
    """A forward that jobs can share. What it gives is sent to the job."""

    turn: Turn
    forward: Any


Work = Generator[Turn | Asked, Any, None]
T = TypeVar("T")
Together = Callable[[Sequence[Any]], Sequence[Any]]
"""Computes forwards of several jobs; of each what it gives, or the exception that it raises."""


class Busy(Exception):
    """All sessions are in use and the queue is full, or the engine is closing."""


class Job:
    """A request that the engine computes. Its methods may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        begin: Callable[[Job], Work],
        ended: Callable[[BaseException | None], None],
        *,
        takes_place: bool,
    ) -> None:
        self._engine = engine
        self.takes_place = takes_place
        self.begin, self.ended = begin, ended
        self.work: Work | None = None
        self.turn = Turn.LIVE  # its beginning costs no forward
        self.asked: Asked | None = None
        self.cancelled = False
        self.woken = False

    @property
    def kind(self) -> Turn:
        """How urgent its next turn is: input that has arrived, or room for output, is live."""
        return Turn.LIVE if self.turn == Turn.WAIT else self.turn

    def wake(self) -> None:
        """Let a job that waits look again whether it has something to compute."""
        self._engine.wake(self)

    def cancel(self) -> None:
        """End the job before its next forward. It may have ended already."""
        self._engine.cancel(self)


class Engine:
    """Runs jobs in a thread of its own, which sleeps when the engine is closed.

    Args:
        most_sessions: Jobs that are computed at the same time, at most.
        most_waiting: Jobs that may wait for their beginning.
        together: Computes what jobs have asked for.
        clock: Measures turns.

    Attributes:
        turns: Turns so far, by kind. Forwards that several jobs share are one.
        resumed: How often a job has gone on so far.
    """

    def __init__(
        self,
        *,
        most_sessions: int,
        most_waiting: int,
        together: Together = tuple,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._most_sessions, self._most_waiting = most_sessions, most_waiting
        self._changed = threading.Condition()
        self._active: list[Job] = []
        """In the order of their turns: the one that was computed last is at the end."""
        self._waiting: deque[Job] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._choice = Turns()
        self._clock = clock
        self._is_closing = False
        self._ended = threading.Event()
        self._together = together
        self.turns = dict.fromkeys(Turn, 0)
        self.resumed = 0
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    @property
    def active(self) -> int:
        """Jobs that have begun, and take a place."""
        return sum(job.takes_place for job in self._active)

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set() and not self._is_closing

    def submit(
        self,
        begin: Callable[[Job], Work],
        ended: Callable[[BaseException | None], None],
        *,
        waits: bool = True,
        takes_place: bool = True,
    ) -> Job:
        """Queue a job.

        Args:
            begin: Makes the generator of a job. Called in the engine's thread when the job begins.
            ended: Called in the engine's thread, once, when the job has ended: with its exception, if it raised one.
            waits: Whether it may wait until a session is free.
            takes_place: False for a part of a session that has a place already: it begins at once.

        Raises:
            Busy: There is no room for another job.
        """
        job = Job(self, begin, ended, takes_place=takes_place)
        with self._changed:
            if self._is_closing:
                raise Busy(CLOSING)
            if not takes_place:
                self._active.append(job)
                self._changed.notify()
                return job
            taken = self.active + len(self._waiting)
            if taken >= self._most_sessions + (self._most_waiting if waits else 0):
                queue = f" and {self._most_waiting} requests wait already" if waits else ""
                raise Busy(
                    f"All {self._most_sessions} sessions are in use{queue}; "
                    "try again later, or start the server with a larger --max-sessions"
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def run(self, function: Callable[[], T]) -> T:
        """Run a function in the engine's thread, before the next forward, and return what it returns or raises."""
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        with self._changed:
            self._calls.append(call)
            self._changed.notify()
        return done.result()

    def wake(self, job: Job) -> None:
        with self._changed:
            job.woken = True
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        with self._changed:
            job.cancelled = True
            self._changed.notify()

    def close(self) -> None:
        """Cancel all jobs and compute no more. Returns when the forward that is being computed has ended."""
        with self._changed:
            self._is_closing = True
            for job in (*self._active, *self._waiting):
                job.cancelled = True
            self._changed.notify()
        self._ended.wait()

    def _run(self) -> None:
        try:
            self._compute()
        finally:
            self._ended.set()
        # MLX destroys what it keeps for a thread when the thread ends, and that needs the interpreter. Before Python
        # 3.13, join() does not wait for it: a program that ended then was aborted. So the thread sleeps instead.
        threading.Event().wait()

    def _compute(self) -> None:
        """Compute forwards until the engine is closed."""
        while True:
            with self._changed:
                while (task := self._next()) is None:
                    if self._is_closing and not self._active and not self._waiting:
                        return
                    self._changed.wait()
            if isinstance(task, Job):
                kind, began = task.kind, self._clock()
                self._step(task)
                self._choice.took(kind, self._clock() - began)
            else:
                task()

    def _next(self) -> Job | Callable[[], None] | None:
        """What to do next; None if there is nothing."""
        if self._calls:
            return self._calls.popleft()
        for job in self._waiting:
            if job.cancelled:
                self._waiting.remove(job)
                self._active.append(job)
                return job
        while self._waiting and self.active < self._most_sessions:
            self._active.append(self._waiting.popleft())
        ready: dict[Turn, Job] = {}
        for job in self._active:
            if job.cancelled:
                return job
            if job.turn != Turn.WAIT or job.woken:
                ready.setdefault(job.kind, job)
        return ready[self._choice.choose(ready)] if ready else None

    def _step(self, job: Job) -> None:
        """Compute a job's next forward, and those that others have asked for with it."""
        if job.cancelled:
            self._end(job, None)
            return
        if job.work is not None:
            self.turns[job.turn] += 1
        if job.asked is None:
            self._resume(job, None)
            return
        jobs = [each for each in self._active if each.asked is not None and not each.cancelled]
        try:
            results = self._together([each.asked.forward for each in jobs if each.asked is not None])
        except BaseException as error:
            results = [error] * len(jobs)
        for each, result in zip(jobs, results, strict=True):
            self._resume(each, result)

    def _resume(self, job: Job, result: Any) -> None:
        """Let a job go on, with what it has asked for or the exception that this has raised."""
        self.resumed += 1
        job.woken, job.asked = False, None
        try:
            job.work = job.work or job.begin(job)
            told = job.work.throw(result) if isinstance(result, BaseException) else job.work.send(result)
        except StopIteration:
            self._end(job, None)
        except BaseException as error:  # whatever a job raises ends that job alone
            self._end(job, error)
        else:
            job.turn, job.asked = (told.turn, told) if isinstance(told, Asked) else (told, None)
            with self._changed:
                self._active.remove(job)
                self._active.append(job)

    def _end(self, job: Job, error: BaseException | None) -> None:
        if job.work is not None:
            try:
                job.work.close()
            except BaseException as problem:
                error = error or problem
        with self._changed:
            self._active.remove(job)
        job.ended(error)
