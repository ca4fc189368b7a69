"""`audit trace`: every record that descends from a seed, another record, a prompt, a model or a filter."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import Place, reading
from synthgen.audit.progress import Tell, counted
from synthgen.errors import UsageError
from synthgen.journal_entries import STATES, RecordEntry
from synthgen.journal_reading import open_for_reading, stored_records
from synthgen.recipe_steps import Step
from synthgen.steps import fan_of, steps_asked

KINDS = ("seed", "record", "prompt", "model", "filter", "dataset")
FIRST_TRY = b'{"attempt":0,'  # how the body of a request begins that is not asked again
DEEPEST = 16  # mixes of mixes
_SPAN = re.compile(r"^(.+):(\d{1,12}):(\d{1,12})-(\d{1,12})$")
_DIGEST = re.compile(r"^([0-9a-f]{32}|[0-9a-f]{64})$")

Descends = Callable[[RecordEntry], bool]


@dataclass(frozen=True)
class Traced:
    """The records that descend from a source, by their state, in task order."""

    place: Place
    source: str
    kind: str
    ids: Mapping[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dir": str(self.place.directory),
            "version": self.place.version,
            "source": self.source,
            "kind": self.kind,
            **{state: self.ids[state] for state in STATES},
        }


def trace(place: Place, source: str, tell: Tell | None = None) -> Traced:
    """What descends from a seed (its path, `path:row`, of chunks `path:row:start-end` in characters, or the
    digest of a file or a row), a record (its id: itself and what grew from it), a prompt (name or digest),
    a model (id or weights), a filter (name: whatever it measured) or, in a mix, a dataset (name or root), and
    there the seeds that its rows came from in turn.

    What grew from a record that descends from it does too. `seed:`, `record:`, `prompt:`, `model:` and
    `filter:` before it say which of these is meant; a dataset always has `dataset:`. Raises UsageError where
    there is no such source, CannotJudge where there is no journal.
    """
    if place.run is None or place.version is None:
        raise CannotJudge(f"{place.directory} holds no journal, which has what descends from what")
    with reading(place.directory), closing(open_for_reading(place.run)) as journal:
        kind, descends = _Sources(place.lock(), journal).find(source)
        ids: dict[str, list[str]] = {state: [] for state in STATES}
        found: set[str] = set()
        for entry, _ in counted(stored_records(journal, place.version), "records", tell):
            if descends(entry) or any(each.get("record") in found for each in entry.sources):
                found.add(entry.id)  # what grew from it comes later
                ids[entry.state].append(entry.id)
    if kind in ("seed", "dataset") and not any(ids.values()):
        raise UsageError(f"no record descends from {source!r}", hint="is it a path, path:row or a digest?")
    return Traced(place, source, kind, ids)


class _Sources:
    """What a lock knows of, by the names that people have for it."""

    def __init__(self, lock: Mapping[str, Any], journal: sqlite3.Connection) -> None:
        if not lock:
            raise CannotJudge("recipe.lock.yaml is not there, which says what the run was made from")
        self._lock = lock
        self._journal = journal
        try:
            self._steps = [
                (name, Step.model_validate(said))
                for step in lock["recipe"].get("steps", [])
                for name, said in step.items()
            ]
        except ValueError as error:
            raise CannotJudge(f"recipe.lock.yaml is not what synthgen wrote: {error}") from None
        self._fans = [fan_of(name, step) for name, step in self._steps]
        self._mixed = any("origin" in seed for seed in lock["recipe"].get("seeds", {}).values())

    def find(self, source: str) -> tuple[str, Descends]:
        """Its kind, and what tells whether a record descends from it. Raises UsageError."""
        prefix, colon, rest = source.partition(":")
        wanted, name = ((prefix,), rest) if colon and prefix in KINDS else (KINDS, source)
        makers = {
            "seed": self._seed,
            "record": self._record,
            "prompt": self._prompt,
            "model": self._model,
            "filter": self._filter,
            "dataset": self._dataset if wanted == ("dataset",) else lambda _: None,
        }
        found = {kind: made for kind in wanted if (made := makers[kind](name)) is not None}
        if not found and "seed" in wanted and _DIGEST.match(name):
            found["seed"] = lambda entry: any(each.get("sha256") == name[:32] for each in _sources(entry))
        if not found and "seed" in wanted and self._mixed:
            found["seed"] = _of_origins(name)
        if not found:
            raise UsageError(f"the run has no source {source!r}", hint=f"it has {self._known()}")
        if len(found) > 1:
            kinds = " and ".join(f"a {kind}" for kind in found)
            raise UsageError(f"{source!r} is {kinds}", hint=f"say which, such as {next(iter(found))}:{name}")
        return next(iter(found.items()))

    def _known(self) -> str:
        names = [
            *(path for seed in self._lock["seeds"].values() for path in seed["files"]),
            *(prompt["name"] for prompt in self._lock["prompts"].values()),
            *(model["id"] for model in self._lock["models"].values()),
            *(link["name"] for link in self._lock["filters"]),
        ]
        return ", ".join(str(name)[:80] for name in names[:20]) or "none"

    def _seed(self, name: str) -> Descends | None:
        files = {path: said for seed in self._lock["seeds"].values() for path, said in seed["files"].items()}
        paths = {path for path, digest in files.items() if name in (path, digest)}
        if paths:
            return lambda entry: any(each.get("path") in paths for each in entry.sources)
        if span := _SPAN.match(name):
            return self._overlaps(files, *span.groups())
        path, _, row = name.rpartition(":")
        if path in files and row.isdecimal():
            number = int(row)
            return lambda entry: any(
                each.get("path") == path and each["row"] == number for each in entry.sources
            )
        return None

    def _overlaps(self, files: Mapping[str, Any], path: str, *numbers: str) -> Descends | None:
        """Chunks that have a character in common with a stretch of a text."""
        row, start, end = map(int, numbers)
        if path not in files:
            return None
        return lambda entry: any(
            each.get("path") == path
            and each.get("row") == row
            and (each.get("start", 0) < end and start < each.get("end", end))
            for each in entry.sources
        )

    def _record(self, name: str) -> Descends | None:
        there = self._journal.execute("SELECT 1 FROM records WHERE id = ? LIMIT 1", (name,)).fetchone()
        return (lambda entry: entry.id == name) if there else None

    def _dataset(self, name: str) -> Descends | None:
        """Rows of a mix that came from a dataset, by its name or its ledger's root."""
        if not self._mixed:
            return None
        return lambda entry: any(
            name in (origin.get("dataset"), origin.get("root")) for origin in _origins(entry.sources)
        )

    def _prompt(self, name: str) -> Descends | None:
        prompts = self._lock["prompts"]
        steps = {step for step, said in prompts.items() if name in (said["name"], said["sha256"])}
        filters = {
            link["name"]
            for link in self._lock["filters"]
            for files in link.get("files", {}).values()
            for file in files
            if "model" in link and name in (file["sha256"], Path(file["path"]).stem)
        }
        return self._through(steps, filters)

    def _model(self, name: str) -> Descends | None:
        models = {
            key
            for key, said in self._lock["models"].items()
            if name in (key, said["id"])
            or (said["weights"] and name in (said["weights"], said["weights"].removeprefix("sha256:")))
        }
        asked = {name: step.model for name, step in self._steps}
        asked |= {f"{name}/{key}": of for name, step in self._steps for key, of in step.others.items()}
        steps = {name for name, of in asked.items() if (of or "default") in models}
        filters = {
            link["name"]
            for link in self._lock["filters"]
            if link.get("model") in models
            or name.removeprefix("sha256:") in {*link.get("weights", {}), *link.get("weights", {}).values()}
        }
        return self._through(steps, filters)

    def _filter(self, name: str) -> Descends | None:
        filters = {
            link["name"] for link in self._lock["filters"] if name in (link["name"], link.get("filter"))
        }
        return self._through(set(), filters)

    def _through(self, steps: set[str], filters: set[str]) -> Descends | None:
        """Records for which one of these steps was asked, or that one of these filters measured.

        Of a record without contents it is not known everywhere who was asked: then it may be any step that it
        has come to.
        """
        if not steps and not filters:
            return None
        own = {step.partition("/")[0] for step in steps}
        first = min((place for place, (name, _) in enumerate(self._steps) if name in own), default=0)

        def descends(entry: RecordEntry) -> bool:
            if not filters.isdisjoint(entry.verdicts):
                return True
            if not steps:
                return False
            count, fields = self._questions(entry), self._fields(entry)
            try:
                names = list(islice(steps_asked(self._fans, fields), count))
            except (LookupError, TypeError, AttributeError):  # somebody edited what it holds
                names, fields = [], None
            return not steps.isdisjoint(names) or (fields is None and len(names) < count > first)

        return descends

    def _fields(self, entry: RecordEntry) -> Mapping[str, Any] | None:
        row = self._journal.execute("SELECT body FROM contents WHERE sha256 = ?", (entry.content,)).fetchone()
        try:
            return orjson.loads(row[0])["fields"] if row else None
        except (ValueError, LookupError, TypeError):  # somebody edited it
            return None

    def _questions(self, entry: RecordEntry) -> int:
        """How many of its requests are no repetitions of one before."""
        count = 0
        for key in entry.requests:
            row = self._journal.execute("SELECT body FROM requests WHERE key = ?", (key,)).fetchone()
            count += row is None or bytes(row[0]).startswith(FIRST_TRY)
        return count


