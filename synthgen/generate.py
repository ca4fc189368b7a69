"""Generation: drives engines over a plan and gives the finished branches back in task order.

Requests run as many at a time as the engines have slots, older tasks first, and look-ahead is bounded. An
answer that the journal holds is not asked for again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import prod
from typing import Any

import orjson

from synthgen.answers import InvalidAnswer
from synthgen.asking import Asker, Manner, Paper, numbered
from synthgen.conversation import NoConversation
from synthgen.digests import record_id
from synthgen.engines.base import RequestFailed
from synthgen.journal import Journal
from synthgen.loaded import Loaded, LoadedStep
from synthgen.plan import Task
from synthgen.prompt import PromptFailed
from synthgen.rounds import Rounds
from synthgen.spending import Spent
from synthgen.steps import NoQuestions, Rendered, path_of
from synthgen.supervisor import Stopped
from synthgen.talking import begun, had

WINDOW = 4
FEW_AHEAD = 16
LEAST_AHEAD = 256  # tasks: one that waits its refusals out must not hold up the others


@dataclass(frozen=True, slots=True)
class Branch:
    """One finished branch: the contents of a record as JSON, or why there is none.

    `spent` and `new` (requests) are what it adds to the branches of its task before it; `rest` is how many
    follow. `was` is its state in the version that is curated anew.
    """

    task: int
    path: str
    id: str
    body: bytes | None
    error: str | None
    requests: Sequence[bytes]
    sources: Sequence[Mapping[str, Any]]
    spent: Spent
    was: str | None = None
    new: int = 0
    rest: int = 0


@dataclass(frozen=True)
class _Asking:
    """A step and how it is asked."""

    step: LoadedStep
    manner: Manner


@dataclass
class _Limb:
    """A branch that is growing: what it has so far, and which way it went at each step that fanned out.

    `shared` of its requests were a sibling's before.
    """

    values: dict[str, Any]
    paper: Paper
    turns: tuple[int, ...] = ()
    shared: int = 0

    def forked(self, turn: int, scope: Mapping[str, Any]) -> _Limb:
        """One of several that go on from here; the first of them has spent what was spent so far."""
        paper = replace(self.paper, requests=[*self.paper.requests], numbers={**self.paper.numbers})
        shared = self.shared
        if turn:
            paper.spent, shared = Spent(), len(paper.requests)
        return _Limb({**self.values, **scope}, paper, (*self.turns, turn), shared)


class Generation:
    """All branches of a recipe, in task order. `stop()` ends it early, without losing an answer."""

    def __init__(
        self,
        loaded: Loaded,
        asker: Asker,
        journal: Journal,
        *,
        start: int = 0,
        after: str | None = None,
        spent: Spent | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        """Begin with task number `start`, behind its branch `after` if given, when so much has been spent.

        The tasks are the plan's, or those of the rounds where there are any.
        """
        self._loaded = loaded
        self.asker = asker
        self._journal = journal
        self._start = start
        self._after = after
        self._spent = replace(spent) if spent is not None else Spent()
        self._order = rounds or loaded.plan
        self._up_to: int | None = None
        self._moved = asyncio.Event()
        self._steps = [
            _Asking(step, asker.manner(step.model, step.sampling, step.form)) for step in loaded.steps
        ]
        self._requests = prod(step.fan.n or 1 for step in loaded.steps)  # at a time, of one task

    def stop(self) -> None:
        """Ask nothing more; what is in flight goes on, and its answers are kept."""
        self.asker.stop()
        self._moved.set()

    def go_up_to(self, task: int) -> None:
        """Begin no task with this number or a higher one, until told otherwise."""
        self._up_to = task
        self._moved.set()

    @property
    def _window(self) -> int:
        slots = self.asker.slots
        budget = self._loaded.recipe.budget
        if budget.output_tokens is not None or budget.money is not None:
            # What is begun is paid for.
            return max((slots + slots // 8) // self._requests, FEW_AHEAD // self._requests, 1)
        return max(slots * WINDOW // self._requests, LEAST_AHEAD // self._requests, 1)

    def anew(self, most: int) -> tuple[int, int]:
        """Of the first `most` tasks: how many have no stored answer to their first request, of how many."""
        tasks = list(islice(self._loaded.plan.tasks(), most if self._steps else 0))
        missing = 0
        for task in tasks:
            asking = self._steps[0]
            try:
                scopes = asking.step.fan.scopes(task.values)
                if not scopes:
                    continue
                values = {**task.values, **scopes[0]}
                if asking.step.talk is not None:
                    missing += not begun(self.asker, asking.step, values, task.repeat)
                    continue
                messages = asking.step.prompt.render(values)
            except (PromptFailed, NoQuestions):
                continue
            missing += not self.asker.knows(asking.manner, messages, task.repeat)
        return missing, len(tasks)

    async def branches(self) -> AsyncGenerator[Branch, None]:
        """Every branch, in task order whatever order they finish in.

        Raises EngineUnreachable where the engine does not come back. Closing the iterator cancels what runs.
        """
        tasks = self._order.tasks(self._start)
        budget = self._loaded.recipe.budget
        running: deque[asyncio.Task[list[Branch]]] = deque()
        exhausted, begun = False, self._start
        try:
            while True:
                self._moved.clear()
                while (
                    not exhausted
                    and not self.asker.stopped
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
                    running.append(asyncio.create_task(self._task(task)))
                    begun += 1
                if not running:
                    if exhausted or self.asker.stopped:
                        return
                    await self._moved.wait()
                    continue
                try:
                    finished = await running[0]
                except Stopped:
                    await asyncio.gather(*running, return_exceptions=True)
                    return
                for branch in finished:
                    yield branch
                running.popleft()
        finally:
            for unfinished in running:
                unfinished.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _task(self, task: Task) -> list[Branch]:
        """All branches of a task, in order; of the one to go on with, those that were not judged before."""
        after = self._after if task.index == self._start else None
        totals = (self._spent,) if after is None else ()
        grown = await self._grow(task, _Limb(dict(task.values), Paper(task.index, task.repeat, totals)), 0)
        if len(grown) == 1 and after is None:
            return grown
        branches = [replace(branch, rest=len(grown) - place) for place, branch in enumerate(grown, 1)]
        if after is None:
            return branches
        branches = [branch for branch in branches if branch.path > after]
        for branch in branches:
            self._spent.more(branch.spent)
        return branches

    async def _grow(self, task: Task, limb: _Limb, place: int) -> list[Branch]:
        """Every branch that the steps from number `place` on make of this one, in order."""
        if task.fault is not None:
            return [self._branch(task, limb, None, task.fault)]
        for number, asking in enumerate(self._steps[place:], place + 1):
            fan = asking.step.fan
            try:
                scopes = fan.scopes(limb.values)
                if scopes is None:
                    limb.values |= fan.skipped()
                    continue
                asked = self._asked(asking, limb, scopes)
                if fan.branches:
                    return await self._forked(task, limb, asking, asked, number)
                limb.values |= fan.given(await self._answers(limb, asking, asked))
            except _FAILURES as failure:
                return [self._failed(task, limb, asking, failure)]
        return [self._finished(task, limb)]

    def _asked(self, asking: _Asking, limb: _Limb, scopes: Sequence[Mapping[str, Any]]) -> list[_Asked]:
        """The questions of a step, in order."""
        if asking.step.talk is not None:
            places = numbered([orjson.dumps(scope, option=orjson.OPT_SORT_KEYS) for scope in scopes], {})
            return [
                (scope, partial(had, self.asker, asking.step, {**limb.values, **scope}, place))
                for scope, place in zip(scopes, places, strict=True)
            ]
        rendered = asking.step.fan.rendered(asking.step.prompt, limb.values, scopes)
        frame, repeat = asking.manner.frame, limb.paper.repeat
        bodies = [
            b"" if isinstance(each, PromptFailed) else frame.body(each, repeat=repeat) for each in rendered
        ]
        numbers = zip(bodies, limb.paper.numbered(bodies), strict=True)
        return [
            (scope, partial(self._answer, asking.manner, messages, number))
            for scope, messages, number in zip(scopes, rendered, numbers, strict=True)
        ]

    async def _answer(
        self, manner: Manner, messages: Rendered, numbered: tuple[bytes, int], paper: Paper
    ) -> Any:
        if isinstance(messages, PromptFailed):
            raise messages
        return await self.asker.answer(manner, messages, paper, numbered)

    async def _answers(self, limb: _Limb, asking: _Asking, asked: Sequence[_Asked]) -> Any:
        """The answer to a step's one question, or the list of them. Raises what the first to fail raises."""
        if not asking.step.fan.gathers:
            [(_, ask)] = asked
            return await ask(limb.paper)
        of = limb.paper
        papers = [Paper(of.task, of.repeat, of.totals, numbers={**of.numbers}) for _ in asked]
        answers = await _all(ask(paper) for (_, ask), paper in zip(asked, papers, strict=True))
        for paper in papers:
            of.requests += paper.requests
            of.numbers |= paper.numbers
            of.spent.more(paper.spent)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _forked(
        self, task: Task, limb: _Limb, asking: _Asking, asked: Sequence[_Asked], place: int
    ) -> list[Branch]:
        """The branches of a step that fans out, each grown to its end."""

        async def one(turn: int, scope: Mapping[str, Any], ask: _Ask) -> list[Branch]:
            own = limb.forked(turn, scope)
            try:
                own.values |= asking.step.fan.given(await ask(own.paper))
            except _FAILURES as failure:
                return [self._failed(task, own, asking, failure)]
            return await self._grow(task, own, place)

        grown = await _all(one(turn, *each) for turn, each in enumerate(asked))
        return [branch for each in grown for branch in each]

    def _finished(self, task: Task, limb: _Limb) -> Branch:
        try:
            row = self._loaded.shape.make(limb.values)
            # A copy: what orjson gives keeps the whole buffer that it was written in.
            body = bytes(memoryview(orjson.dumps({"fields": limb.values, "row": row})))
        except PromptFailed as failure:
            return self._branch(task, limb, None, f"the record: {_of_a_template(failure)}")
        except NoConversation as failure:
            return self._branch(task, limb, None, str(failure))
        except orjson.JSONEncodeError as failure:
            return self._branch(task, limb, None, f"the record cannot be stored: {failure}")
        return self._branch(task, limb, body, None)

    def _failed(self, task: Task, limb: _Limb, asking: _Asking, failure: Exception) -> Branch:
        name = "" if isinstance(failure, RequestFailed) else f"step {asking.step.name}: "
        said = _of_a_template(failure) if isinstance(failure, PromptFailed) else str(failure)
        return self._branch(task, limb, None, f"{name}{said}")

    def _branch(self, task: Task, limb: _Limb, body: bytes | None, error: str | None) -> Branch:
        path, paper = path_of(limb.turns), limb.paper
        identity = record_id(self._loaded.recipe.name, task.digest, task.repeat, path)
        new = len(paper.requests) - limb.shared
        return Branch(
            task.index, path, identity, body, error, paper.requests, task.sources, paper.spent, new=new
        )


_Ask = Callable[[Paper], Coroutine[Any, Any, Any]]
_Asked = tuple[Mapping[str, Any], _Ask]  # what a question sees besides, and how it is put
_FAILURES = (PromptFailed, RequestFailed, InvalidAnswer, NoQuestions)  # of a branch


async def _all(asking: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What each of them gives or raises; Stopped and the like only when all have ended, for whoever waits."""
    found = await asyncio.gather(*asking, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, _FAILURES):
            raise each
    return found


def _of_a_template(failure: PromptFailed) -> str:
    return f"a template {failure}" if str(failure).startswith("cannot") else f"a template: {failure}"
