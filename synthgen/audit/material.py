"""What a run's directory, or a dataset's alone, tells of its records, for those who export it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge
from synthgen.audit.lines import lines, parsed
from synthgen.audit.place import place_of, reading, splits
from synthgen.audit.progress import Tell, counted
from synthgen.audit.tables import rows_of_parquet
from synthgen.journal_reading import open_for_reading, stored_records
from synthgen.provenance.manifest import LEDGER


@dataclass(frozen=True, slots=True)
class Told:
    """One record: what is stated of it, and its row where there is one.

    Of what was dropped or failed a dataset alone has no more than `id` and `state`.
    """

    id: str
    state: str
    said: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def why(self) -> Mapping[str, Any]:
        """What the filter that dropped it measured; empty where none did."""
        return mapping(self.said.get("measurements", {}).get(str(self.said.get("dropped_by"))))


class Material:
    """What is there. It is not verified. Raises CannotJudge where there is nothing that synthgen wrote."""

    def __init__(self, directory: Path, version: int | None = None, tell: Tell | None = None) -> None:
        self._tell = tell
        self._place = place_of(directory, version)
        if self._place.dataset is None:
            raise CannotJudge(f"{directory} holds no dataset that is finished")
        self.dataset = self._place.dataset
        self.manifest = Manifest(self.dataset)

    @cached_property
    def lock(self) -> Mapping[str, Any]:
        """recipe.lock.yaml. Raises CannotJudge where it cannot be read."""
        said = self._place.lock()
        if not isinstance(said.get("recipe"), dict):
            raise CannotJudge(f"{self.dataset} holds no recipe's lock")
        return said

    @cached_property
    def times(self) -> tuple[str, str] | None:
        """When the version was begun and finished, where the journal is there."""
        if self._place.run is None:
            return None
        with reading(self._place.run), closing(open_for_reading(self._place.run)) as journal:
            query = "SELECT started, finished FROM versions WHERE version = ?"
            row = journal.execute(query, (self._place.version,)).fetchone()
        return (str(row[0]), str(row[1])) if row and row[1] else None

    def records(self) -> Iterator[Told]:
        """Every record up to the cut, in the order of the ledger. Raises CannotJudge."""
        run = self._place.run
        records = self._of_dataset() if run is None else self._of_journal(run)
        stream = counted(records, "records", self._tell)
        while True:
            with reading(self._place.directory):  # and not what is done with a record
                told = next(stream, None)
            if told is None:
                return
            yield told

    def _of_journal(self, directory: Path) -> Iterator[Told]:
        with closing(open_for_reading(directory)) as journal:
            for entry, body in stored_records(journal, self._place.version or 0):
                said = {
                    "task": entry.task,
                    "dropped_by": entry.dropped_by,
                    "content_sha256": entry.content.hex() if entry.content else None,
                    "sources": entry.sources,
                    "requests": [key.hex() for key in entry.requests],
                    "measurements": entry.verdicts,
                }
                row = orjson.loads(body)["row"] if body is not None else None
                yield _told(str(entry.id), str(entry.state), said, row, entry.error)

    def _of_dataset(self) -> Iterator[Told]:
        heads = [_Split(self.dataset, name) for name in self.splits]
        for number, line in enumerate(lines(self.dataset / LEDGER), 1):
            entry = parsed(line, number)
            id, state = str(entry["id"]), str(entry["state"])
            split = next((each for each in heads if each.said.get("id") == id), None)
            if state == "kept" and split is not None:
                yield _told(id, state, split.said, split.row())
                split.advance()
            else:
                yield Told(id, state)

    @property
    def splits(self) -> list[str]:
        """Their names, sorted."""
        return [path.stem for path in splits(self.dataset)]

    def rows(self) -> dict[str, Callable[[], Iterator[Mapping[str, Any]]]]:
        """By split, in the recipe's order, what gives its rows anew with each call. Raises CannotJudge."""
        output = mapping(self.lock["recipe"].get("output"))
        order = [str(name) for name in mapping(output.get("split"))]
        there = self.splits
        names = [name for name in order if name in there]
        return {name: partial(_rows, self.dataset, name) for name in (*names, *sorted({*there} - {*names}))}

    def files_of(self, split: str, ending: str) -> list[str]:
        """The files of a split's rows: those that end with `.jsonl`, or with `.parquet`."""
        return files_of(self.dataset, split, ending)


def files_of(dataset: Path, split: str, ending: str) -> list[str]:
    """The names of the files of a split's rows in one format."""
    if ending == ".jsonl":
        return [f"{split}.jsonl"] if (dataset / f"{split}.jsonl").is_file() else []
    found = sorted((dataset / "data").glob("*.parquet"))
    return [f"data/{path.name}" for path in found if path.name.rpartition("-")[0].startswith(f"{split}-")]


def _rows(dataset: Path, split: str) -> Iterator[Mapping[str, Any]]:
    """Raises CannotJudge where the files hold what synthgen did not write."""
    stream = _lines_of(dataset, split)
    while True:
        with reading(dataset):
            row = next(stream, None)
            said = None if row is None else parsed(row, 0)
        if said is None:
            return
        yield said


def _lines_of(dataset: Path, split: str) -> Iterator[bytes]:
    if files_of(dataset, split, ".jsonl"):
        return lines(dataset / f"{split}.jsonl")
    return rows_of_parquet([dataset / file for file in files_of(dataset, split, ".parquet")])


class _Split:
    """One split at the record that comes next."""

    def __init__(self, dataset: Path, name: str) -> None:
        self._stated = enumerate(lines(dataset / "provenance" / f"{name}.jsonl"), 1)
        self._rows = _lines_of(dataset, name)
        self.said: dict[str, Any] = {}
        self.advance()

    def advance(self) -> None:
        """Go on. Raises Broken."""
        number, line = next(self._stated, (0, b"{}"))
        self.said = parsed(line, number)

    def row(self) -> dict[str, Any] | None:
        """Its row."""
        line = next(self._rows, None)
        return parsed(line, 0) if line is not None else None


def _told(
    id: str, state: str, said: Mapping[str, Any], row: Mapping[str, Any] | None, error: Any = None
) -> Told:
    """With every part of the kind that it should be, whatever stands there."""
    requests = said.get("requests")
    sound = {
        **said,
        "sources": mappings(said.get("sources")),
        "requests": [str(key) for key in requests] if isinstance(requests, list) else [],
        "measurements": mapping(said.get("measurements")),
    }
    return Told(
        id, state, sound, None if row is None else mapping(row), None if error is None else str(error)
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, or an empty mapping where it is none."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Those of a list that are mappings."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
