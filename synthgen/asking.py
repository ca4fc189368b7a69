"""A request answered once: by the journal, by another run, or by an engine that is kept alive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from synthgen.answers import Form, InvalidAnswer
from synthgen.digests import RequestFrame, request_frame, request_key, sampling_seed
from synthgen.engines.base import Completion, Engine, Message, Request, RequestFailed
from synthgen.journal import Journal
from synthgen.recipe_models import ModelRef
from synthgen.reuse import Others
from synthgen.spending import Spent
from synthgen.supervisor import Patience, Supervisor


@dataclass(slots=True)
class Tally:
    """What was asked so far in this session."""

    asked: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Manner:
    """How one kind of question is asked: of which model, sampled how, answered in which form."""

    frame: RequestFrame
    engine: Supervisor
    model: ModelRef
    sampling: Mapping[str, Any]
    form: Form


def numbered(bodies: Sequence[bytes], numbers: dict[bytes, int]) -> list[int]:
    """Of each of these requests, how many equal ones come before it; `numbers` counts them."""
    found = []
    for body in bodies:
        found.append(numbers.get(body, 0))
        numbers[body] = found[-1] + 1
    return found


@dataclass(slots=True)
class Paper:
    """What one branch, or one filter on one record, has asked: keys in order, and what it came to.

    Older tasks are answered first. `totals` count what is spent here too, as soon as it is. `content` is the
    digest of the contents that a filter asks about.
    """

    task: int
    repeat: int = 0
    totals: Sequence[Spent] = ()
    requests: list[bytes] = field(default_factory=list)
    numbers: dict[bytes, int] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    content: bytes | None = None

    def numbered(self, bodies: Sequence[bytes]) -> list[int]:
        """Of each of these requests, how many equal ones come before it."""
        return numbered(bodies, self.numbers)


class Asker:
    """The engines of a run, asked through its journal. `stop()` lets nothing more go out.

    `started` is told of each start of an engine.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        models: Mapping[str, ModelRef],
        journal: Journal,
        *,
        seed: int,
        others: Others | None = None,
        patience: Patience | None = None,
        note: Callable[[str], None] = lambda _: None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self.tally = Tally()
        self.stopped = False
        self._journal = journal
        self._seed = seed
        self._others = others
        self._models = models
        self._engines = engines
        patience = patience or Patience()
        kept = {id(engine): Supervisor(engine, patience, note, started) for engine in engines.values()}
        self._kept = kept
        self.engines = list(kept.values())
        self._asked: dict[bytes, asyncio.Future[Completion]] = {}

    @property
    def starting(self) -> bool:
        """Whether an engine is being started; one is when it is first asked something."""
        return any(engine.starting for engine in self.engines)

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answers."""
        return sum(engine.in_flight for engine in self.engines)

    @property
    def slots(self) -> int:
        """How many requests are worth having in flight with one engine."""
        return max((engine.engine.slots for engine in self.engines), default=0)

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
        self.stopped = True

    def manner(self, model: str, sampling: Mapping[str, Any], form: Form) -> Manner:
        """How to ask the model of that name, with this sampling, for an answer of this form."""
        engine, ref = self._engines[model], self._models[model]
        frame = request_frame(
            engine.identity,
            sampling=sampling,
            schema=form.schema,
            seed=self._seed,
            template_args=ref.template_args,
        )
        return Manner(frame, self._kept[id(engine)], ref, sampling, form)

    def knows(self, manner: Manner, messages: Sequence[Message], repeat: int) -> bool:
        """Whether the first of these requests is answered already."""
        return (
            self._journal.stored_answer(request_key(manner.frame.body(messages, repeat=repeat))) is not None
        )

    def spent_on(self, model: str, keys: Sequence[bytes]) -> Spent:
        """What the stored answers to these requests came to."""
        spent = Spent()
        for key in keys:
            if (completion := self._journal.stored_answer(key)) is not None:
                spent.add(completion, self._models[model].prices)
        return spent

    async def answer(
        self,
        manner: Manner,
        messages: Sequence[Message],
        paper: Paper,
        numbered: tuple[bytes, int] | None = None,
    ) -> Any:
        """The answer, read as its form says. Asks again where it cannot be.

        `numbered` is the request as the first of its kind, and how many equal ones of the branch come before
        it, where that is not for the paper to count. Raises InvalidAnswer where no answer can be used,
        RequestFailed, Stopped or EngineUnreachable.
        """
        if numbered is None:
            plain = manner.frame.body(messages, repeat=paper.repeat)
            numbered = plain, paper.numbered([plain])[0]
        body, number = numbered
        asked, form = messages, manner.form
        for attempt in range(form.retries + 1):
            if number or attempt:
                body = manner.frame.body(asked, repeat=paper.repeat, number=number, attempt=attempt)
            key = request_key(body)
            paper.requests.append(key)
            if paper.content is not None:
                self._journal.asked_about(paper.content, key)
            completion = await self._complete(manner, paper.task, key, body, asked)
            for spent in (paper.spent, *paper.totals):
                spent.add(completion, manner.model.prices)
            try:
                return form.read(completion)
            except InvalidAnswer as invalid:
                self._journal.answer_unusable(key, str(invalid))
                if attempt == form.retries:
                    times = f"asked {attempt + 1} times" if attempt else "asked once"
                    raise InvalidAnswer(f"{invalid}, {times}") from None
                asked = form.again(messages, completion.text, invalid)
        raise AssertionError("unreachable")

    async def _complete(
        self, manner: Manner, task: int, key: bytes, body: bytes, messages: Sequence[Message]
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
        if key in self._asked:  # two of equal prompts: one answer, in flight now
            completion = await asyncio.shield(self._asked[key])
            self.tally.reused += 1
            return completion
        answer = self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            completion = await self._ask(manner, task, key, body, messages)
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
        self, manner: Manner, task: int, key: bytes, body: bytes, messages: Sequence[Message]
    ) -> Completion:
        request = Request(key.hex(), messages, manner.sampling, sampling_seed(key), manner.form.schema)
        try:
            completion = await manner.engine.ask(
                task,
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
        return self.stopped
