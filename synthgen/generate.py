"""Generation: drives engines over a plan and gives the finished branches back in task order.

Requests run as many at a time as the engines have slots, older tasks first, and look-ahead is bounded. An
answer that the journal holds is not asked for again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import orjson

from synthgen.asking import Asker, InvalidAnswer, Manner, Paper
from synthgen.conversation import NoConversation
from synthgen.digests import record_id
from synthgen.engines.base import RequestFailed
from synthgen.journal import Journal
from synthgen.loading import Loaded, LoadedStep
from synthgen.plan import Task
from synthgen.prompt import PromptFailed
from synthgen.spending import Spent
from synthgen.supervisor import Stopped

WINDOW = 4
FEW_AHEAD = 16
LEAST_AHEAD = 256  # tasks: one that waits its refusals out must not hold up the others


@dataclass(frozen=True, slots=True)
class Branch:
    """One finished branch: the contents of a record as JSON, or why there is none.

    `was` is its state in the version that is curated anew.
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


@dataclass(frozen=True)
class _Asking:
    """A step and how it is asked."""

    step: LoadedStep
    manner: Manner


class Generation:
    """All branches of a recipe, in task order. `stop()` ends it early, without losing an answer."""

    def __init__(
        self, loaded: Loaded, asker: Asker, journal: Journal, *, start: int = 0, spent: Spent | None = None
    ) -> None:
        """Begin with task number `start`, after earlier ones that spent so much."""
        self._loaded = loaded
        self.asker = asker
        self._journal = journal
        self._start = start
        self._spent = replace(spent) if spent is not None else Spent()
        self._up_to: int | None = None
        self._moved = asyncio.Event()
        self._steps = [
            _Asking(step, asker.manner(step.model, step.sampling, step.prompt.schema))
            for step in loaded.steps
        ]

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
            missing += not self.asker.knows(asking.manner, messages, task.repeat)
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
                    running.append(asyncio.create_task(self._branch(task)))
                    begun += 1
                if not running:
                    if exhausted or self.asker.stopped:
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
        paper = Paper(task.index, task.repeat, (self._spent,))
        body, error = None, None
        try:
            for asking in self._steps:
                messages = asking.step.prompt.render(values)
                try:
                    values[asking.step.name] = await self.asker.answer(asking.manner, messages, paper)
                except InvalidAnswer as failure:
                    raise InvalidAnswer(f"step {asking.step.name}: {failure}") from None
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
        return Branch(task.index, "0", identity, body, error, paper.requests, task.sources, paper.spent)
