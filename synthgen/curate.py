"""Curation: measures branches in batches, judges them one by one in task order, and counts their fates."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import orjson

from synthgen.chain import ChainFilter, Measured
from synthgen.generate import Branch
from synthgen.journal import RecordEntry
from synthgen.measure import FilterFailed, Measurement, RecordMeasure, RunMeasure, as_measurement
from synthgen.recipe import Budget
from synthgen.spending import Spent
from synthgen.workers import Measurer

BATCH = 256
WAITING = 4096
DISTINCT_ERRORS = 1000
ERRORS_STORED = 10


@dataclass(slots=True)
class Counts:
    """How many branches came to which end, and by which filter."""

    kept: int = 0
    dropped: int = 0
    failed: int = 0
    requests: int = 0
    by_filter: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    spent: Spent = field(default_factory=Spent)

    @property
    def judged(self) -> int:
        """Branches that have come to an end."""
        return self.kept + self.dropped + self.failed

    def as_json(self) -> dict[str, Any]:
        """To be stored with the records that are counted, and gone on with by `of_json`."""
        return {
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "requests": self.requests,
            "filters": self.by_filter,
            "errors": self.errors.most_common(ERRORS_STORED),
            "spent": self.spent.as_json(),
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Counts:
        """What `as_json` gave."""
        return cls(
            kept=said["kept"],
            dropped=said["dropped"],
            failed=said["failed"],
            requests=said["requests"],
            by_filter=said["filters"],
            errors=Counter(dict(said["errors"])),
            spent=Spent(**said["spent"]),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """One branch's fate with everything that was measured, for whoever wants to watch."""

    entry: RecordEntry
    body: bytes | None


class Ledger(Protocol):
    """What curation needs of a journal."""

    def filter_number(self, key: str, name: str, description: Mapping[str, Any]) -> str:
        """The number under which a filter's measurements are stored."""

    def stored_measurements(self, content: bytes) -> dict[str, list[Any]] | None:
        """What filters measured of these contents, by the filter's number."""

    def records(self, version: int, state: str | None = None) -> Iterator[tuple[RecordEntry, bytes | None]]:
        """Every record of a version in task order, with the JSON of its contents."""

    def add_content(self, content: bytes, body: bytes, measured: Mapping[str, Any]) -> None:
        """Store a record's contents with all that was measured of them."""

    def add_record(self, version: int, entry: RecordEntry) -> None:
        """Store the fate of one branch."""


