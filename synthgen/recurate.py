"""New bounds for a finished run: another version of its dataset, for which no model is asked.

The records are those that the run judged, up to its cut. What was measured of them is stored, so that a bound
can be moved for nothing; a filter whose parameters or code have changed measures again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from synthgen.asking import Asker
from synthgen.chain import describe
from synthgen.counting import Counts
from synthgen.curate import Curation
from synthgen.engines.base import Engine, request_timeout
from synthgen.environment import environment
from synthgen.errors import UsageError
from synthgen.export.card import Published
from synthgen.export.dataset import write_version
from synthgen.generate import Branch
from synthgen.journal import VERSIONS, Journal, open_journal
from synthgen.journal_entries import RecordEntry
from synthgen.loading_locked import LoadedCuration, load_curation
from synthgen.project import Project
from synthgen.provenance.keys import signing_key
from synthgen.provenance.lock import derived_fingerprint, lock_yaml, locked_recipe
from synthgen.provenance.merkle import Growing
from synthgen.questions import Questions
from synthgen.recipe import Budget
from synthgen.run_result import RunResult
from synthgen.spending import Spent
from synthgen.supervisor import Patience
from synthgen.why import why
from synthgen.workers import open_measurer
from synthgen.yamlfile import LOCK_BYTES, read_yaml

TICK = 0.2
NOTHING_ASKED = {"input_tokens": 0, "output_tokens": 0, "requests": 0}


@dataclass
class Changes:
    """Whom new bounds let in and whom they put out: ids, with the filter that drops or dropped each."""

    enter: list[tuple[str, str]] = field(default_factory=list)
    leave: list[tuple[str, str]] = field(default_factory=list)

    def note(self, before: RecordEntry, state: str, dropped_by: str | None) -> None:
        """One record's fate before and now; `state` may be `surplus`, beyond the cut of the target."""
        if before.state != "kept" and state == "kept":
            self.enter.append((before.id, before.dropped_by or "failed"))
        elif before.state == "kept" and state != "kept":
            self.leave.append((before.id, dropped_by or state))


@dataclass(frozen=True)
class Recurated:
    """What came of new bounds. `result.dir` is where the version is, or would be."""

    result: RunResult
    version: int | None
    changes: Changes
    tree: Growing

    def as_json(self) -> dict[str, Any]:
        """The object that `curate --json` prints: that of `run`, with who enters and who leaves."""
        names = ("id", "dropped_by")
        return {
            **self.result.as_json(),
            "version": self.version,
            "enter": [dict(zip(names, item, strict=True)) for item in self.changes.enter],
            "leave": [dict(zip(names, item, strict=True)) for item in self.changes.leave],
        }


