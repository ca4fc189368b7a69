"""An engine that dies, hangs or errs: started again, waited for, given up; and who ends it is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.engines.base import (
    Completion,
    EngineDied,
    ModelIdentity,
    Request,
    RequestFailed,
    RequestRetryable,
)
from synthgen.errors import EngineUnreachable
from synthgen.supervisor import RESTARTS, Patience, Stopped, Supervisor


@dataclass
class Mortal:
    """An engine in which every request that is being answered fails once one of them ends it."""

    slots: int = 4
    poison: frozenset[str] = frozenset()
    deaths_left: int = 0  # of its own accord
    out_of_memory: bool = False
    starts_fail: int = 0  # after the first
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("mortal", "m"))
    starts: int = 0
    closes: int = 0
    answered: list[str] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self._alive = asyncio.Event()
        self._dead = asyncio.Event()
        self._now = 0

    async def start(self) -> None:
        self.starts += 1
        if self.starts > 1 and self.starts_fail:
            self.starts_fail -= 1
            raise EngineUnreachable("it does not start")
        self._dead = asyncio.Event()

    async def close(self) -> None:
        self.closes += 1

    async def complete(self, request: Request) -> Completion:
        dead = self._dead
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if request.key in self.poison or self.deaths_left:
                self.deaths_left -= request.key not in self.poison
                dead.set()
            if dead.is_set():
                raise EngineDied("its process ended", out_of_memory=self.out_of_memory)
            self.answered.append(request.key)
            return Completion("yes", "stop", 1, 1)
        finally:
            self._now -= 1


def request(key: str) -> Request:
    return Request(key, [], {}, 0)


async def ask_all(
    supervisor: Supervisor, keys: list[str], failed: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    async def one(place: int, key: str) -> Any:
        try:
            return await supervisor.ask(
                place, request(key), issued=lambda: None, failed=failed, stopped=lambda: False
            )
        except RequestFailed as error:
            return error

    found = await asyncio.gather(*(one(place, key) for place, key in enumerate(keys)))
    await supervisor.close()
    return dict(zip(keys, found, strict=True))


def supervised(engine: Any, patience: Patience | None = None) -> tuple[Supervisor, list[str]]:
    notes: list[str] = []
    return Supervisor(engine, patience or Patience(), notes.append), notes


@settings(deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 64), st.sets(st.integers(0, 39).map(lambda n: 2 * n + 1), max_size=3)
)
def test_whoever_ends_the_engine_is_set_aside_and_everybody_else_is_answered(
    count: int, slots: int, guilty: set[int]
) -> None:
    """As long as somebody is answered between them: an engine that answers nobody is itself the trouble."""
    keys = [f"k{number}" for number in range(2 * count)]
    poison = frozenset(f"k{number}" for number in guilty if number < 2 * count)

    async def main() -> None:
        engine = Mortal(slots, poison)
        supervisor, _ = supervised(engine)
        found = await ask_all(supervisor, keys)
        assert {key for key, answer in found.items() if isinstance(answer, RequestFailed)} == poison
        assert sorted(engine.answered) == sorted(set(keys) - poison)
        assert set(supervisor.set_aside) == poison
        assert engine.starts <= 1 + 3 * len(poison)
        assert engine.most <= slots
        assert supervisor.slots.suspects == {}
        assert (supervisor.in_flight, supervisor.slots.taken) == (0, 0)

    asyncio.run(main())


def test_a_request_that_is_alone_is_set_aside_at_its_second_death() -> None:
    async def main() -> None:
        engine = Mortal(1, frozenset(["k1"]))
        supervisor, notes = supervised(engine)
        found = await ask_all(supervisor, ["k0", "k1", "k2"])
        assert "ended the engine 2 times" in str(found["k1"])
        assert engine.starts == 3
        assert engine.closes == 3  # before each new start, and at the end
        assert len(notes) == 2

    asyncio.run(main())


@pytest.mark.parametrize("slots", [1, 8])
def test_an_engine_that_dies_of_itself_is_started_again_a_few_times(slots: int) -> None:
    async def main() -> None:
        engine = Mortal(slots, deaths_left=1)
        supervisor, notes = supervised(engine)
        failures: list[str] = []
        found = await ask_all(supervisor, [f"k{n}" for n in range(20)], failures.append)
        assert all(isinstance(answer, Completion) for answer in found.values())
        assert (engine.starts, supervisor.restarts, supervisor.set_aside) == (2, 1, [])
        assert failures == ["its process ended"] * min(slots, 20)
        assert notes == ["starting the engine again: its process ended"]

    asyncio.run(main())


def test_an_engine_that_goes_on_dying_is_given_up() -> None:
    async def main() -> None:
        engine = Mortal(64, deaths_left=10**6)
        supervisor, _ = supervised(engine)
        with pytest.raises(EngineUnreachable, match="died 4 times"):
            await ask_all(supervisor, [f"k{n}" for n in range(50)])
        assert engine.starts == 1 + RESTARTS
        assert len(supervisor.set_aside) <= 1
        with pytest.raises(EngineUnreachable, match="died 4 times"):
            supervisor.watch()

    asyncio.run(main())


def test_an_engine_that_does_not_come_up_again() -> None:
    async def main(fails: int) -> Mortal:
        engine = Mortal(4, deaths_left=1, starts_fail=fails)
        await ask_all(supervised(engine)[0], ["a", "b"])
        return engine

    assert asyncio.run(main(2)).starts == 4
    with pytest.raises(EngineUnreachable, match="does not start"):
        asyncio.run(main(3))


def test_short_memory_halves_the_requests_at_a_time_once() -> None:
    async def main() -> None:
        engine = Mortal(8, deaths_left=1, out_of_memory=True)
        supervisor, notes = supervised(engine)
        keys = [f"k{n}" for n in range(40)]
        await ask_all(supervisor, keys[:8])
        assert supervisor.slots.most == 4
        assert "4 requests at a time" in notes[0]
        engine.most, engine.deaths_left = 0, 1
        await ask_all(supervisor, keys[8:])
        assert engine.most == supervisor.slots.most == 4

    asyncio.run(main())


class Silent:
    """Takes requests and never answers, but for those that are asked so many times."""

    def __init__(self, answers_at: int | None = None) -> None:
        self.identity = ModelIdentity("silent", "m")
        self.slots = 4
        self.asked = 0
        self._answers_at = answers_at

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def complete(self, request: Request) -> Completion:
        self.asked += 1
        if self._answers_at is not None and self.asked >= self._answers_at:
            return Completion("at last", "stop", 1, 1)
        await asyncio.Event().wait()
        raise AssertionError


async def watch(supervisor: Supervisor) -> None:
    while True:
        supervisor.watch()
        await asyncio.sleep(0.001)


def test_six_deadlines_without_a_word() -> None:
    async def main() -> float:
        supervisor, _ = supervised(Silent(), Patience(deadline=0.05))
        loop = asyncio.get_running_loop()
        began = loop.time()
        asking = asyncio.create_task(ask_all(supervisor, ["a", "b"]))
        with pytest.raises(EngineUnreachable, match="not said a word"):
            await watch(supervisor)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return loop.time() - began

    assert asyncio.run(main()) >= 6 * 0.05


def test_a_request_past_its_deadline_is_asked_again() -> None:
    async def main() -> None:
        failures: list[str] = []
        engine = Silent(answers_at=2)
        supervisor, _ = supervised(engine, Patience(deadline=0.05))
        found = await ask_all(supervisor, ["a"], failures.append)
        assert found["a"].text == "at last"
        assert failures == ["no answer within 0.05 s (SYNTHGEN_REQUEST_TIMEOUT)"]
        supervisor.watch()

    asyncio.run(main())


def test_whoever_waits_hears_of_the_end() -> None:
    """One gives up, and the others, in the middle of long pauses, need not wait theirs out."""

    class Erring(Silent):
        async def complete(self, request: Request) -> Completion:
            self.asked += 1
            raise RequestRetryable("busy", retry_after=0.0 if request.key == "a" else 60.0)

    async def main() -> None:
        supervisor, _ = supervised(Erring(), Patience(faults=0.0))
        asking = asyncio.create_task(ask_all(supervisor, ["b", "a"]))
        with pytest.raises(EngineUnreachable, match="the last error: busy"):
            await asking
        with pytest.raises(EngineUnreachable, match="the last error: busy"):
            supervisor.watch()

    asyncio.run(main())


def test_once_stopped_nothing_is_asked() -> None:
    async def main() -> None:
        engine = Silent(answers_at=0)
        supervisor, _ = supervised(engine)
        with pytest.raises(Stopped):
            await supervisor.ask(
                0, request("a"), issued=lambda: None, failed=lambda _: None, stopped=lambda: True
            )
        assert engine.asked == 0
        assert supervisor.slots.taken == 0

    asyncio.run(main())
