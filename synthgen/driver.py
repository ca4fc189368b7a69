"""One run from beginning to end: engines, journal, generation, curation, files, and a clean stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen import __version__
from synthgen.curate import Curation, Judged
from synthgen.engines.base import Engine
from synthgen.errors import RunError
from synthgen.export.dataset import write_failures, write_version
from synthgen.generate import Generation, Tally
from synthgen.journal import Journal, open_journal
from synthgen.loading import Loaded
from synthgen.provenance.lock import fingerprint, lock, lock_yaml
from synthgen.provenance.manifest import files_present
from synthgen.trial import trial
from synthgen.workers import open_measurer

DRAIN_SECONDS = 10.0
TICK = 0.2


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

    `outcome` is `done`, `nothing to do`, `short` (the target was missed), `failures` or `interrupted`.
    `errors` are the commonest of the failed tasks, with how often each came.
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
    errors: Sequence[tuple[str, int]] = ()

    def as_json(self) -> dict[str, Any]:
        """The object that `run --json` prints."""
        return {
            "run": self.run,
            "dir": str(self.dir),
            "outcome": self.outcome,
            "planned": self.planned,
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "pending": self.pending,
            "reused": self.reused,
            "filters": {name: dict(counts) for name, counts in self.filters.items()},
            "usage": dict(self.usage),
            "seconds": round(self.seconds, 3),
        }


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
        retry_failed: bool = False,
    ) -> None:
        self._loaded = loaded
        self._directory = directory
        self._engines = engines
        self._cancel = cancel or threading.Event()
        self._on_progress = on_progress
        self._on_record = on_record
        self._retry_failed = retry_failed
        self._locked = lock(loaded, {name: engine.identity for name, engine in engines.items()})
        self._began = time.monotonic()

    async def run(self) -> RunResult:
        """Generate, curate and write. Raises RecipeError, RunError, EngineUnreachable or UsageError."""
        trial(self._loaded)
        journal = open_journal(self._directory, self._loaded.recipe.name)
        outcome = "failed"
        try:
            finished = self._nothing_to_do(journal)
            if finished is not None:
                outcome = finished.outcome
                return finished
            journal.begin_session("run", environment())
            try:
                result = await self._through(journal)
                outcome = result.outcome
                return result
            finally:
                with contextlib.suppress(RunError):
                    journal.end_session(outcome, self._details())
        finally:
            journal.close()

    def _details(self) -> dict[str, Any]:
        return {name or "default": dict(engine.identity.details) for name, engine in self._engines.items()}

    def _nothing_to_do(self, journal: Journal) -> RunResult | None:
        last = journal.last_finished()
        if last is None or last[1] != fingerprint(self._locked) or self._retry_failed:
            return None
        locked = self._directory / "dataset" / "provenance" / "recipe.lock.yaml"
        if not locked.is_file() or locked.read_bytes() != lock_yaml(self._locked):
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
            seconds=time.monotonic() - self._began,
            target=self._loaded.recipe.target,
        )

    async def _through(self, journal: Journal) -> RunResult:
        if self._retry_failed:
            journal.forget_failures()
        version = journal.begin_version("run", fingerprint(self._locked))
        measurer = open_measurer(self._loaded.chain, self._loaded.project, self._loaded.planned)
        try:
            curation = Curation(self._loaded.chain, measurer, journal, version, self._loaded.recipe.target)
            generation = Generation(self._loaded, self._engines, journal)
            try:
                interrupted = await self._generate(journal, generation, curation)
            finally:
                await generation.close()
        finally:
            measurer.close()
        journal.flush()
        result = self._result(journal, generation, curation, interrupted)
        if result.kept + result.dropped == 0 < result.failed and (self._directory / "dataset").exists():
            write_failures(self._directory, journal, version)  # what is wrong is no reason to lose a dataset
        elif not interrupted:
            self._report("writing", generation.tally, curation)
            summary = result.as_json()
            write_version(self._directory, self._loaded, journal, version, lock_yaml(self._locked), summary)
            journal.finish_version(version, summary)
        return result

    async def _generate(self, journal: Journal, generation: Generation, curation: Curation) -> bool:
        """Judge every branch; True if it was interrupted before the end."""
        judging = asyncio.create_task(self._judge(generation, curation))
        flushing = asyncio.create_task(journal.keep_flushing())
        stopped_at: float | None = None
        try:
            while not judging.done():
                await asyncio.wait({judging, flushing}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                if flushing.done():
                    flushing.result()
                self._look_ahead(generation, curation)
                stage = "starting" if generation.starting else "generating"
                self._report(stage, generation.tally, curation)
                if self._cancel.is_set():
                    if stopped_at is None:
                        stopped_at = time.monotonic()
                        generation.stop()
                    elif generation.starting or time.monotonic() - stopped_at > DRAIN_SECONDS:
                        judging.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await judging
        finally:
            for task in (judging, flushing):
                task.cancel()
            await asyncio.gather(judging, flushing, return_exceptions=True)
        return stopped_at is not None and not self._all_judged(curation)

    async def _judge(self, generation: Generation, curation: Curation) -> None:
        async with (
            aclosing(generation.branches()) as branches,
            aclosing(curation.judge(branches)) as all_judged,
        ):
            async for judged in all_judged:
                if self._on_record is not None:
                    self._on_record(judged)

    def _look_ahead(self, generation: Generation, curation: Curation) -> None:
        """Run no further ahead of a target than the yield so far says it needs."""
        target = self._loaded.recipe.target
        if target is None:
            return
        counts = curation.counts
        yield_so_far = max((counts.kept + 1) / (counts.judged + 1), 0.02)
        generation.look_ahead = int((target - counts.kept) / yield_so_far * 1.2) + 1

    def _all_judged(self, curation: Curation) -> bool:
        return curation.reached or curation.counts.judged == self._loaded.plan.limit

    def _result(
        self, journal: Journal, generation: Generation, curation: Curation, interrupted: bool
    ) -> RunResult:
        counts, target = curation.counts, self._loaded.recipe.target
        limit = self._loaded.plan.limit
        planned = counts.judged if curation.reached or limit is None else limit
        if interrupted:
            outcome = "interrupted"
        elif target is not None and not curation.reached:
            outcome = "short"
        else:
            outcome = "failures" if counts.failed else "done"
        return RunResult(
            run=self._loaded.recipe.name,
            dir=self._directory,
            outcome=outcome,
            planned=planned,
            kept=counts.kept,
            dropped=counts.dropped,
            failed=counts.failed,
            pending=planned - counts.judged,
            reused=generation.tally.reused,
            filters=counts.by_filter,
            usage=journal.usage(),
            seconds=time.monotonic() - self._began,
            target=target,
            errors=counts.errors.most_common(3),
        )

    def _report(self, stage: str, tally: Tally, curation: Curation) -> None:
        if self._on_progress is None:
            return
        counts = curation.counts
        self._on_progress(
            Progress(
                stage=stage,
                planned=self._loaded.planned,
                target=self._loaded.recipe.target,
                kept=counts.kept,
                dropped=counts.dropped,
                failed=counts.failed,
                in_flight=tally.in_flight,
                reused=tally.reused,
                output_tokens=tally.output_tokens,
                by_filter=counts.by_filter,
            )
        )


def environment() -> dict[str, Any]:
    """What a session ran on: kept in the journal, in no output."""
    return {
        "synthgen": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "pid": os.getpid(),
    }


@contextmanager
def cancel_on(
    signals: Sequence[int], cancel: threading.Event, notify: Callable[[str], None]
) -> Iterator[list[int]]:
    """Set `cancel` at the first of these signals, saying so, and raise KeyboardInterrupt at the second.

    Gives a list that holds the signals that came.
    """
    import signal

    came: list[int] = []

    def handle(number: int, _: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        cancel.set()
        notify(
            f"stopping: {DRAIN_SECONDS:.0f} seconds at most for what is in flight; once more stops at once"
        )

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
