"""One run from beginning to end: engines, journal, generation, curation, files, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from synthgen.asking import Asker
from synthgen.chain import describe
from synthgen.counting import Counts, alike
from synthgen.course import Course
from synthgen.curate import Curation, Judged
from synthgen.digests import sha256
from synthgen.engines.base import Engine
from synthgen.environment import environment
from synthgen.errors import RunError, SynthgenError, UsageError
from synthgen.export.card import Published
from synthgen.export.dataset import write_failures, write_version
from synthgen.export.durable import recover
from synthgen.generate import Generation
from synthgen.journal import Journal, open_journal
from synthgen.loaded import Loaded
from synthgen.provenance.keys import signing_key
from synthgen.provenance.lock import fingerprint, lock, lock_yaml
from synthgen.provenance.manifest import files_present
from synthgen.questions import Questions
from synthgen.reuse import open_others
from synthgen.run_result import Progress, RunResult
from synthgen.stopping import DRAIN_SECONDS, Stop
from synthgen.supervisor import Patience
from synthgen.trial import trial
from synthgen.why import why
from synthgen.workers import open_measurer

TICK = 0.2
LOOKED_AT = 1000  # tasks, to tell how much an edited recipe would ask anew


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
            given_up=journal.given_up(),
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
            course = Course(loaded, curation, journal.records(version))
            generation = Generation(
                loaded,
                asker,
                journal,
                start=place.task if partly else place.tasks,
                after=place.branch if partly else None,
                spent=place.spent,
                rounds=course.rounds,
            )
            journal.on_commit = lambda: (version, self._progress_of(curation, course))
            stopped = None
            try:
                if cut is None and not curation.ended:
                    if counts is not None:
                        await curation.recall()
                    stopped = await self._generate(journal, generation, curation, course)
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
        result = self._result(journal, generation, curation, course, stopped, cut, before)
        if stopped not in (None, "seconds"):
            return result
        written = self._write(journal, version, result, curation, generation, course, cut)
        return replace(result, written=written)

    def _write(
        self,
        journal: Journal,
        version: int,
        result: RunResult,
        curation: Curation,
        generation: Generation,
        course: Course,
        cut: Mapping[str, Any] | None,
    ) -> bool:
        if result.kept + result.dropped == 0 < result.failed and (self._directory / "dataset").exists():
            write_failures(self._directory, journal, version)  # what is wrong is no reason to lose a dataset
            return False
        self._report("writing", generation, curation, course)
        summary = result.as_json()
        loaded = self._loaded
        about = Published(loaded.recipe, loaded.chain, loaded.shape.columns, self._locked, self._signer)
        locked = self._lock_yaml(cut)
        journal.note_engines(self._details())
        for notice in write_version(self._directory, about, journal, version, locked, summary):
            self._note(notice)
        journal.finish_version(version, summary)
        return True

    def _progress_of(self, curation: Curation, course: Course) -> dict[str, Any]:
        return {
            **curation.counts.as_json(),
            "planned": course.planned(),
            "target": self._loaded.recipe.target,
            "seconds": round(self._seconds_before + self._seconds, 3),
        }

    async def _generate(
        self, journal: Journal, generation: Generation, curation: Curation, course: Course
    ) -> str | None:
        """Judge every branch; gives what stopped it early: `interrupted`, `failures` or `seconds`."""
        if curation.fails_too_often and not course.all_judged:
            return "failures"
        generation.go_up_to(course.look_ahead())
        judging = asyncio.create_task(self._judge(generation, curation, course))
        flushing = asyncio.create_task(journal.keep_flushing())
        asker, stopped, stopped_at = generation.asker, None, 0.0
        self._stop.heeded = True
        try:
            while not judging.done():
                await asyncio.wait({judging, flushing}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                if flushing.done():
                    flushing.result()
                asker.watch()
                self._report("starting" if asker.starting else "generating", generation, curation, course)
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
        if course.all_judged:
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

    async def _judge(self, generation: Generation, curation: Curation, course: Course) -> None:
        async with (
            aclosing(generation.branches()) as branches,
            aclosing(curation.judge(branches)) as all_judged,
        ):
            async for judged in all_judged:
                course.tell(judged.entry, judged.body)
                generation.go_up_to(course.look_ahead())
                if self._on_record is not None:
                    self._on_record(judged)
                if curation.fails_too_often:
                    generation.stop()

    def _result(
        self,
        journal: Journal,
        generation: Generation,
        curation: Curation,
        course: Course,
        stopped: str | None,
        cut: Mapping[str, Any] | None,
        before: int,
    ) -> RunResult:
        counts, recipe = curation.counts, self._loaded.recipe
        ended_by = course.ended_by(cut)
        planned = course.planned() if ended_by is None else None
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
            reused_from=self._others.used,
            money=counts.spent.money if any(ref.prices for ref in self._loaded.models.values()) else None,
            errors=counts.errors.most_common(3),
            given_up=journal.given_up(),
            **(course.rounds.summary() if course.rounds is not None else {}),
        )

    def _report(self, stage: str, generation: Generation, curation: Curation, course: Course) -> None:
        if self._on_progress is None:
            return
        counts, tally = curation.counts, generation.asker.tally
        self._on_progress(
            Progress(
                stage=stage,
                planned=course.planned() if self._loaded.recipe.target is None else None,
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