class Recuration:
    """One run directory, curated once more. Use `recurate`."""

    def __init__(
        self,
        directory: Path,
        said: Mapping[str, Any],
        loaded: LoadedCuration,
        *,
        dry_run: bool,
        note: Callable[[str], None],
        engines: Mapping[str, Engine] | None = None,
    ) -> None:
        """With `engines`, filters that ask a model do so about what was never measured."""
        self._engines = engines
        self._note = note
        self._directory = directory
        self._said = said
        self._loaded = loaded
        self._dry_run = dry_run
        self._began = time.monotonic()
        self._signer = signing_key(os.environ)
        self._locked = {
            **said,
            **locked_recipe(loaded.recipe),
            "filters": [describe(link) for link in loaded.chain],
        }

    async def run(self, cancel: threading.Event) -> Recurated:
        """Judge every record again. Raises UsageError, RunError."""
        journal = open_journal(self._directory, self._loaded.recipe.name)
        outcome, reason = "failed", None
        try:
            base = journal.last_finished("run")
            if base is None:
                raise UsageError(
                    f"{self._directory} holds no finished run", hint="curate what `synthgen run` has finished"
                )
            if journal.has_unfinished("run"):
                self._note(f"a later run in {self._directory} is not finished; this is the one before it")
            if self._dry_run:
                return await self._judge(Unwritten(journal), base[0], base[2]["planned"], None, cancel)
            journal.begin_session("curate", environment())
            try:
                done = await self._written(journal, base[0], base[2]["planned"], cancel)
            except BaseException as error:
                reason = why(error, self._loaded.project.root)
                raise
            else:
                outcome = done.result.outcome
                return done
            finally:
                journal.end_session(outcome, self._details(), reason)
        finally:
            journal.close()

    async def _written(self, journal: Journal, base: int, judged: int, cancel: threading.Event) -> Recurated:
        fingerprint = derived_fingerprint(base, self._locked)
        version = journal.begin_version("curate", fingerprint, self._locked["filters"])
        done = await self._judge(journal, base, judged, version, cancel)
        if done.result.outcome == "interrupted":
            return done
        journal.checkpoint(version, done.tree.size, done.tree.root())
        journal.note_engines(self._details())
        loaded = self._loaded
        about = Published(loaded.recipe, loaded.chain, loaded.columns, self._locked, self._signer)
        summary = done.result.as_json()
        done.result.dir.parent.mkdir(exist_ok=True)
        done.result.dir.mkdir(exist_ok=True)
        locked = lock_yaml(self._locked)
        for notice in write_version(done.result.dir, about, journal, version, locked, summary):
            self._note(notice)
        journal.finish_version(version, summary)
        return done

    def _details(self) -> dict[str, Any]:
        """What the engines ran on that were asked; as `run` records it."""
        return {
            name or "default": dict(engine.identity.details) for name, engine in (self._engines or {}).items()
        }

    async def _judge(
        self,
        journal: Journal | Unwritten,
        base: int,
        judged: int,
        version: int | None,
        cancel: threading.Event,
    ) -> Recurated:
        loaded, changes = self._loaded, Changes()
        records = journal.records(base, original=True)
        fed: deque[RecordEntry] = deque()
        measurer = open_measurer(loaded.chain, loaded.project, judged)
        asker = self._asker(journal) if self._engines and isinstance(journal, Journal) else None
        curation = Curation(
            loaded.chain,
            measurer,
            journal,
            version or 0,
            loaded.recipe.target,
            Budget(),
            questions=Questions(loaded.chain, asker) if asker is not None else None,
        )

        async def judge() -> None:
            branches = _branches(records, fed, journal, cancel)
            async with aclosing(branches), aclosing(curation.judge(branches)) as all_judged:
                async for each in all_judged:
                    changes.note(fed.popleft(), each.entry.state, each.entry.dropped_by)
                    if cancel.is_set():
                        break

        judging = asyncio.create_task(judge())
        flushing = asyncio.create_task(journal.keep_flushing())
        try:
            while not judging.done():
                await asyncio.wait({judging, flushing}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                if flushing.done():
                    flushing.result()
                if asker is not None:
                    asker.watch()
                    if cancel.is_set():
                        judging.cancel()  # what is in flight may take long; what was answered is stored
            with suppress(asyncio.CancelledError):
                await judging
        finally:
            for task in (judging, flushing):
                task.cancel()
            await asyncio.gather(judging, flushing, return_exceptions=True)
            if asker is not None:
                await asker.close()
            measurer.close()
        counts = curation.counts
        pending = 0
        if curation.reached or not cancel.is_set():
            for beyond in chain(fed, (entry for entry, _ in records if entry.erased is None)):
                changes.note(beyond, "surplus", None)
        else:
            pending = len(fed) + sum(1 for _ in records)
        for name, many in curation.unmeasured.items():
            self._note(
                f"{name}, as it is now, has not measured {many:,} records: they stay as they were, unless "
                "--measure lets it ask"
            )
        journal.flush()
        usage = journal.usage() if asker is not None and isinstance(journal, Journal) else NOTHING_ASKED
        return Recurated(self._result(counts, version, pending, usage), version, changes, curation.tree)

    def _asker(self, journal: Journal) -> Asker:
        assert self._engines is not None
        loaded = self._loaded
        patience = Patience(deadline=request_timeout(os.environ))
        return Asker(
            self._engines,
            loaded.models,
            journal,
            seed=loaded.recipe.seed,
            patience=patience,
            note=self._note,
        )

    def _result(
        self, counts: Counts, version: int | None, pending: int, usage: Mapping[str, int]
    ) -> RunResult:
        target = self._loaded.recipe.target
        outcome = "failures" if counts.failed else "done"
        if target is not None and counts.kept < target:
            outcome = "short"
        name = str(version) if version is not None else "?"
        return RunResult(
            run=self._loaded.recipe.name,
            dir=self._directory / VERSIONS / name,
            outcome="interrupted" if pending else outcome,
            planned=counts.judged + pending,
            kept=counts.kept,
            dropped=counts.dropped,
            failed=counts.failed,
            pending=pending,
            reused=counts.requests - usage["requests"],
            filters=counts.by_filter,
            usage=usage,
            seconds=time.monotonic() - self._began,
            target=target,
            ended_by=None,
            errors=counts.errors.most_common(3),
        )


class Unwritten:
    """A journal to curate with of which nothing is changed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._unknown = count(-1, -1)

    def filter_number(self, key: str, name: str, description: Mapping[str, Any]) -> str:
        """The number of a filter that has measured before; another for one that has not."""
        return self._journal.known_filter(key) or str(next(self._unknown))

    def stored_measurements(self, content: bytes) -> dict[str, list[Any]] | None:
        """As the journal has them."""
        return self._journal.stored_measurements(content)

    def records(
        self, version: int, state: str | None = None, *, original: bool = False
    ) -> Iterator[tuple[RecordEntry, bytes | None]]:
        """As the journal has them."""
        return self._journal.records(version, state, original=original)

    def leaves(self, version: int) -> Iterator[bytes | None]:
        """As the journal has them."""
        return self._journal.leaves(version)

    def add_content(self, content: bytes, body: bytes, measured: Mapping[str, Any]) -> None:
        """Nothing."""

    def add_record(self, version: int, entry: RecordEntry) -> None:
        """Nothing."""

    async def room(self) -> None:
        """There is always room."""

    def flush(self) -> None:
        """There is nothing to flush."""

    async def keep_flushing(self) -> None:
        """There is nothing to flush."""
        await asyncio.Event().wait()


async def _branches(
    records: Iterator[tuple[RecordEntry, bytes | None]],
    fed: deque[RecordEntry],
    journal: Journal | Unwritten,
    cancel: threading.Event,
) -> AsyncGenerator[Branch, None]:
    """The run's records as branches that are finished; `fed` has those that are not judged yet."""
    for entry, body in records:
        if entry.erased is not None:
            continue
        await journal.room()
        fed.append(entry)
        yield Branch(
            entry.task,
            entry.branch,
            entry.id,
            body,
            entry.error,
            entry.requests,
            entry.sources,
            Spent(),
            entry.state,
            len(entry.requests),
        )
        if cancel.is_set():
            return


def recurate(
    directory: Path,
    changes: Sequence[str],
    *,
    project: Path | None = None,
    dry_run: bool = False,
    cancel: threading.Event | None = None,
    on_notice: Callable[[str], None] | None = None,
    measure: bool = False,
    own: Engine | None = None,
    engine: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
) -> Recurated:
    """Curate a finished run once more, with changes such as `toxicity.max=0.3`, into a new version.

    `project` is where filters of the user's own are; by default the folder that holds `runs/`. With
    `dry_run` nothing is written. With `measure`, filters that ask a model ask about what they have not
    measured: `own` is an engine of the caller's, the others say how to ask the recipe's model. Raises
    UsageError, RecipeError, RunError or EngineUnreachable.
    """
    if measure and dry_run:
        raise UsageError("a dry run asks no model", hint="leave out --measure or --dry-run")
    file = directory / "recipe.lock.yaml"
    if not file.is_file():
        raise UsageError(
            f"{directory} holds no finished run", hint="curate the directory of a run that has ended"
        )
    root = project or (
        directory.resolve().parent.parent if directory.resolve().parent.name == "runs" else Path()
    )
    locked = read_yaml(file, LOCK_BYTES)
    loaded = load_curation(
        locked, changes, Project(root.resolve()), engine=engine, model=model, base_url=base_url
    )
    note = on_notice or (lambda _: None)
    for notice in loaded.notices:
        note(notice)
    engines = None
    if measure:
        engines = dict.fromkeys(loaded.asked, own) if own is not None else _engines(loaded, base_url, note)
    recuration = Recuration(directory, locked.data, loaded, dry_run=dry_run, note=note, engines=engines)
    return asyncio.run(recuration.run(cancel or threading.Event()))


def _engines(loaded: LoadedCuration, base_url: str | None, note: Callable[[str], None]) -> dict[str, Engine]:
    """Engines for the models that filters ask. A lock keeps no address, so none is guessed."""
    from synthgen.engines import open_engines

    models = {name: loaded.models[name] for name in loaded.asked}
    for ref in models.values():
        if ref.engine == "openai" and ref.base_url is None:
            raise UsageError(
                f"where {ref.id} is served is not recorded", hint="say where with --base-url, and ask again"
            )
    return open_engines(models, {}, root=loaded.project.root, base_url=base_url, notify=note)
