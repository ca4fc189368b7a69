"""Keeps one engine answering: slots, deadlines, faults that pass, and an engine that dies.

An engine that dies is started again, a few times. Whoever was being answered when it died is suspected and
asked again with care, in small groups and then alone, so that a request that ends the engine is found and
set aside while the others are answered.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from synthgen.engines.base import (
    Completion,
    Engine,
    EngineDied,
    Request,
    RequestFailed,
    RequestRetryable,
    RequestTimedOut,
)
from synthgen.errors import EngineUnreachable

RESTARTS = 3
DEADLINES = 6
FAULTS_RIDDEN_OUT = 300.0
LONGEST_WAIT = 60.0
GRACE = 1.0  # an engine that keeps the deadline itself says more about it


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine is waited for, in seconds.

    `deadline` is for one request; no word at all for six of them ends the run. `faults` is for how long
    refusals and errors are ridden out while nothing is answered.
    """

    deadline: float = 600.0
    faults: float = FAULTS_RIDDEN_OUT


class Stopped(Exception):
    """A branch that was not finished when generation was told to stop. What it asked is kept."""


@dataclass
class Slots:
    """As many requests at a time as the engine has slots; of those that wait, the oldest task goes first.

    While there are `suspects` (by key, with how often the engine died on them), they go alone, in groups of
    which each waits for the last to end: a few at a time at first, one by one after a second death.
    """

    engine: Engine
    taken: int = 0
    most: int | None = None
    suspects: dict[str, int] = field(default_factory=dict)
    _waiting: list[tuple[int, int, int, str, asyncio.Future[None]]] = field(default_factory=list)
    _order: int = 0
    _group: int = 0

    @property
    def free(self) -> bool:
        """Whether the engine has a slot that nobody has."""
        slots = self.engine.slots if self.most is None else min(self.most, self.engine.slots)
        return self.taken < slots

    async def take(self, task: int, key: str = "") -> None:
        """Wait for a slot."""
        if self.free and not self._waiting and not self.suspects:
            self.taken += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._waiting, (-self.suspects.get(key, 0), task, self._order, key, waiter))
        self._admit()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next one in."""
        self.taken -= 1
        self._admit()

    def cleared(self, key: str) -> None:
        """This request is answered, or will not be asked again."""
        if self.suspects.pop(key, None) is not None:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.free:
            if self.suspects:
                deaths = -self._waiting[0][0]
                if not deaths:
                    return  # the suspects are not here yet
                if self.taken == 0:
                    few = len(self.suspects)
                    self._group = 1 if deaths > 1 or few <= 3 else math.isqrt(few)
                if self._group == 0:
                    return
                self._group -= 1
            *_, waiter = heapq.heappop(self._waiting)
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)
            elif self.suspects:
                self._group += 1


class Supervisor:
    """One engine, started when it is first asked, and everything that keeps it answering.

    `note` is told, in a sentence, of each restart. Raises EngineUnreachable, from `ask` or `watch`, once
    the engine is given up.
    """

    def __init__(self, engine: Engine, patience: Patience, note: Callable[[str], None]) -> None:
        self.engine = engine
        self.slots = Slots(engine)
        self.in_flight = 0
        self.restarts = 0
        self.set_aside: list[str] = []
        self._patience = patience
        self._note = note
        self._life = 0
        self._dead = False
        self._given_up: EngineUnreachable | None = None
        self._start: asyncio.Task[None] | None = None
        self._asking: set[str] = set()  # what the engine is answering now
        self._unanswered = 0  # with what waits for its turn, or to be asked again
        self._last_answer = self._last_word = time.monotonic()

    @property
    def starting(self) -> bool:
        """Whether it is being started."""
        return self._start is not None and not self._start.done()

    async def close(self) -> None:
        """End the engine, also one that is still starting."""
        if self._start is not None:
            self._start.cancel()
            await asyncio.gather(self._start, return_exceptions=True)
        await self.engine.close()

    def watch(self) -> None:
        """To be called now and then. Raises EngineUnreachable after six deadlines without a word, and once
        any request has raised it, however long others may wait."""
        if self._given_up is not None:
            raise self._given_up
        silent, allowed = time.monotonic() - self._last_word, DEADLINES * self._patience.deadline
        if self._asking and silent > allowed + GRACE:
            raise EngineUnreachable(
                f"the engine has not said a word for {silent:.0f} seconds to {len(self._asking)} requests",
                hint="what was answered is kept; run the same command again to go on "
                "(SYNTHGEN_REQUEST_TIMEOUT is the deadline of one request)",
            )

    async def ask(
        self,
        task: int,
        request: Request,
        *,
        issued: Callable[[], None],
        failed: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> Completion:
        """The engine's answer, through whatever faults pass.

        `issued` is told when it goes out, `failed` of every try that failed. Raises RequestFailed, Stopped
        or EngineUnreachable.
        """
        key, delay, began = request.key, 0.5, time.monotonic()
        if not self._unanswered:
            self._last_word = began
        self._unanswered += 1
        try:
            while True:
                await self._ready()
                await self.slots.take(task, key)
                self.in_flight += 1
                try:
                    if stopped():
                        raise Stopped
                    if self._dead:  # it died while this one waited for its slot
                        continue
                    issued()
                    return await self._complete(request)
                except EngineDied as death:
                    failed(death.message)
                except RequestRetryable as failure:
                    failed(str(failure))
                    if not isinstance(failure, RequestTimedOut):
                        self._last_word = time.monotonic()
                        self._still_patient(failure, began)
                    wait = delay if failure.retry_after is None else min(failure.retry_after, LONGEST_WAIT)
                    delay = min(delay * 2, 30.0)
                    if stopped():
                        raise Stopped from None
                    # It keeps its slot: a server that is in trouble is asked less.
                    await asyncio.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                finally:
                    self.in_flight -= 1
                    self.slots.give_back()
        except EngineUnreachable as error:
            self._given_up = self._given_up or error
            raise
        finally:
            self._unanswered -= 1
            self.slots.cleared(key)

    async def _ready(self) -> None:
        if self._given_up is not None:
            raise self._given_up
        if self._start is None:
            self._start = asyncio.create_task(self._begin())
        if self._start.done():
            self._start.result()
        else:
            await asyncio.shield(self._start)

    async def _begin(self) -> None:
        if self._dead:
            await self.engine.close()
        while True:
            try:
                await self.engine.start()
            except EngineUnreachable:
                if not self._dead or self.restarts >= RESTARTS:
                    raise
                self.restarts += 1
                continue
            self._dead = False
            self._last_word = time.monotonic()
            return

    async def _complete(self, request: Request) -> Completion:
        deadline, life = self._patience.deadline, self._life
        self._asking.add(request.key)
        try:
            async with asyncio.timeout(deadline + GRACE):
                completion = await self.engine.complete(request)
        except TimeoutError:
            raise RequestTimedOut(f"no answer within {deadline:g} s (SYNTHGEN_REQUEST_TIMEOUT)") from None
        except EngineUnreachable as error:
            if life == self._life and isinstance(error, EngineDied):
                self._died(error, request.key)
            if life == self._life:
                raise
            raise EngineDied(error.message) from error  # somebody else has said so before
        finally:
            self._asking.discard(request.key)
        self._last_answer = self._last_word = time.monotonic()
        return completion

    def _died(self, death: EngineDied, key: str) -> None:
        """The engine died while this request, and perhaps others, were being answered."""
        self._life += 1
        self._dead, self._start = True, None
        suspects = self.slots.suspects
        for other in self._asking:
            suspects[other] = suspects.get(other, 0) + 1
        guilty = len(self._asking) == 1 and suspects[key] > 1
        if guilty:
            self.restarts -= suspects[key] - 1  # they were this request's doing
            self.set_aside.append(key)
        else:
            self.restarts += 1
        if self.restarts > RESTARTS:
            raise EngineUnreachable(
                f"the engine died {self.restarts} times; the last time: {death.message}",
                hint="what was answered is kept; run the same command again to go on",
            )
        if death.out_of_memory and self.slots.most is None:
            self.slots.most = max(1, self.engine.slots // 2)
            self._note(f"memory ran out, it seems; from here on {self.slots.most} requests at a time")
        self._note(f"starting the engine again: {death.message}")
        if guilty:
            raise RequestFailed(f"it ended the engine {suspects[key]} times, the last time alone")

    def _still_patient(self, failure: RequestRetryable, began: float) -> None:
        since = time.monotonic() - max(began, self._last_answer)
        if since > self._patience.faults:
            raise EngineUnreachable(
                f"the engine has answered nothing for {since:.0f} seconds; the last error: {failure}",
                hint="what was answered is kept; run the same command again to go on",
            ) from failure
