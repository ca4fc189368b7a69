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
LONGEST_WAIT = 60.0  # that a server may ask for
LONGEST_PAUSE = 30.0
PAUSE_AMONG_ANSWERS = 2.0  # where others are answered meanwhile


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
    open: bool = True
    _waiting: list[tuple[int, int, int, str, asyncio.Future[None]]] = field(default_factory=list)
    _order: int = 0
    _group: int = 0

    @property
    def free(self) -> bool:
        """Whether the engine is up, with a slot that nobody has."""
        slots = self.engine.slots if self.most is None else min(self.most, self.engine.slots)
        return self.open and self.taken < slots

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

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
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
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

    def reopen(self) -> None:
        """The engine is up again."""
        self.open = True
        self._admit()

    def fail(self, error: Exception) -> None:
        """The engine is given up: everybody who waits hears of it."""
        for *_, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()

    def _admit(self) -> None:
        while self._waiting and self.free:
            if self.suspects:
                deaths = -self._waiting[0][0]
                if deaths < max(self.suspects.values()):
                    return  # those who are suspected most are not here yet
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

    `note` is told, in a sentence, of each restart, and `started` of each start. Raises EngineUnreachable,
    from `ask` or `watch`, once the engine is given up.
    """

    def __init__(
        self,
        engine: Engine,
        patience: Patience,
        note: Callable[[str], None],
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine = engine
        self.slots = Slots(engine)
        self.in_flight = 0
        self.restarts = 0
        self.set_aside: list[str] = []
        self._patience = patience
        self._note = note
        self._started = started
        self._life = 0
        self._excused = 0
        self._hanging = False
        self._answers = 0
        self._answers_at_death: dict[str, int] = {}  # the first that each suspect was there at
        self._given_up: EngineUnreachable | None = None
        self._start: asyncio.Task[None] | None = None
        self._asking: set[str] = set()  # what the engine is answering now
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
        if self._asking and silent > allowed:
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
        key, delay, wait = request.key, 0.5, 0.0
        began = refused = time.monotonic()
        try:
            while True:
                if wait:  # without a slot, which others can use where refusals come at random
                    await asyncio.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                    wait = 0.0
                await self._ready()
                await self.slots.take(task, key)
                self.in_flight += 1
                try:
                    if stopped():
                        raise Stopped
                    if not self.slots.open:  # it died between
                        continue
                    issued()
                    return await self._complete(request)
                except EngineDied as death:
                    failed(death.message)
                except RequestTimedOut as failure:
                    failed(str(failure))
                except RequestRetryable as failure:
                    failed(str(failure))
                    self._heard()
                    self._still_patient(failure, began)
                    wait = delay if failure.retry_after is None else min(failure.retry_after, LONGEST_WAIT)
                    answering = self._last_answer >= refused
                    delay = min(delay * 2, PAUSE_AMONG_ANSWERS if answering else LONGEST_PAUSE)
                    refused = time.monotonic()
                    if stopped():
                        raise Stopped from None
                finally:
                    self.in_flight -= 1
                    self.slots.give_back()
        except EngineUnreachable as error:
            self._give_up(error)
            raise
        finally:
            self.slots.cleared(key)
            self._answers_at_death.pop(key, None)

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
        again = not self.slots.open
        if again:
            await self.engine.close()
        while True:
            try:
                await self.engine.start()
            except EngineUnreachable as error:
                if not again or self.restarts >= RESTARTS:
                    self._give_up(error)
                    raise
                self.restarts += 1
            else:
                self._started()
                self.slots.reopen()
                return

    def _give_up(self, error: EngineUnreachable) -> None:
        self._given_up = self._given_up or error
        self.slots.fail(self._given_up)

    async def _complete(self, request: Request) -> Completion:
        deadline, life = self._patience.deadline, self._life
        if not self._asking and not self._hanging:
            self._last_word = time.monotonic()
        self._asking.add(request.key)
        try:
            async with asyncio.timeout(deadline):
                completion = await self.engine.complete(request)
        except TimeoutError:
            self._hanging = True
            raise RequestTimedOut(f"no answer within {deadline:g} s (SYNTHGEN_REQUEST_TIMEOUT)") from None
        except EngineUnreachable as error:
            if life == self._life and isinstance(error, EngineDied):
                self._died(error, request.key)
            if life == self._life:
                raise
            raise EngineDied(error.message) from error  # somebody else has said so before
        finally:
            self._asking.discard(request.key)
        self._heard()
        self._last_answer = self._last_word
        self._answers += 1
        self._excuse()
        return completion

    def _died(self, death: EngineDied, key: str) -> None:
        """The engine died while this request, and perhaps others, were being answered."""
        self._life += 1
        self.slots.open, self._start = False, None
        suspects = self.slots.suspects
        for other in self._asking:
            suspects[other] = suspects.get(other, 0) + 1
            self._answers_at_death.setdefault(other, self._answers)
        self.restarts += 1
        guilty = len(self._asking) == 1 and suspects[key] > 1
        if guilty:
            self._excused += suspects[key]
            if self._answers > self._answers_at_death[key]:
                self._excuse()
        if self.restarts > RESTARTS:
            raise EngineUnreachable(
                f"the engine died {self.restarts} times; the last time: {death.message}",
                hint="what was answered is kept; run the same command again to go on",
            )
        if death.out_of_memory and self.slots.most is None:
            self.slots.most = max(1, self.engine.slots // 2)
            self._note(f"memory ran out, it seems; from here on {self.slots.most} requests at a time")
        self._note(f"starting the engine again: {death.message}")
        if self.slots.wanted:
            self._start = asyncio.create_task(self._begin())
        if guilty:
            self.set_aside.append(key)
            raise RequestFailed(f"it ended the engine {suspects[key]} times, the last time alone")

    def _excuse(self) -> None:
        """It answers others: those deaths were the doing of the requests that were set aside."""
        self.restarts, self._excused = self.restarts - self._excused, 0

    def _heard(self) -> None:
        self._last_word, self._hanging = time.monotonic(), False

    def _still_patient(self, failure: RequestRetryable, began: float) -> None:
        since = time.monotonic() - max(began, self._last_answer)
        if since > self._patience.faults:
            raise EngineUnreachable(
                f"the engine has answered nothing for {since:.0f} seconds; the last error: {failure}",
                hint="what was answered is kept; run the same command again to go on",
            ) from failure