class Curation:
    """The filters of a recipe at work on a stream of branches, up to the cut where there is a target."""

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
    ) -> None:
        """Begin, or go on after what `counts` says."""
        self.counts = counts or Counts(by_filter={link.name: {"dropped": 0, "flagged": 0} for link in chain})
        self._chain = chain
        self._measurer = measurer
        self._journal = journal
        self._version = version
        self._target = target
        self._budget = budget
        self._max_failures = max_failures
        self._numbers = {
            link.name: journal.filter_number(link.key, link.name, describe(link)) for link in chain
        }
        self._compare: dict[str, RunMeasure] = {}
        for link in chain:
            if link.runs and not isinstance(made := link.make(), RecordMeasure):
                self._compare[link.name] = made

    @property
    def reached(self) -> bool:
        """Whether the target is kept."""
        return self._target is not None and self.counts.kept >= self._target

    @property
    def spent_out(self) -> str | None:
        """The part of the budget that is spent, if one is."""
        return self.counts.spent.exhausts(self._budget)

    @property
    def ended(self) -> bool:
        """Whether the cut is here: nothing that follows belongs to the dataset."""
        return self.reached or self.spent_out is not None

    @property
    def fails_too_often(self) -> bool:
        """Whether more have failed than are tolerable."""
        return self._max_failures is not None and self.counts.failed > self._max_failures

    async def recall(self) -> None:
        """Tell the filters of the run of what an earlier session kept of this version."""
        if not self._compare:
            return
        kept = self._journal.records(self._version, "kept")
        while batch := list(islice(kept, BATCH)):
            bodies = [body for _, body in batch if body is not None]
            ids = [entry.id for entry, _ in batch]
            known = [list(self._numbers)] * len(ids)
            measured = await asyncio.to_thread(self._measurer.measure, ids, bodies, known)
            for (entry, _), features in zip(batch, measured.features, strict=True):
                self._keep(entry.id, features)

    async def judge(self, branches: AsyncIterator[Branch]) -> AsyncGenerator[Judged, None]:
        """Every branch up to the cut, judged, in order.

        Batches are measured side by side and away from the event loop, each as large as has gathered when
        there is room for it, so that neither speed nor the last few rows wait for a batch to fill.
        """
        waiting: deque[Branch] = deque()
        news, room = asyncio.Event(), asyncio.Event()
        ended = False

        async def gather() -> None:
            nonlocal ended
            try:
                async for branch in branches:
                    waiting.append(branch)
                    news.set()
                    if len(waiting) >= WAITING:
                        room.clear()
                        await room.wait()
            finally:
                ended = True
                news.set()

        gathering = asyncio.create_task(gather())
        measuring: deque[asyncio.Task[_Batch]] = deque()
        with ThreadPoolExecutor(self._measurer.parallel, thread_name_prefix="measure") as threads:
            try:
                while True:
                    while waiting and len(measuring) <= self._measurer.parallel:
                        taken = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
                        room.set()
                        measuring.append(asyncio.create_task(self._measure(taken, threads)))
                    if not measuring:
                        if ended and not waiting:
                            break
                        news.clear()
                        if not waiting and not ended:
                            await news.wait()
                        continue
                    if not measuring[0].done() and not ended and len(measuring) <= self._measurer.parallel:
                        news.clear()
                        wake = asyncio.create_task(news.wait())
                        await asyncio.wait({measuring[0], wake}, return_when=asyncio.FIRST_COMPLETED)
                        wake.cancel()
                        continue
                    for judged in self._resolve(await measuring.popleft()):
                        yield judged
                    if self.ended or self.fails_too_often:
                        return
                await gathering
            finally:
                for task in (gathering, *measuring):
                    task.cancel()
                await asyncio.gather(gathering, *measuring, return_exceptions=True)

    async def _measure(self, branches: list[Branch], threads: ThreadPoolExecutor) -> _Batch:
        whole = [branch for branch in branches if branch.body is not None]
        bodies = [branch.body for branch in whole if branch.body is not None]
        shas = [hashlib.sha256(body).digest() for body in bodies]
        stored = [self._journal.stored_measurements(sha) for sha in shas]
        known = [
            [name for name, number in self._numbers.items() if number in measured] if measured else []
            for measured in stored
        ]
        measured = Measured([{} for _ in whole], [{} for _ in whole])
        if self._compare or any(len(names) < len(self._numbers) for names in known):
            loop = asyncio.get_running_loop()
            ids = [branch.id for branch in whole]
            measured = await loop.run_in_executor(threads, self._measurer.measure, ids, bodies, known)
        return _Batch(branches, shas, stored, measured)

    def _resolve(self, batch: _Batch) -> list[Judged]:
        judged = []
        place = 0
        for branch in batch.branches:
            if branch.body is None:
                judged.append(self._enter(branch, None, {}, branch.error))
            else:
                results, stored = batch.measured.results[place], batch.stored[place]
                features, sha = batch.measured.features[place], batch.shas[place]
                place += 1
                judged.append(self._one(branch, sha, stored, results, features))
            if self.ended or self.fails_too_often:
                break
        return judged

    def _one(
        self,
        branch: Branch,
        sha: bytes,
        stored: Mapping[str, list[Any]] | None,
        results: Mapping[str, Measurement | str],
        features: Mapping[str, bytes],
    ) -> Judged:
        measured = dict(stored or {})
        found: dict[str, Measurement] = {}
        error = None
        for link in self._chain:
            result = results.get(link.name)
            if isinstance(result, str):
                error = error or result
            elif link.runs:
                try:
                    compared = self._compare[link.name].resolve(branch.id, features[link.name])
                    found[link.name] = as_measurement(compared)
                except (Exception, SystemExit) as failure:  # any error of a user's code belongs to its record
                    error = error or str(FilterFailed(link.name, branch.id, failure))
            elif result is not None:
                found[link.name] = result
                measured[self._numbers[link.name]] = [result.value, result.detail]
            else:
                found[link.name] = Measurement(*measured[self._numbers[link.name]])
        if stored is None or len(measured) != len(stored):
            assert branch.body is not None
            self._journal.add_content(sha, branch.body, measured)
        return self._enter(branch, sha, found, error, features)

    def _keep(self, id: str, features: Mapping[str, bytes]) -> str | None:
        """Tell the filters of the run of a record that is kept; the error, if one of them raises."""
        for name, compare in self._compare.items():
            try:
                compare.keep(id, features[name])
            except (Exception, SystemExit) as failure:  # any error of a user's code belongs to its record
                return str(FilterFailed(name, id, failure))
        return None

    def _enter(
        self,
        branch: Branch,
        sha: bytes | None,
        found: Mapping[str, Measurement],
        error: str | None,
        features: Mapping[str, bytes] | None = None,
    ) -> Judged:
        self.counts.requests += len(branch.requests)
        self.counts.spent.more(branch.spent)
        state, dropped_by = "kept", None
        verdicts: dict[str, dict[str, Any]] = {}
        for link in self._chain:
            if link.name not in found:
                continue
            measurement = found[link.name]
            verdict = link.judge(measurement.value)
            verdicts[link.name] = {"value": measurement.value, "verdict": verdict}
            if measurement.detail:
                verdicts[link.name]["detail"] = measurement.detail
            if verdict == "flag":
                self.counts.by_filter[link.name]["flagged"] += 1
            elif verdict == "fail" and error is None:
                error = f"filter {link.name} could not measure: {(measurement.detail or {}).get('reason')}"
            elif verdict == "drop" and dropped_by is None:
                dropped_by = link.name
        if error is None and dropped_by is None:
            error = self._keep(branch.id, features or {})
        if error is not None:
            state, dropped_by = "failed", None
            self.counts.failed += 1
            if len(self.counts.errors) < DISTINCT_ERRORS or error in self.counts.errors:
                self.counts.errors[error] += 1
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
            content=sha,
            state=state,
            dropped_by=dropped_by,
            verdicts=verdicts,
            requests=branch.requests,
            sources=branch.sources,
            error=error,
        )
        self._journal.add_record(self._version, entry)
        return Judged(entry, branch.body)


@dataclass(frozen=True, slots=True)
class _Batch:
    branches: list[Branch]
    shas: list[bytes]
    stored: list[dict[str, list[Any]] | None]
    measured: Measured


def describe(link: ChainFilter) -> dict[str, Any]:
    """What the journal and the lock say of a filter."""
    files = {
        parameter: [{"path": file.name, "sha256": file.sha256} for file in named]
        for parameter, named in link.files.items()
    }
    return {
        "name": link.name,
        **({} if link.name == link.definition.name else {"filter": link.definition.name}),
        "origin": link.origin,
        "of": link.of,
        "min": link.min,
        "max": link.max,
        "action": link.action,
        "params": orjson.loads(orjson.dumps(link.params)),
        **({"files": files} if files else {}),
        "code_sha256": link.definition.code_sha256(),
    }