def _origins(sources: Iterable[Mapping[str, Any]], deep: int = 0) -> Iterator[Mapping[str, Any]]:
    """What rows of mixes, and of mixes of mixes, say of the datasets that they came from."""
    for source in sources:
        origin = source.get("origin")
        if isinstance(origin, Mapping) and deep < DEEPEST:
            yield origin
            yield from _origins(_stated_sources(origin), deep + 1)


def _stated_sources(origin: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    said = origin.get("statement")
    sources = said.get("sources") if isinstance(said, Mapping) else None
    return [each for each in sources or () if isinstance(each, Mapping)]


def _sources(entry: RecordEntry) -> Iterator[Mapping[str, Any]]:
    """A record's own, and those that they came from in turn."""
    yield from entry.sources
    for origin in _origins(entry.sources):
        yield from _stated_sources(origin)


def _of_origins(name: str) -> Descends:
    """Rows of a mix whose datasets were made from a file, one of its rows, or a stretch of one."""
    path, row, start, end = name, None, 0, None
    if span := _SPAN.match(name):
        path, row, start, end = span[1], int(span[2]), int(span[3]), int(span[4])
    elif name.rpartition(":")[2].isdecimal():
        path, row = name.rpartition(":")[0], int(name.rpartition(":")[2])

    def meant(each: Mapping[str, Any]) -> bool:
        if each.get("path") != path or (row is not None and each.get("row") != row):
            return False
        return end is None or (each.get("start", 0) < end and start < each.get("end", end))

    return lambda entry: any(
        meant(each) for origin in _origins(entry.sources) for each in _stated_sources(origin)
    )
