"""One run from beginning to end: engines, journal, generation, curation, files, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthgen.asking import Asker
from synthgen.balance import Schedule
from synthgen.chain import describe
from synthgen.counting import Counts, alike
from synthgen.curate import Curation, Judged
from synthgen.digests import sha256
from synthgen.engines.base import Engine
from synthgen.environment import environment
from synthgen.errors import RunError, SynthgenError, UsageError
from synthgen.export.card import Published
from synthgen.export.dataset import write_failures, write_version
from synthgen.export.durable import recover
from synthgen.generate import Generation
from synthgen.growth import Growth
from synthgen.journal import Journal, open_journal
from synthgen.journal_entries import RecordEntry
from synthgen.loading import Loaded
from synthgen.provenance.keys import signing_key
from synthgen.provenance.lock import fingerprint, lock, lock_yaml
from synthgen.provenance.manifest import files_present
from synthgen.questions import Questions
from synthgen.reuse import open_others
from synthgen.rounds import Rounds, Verdict
from synthgen.supervisor import Patience
from synthgen.trial import trial
from synthgen.why import why
from synthgen.workers import open_measurer

DRAIN_SECONDS = 10.0
TICK = 0.2
FIRST_FEW = 8
LOOKED_AT = 1000  # tasks, to tell how much an edited recipe would ask anew


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; given to the caller's `on_progress` a few times a second."""

    stage: str
    planned: int | None
    target: int | None
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    in_flight: int = 0
    reused: int = 0
    output_tokens: int = 0
    by_filter: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to. `planned` = `kept` + `dropped` + `failed` + `pending`, always.

    `outcome` is `done`, `nothing to do`, `short` (a budget or the seeds ended before the target, or before
    the last task), `failures`, `too many failures` (it stopped at them, with tasks pending) or `interrupted`.
    `ended_by` is what it ended at: `target`, `tasks`, `attempts`, `output_tokens`, `money`, `seconds`, or
    None where it did not end. `written` is false where every task failed, and an earlier dataset was left
    as it is. `errors` are the commonest of the failed tasks, with how often each came.
    """

    run: str
    dir: Path
    outcome: str
    planned: int
    kept: int
    dropped: int
    failed: int
    pending: int
    reused: int
    filters: Mapping[str, Mapping[str, int]]
    usage: Mapping[str, int]
    seconds: float
    target: int | None = None
    ended_by: str | None = None
    reused_from: Mapping[str, int] = field(default_factory=dict)
    money: float | None = None
    written: bool = True
    errors: Sequence[tuple[str, int]] = ()
    balance: Mapping[str, Any] = field(default_factory=dict)
    growth: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object that `run --json` prints."""
        return {
            "run": self.run,
            "dir": str(self.dir),
            "outcome": self.outcome,
            "ended_by": self.ended_by,
            "planned": self.planned,
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "pending": self.pending,
            "reused": self.reused,
            "reused_from": dict(self.reused_from),
            "filters": {name: dict(counts) for name, counts in self.filters.items()},
            "usage": dict(self.usage),
            "money": self.money,
            "seconds": round(self.seconds, 3),
            **({"balance": dict(self.balance)} if self.balance else {}),
            **({"growth": dict(self.growth)} if self.growth else {}),
        }


