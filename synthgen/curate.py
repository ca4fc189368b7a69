"""Curation: judges branches one by one in task order, and counts their fates."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, cast

from synthgen.chain import ChainFilter, describe
from synthgen.counting import Counts, alike
from synthgen.errors import RunError, SynthgenError
from synthgen.generate import Branch
from synthgen.journal_entries import RecordEntry
from synthgen.measure import FilterFailed, Measurement, RunMeasure, as_measurement
from synthgen.measuring import BATCH, Item, Memory, Stream
from synthgen.provenance.merkle import Growing
from synthgen.provenance.statement import leaf_of, tree_of
from synthgen.questions import Questions
from synthgen.recipe import Budget
from synthgen.supervisor import Stopped
from synthgen.workers import Measurer

DISTINCT_ERRORS = 1000
FAILS_IN_A_ROW = 20
UNMEASURED = Measurement(None, {"reason": "no model was asked about it; `synthgen curate --measure` asks"})


@dataclass(frozen=True, slots=True)
class Judged:
    """One branch's fate with everything that was measured, for whoever wants to watch."""

    entry: RecordEntry
    body: bytes | None


class Ledger(Memory, Protocol):
    """What curation needs of a journal."""

    def filter_number(self, key: str, name: str, description: Mapping[str, Any]) -> str:
        """The number under which a filter's measurements are stored."""

    def records(
        self, version: int, state: str | None = None, *, original: bool = False
    ) -> Iterator[tuple[RecordEntry, bytes | None]]:
        """Every record of a version in task order, with the JSON of its contents."""

    def leaves(self, version: int) -> Iterator[bytes | None]:
        """The leaf hash of each record of a version, in order."""

    def add_content(self, content: bytes, body: bytes, measured: Mapping[str, Any]) -> None:
        """Store a record's contents with all that was measured of them."""

    def add_record(self, version: int, entry: RecordEntry) -> None:
        """Store the fate of one branch."""


