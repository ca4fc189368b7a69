"""Generation: drives engines over a plan and gives the finished branches back in task order.

Requests run as many at a time as the engines have slots, older tasks first, and look-ahead is bounded. An
answer that the journal holds is not asked for again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import orjson

from synthgen.conversation import NoConversation
from synthgen.digests import RequestFrame, record_id, request_frame, request_key, sampling_seed
from synthgen.engines.base import Completion, Engine, Request, RequestFailed
from synthgen.journal import Journal
from synthgen.loading import Loaded, LoadedStep
from synthgen.plan import Task
from synthgen.prompt import PromptFailed
from synthgen.reuse import Others
from synthgen.spending import Spent
from synthgen.supervisor import Patience, Stopped, Supervisor

RE_ASKS = 2
WINDOW = 4
FEW_AHEAD = 16
LEAST_AHEAD = 256  # tasks: one that waits its refusals out must not hold up the others


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
    spent: Spent


@dataclass(slots=True)
class Tally:
    """What generation has done so far in this session."""

    asked: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0


class InvalidAnswer(Exception):
    """An answer that a step cannot use: empty, or not valid under its schema."""


@dataclass(frozen=True)
class _Asking:
    """A step with what its requests need."""

    step: LoadedStep
    frame: RequestFrame
    engine: Supervisor
    model: str
    check: Callable[[Any], None] | None


class Generation:
    """All branches of a recipe, in task order. `stop()` ends it early, without losing an answer."""

    def __init__(
        self,
        loaded: Loaded,
        engines: Mapping[str, Engine],
        journal: Journal,
        *,
        start: int = 0,
        spent: Spent | None = None,
        others: Others | None = None,
        patience: Patience | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Begin with task number `start`, after earlier ones that spent so much."""
        self.tally = Tally()
        self._loaded = loaded
        self._journal = journal
        self._start = start
        self._spent = replace(spent) if spent is not None else Spent()
        self._others = others
        self._stopped = False
        self._up_to: int | None = None
        self._moved = asyncio.Event()
        kept = {id(engine): Supervisor(engine, patience or Patience(), note) for engine in engines.values()}
        self.engines = list(kept.values())
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
                kept[id(engines[step.model])],
                step.model,
                _checker(step.prompt.schema),
            )
            for step in loaded.steps
        ]
        self._asked: dict[bytes, asyncio.Future[Completion]] = {}

    @property
    def starting(self) -> bool:
        """Whether an engine is being started; one is when it is first asked something."""
        return any(engine.starting for engine in self.engines)

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answers."""
        return sum(engine.in_flight for engine in self.engines)

    def watch(self) -> None:
        """To be called now and then. Raises EngineUnreachable once an engine is given up."""
        for engine in self.engines:
            engine.watch()

    async def close(self) -> None:
        """End every engine, also one that is still starting."""
        for engine in self.engines:
            await engine.close()

    def stop(self) -> None:
        """Ask nothing more; what is in flight goes on, and its answers are kept."""
        self._stopped = True
        self._moved.set()

    def go_up_to(self, task: int) -> None:
        """Begin no task with this number or a higher one, until told otherwise."""
        self._up_to = task
        self._moved.set()

    @property
    def _window(self) -> int:
        slots = max((engine.engine.slots for engine in self.engines), default=0)
        budget = self._loaded.recipe.budget
        if budget.output_tokens is not None or budget.money is not None:
            return max(slots + slots // 8, FEW_AHEAD)  # what is begun is paid for
        return max(slots * WINDOW, LEAST_AHEAD)

    def anew(self, most: int) -> tuple[int, int]:
        """Of the first `most` tasks: how many have no stored answer to their first request, of how many."""
        tasks = list(islice(self._loaded.plan.tasks(), most if self._steps else 0))
        missing = 0
        for task in tasks:
            asking = self._steps[0]
            try:
                messages = asking.step.prompt.render(task.values)
            except PromptFailed:
                continue
            key = request_key(asking.frame.body(messages, repeat=task.repeat))
            missing += self._journal.stored_answer(key) is None
        return missing, len(tasks)

    async def branches(self) -> AsyncGenerator[Branch, None]:
        """Every branch, in task order whatever order they finish in.

        Raises EngineUnreachable where the engine does not come back. Closing the iterator cancels what runs.
        """
        tasks = self._loaded.plan.tasks(self._start)
        budget = self._loaded.recipe.budget
        running: deque[asyncio.Task[Branch]] = deque()
        exhausted, begun = False, self._start
        try:
            while True:
                self._moved.clear()
                while (
                    not exhausted
                    and not self._stopped
                    and len(running) < self._window
                    and (self._up_to is None or begun < self._up_to)
                ):
                    if self._spent.exhausts(budget):
                        # Every task begun is finished, so that in task order the budget is spent too.
                        exhausted = True
                        break
                    await self._journal.room()
                    task = next(tasks, None)
                    if task is None:
                        exhausted = True
                        break
                    running.append(asyncio.create_task(self._branch(task)))
                    begun += 1
                if not running:
                    if exhausted or self._stopped:
                        return
                    await self._moved.wait()
                    continue
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
        spent = Spent()
        body, error = None, None
        try:
            for asking in self._steps:
                values[asking.step.name] = await self._answer(asking, task, values, requests, numbers, spent)
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
        return Branch(task.index, "0", identity, body, error, requests, task.sources, spent)

    async def _answer(
        self,
        asking: _Asking,
        task: Task,
        values: Mapping[str, Any],
        requests: list[bytes],
        numbers: dict[bytes, int],
        spent: Spent,
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
            prices = self._loaded.models[asking.model].prices
            spent.add(completion, prices)
            self._spent.add(completion, prices)
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
        if self._others is not None and (found := self._others.answer(key)) is not None:
            self._journal.request_issued(key, body)
            self.tally.reused += 1
            return self._journal.completed(key, *found)
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
        try:
            completion = await asking.engine.ask(
                task.index,
                request,
                issued=partial(self._journal.request_issued, key, body),
                failed=partial(self._tried, key),
                stopped=self._is_stopped,
            )
        except RequestFailed as failure:
            self._journal.request_failed(key, str(failure), final=True)
            raise
        completion = self._journal.completed(key, completion)
        self.tally.asked += 1
        self.tally.input_tokens += completion.input_tokens
        self.tally.output_tokens += completion.output_tokens
        return completion

    def _tried(self, key: bytes, error: str) -> None:
        self._journal.request_failed(key, error, final=False)
        self.tally.retries += 1

    def _is_stopped(self) -> bool:
        return self._stopped


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