class Stop(threading.Event):
    """Asks a run to stop, and, by `at_once`, not to wait for what is in flight either.

    `heeded` says that the run looks at it several times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at_once = False
        self.heeded = False


class Driver:
    """Runs one recipe in one directory with engines that somebody opened."""

    def __init__(
        self,
        loaded: Loaded,
        directory: Path,
        engines: Mapping[str, Engine],
        *,
        cancel: threading.Event | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_record: Callable[[Judged], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        confirm: Callable[[], bool] | None = None,
        retry_failed: bool = False,
        reuse: Sequence[Path] = (),
        max_failures: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._loaded = loaded
        self._directory = directory
        self._engines = engines
        self._cancel = cancel or Stop()
        self._stop = self._cancel if isinstance(self._cancel, Stop) else Stop()
        self._on_progress = on_progress
        self._on_record = on_record
        self._note = on_notice or (lambda _: None)
        self._confirm = confirm
        self._retry_failed = retry_failed
        self._reuse = reuse
        self._max_failures = max_failures
        self._patience = patience or Patience()
        self._seconds_before = 0.0
        self._rounds: Rounds | None = None
        self._kept_alive: dict[int, dict[str, Any]] = {}
        self._locked = lock(loaded, {name: engine.identity for name, engine in engines.items()})
        self._began = time.monotonic()

    async def run(self) -> RunResult:
        """Generate, curate and write. Raises RecipeError, RunError, EngineUnreachable or UsageError."""
        trial(self._loaded)
        self._signer = signing_key(os.environ)
        self._others = open_others(self._reuse, self._directory, usable_only=self._retry_failed)
        try:
            return await self._in_directory()
        finally:
            self._others.close()

    async def _in_directory(self) -> RunResult:
        journal = open_journal(self._directory, self._loaded.recipe.name)
        outcome, reason = "failed", None
        try:
            recover(self._directory)
            finished = self._nothing_to_do(journal)
            if finished is not None:
                outcome = finished.outcome
                return finished
            self._tell_of_edits(journal)
            journal.begin_session("run", {**environment(), **self._asked_for()})
            try:
                result = await self._through(journal)
            except BaseException as error:
                reason = why(error, self._loaded.project.root)
                raise
            else:
                outcome = result.outcome
                return result
            finally:
                with contextlib.suppress(RunError):
                    journal.end_session(outcome, self._details(), reason)
        finally:
            journal.close()

    def _asked_for(self) -> dict[str, Any]:
        """The recipe's file as it was read, and what was said beside it that no lock has."""
        return {
            "recipe_file_sha256": sha256(self._loaded.file.text.encode()),
            "arguments": {
                "retry_failed": self._retry_failed,
                "max_failures": self._max_failures,
                "reuse": [place.resolve().name for place in self._reuse],
                "patience": self._patience.faults,
            },
        }

    def _tell_of_edits(self, journal: Journal) -> None:
        """Say how much an edited recipe would ask anew. Raises UsageError where that is not wanted."""
        if not journal.had_answers or journal.knows(fingerprint(self._locked)):
            return
        missing, looked = Generation(self._loaded, self._asker(journal), journal).anew(LOOKED_AT)
        if not missing:
            return
        tasks = f"the first {looked:,} tasks" if looked == LOOKED_AT else f"{looked:,} tasks"
        self._note(f"the recipe has changed: of {tasks} {missing:,} would be asked anew; no answer is lost")
        if self._confirm is not None and not self._confirm():
            raise UsageError("nothing was asked, and nothing has changed")

    def _asker(self, journal: Journal) -> Asker:
        return Asker(
            self._engines,
            self._loaded.models,
            journal,
            seed=self._loaded.recipe.seed,
            others=self._others,
            patience=self._patience,
            note=self._note,
            # Before the first answer: one that a later death leaves behind can still be replayed.
            started=lambda: journal.note_engines(self._details()),
        )

    def _details(self) -> dict[str, Any]:
        return {
            name or "default": {**engine.identity.details, **self._kept_alive.get(id(engine), {})}
            for name, engine in self._engines.items()
        }

    def _nothing_to_do(self, journal: Journal) -> RunResult | None:
        last = journal.last_finished("run")
        if last is None or last[1] != fingerprint(self._locked) or self._retry_failed:
            return None
        if journal.unfinished_version("run", fingerprint(self._locked)) is not None:
            return None  # an answer to --retry-failed that was not finished
        locked = self._directory / "dataset" / "provenance" / "recipe.lock.yaml"
        if not locked.is_file() or locked.read_bytes() != self._lock_yaml(last[3]):
            return None
        if not (files_present(self._directory) and files_present(self._directory / "dataset")):
            return None
        said = last[2]
        return RunResult(
            run=said["run"],
            dir=self._directory,
            outcome="nothing to do",
            planned=said["planned"],
            kept=said["kept"],
            dropped=said["dropped"],
            failed=said["failed"],
            pending=said["pending"],
            reused=said["planned"],
            filters=said["filters"],
            usage={"input_tokens": 0, "output_tokens": 0, "requests": 0},
            seconds=self._seconds,
            target=self._loaded.recipe.target,
            ended_by=said.get("ended_by"),
            money=said.get("money"),
            balance=said.get("balance", {}),
            growth=said.get("growth", {}),
            errors=_commonest_errors(journal, last[0]),
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _lock_yaml(self, cut: Mapping[str, Any] | None) -> bytes:
        return lock_yaml({**self._locked, "cut": cut} if cut else self._locked)

    async def _through(self, journal: Journal) -> RunResult:
        begun = None
        if self._retry_failed:
            journal.forget_failures()
        else:
            begun = journal.unfinished_version("run", fingerprint(self._locked))
        chain = [describe(link) for link in self._loaded.chain]
        version = begun[0] if begun else journal.begin_version("run", fingerprint(self._locked), chain)
        counts = Counts.of_json(begun[1]) if begun else None
        cut: Mapping[str, Any] | None = begun[1]["cut"] if begun else None
        self._seconds_before = begun[1]["seconds"] if begun else 0.0
        before = counts.requests if counts else 0
        recipe, loaded = self._loaded.recipe, self._loaded
        expected = loaded.planned and loaded.planned * loaded.fan
        measurer = open_measurer(loaded.chain, loaded.project, expected)
        asker = self._asker(journal)
        try:
            curation = Curation(
                loaded.chain,
                measurer,
                journal,
                version,
                recipe.target,
                recipe.budget,
                counts,
                max_failures=self._max_failures,
                questions=Questions(loaded.chain, asker),
                attempts=loaded.attempts,
            )
            if counts is not None:
                curation.recall_ledger()
                journal.checkpoint(version, curation.tree.size, curation.tree.root())
            place = curation.counts
            partly = place.rest > 0
            rounds = self._in_rounds(journal, version, place)
            generation = Generation(
                loaded,
                asker,
                journal,
                start=place.task if partly else place.tasks,
                after=place.branch if partly else None,
                spent=place.spent,
                rounds=rounds,
            )
            journal.on_commit = lambda: (version, self._progress_of(curation))
            stopped = None
            try:
                if cut is None and not curation.ended:
                    if counts is not None:
                        await curation.recall()
                    stopped = await self._generate(journal, generation, curation)
            finally:
                await asker.close()
                self._kept_alive = _kept_alive(asker)
        except SynthgenError:
            with contextlib.suppress(RunError):
                journal.checkpoint(version, curation.tree.size, curation.tree.root())
            raise
        finally:
            measurer.close()
        journal.checkpoint(version, curation.tree.size, curation.tree.root())
        if stopped == "seconds":
            cut = {"by": "seconds", "after": curation.counts.judged}
            journal.cut_version(version, cut)
        result = self._result(journal, generation, curation, stopped, cut, self._others.used, before)
        if stopped not in (None, "seconds"):
            return result
        written = self._write(journal, version, result, curation, generation, cut)
        return replace(result, written=written)

    def _in_rounds(self, journal: Journal, version: int, place: Counts) -> Rounds | None:
        """The tasks of a recipe that balances or grows, as far as an earlier session came."""
        loaded = self._loaded
        if loaded.balance is not None:
            self._rounds = Schedule(loaded.plan, loaded.balance)
        elif loaded.grown is not None:
            self._rounds = Growth(loaded.plan, loaded.grown)
        else:
            return None
        self._rounds.recall(_verdict(entry, body) for entry, body in journal.records(version))
        self._next_round(place)
        return self._rounds

    def _next_round(self, counts: Counts) -> None:
        """Begin a round where the one before it has been judged."""
        if self._rounds is not None and counts.rest == 0 and counts.tasks == self._rounds.open:
            self._rounds.go_on()

    def _write(
        self,
        journal: Journal,
        version: int,
        result: RunResult,
        curation: Curation,
        generation: Generation,
        cut: Mapping[str, Any] | None,
    ) -> bool:
        if result.kept + result.dropped == 0 < result.failed and (self._directory / "dataset").exists():
            write_failures(self._directory, journal, version)  # what is wrong is no reason to lose a dataset
            return False
        self._report("writing", generation, curation)
        summary = result.as_json()
        loaded = self._loaded
        about = Published(loaded.recipe, loaded.chain, loaded.shape.columns, self._locked, self._signer)
        locked = self._lock_yaml(cut)
        journal.note_engines(self._details())
        for notice in write_version(self._directory, about, journal, version, locked, summary):
            self._note(notice)
        journal.finish_version(version, summary)
        return True

    def _progress_of(self, curation: Curation) -> dict[str, Any]:
        return {
            **curation.counts.as_json(),
            "planned": self._planned(curation.counts),
            "target": self._loaded.recipe.target,
            "seconds": round(self._seconds_before + self._seconds, 3),
        }

    async def _generate(self, journal: Journal, generation: Generation, curation: Curation) -> str | None:
        """Judge every branch; gives what stopped it early: `interrupted`, `failures` or `seconds`."""
        if curation.fails_too_often and not self._all_judged(curation):
            return "failures"
        self._look_ahead(generation, curation)
        judging = asyncio.create_task(self._judge(generation, curation))
        flushing = asyncio.create_task(journal.keep_flushing())
        asker, stopped, stopped_at = generation.asker, None, 0.0
        self._stop.heeded = True
        try:
            while not judging.done():
                await asyncio.wait({judging, flushing}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                if flushing.done():
                    flushing.result()
                asker.watch()
                self._report("starting" if asker.starting else "generating", generation, curation)
                if stopped is None and (stopped := self._stops(curation)) is not None:
                    stopped_at = time.monotonic()
                    generation.stop()
                elif stopped and (
                    asker.starting or self._stop.at_once or time.monotonic() - stopped_at > DRAIN_SECONDS
                ):
                    judging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await judging
        finally:
            self._stop.heeded = False
            for task in (judging, flushing):
                task.cancel()
            await asyncio.gather(judging, flushing, return_exceptions=True)
        if self._all_judged(curation):
            return None
        return "failures" if curation.fails_too_often else stopped

    def _stops(self, curation: Curation) -> str | None:
        if self._cancel.is_set():
            return "interrupted"
        if curation.fails_too_often:
            return "failures"
        seconds = self._loaded.recipe.budget.seconds
        if seconds is not None and self._seconds_before + self._seconds > seconds:
            return "seconds"
        return None

    async def _judge(self, generation: Generation, curation: Curation) -> None:
        async with (
            aclosing(generation.branches()) as branches,
            aclosing(curation.judge(branches)) as all_judged,
        ):
            async for judged in all_judged:
                if self._rounds is not None:
                    self._rounds.tell(_verdict(judged.entry, judged.body))
                    if not curation.ended:
                        self._next_round(curation.counts)
                self._look_ahead(generation, curation)
                if self._on_record is not None:
                    self._on_record(judged)
                if curation.fails_too_often:
                    generation.stop()

    def _look_ahead(self, generation: Generation, curation: Curation) -> None:
        """Run no further ahead of a target than the yield so far says it needs."""
        recipe, counts, fan = self._loaded.recipe, curation.counts, self._loaded.fan
        shares = []  # in branches
        if recipe.target is not None:
            # As if the first few had been kept: what a few say is no reason to ask for many.
            yield_so_far = max((counts.kept + FIRST_FEW) / (counts.judged + FIRST_FEW), 0.02)
            shares.append((recipe.target - counts.kept) / yield_so_far)
        spent = counts.spent.share(recipe.budget)
        if spent > 0:
            shares.append(counts.judged / spent - counts.judged)
        up_to = sys.maxsize
        if shares:
            of_a_task = (counts.judged + FIRST_FEW * fan) / (counts.tasks + FIRST_FEW)
            up_to = counts.tasks + int(max(0, min(shares)) / of_a_task * 1.2) + 1
        if self._rounds is not None and self._rounds.limit is None:
            up_to = min(up_to, self._rounds.open)
        generation.go_up_to(up_to)

    def _all_judged(self, curation: Curation) -> bool:
        return curation.ended or self._all_tasks(curation.counts)

    def _planned(self, counts: Counts) -> int | None:
        """How many branches there are as far as is known; None where nothing limits them."""
        limit = self._loaded.plan.limit
        if limit is None and self._rounds is not None:
            limit = self._rounds.open
        if limit is None:
            return None
        return min(counts.planned(limit), self._loaded.attempts or sys.maxsize)

    def _all_tasks(self, counts: Counts) -> bool:
        order = self._rounds or self._loaded.plan
        return counts.tasks == order.limit and counts.rest == 0

    def _result(
        self,
        journal: Journal,
        generation: Generation,
        curation: Curation,
        stopped: str | None,
        cut: Mapping[str, Any] | None,
        reused_from: Mapping[str, int],
        before: int,
    ) -> RunResult:
        counts, recipe = curation.counts, self._loaded.recipe
        ended_by = self._ended_by(curation, cut)
        planned = self._planned(counts) if ended_by is None else None
        planned = counts.judged if planned is None else planned
        if stopped == "interrupted":
            outcome = "interrupted"
        elif stopped == "failures":
            outcome = "too many failures"
        elif ended_by not in ("target", "tasks"):
            outcome = "short"
        else:
            outcome = "failures" if counts.failed else "done"
        return RunResult(
            run=recipe.name,
            dir=self._directory,
            outcome=outcome,
            planned=planned,
            kept=counts.kept,
            dropped=counts.dropped,
            failed=counts.failed,
            pending=planned - counts.judged,
            reused=before + generation.asker.tally.reused,
            filters=counts.by_filter,
            usage=journal.usage(),
            seconds=self._seconds,
            target=recipe.target,
            ended_by=ended_by,
            reused_from=reused_from,
            money=counts.spent.money if any(ref.prices for ref in self._loaded.models.values()) else None,
            errors=counts.errors.most_common(3),
            **(self._rounds.summary() if self._rounds is not None else {}),
        )

    def _ended_by(self, curation: Curation, cut: Mapping[str, Any] | None) -> str | None:
        if curation.reached:
            return "target"
        if cut is not None:
            return str(cut["by"])
        if curation.spent_out is not None:
            return curation.spent_out
        if curation.tried_out:
            return "attempts"
        if self._all_tasks(curation.counts):
            return "tasks" if self._loaded.recipe.target is None else "attempts"
        return None

    def _report(self, stage: str, generation: Generation, curation: Curation) -> None:
        if self._on_progress is None:
            return
        counts, tally = curation.counts, generation.asker.tally
        self._on_progress(
            Progress(
                stage=stage,
                planned=self._planned(counts) if self._loaded.recipe.target is None else None,
                target=self._loaded.recipe.target,
                kept=counts.kept,
                dropped=counts.dropped,
                failed=counts.failed,
                in_flight=generation.asker.in_flight,
                reused=tally.reused,
                output_tokens=tally.output_tokens,
                by_filter=counts.by_filter,
            )
        )


def _verdict(entry: RecordEntry, body: bytes | None) -> Verdict:
    return Verdict(entry.task, entry.id, entry.state == "kept", body)


def _commonest_errors(journal: Journal, version: int) -> list[tuple[str, int]]:
    failed = (entry for entry, _ in journal.records(version, "failed"))
    return Counter(alike(str(entry.error), entry.id) for entry in failed).most_common(3)


def _kept_alive(asker: Asker) -> dict[int, dict[str, Any]]:
    """What keeping each engine alive took, for the journal."""
    return {
        id(kept.engine): {
            "restarts": kept.restarts,
            "most_at_a_time": kept.slots.most,
            "set_aside": kept.set_aside,
        }
        for kept in asker.engines
        if kept.restarts or kept.set_aside
    }


@contextmanager
def cancel_on(signals: Sequence[int], stop: Stop, notify: Callable[[str], None]) -> Iterator[list[int]]:
    """Set `stop` at the first of these signals, saying so, and `stop.at_once` at the second.

    Where nobody heeds it the second raises KeyboardInterrupt. It never does so in the midst of generation,
    where an engine or a connection may be at work, and none of them expects it.

    Gives a list that holds the signals that came.
    """
    import signal

    came: list[int] = []

    def handle(number: int, _: object) -> None:
        came.append(number)
        if len(came) > 1:
            stop.at_once = True
            if stop.heeded:
                return
            raise KeyboardInterrupt
        stop.set()
        notify(
            f"stopping: {DRAIN_SECONDS:.0f} seconds at most for what is in flight; once more stops at once"
        )

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
