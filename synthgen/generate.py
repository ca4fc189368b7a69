"""Generation: drives engines over a plan and gives the finished branches back in task order.

Requests run as many at a time as the engines have slots, older tasks first, and look-ahead is bounded. An
answer that the journal holds is not asked for again.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from synthgen.conversation import NoConversation
from synthgen.digests import RequestFrame, record_id, request_frame, request_key, sampling_seed
from synthgen.engines.base import Completion, Engine, Request, RequestFailed, RequestRetryable
from synthgen.errors import EngineUnreachable
from synthgen.journal import Journal
from synthgen.loading import Loaded, LoadedStep
from synthgen.plan import Task
from synthgen.prompt import PromptFailed

RE_ASKS = 2
PATIENCE = 300.0
LONGEST_WAIT = 60.0
WINDOW = 4


@dataclass(frozen=True, slots=True)
class Branch:
    """One finished branch: the contents of a record as JSON, or why there is none."""

    task: int
    path: str
    id: str
    body: bytes | None
    error: str | None
    requests: Sequence[bytes]
    sources: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Tally:
    """What generation has done so far in this session."""

    asked: int = 0
    reused: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0


class Stopped(Exception):
    """A branch that was not finished when generation was told to stop. What it asked is kept."""


class InvalidAnswer(Exception):
    """An answer that a step cannot use: empty, or not valid under its schema."""


@dataclass
class Slots:
    """As many requests at a time as the engine has slots; of those that wait, the oldest task goes first."""

    engine: Engine
    taken: int = 0
    _waiting: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    _order: int = 0

    async def take(self, task: int) -> None:
        """Wait for a slot."""
        if self.taken < self.engine.slots and not self._waiting:
            self.taken += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._waiting, (task, self._order, waiter))
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

    def _admit(self) -> None:
        while self._waiting and self.taken < self.engine.slots:
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)


@dataclass(frozen=True)
class _Asking:
    """A step with what its requests need."""

    step: LoadedStep
    frame: RequestFrame
    engine: Engine
    slots: Slots
    check: Callable[[Any], None] | None


class Generation:
    """All branches of a recipe, in task order. `stop()` ends it early, without losing an answer."""

    def __init__(self, loaded: Loaded, engines: Mapping[str, Engine], journal: Journal) -> None:
        self.tally = Tally()
        self.look_ahead: int | None = None
        self._loaded = loaded
        self._journal = journal
        self._stopped = False
        slots = {id(engine): Slots(engine) for engine in engines.values()}
        self._engines = list({id(engine): engine for engine in engines.values()}.values())
        self._steps = [
            _Asking(
                step,
                request_frame(
                    engines[step.model].identity,
                    sampling=step.sampling,
                    schema=step.prompt.schema,
                    seed=loaded.recipe.seed,
                    template_args=loaded.models[step.model].template_args,
                ),
                engines[step.model],
                slots[id(engines[step.model])],
                _checker(step.prompt.schema),
            )
            for step in loaded.steps
        ]
        self._last_progress = time.monotonic()
        self._starting: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[bytes, asyncio.Future[Completion]] = {}

    @property
    def starting(self) -> bool:
        """Whether an engine is being started; one is when it is first asked something."""
        return any(not task.done() for task in self._starting.values())

    async def close(self) -> None:
        """End every engine, also one that is still starting."""
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)
        for engine in self._engines:
            await engine.close()

    async def _ready(self, engine: Engine) -> None:
        task = self._starting.get(id(engine))
        if task is None:
            task = self._starting[id(engine)] = asyncio.create_task(engine.start())
        if task.done():
            task.result()
        else:
            await asyncio.shield(task)

    def stop(self) -> None:
        """Ask nothing more; what is in flight goes on, and its answers are kept."""
        self._stopped = True

    @property
    def _window(self) -> int:
        most = max((engine.slots for engine in self._engines), default=64) * WINDOW
        return most if self.look_ahead is None else max(1, min(most, self.look_ahead))

    async def branches(self) -> AsyncGenerator[Branch, None]:
        """Every branch, in task order whatever order they finish in.

        Raises EngineUnreachable where the engine does not come back. Closing the iterator cancels what runs.
        """
        tasks = self._loaded.plan.tasks()
        running: deque[asyncio.Task[Branch]] = deque()
        exhausted = False
        try:
            while True:
                while not exhausted and not self._stopped and len(running) < self._window:
                    await self._journal.room()
                    task = next(tasks, None)
                    if task is None:
                        exhausted = True
                        break
                    running.append(asyncio.create_task(self._branch(task)))
                if not running:
                    return
                try:
                    branch = await running[0]
                except Stopped:
                    await asyncio.gather(*running, return_exceptions=True)
                    return
                yield branch
                running.popleft()
        finally:
            for unfinished in running:
                unfinished.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _branch(self, task: Task) -> Branch:
        values = dict(task.values)
        requests: list[bytes] = []
        numbers: dict[bytes, int] = {}
        body, error = None, None
        try:
            for asking in self._steps:
                values[asking.step.name] = await self._answer(asking, task, values, requests, numbers)
            row = self._loaded.shape.make(values)
            # A copy: what orjson gives keeps the whole buffer that it was written in.
            body = bytes(memoryview(orjson.dumps({"fields": values, "row": row})))
        except PromptFailed as failure:
            error = f"a template {failure}" if str(failure).startswith("cannot") else f"a template: {failure}"
        except (NoConversation, RequestFailed, InvalidAnswer) as failure:
            error = str(failure)
        except orjson.JSONEncodeError as failure:
            error = f"the record cannot be stored: {failure}"
        identity = record_id(self._loaded.recipe.name, task.digest, task.repeat, "0")
        return Branch(task.index, "0", identity, body, error, requests, task.sources)

    async def _answer(
        self,
        asking: _Asking,
        task: Task,
        values: Mapping[str, Any],
        requests: list[bytes],
        numbers: dict[bytes, int],
    ) -> Any:
        """The step's answer: its text, or the parsed JSON where it has a schema."""
        messages = asking.step.prompt.render(values)
        plain = asking.frame.body(messages, repeat=task.repeat)
        number = numbers.get(plain, 0)
        numbers[plain] = number + 1
        for attempt in range(RE_ASKS + 1):
            body = plain
            if number or attempt:
                body = asking.frame.body(messages, repeat=task.repeat, number=number, attempt=attempt)
            key = request_key(body)
            requests.append(key)
            completion = await self._complete(asking, task, key, body, messages)
            try:
                return _usable(completion, asking.check)
            except InvalidAnswer as invalid:
                self._journal.answer_unusable(key, str(invalid))
                if attempt == RE_ASKS:
                    raise InvalidAnswer(
                        f"step {asking.step.name}: {invalid}, asked {RE_ASKS + 1} times"
                    ) from None
        raise AssertionError("unreachable")

    async def _complete(
        self, asking: _Asking, task: Task, key: bytes, body: bytes, messages: Sequence[Mapping[str, Any]]
    ) -> Completion:
        stored = self._journal.stored_answer(key)
        if stored is not None:
            self.tally.reused += 1
            return stored
        given_up = self._journal.stored_failure(key)
        if given_up is not None:
            raise RequestFailed(given_up)
        if key in self._asked:  # two tasks of equal prompts: one answer, in flight now
            completion = await asyncio.shield(self._asked[key])
            self.tally.reused += 1
            return completion
        answer = self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            completion = await self._ask(asking, task, key, body, messages)
            answer.set_result(completion)
        except Exception as error:
            answer.set_exception(error)
            answer.exception()  # it is raised here, whether anybody else waits for it or not
            raise
        finally:
            del self._asked[key]
            answer.cancel()
        return completion

    async def _ask(
        self, asking: _Asking, task: Task, key: bytes, body: bytes, messages: Sequence[Mapping[str, Any]]
    ) -> Completion:
        request = Request(
            key.hex(), messages, asking.step.sampling, sampling_seed(key), asking.step.prompt.schema
        )
        await self._ready(asking.engine)
        await asking.slots.take(task.index)
        self.tally.in_flight += 1
        try:
            if self._stopped:
                raise Stopped
            self._journal.request_issued(key, body)
            completion = await self._ride_out(asking, key, request)
        except RequestFailed as failure:
            self._journal.request_failed(key, str(failure), final=True)
            raise
        finally:
            self.tally.in_flight -= 1
            asking.slots.give_back()
        completion = self._journal.completed(key, completion)
        self.tally.asked += 1
        self.tally.input_tokens += completion.input_tokens
        self.tally.output_tokens += completion.output_tokens
        self._last_progress = time.monotonic()
        return completion

    async def _ride_out(self, asking: _Asking, key: bytes, request: Request) -> Completion:
        """Ask until there is an answer; give up when nothing at all was answered for `PATIENCE` seconds."""
        delay, began = 0.5, time.monotonic()
        while True:
            try:
                return await asking.engine.complete(request)
            except RequestRetryable as failure:
                self._journal.request_failed(key, str(failure), final=False)
                self.tally.retries += 1
                since = time.monotonic() - max(began, self._last_progress)
                if since > PATIENCE:
                    raise EngineUnreachable(
                        f"the engine has answered nothing for {since:.0f} seconds; the last error: {failure}",
                        hint="what was answered is kept; run the same command again to go on",
                    ) from failure
                wait = delay if failure.retry_after is None else min(failure.retry_after, LONGEST_WAIT)
                delay = min(delay * 2, 30.0)
            if self._stopped:
                raise Stopped
            await asyncio.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - jitter


def _usable(completion: Completion, check: Callable[[Any], None] | None) -> Any:
    if not completion.text.strip():
        raise InvalidAnswer("the answer is empty")
    if check is None:
        return completion.text.strip()
    try:
        value = orjson.loads(completion.text)
    except orjson.JSONDecodeError:
        cut = " (it was cut at max_tokens)" if completion.finish_reason == "length" else ""
        raise InvalidAnswer(f"the answer is not JSON{cut}") from None
    check(value)
    return value


def _checker(schema: Mapping[str, Any] | None) -> Callable[[Any], None] | None:
    if schema is None:
        return None
    from jsonschema import Draft202012Validator, ValidationError

    validator = Draft202012Validator(dict(schema))

    def check(value: Any) -> None:
        error: ValidationError | None = next(iter(validator.iter_errors(value)), None)
        if error is not None:
            raise InvalidAnswer(f"the answer is not valid under its schema: {error.message[:200]}")

    return check
