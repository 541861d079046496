"""The thread that owns MLX: whose turn it is, who is cancelled, who waits, and what a slow reader costs."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import pytest

from mlx_gemma4.serve.engine import Asked, Busy, Engine, Job, Work
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.priority import Turn, Turns


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(most_sessions=4, most_waiting=2, clock=lambda: 0.0)
    yield engine
    engine.close()


class Held:
    """A job that keeps the engine busy until it is let go, so that others can be queued behind it."""

    def __init__(self, engine: Engine) -> None:
        self._go, self.running = threading.Event(), threading.Event()
        self.job = engine.submit(self._work, lambda error: None)
        assert self.running.wait(10)

    def _work(self, _: Job) -> Work:
        self.running.set()
        assert self._go.wait(10)
        return
        yield

    def let_go(self) -> None:
        self._go.set()


class Ends:
    """How jobs have ended."""

    def __init__(self) -> None:
        self.errors: dict[str, BaseException | None] = {}
        self._changed = threading.Condition()

    def of(self, name: str) -> Callable[[BaseException | None], None]:
        def ended(error: BaseException | None) -> None:
            with self._changed:
                assert name not in self.errors
                self.errors[name] = error
                self._changed.notify()

        return ended

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.errors) >= count, 10)


def test_the_most_urgent_kind_goes_first_and_equals_take_turns(engine: Engine) -> None:
    order: list[str] = []
    ends = Ends()

    def job(name: str, turn: Turn) -> Callable[[Job], Work]:
        def work(_: Job) -> Work:
            for _ in range(3):
                yield turn
                order.append(name)

        return work

    held = Held(engine)
    for name, turn in (("p", Turn.PREFILL), ("d", Turn.DECODE), ("e", Turn.DECODE)):
        engine.submit(job(name, turn), ends.of(name))
    held.let_go()
    ends.wait(3)
    assert "".join(order) == "dedede" + "ppp"
    assert ends.errors == {"p": None, "d": None, "e": None}


def turns_of(seconds: dict[Turn, float], count: int) -> list[Turn]:
    """The kinds of so many turns where all of these kinds always have something to compute."""
    turns, found = Turns(), list[Turn]()
    for _ in range(count):
        found.append(turns.choose(seconds))
        turns.took(found[-1], seconds[found[-1]])
    return found


@pytest.mark.parametrize(("chunk", "others"), [(0.005, 3), (0.01, 5), (0.02, 8), (0.3, 8), (60.0, 8)])
def test_a_kind_waits_for_eight_turns_or_as_long_as_eight_of_its_own(chunk: float, others: int) -> None:
    found = turns_of({Turn.LIVE: 0.02, Turn.PREFILL: chunk}, 400)
    gaps = [len(list(group)) for kind, group in groupby(found) if kind == Turn.LIVE]
    assert set(gaps[2:-1]) == {others}


def test_each_kind_gets_turns() -> None:
    found = turns_of(dict.fromkeys((Turn.LIVE, Turn.DECODE, Turn.PREFILL, Turn.HASTE), 0.02), 1200)
    counts = Counter(found)
    assert counts[Turn.LIVE] > 700 and all(count > 120 for count in counts.values())


def test_who_was_not_ready_has_not_waited() -> None:
    turns = Turns()
    both = {Turn.LIVE, Turn.PREFILL}
    turns.choose(both)
    turns.took(Turn.PREFILL, 0.1)
    turns.took(Turn.LIVE, 0.7)
    assert turns.choose({Turn.LIVE}) == Turn.LIVE
    turns.took(Turn.LIVE, 0.7)
    assert turns.choose(both) == Turn.LIVE
    turns.took(Turn.LIVE, 0.81)
    assert turns.choose(both) == Turn.PREFILL


def test_the_engine_measures_turns() -> None:
    """A live turn takes as long as four tokens, so a token follows three of them, once this is known."""
    now, order, ends = 0.0, list[str](), Ends()

    def job(name: str, turn: Turn, seconds: float, count: int) -> Callable[[Job], Work]:
        def work(_: Job) -> Work:
            nonlocal now
            for _ in range(count):
                yield turn
                order.append(name)
                now += seconds

        return work

    engine = Engine(most_sessions=4, most_waiting=2, clock=lambda: now)
    held = Held(engine)
    engine.submit(job("l", Turn.LIVE, 0.5, 30), ends.of("l"))
    engine.submit(job("d", Turn.DECODE, 0.125, 20), ends.of("d"))
    held.let_go()
    ends.wait(2)
    engine.close()
    assert "".join(order)[10:30] == 5 * "llld"


def test_a_cancelled_job_ends_before_its_next_forward(engine: Engine) -> None:
    done: list[str] = []
    ends, first = Ends(), threading.Event()

    def work(_: Job) -> Work:
        try:
            while True:
                done.append("forward")
                first.set()
                yield Turn.WAIT
        finally:
            done.append("closed")

    job = engine.submit(work, ends.of("a"))
    assert first.wait(10)
    job.cancel()
    ends.wait(1)
    assert (done, ends.errors) == (["forward", "closed"], {"a": None})
    job.cancel()  # it has ended: nothing happens
    job.wake()
    assert engine.run(lambda: engine.active) == 0


def test_a_job_that_has_not_begun_is_cancelled(engine: Engine) -> None:
    ends = Ends()
    jobs = [Held(engine)]

    def waits(_: Job) -> Work:
        yield Turn.WAIT

    others = [engine.submit(waits, ends.of(str(number))) for number in range(5)]
    others[-1].cancel()
    jobs[0].let_go()
    ends.wait(1)
    assert ends.errors == {"4": None}


def test_a_full_queue_refuses(engine: Engine) -> None:
    def waits(_: Job) -> Work:
        yield Turn.WAIT

    held = Held(engine)
    jobs = [engine.submit(waits, lambda error: None) for _ in range(5)]
    with pytest.raises(
        Busy, match=r"^All 4 sessions are in use and 2 requests wait already; try again later, or start "
    ):
        engine.submit(waits, lambda error: None)
    held.let_go()
    engine.run(lambda: None)
    assert (engine.active, engine.waiting) == (4, 1)
    jobs[0].cancel()
    engine.run(lambda: None)
    assert (engine.active, engine.waiting) == (4, 0)


def test_an_error_ends_its_own_job_alone(engine: Engine) -> None:
    ends, go = Ends(), threading.Event()

    def fails(_: Job) -> Work:
        yield Turn.DECODE
        raise MemoryError

    def works(_: Job) -> Work:
        while not go.is_set():
            yield Turn.DECODE

    engine.submit(works, ends.of("works"))
    engine.submit(fails, ends.of("fails"))
    ends.wait(1)
    assert isinstance(ends.errors["fails"], MemoryError)
    go.set()
    ends.wait(2)
    assert ends.errors["works"] is None


def test_what_runs_in_the_thread_returns_and_raises(engine: Engine) -> None:
    assert engine.run(lambda: threading.current_thread().name) == "engine"
    with pytest.raises(ValueError, match=r"^no such model$"):
        engine.run(lambda: (_ for _ in ()).throw(ValueError("no such model")))
    assert engine.is_alive


def test_a_closed_engine_has_ended_its_jobs() -> None:
    engine, ends = Engine(most_sessions=1, most_waiting=1), Ends()

    def waits(_: Job) -> Work:
        yield Turn.WAIT

    engine.submit(waits, ends.of("active"))
    engine.submit(waits, ends.of("waiting"))
    engine.close()
    assert ends.errors == {"active": None, "waiting": None}
    assert not engine.is_alive
    with pytest.raises(Busy, match=r"^The server is shutting down$"):
        engine.submit(waits, ends.of("late"))


def test_a_job_waits_while_nobody_reads() -> None:
    """It computes no further than the outbox has room, and goes on when there is some."""
    made: list[int] = []

    async def read() -> list[int]:
        outbox: Outbox[int] = Outbox(room=3)

        def work(_: Job) -> Work:
            for number in range(10):
                while outbox.is_full:
                    yield Turn.WAIT
                made.append(number)
                outbox.put(number)
                yield Turn.DECODE

        engine = Engine(most_sessions=1, most_waiting=0)
        job = engine.submit(work, outbox.end)
        outbox.on_room = job.wake
        while engine.turns[Turn.DECODE] < 3 or engine.run(lambda: job.turn) != Turn.WAIT:
            await asyncio.sleep(0)
        assert made == [0, 1, 2]
        found = []
        while (item := await outbox.get()) is not None:
            found.append(item)
        engine.close()
        return found

    assert asyncio.run(read()) == made == list(range(10))


def test_what_was_put_before_an_error_is_read_first() -> None:
    async def read() -> None:
        outbox: Outbox[str] = Outbox()
        outbox.put("a")
        outbox.end(ValueError("NaN"))
        assert await outbox.get() == "a"
        with pytest.raises(ValueError, match=r"^NaN$"):
            await outbox.get()

    asyncio.run(read())


def test_jobs_share_what_they_ask_for() -> None:
    """In one turn, in which each gets its own result; a job that is cancelled is not computed."""
    computed: list[list[str]] = []

    def together(forwards: Sequence[str]) -> list[str | Exception]:
        computed.append(list(forwards))
        if "wrong" in forwards:
            raise ValueError("all of them")
        return [ValueError(each) if each == "bad" else each.upper() for each in forwards]

    engine = Engine(most_sessions=6, most_waiting=0, together=together, clock=lambda: 0.0)
    given: dict[str, list[str]] = {}
    ends = Ends()

    def job(name: str, *asked: str) -> Callable[[Job], Work]:
        def work(_: Job) -> Work:
            given[name] = []
            for each in asked:
                result = yield Asked(Turn.DECODE, each)
                given[name].append(result)

        return work

    held = Held(engine)
    engine.submit(job("a", "a1", "a2", "a3"), ends.of("a"))
    engine.submit(job("b", "b1", "bad", "b3"), ends.of("b"))
    engine.submit(job("c", "c1", "c2"), ends.of("c"))
    engine.submit(job("d", "d1"), ends.of("d")).cancel()
    held.let_go()
    ends.wait(4)
    assert given == {"a": ["A1", "A2", "A3"], "b": ["B1"], "c": ["C1", "C2"]}
    assert computed == [["a1", "b1", "c1"], ["a2", "bad", "c2"], ["a3"]]
    assert engine.turns[Turn.DECODE] == 3 and engine.resumed == 1 + 3 + 3 + 3 + 1
    assert str(ends.errors["b"]) == "bad" and [ends.errors[name] for name in "acd"] == [None] * 3
    engine.submit(job("e", "wrong"), ends.of("e"))
    ends.wait(5)
    assert str(ends.errors["e"]) == "all of them"
    engine.close()