class Curation:
    """The filters of a recipe at work on a stream of branches, up to the cut where there is a target.

    Without `questions` no model is asked: what was never measured by one stays as it was.
    """

    def __init__(
        self,
        chain: Sequence[ChainFilter],
        measurer: Measurer,
        journal: Ledger,
        version: int,
        target: int | None,
        budget: Budget,
        counts: Counts | None = None,
        *,
        max_failures: int | None = None,
        questions: Questions | None = None,
        attempts: int | None = None,
    ) -> None:
        """Begin, or go on after what `counts` says. Ends at `attempts` branches, where that is given."""
        self.counts = counts or Counts(by_filter={link.name: _none(link) for link in chain})
        self._chain = chain
        self._journal = journal
        self._version = version
        self._target = target
        self._attempts = attempts
        self._budget = budget
        self._max_failures = max_failures
        self._questions = questions
        self._numbers = {
            link.name: journal.filter_number(link.key, link.name, describe(link)) for link in chain
        }
        self._stream = Stream(chain, measurer, journal, self._numbers, self._announce)
        self._compare = {link.name: cast(RunMeasure, link.make()) for link in chain if link.runs}
        self._asks = any(link.asks for link in chain)
        self._in_a_row: Counter[str] = Counter()
        self.tree = Growing()
        self.unmeasured: Counter[str] = Counter()

    @property
    def reached(self) -> bool:
        """Whether the target is kept."""
        return self._target is not None and self.counts.kept >= self._target

    @property
    def spent_out(self) -> str | None:
        """The part of the budget that is spent, if one is."""
        return self.counts.spent.exhausts(self._budget)

    @property
    def tried_out(self) -> bool:
        """Whether as many branches were tried as a target may."""
        return self._attempts is not None and self.counts.judged >= self._attempts

    @property
    def ended(self) -> bool:
        """Whether the cut is here: nothing that follows belongs to the dataset."""
        return self.reached or self.spent_out is not None or self.tried_out

    @property
    def fails_too_often(self) -> bool:
        """Whether more have failed than are tolerable."""
        return self._max_failures is not None and self.counts.failed > self._max_failures

    def recall_ledger(self) -> None:
        """Go on with the ledger of an earlier session."""
        for leaf in self._journal.leaves(self._version):
            if leaf is None:  # an earlier synthgen judged it, and stored none
                self.tree = tree_of(self._journal.records(self._version))
                break
            self.tree.append(leaf)

    async def recall(self) -> None:
        """Tell the filters of the run of what an earlier session kept of this version."""
        if not self._compare:
            return
        # What they read besides, they read now: before anything is asked of an engine, and in a thread.
        await asyncio.to_thread(self._announce, [])
        kept = self._journal.records(self._version, "kept")
        while batch := list(islice(kept, BATCH)):
            bodies = [body for _, body in batch if body is not None]
            needed = await self._stream.features([entry.id for entry, _ in batch], bodies)
            self._announce(needed)
            for (entry, _), features in zip(batch, needed, strict=True):
                self._keep(entry.id, features)

    async def judge(self, branches: AsyncIterator[Branch]) -> AsyncGenerator[Judged, None]:
        """Every branch up to the cut, judged, in order. Ends early where the engines are told to stop.

        Once more have failed than are tolerable it judges nothing more, and ends when they are.

        Raises RunError where a filter goes on failing.
        """
        async with aclosing(self._stream.items(branches)) as items:
            ahead = self._ahead(items) if self._asks and self._questions is not None else items
            async with aclosing(ahead):
                async for item in ahead:
                    if self.fails_too_often:  # whoever stops the engines waits for what is in flight
                        continue
                    try:
                        yield await self._one(item)
                    except Stopped:
                        return
                    if self.ended:
                        return

    async def _ahead(self, items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same items in the same order, while models are asked about the ones that follow."""
        assert self._questions is not None
        waiting: deque[Item] = deque()
        news, room = asyncio.Event(), asyncio.Event()
        ended = False

        async def gather() -> None:
            nonlocal ended
            assert self._questions is not None
            try:
                async for item in items:
                    self._begin_to_ask(item)
                    waiting.append(item)
                    news.set()
                    while len(waiting) >= self._questions.ahead:
                        room.clear()
                        await room.wait()
            finally:
                ended = True
                news.set()

        gathering = asyncio.create_task(gather())
        item: Item | None = None
        try:
            while waiting or not ended:
                if not waiting:
                    news.clear()
                    await news.wait()
                    continue
                item = waiting.popleft()
                room.set()
                yield item
            await gathering
        finally:
            asked = [task for each in (item, *waiting) if each is not None for task in each.asked.values()]
            for task in (gathering, *asked):
                task.cancel()
            await asyncio.gather(gathering, *asked, return_exceptions=True)

    def _begin_to_ask(self, item: Item) -> None:
        """Ask what will be needed unless something unforeseen drops it: what stands before lets it pass."""
        assert self._questions is not None
        if item.body is None:
            return
        last = max(place for place, link in enumerate(self._chain) if link.asks)
        before: list[tuple[ChainFilter, asyncio.Task[Measurement | str]]] = []
        for link in self._chain[: last + 1]:
            result = item.results.get(link.name)
            if link.runs and result is None:
                result = self._compared(link, item)
            elif result is None:
                result = self._known(link, item)
            if result is None:
                task = asyncio.create_task(self._ask(link, item, tuple(before)))
                task.add_done_callback(_heard)
                item.asked[link.name] = task
                before.append((link, task))
            elif isinstance(result, str) or link.judge(result.value) in ("drop", "fail"):
                return

    async def _ask(
        self,
        link: ChainFilter,
        item: Item,
        before: Sequence[tuple[ChainFilter, asyncio.Task[Measurement | str]]] = (),
    ) -> Measurement | str:
        """Ask about a record, once those that are asked before let it pass; else nobody will want to know."""
        assert self._questions is not None
        assert item.body is not None
        for earlier, asking in before:
            result = await asyncio.shield(asking)
            if isinstance(result, str) or earlier.judge(result.value) in ("drop", "fail"):
                return UNMEASURED
        return await self._questions.about(link.name, item.branch.task, item.branch.id, item.body)

    def _compared(self, link: ChainFilter, item: Item) -> Measurement | str:
        try:
            resolved = self._compare[link.name].resolve(item.branch.id, item.features[link.name])
            return as_measurement(resolved)
        except (Exception, SystemExit) as failure:  # any error of a user's code belongs to its record
            return str(FilterFailed(link.name, item.branch.id, failure))

    def _known(self, link: ChainFilter, item: Item) -> Measurement | None:
        """What is stored of these contents."""
        known = item.known_of_original if link.action == "redact" and item.original else item.known
        stored = (known or {}).get(self._numbers[link.name])
        return None if stored is None else Measurement(*stored)

    async def _one(self, item: Item) -> Judged:
        branch = item.branch
        if branch.body is None:
            return self._enter(item, {}, branch.error)
        found: dict[str, Measurement] = {}
        error: str | None = None
        passes = True
        for link in self._chain:
            result: Measurement | str | None = item.results.get(link.name)
            if link.runs and result is None:
                result = self._compared(link, item)
            elif link.asks:
                if not passes or error is not None:
                    continue
                result = await self._asked(link, item)
            elif result is None:
                result = self._known(link, item)
            assert result is not None
            self._note(link, result)
            if isinstance(result, str):
                error = error or result
                continue
            found[link.name] = result
            passes = passes and link.judge(result.value) not in ("drop", "fail")
        for asking in item.asked.values():  # about what turned out to be dropped
            asking.cancel()
        self._store(item, found)
        return self._enter(item, found, error)

    async def _asked(self, link: ChainFilter, item: Item) -> Measurement | str:
        result: Measurement | str | None = self._known(link, item)
        if result is None and self._questions is not None:
            asking = item.asked.pop(link.name, None)
            result = await (asking if asking is not None else self._ask(link, item))
        if self._questions is not None and isinstance(result, Measurement):
            self.counts.spent.more(self._questions.spent_on(link.name, result.detail))
            self.counts.requests += len((result.detail or {}).get("requests", ()))
        return UNMEASURED if result is None else result

    def _note(self, link: ChainFilter, result: Measurement | str) -> None:
        """Raises RunError where the filter's errors are to end the run."""
        if not isinstance(result, str):
            self._in_a_row[link.name] = 0
            return
        self._in_a_row[link.name] += 1
        again = self._in_a_row[link.name]
        hint = "nothing that was generated is lost; mend it, and run the same command again"
        if link.on_error == "stop":
            raise RunError(result, hint=hint)
        if link.on_error is None and again >= FAILS_IN_A_ROW:
            raise RunError(
                f"{again} records in a row failed at one filter; the last: {result}",
                hint=f"{hint}; `{link.name}: {{on_error: fail}}` sets such records aside, however many",
            )

    def _store(self, item: Item, found: Mapping[str, Measurement]) -> None:
        """Store what is new, each measurement with the contents that it was taken of."""
        assert item.content is not None
        assert item.body is not None
        of_original, of_content = dict(item.known_of_original or {}), dict(item.known or {})
        for link in self._chain:
            measurement = found.get(link.name)
            if not link.stored or measurement is None or measurement is UNMEASURED:
                continue
            measured = of_original if item.original and link.action == "redact" else of_content
            if link.runs:
                feature = b64encode(item.features[link.name]).decode()
                measured[self._numbers[link.name]] = [None, {"feature": feature}]
            else:
                measured[self._numbers[link.name]] = [measurement.value, measurement.detail]
        if item.known is None or len(of_content) != len(item.known):
            self._journal.add_content(item.content, item.body, of_content)
        known = item.known_of_original
        if item.original is not None and (known is None or len(of_original) != len(known)):
            assert item.branch.body is not None
            self._journal.add_content(item.original, item.branch.body, of_original)

    def _announce(self, batch: Sequence[Mapping[str, bytes]]) -> None:
        """Show the filters of the run that want to look ahead what comes next."""
        for name, compare in self._compare.items():
            if hasattr(compare, "ahead"):
                try:
                    compare.ahead([features[name] for features in batch if name in features])
                except SynthgenError:
                    raise
                except (Exception, SystemExit) as failure:  # any error of a user's code is the user's to read
                    raise RunError(f"filter {name} failed: {type(failure).__name__}: {failure}") from failure

    def _keep(self, id: str, features: Mapping[str, bytes]) -> str | None:
        """Tell the filters of the run of a record that is kept; the error, if one of them raises."""
        for name, compare in self._compare.items():
            try:
                compare.keep(id, features[name])
            except (Exception, SystemExit) as failure:  # any error of a user's code belongs to its record
                return str(FilterFailed(name, id, failure))
        return None

    def _enter(self, item: Item, found: Mapping[str, Measurement], error: str | None) -> Judged:
        branch = item.branch
        self.counts.requests += branch.new
        self.counts.spent.more(branch.spent)
        self.counts.task, self.counts.branch, self.counts.rest = branch.task, branch.path, branch.rest
        state, dropped_by = "kept", None
        verdicts: dict[str, dict[str, Any]] = {}
        for link in self._chain:
            if link.name not in found:
                continue
            measurement = found[link.name]
            verdict = link.judge(measurement.value)
            if measurement is UNMEASURED:
                self.unmeasured[link.name] += 1
                verdict = "unmeasured" if branch.was in ("kept", None) else "drop"
            verdicts[link.name] = {"value": measurement.value, **link.bounds, "verdict": verdict}
            if measurement.detail:
                verdicts[link.name]["detail"] = measurement.detail
            if verdict in ("flag", "redact"):
                self.counts.by_filter[link.name]["flagged" if verdict == "flag" else "redacted"] += 1
            elif verdict == "fail" and error is None:
                error = f"filter {link.name} could not measure: {(measurement.detail or {}).get('reason')}"
            elif verdict == "drop" and dropped_by is None:
                dropped_by = link.name
        if error is None and dropped_by is None:
            error = self._keep(branch.id, item.features)
        if error is not None:
            state, dropped_by = "failed", None
            self.counts.failed += 1
            said = alike(error, branch.id)
            if len(self.counts.errors) < DISTINCT_ERRORS or said in self.counts.errors:
                self.counts.errors[said] += 1
        elif dropped_by is not None:
            state = "dropped"
            self.counts.dropped += 1
            self.counts.by_filter[dropped_by]["dropped"] += 1
        else:
            self.counts.kept += 1
        entry = RecordEntry(
            task=branch.task,
            branch=branch.path,
            id=branch.id,
            content=item.content,
            state=state,
            dropped_by=dropped_by,
            verdicts=verdicts,
            requests=branch.requests,
            sources=branch.sources,
            error=error,
            original=item.original,
        )
        leaf = leaf_of(entry, item.body)
        entry = replace(entry, leaf=leaf)
        self.tree.append(leaf)
        self._journal.add_record(self._version, entry)
        return Judged(entry, item.body)


def _heard(asking: asyncio.Task[Any]) -> None:
    """Nobody need wait for it: what goes wrong with an engine is raised by whoever does."""
    if not asking.cancelled():
        asking.exception()


def _none(link: ChainFilter) -> dict[str, int]:
    redacted = {"redacted": 0} if link.action == "redact" else {}
    return {"dropped": 0, "flagged": 0, **redacted}
