"""A version's files, streamed from the journal: the dataset, its provenance, and what was not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson

from synthgen.digests import sha256
from synthgen.errors import RunError
from synthgen.export.card import Published, card
from synthgen.export.croissant import CROISSANT, File, Material, croissant
from synthgen.export.durable import publish, remove, staging, told, write_bytes
from synthgen.export.measured import Measured
from synthgen.export.rows import LARGE_ROW, JsonlWriter, Kind, ParquetWriter, RowWriter, arrow_schema
from synthgen.export.stated import as_row
from synthgen.export.stated import schema as stated_schema
from synthgen.journal import Journal
from synthgen.journal_entries import RecordEntry
from synthgen.journal_reading import Answers
from synthgen.plural import many
from synthgen.provenance.manifest import LEDGER, MANIFEST, REPORT, manifest, subjects
from synthgen.provenance.merkle import Growing, leaf_hash
from synthgen.provenance.statement import (
    is_synthetic,
    ledger_entry,
    row_bytes,
    statement,
    with_provenance,
)
from synthgen.splits import Splits

ERRORS_SHOWN = 20
ERASED = "provenance/erased.json"
SESSIONS = "sessions.jsonl"
ANSWERS = "answers.jsonl"


def write_version(
    directory: Path, about: Published, journal: Journal, version: int, lock: bytes, summary: Mapping[str, Any]
) -> Sequence[str]:
    """Write all files of a version into `directory`, each complete or not at all; gives what is to be told.

    Raises RunError.
    """
    with staging(directory) as staged:
        written = _write_rows(staged, about, journal, version)
        if written.erased:
            write_bytes(staged / "dataset" / ERASED, orjson.dumps({"erased": written.erased}))
            kept = sum(each["state"] == "kept" for each in written.erased)
            summary = {**summary, "erased": kept}
        said = orjson.dumps([written.tree.root().hex(), written.erased])
        shape = orjson.dumps([about.recipe.output.split, list(about.columns)])
        text = card(about, summary, written.measured, sha256(said + shape))
        write_bytes(staged / "dataset" / "README.md", text.encode())
        write_bytes(staged / "dataset" / "provenance" / "recipe.lock.yaml", lock)
        write_bytes(staged / "recipe.lock.yaml", lock)
        # Beside the dataset, not in it: equal runs give equal datasets, whatever their sessions were.
        sessions = [orjson.dumps(each) + b"\n" for each in journal.sessions(version)]
        write_bytes(staged / SESSIONS, b"".join(sessions))
        written.rows[SESSIONS] = len(sessions)
        predicate: dict[str, Any] = {"ledger": written.ledger()}
        rows = {name.removeprefix("dataset/"): count for name, count in written.rows.items()}
        known = subjects(staged / "dataset", rows=rows)
        _write_croissant(staged / "dataset", about, known, written)
        inside = manifest(staged / "dataset", predicate, rows=rows, signer=about.signer, known=known)
        write_bytes(staged / "dataset" / MANIFEST, inside)
        outside = manifest(staged, predicate, rows=written.rows, leave_out=("dataset",), signer=about.signer)
        write_bytes(staged / MANIFEST, outside)
        publish(staged, directory)
    with told(directory):
        remove(directory / REPORT)  # it tells of what was here before, and may show what was erased since
        if "failed.jsonl" not in written.rows:
            remove(directory / "failed.jsonl")
    large = written.measured.large
    return [f"{many(large, 'row', 'is')} larger than {LARGE_ROW // 1_000_000} MB"] if large else []


def _write_croissant(
    folder: Path, about: Published, known: Sequence[Mapping[str, Any]], written: _Written
) -> None:
    files = {each["name"]: File(each["annotations"]["bytes"], each["digest"]["sha256"]) for each in known}
    keys = [about.signer.public_key.keyid] if about.signer is not None else []
    splits = sorted(about.recipe.output.split)
    rows, synthetic = written.states["kept"], written.measured.synthetic
    said = croissant(Material(folder, about.lock, files, splits, rows, keys, synthetic))
    write_bytes(
        folder / CROISSANT, orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )


def write_failures(directory: Path, journal: Journal, version: int) -> None:
    """Write failed.jsonl alone, where a version has nothing but failures. Raises RunError."""
    with staging(directory) as staged:
        with JsonlWriter(staged / "failed.jsonl") as failed:
            for entry, _ in journal.records(version, "failed"):
                if entry.erased is not None:
                    continue
                failed.write(failed_row(entry, journal.errors(entry.requests)))
        publish(staged, directory)


def kinds(about: Published) -> dict[str, Kind]:
    """What each column of a dataset holds, as the recipe's `record:` and `output:` say it."""
    found = cast(dict[str, Kind], dict(about.recipe.record.kinds))
    if about.recipe.output.provenance == "column":
        found["provenance"] = "text"
    return found


@dataclass
class _Written:
    """What was written: the ledger so far, and how many rows each file has."""

    measured: Measured
    tree: Growing = field(default_factory=Growing)
    rows: Counter[str] = field(default_factory=Counter)
    erased: list[dict[str, str]] = field(default_factory=list)
    states: Counter[str] = field(default_factory=lambda: Counter(kept=0, dropped=0, failed=0))

    def ledger(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "file": LEDGER,
            "hash": "rfc9162-sha256",
            "size": self.tree.size,
            "root": self.tree.root().hex(),
            **self.states,
            **({"erased": len(self.erased)} if self.erased else {}),
        }


class _Split:
    """The files of one split: its rows in each format, and what is stated of each."""

    def __init__(self, data: Path, name: str, about: Published) -> None:
        formats = about.recipe.output.formats
        self._column = about.recipe.output.provenance == "column"
        self._said = JsonlWriter(data / "provenance" / f"{name}.jsonl")
        self._stated: ParquetWriter | None = None
        self._rows: list[RowWriter] = []
        if "jsonl" in formats:
            self._rows.append(JsonlWriter(data / f"{name}.jsonl"))
        if "parquet" in formats:
            self._rows.append(ParquetWriter(data / "data", name, arrow_schema(kinds(about))))
            self._stated = ParquetWriter(
                data / "provenance", name, stated_schema(grows=bool(about.recipe.grow))
            )

    @property
    def writers(self) -> list[RowWriter]:
        """All of them."""
        return [*self._rows, self._said, *([self._stated] if self._stated is not None else [])]

    def write(self, row: dict[str, Any], line: bytes, said: bytes) -> bytes:
        """Add a row, given as its JSON too, and what is stated of it; gives the line as it was written."""
        if self._column:
            row["provenance"] = said.decode()
            line = with_provenance(line, said)
        for writer in self._rows:
            writer.write(row, line)
        self._said.line(said)
        if self._stated is not None:
            self._stated.write(as_row(orjson.loads(said)), said)
        return line

    def close(self) -> None:
        """Complete the files."""
        for writer in self.writers:
            writer.close()


def _write_rows(staged: Path, about: Published, journal: Journal, version: int) -> _Written:
    """Raises RunError where a record is not what was judged."""
    output = about.recipe.output
    named = {use.filter or name: name for name, use in about.recipe.filter_uses()}
    written = _Written(Measured(named.get("language")))
    data = staged / "dataset"
    places, straddle = Splits(output.split), named.get("straddle", "")
    bounds = {link.name: link for link in about.chain}
    with ExitStack() as stack:
        splits = {name: stack.enter_context(closing(_Split(data, name, about))) for name in output.split}
        ledger = stack.enter_context(JsonlWriter(data / LEDGER))
        dropped = stack.enter_context(JsonlWriter(staged / "dropped.jsonl"))
        behind = stack.enter_context(JsonlWriter(staged / ANSWERS))
        answers = journal.answers()
        failed: JsonlWriter | None = None
        for entry, body in journal.records(version):
            written_row = None if body is None else row_bytes(entry.id, body)
            said = statement(entry, body, written_row)
            line = ledger_entry(entry, said)
            written.tree.append(checked_leaf(entry, line, journal.path))
            written.states[entry.state] += 1
            ledger.line(line)
            _note_answers(behind, answers, entry)
            if entry.erased is not None:
                written.erased.append({"id": entry.id, "state": entry.state})
                continue
            if entry.state == "failed":
                if failed is None:
                    failed = stack.enter_context(JsonlWriter(staged / "failed.jsonl"))
                failed.write(failed_row(entry, journal.errors(entry.requests)))
                continue
            assert written_row is not None
            row = orjson.loads(written_row)
            if entry.state == "dropped":
                link = bounds[str(entry.dropped_by)]
                dropped.write(dropped_row(row, entry, link.min, link.max))
                continue
            name = (entry.verdicts.get(straddle, {}).get("detail") or {}).get("split") or places.of(entry.id)
            whole = splits[name].write(row, written_row, said)
            synthetic = is_synthetic(entry.requests, entry.sources)
            written.measured.row(name, whole, entry.verdicts, synthetic=synthetic)
    closed: list[RowWriter] = [ledger, dropped, behind, *([failed] if failed else [])]
    for writer in (*closed, *(each for split in splits.values() for each in split.writers)):
        for path, count in writer.counts.items():
            written.rows[path.relative_to(staged).as_posix()] = count
    return written


def _note_answers(writer: JsonlWriter, answers: Answers, entry: RecordEntry) -> None:
    """Bind what stands in the journal behind the record's contents: the ledger binds these alone."""
    if (digest := answers.digest(entry)) is not None:
        writer.line(orjson.dumps({"id": entry.id, "sha256": digest}))


def checked_leaf(entry: RecordEntry, line: bytes, journal: Path) -> bytes:
    """The leaf of a record's line in the ledger. Raises RunError where it is not the one that was judged."""
    leaf = leaf_hash(line)
    if entry.leaf not in (leaf, None):
        raise RunError(
            f"the record {entry.id} in {journal} is not what was judged: somebody changed it",
            hint="restore run.sqlite from a copy, or run the recipe in another directory",
        )
    return leaf


def dropped_row(
    row: dict[str, Any], entry: RecordEntry, low: float | None, high: float | None
) -> dict[str, Any]:
    """The line of dropped.jsonl for a record: its row, and what dropped it, with that filter's bounds."""
    assert entry.dropped_by is not None
    verdict = entry.verdicts[entry.dropped_by]
    row["dropped_by"] = {
        "filter": entry.dropped_by,
        "value": verdict["value"],
        "min": low,
        "max": high,
        "detail": verdict.get("detail"),
    }
    row["measurements"] = entry.verdicts
    return row


def failed_row(entry: RecordEntry, errors: Sequence[str]) -> dict[str, Any]:
    """The line of failed.jsonl for a record, with the errors of every try at its requests."""
    return {
        "id": entry.id,
        "task": entry.task,
        "error": entry.error,
        "attempts": max(len(errors), len(entry.requests)),
        "errors": errors[-ERRORS_SHOWN:],
        "requests": [key.hex() for key in entry.requests],
        "sources": entry.sources,
    }
