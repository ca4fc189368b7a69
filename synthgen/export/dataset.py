"""A version's files, streamed from the journal: the dataset, its provenance, and what was not kept."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson

from synthgen.errors import RunError
from synthgen.export.card import Bounded, Published, card
from synthgen.export.durable import publish, remove, staging, told, write_bytes
from synthgen.export.rows import JsonlWriter, ParquetWriter, RowWriter
from synthgen.journal import Journal, RecordEntry
from synthgen.provenance.manifest import LEDGER, MANIFEST, REPORT, manifest
from synthgen.provenance.merkle import Growing, leaf_hash
from synthgen.provenance.statement import ledger_entry, row_bytes, statement

ERRORS_SHOWN = 20
ERASED = "provenance/erased.json"


@dataclass(frozen=True)
class Splits:
    """Which split a row is in: a function of its id alone, so that it stays there as a dataset grows."""

    shares: Mapping[str, float]

    def of(self, id: str) -> str:
        """The split's name."""
        names = list(self.shares)
        edges = list(accumulate(self.shares.values()))
        place = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64
        return names[min(bisect_right(edges, place), len(names) - 1)]


def write_version(
    directory: Path, about: Published, journal: Journal, version: int, lock: bytes, summary: Mapping[str, Any]
) -> None:
    """Write all files of a version into `directory`, each complete or not at all. Raises RunError."""
    with staging(directory) as staged:
        written = _write_rows(staged, about, journal, version)
        if written.erased:
            write_bytes(staged / "dataset" / ERASED, orjson.dumps({"erased": written.erased}))
            kept = sum(each["state"] == "kept" for each in written.erased)
            summary = {**summary, "erased": kept}
        write_bytes(staged / "dataset" / "README.md", card(about, summary).encode())
        write_bytes(staged / "dataset" / "provenance" / "recipe.lock.yaml", lock)
        write_bytes(staged / "recipe.lock.yaml", lock)
        predicate: dict[str, Any] = {"ledger": written.ledger()}
        rows = {name.removeprefix("dataset/"): count for name, count in written.rows.items()}
        inside = manifest(staged / "dataset", predicate, rows=rows, signer=about.signer)
        write_bytes(staged / "dataset" / MANIFEST, inside)
        outside = manifest(staged, predicate, rows=written.rows, leave_out=("dataset",), signer=about.signer)
        write_bytes(staged / MANIFEST, outside)
        publish(staged, directory)
    with told(directory):
        remove(directory / REPORT)  # it tells of what was here before, and may show what was erased since
        if "failed.jsonl" not in written.rows:
            remove(directory / "failed.jsonl")


def write_failures(directory: Path, journal: Journal, version: int) -> None:
    """Write failed.jsonl alone, where a version has nothing but failures. Raises RunError."""
    with staging(directory) as staged:
        with JsonlWriter(staged / "failed.jsonl") as failed:
            for entry, _ in journal.records(version, "failed"):
                if entry.erased is not None:
                    continue
                failed.write(_failed_row(entry, journal))
        publish(staged, directory)


@dataclass
class _Written:
    """What was written: the ledger so far, and how many rows each file has."""

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


def _write_rows(staged: Path, about: Published, journal: Journal, version: int) -> _Written:
    """Raises RunError where a record is not what was judged."""
    written = _Written()
    output = about.recipe.output
    data = staged / "dataset"
    splits = Splits(output.split)
    bounds = {link.name: link for link in about.chain}
    with ExitStack() as stack:
        writers: dict[str, list[RowWriter]] = {}
        for split in output.split:
            writers[split] = []
            if "jsonl" in output.formats:
                writers[split].append(JsonlWriter(data / f"{split}.jsonl"))
            if "parquet" in output.formats:
                writers[split].append(ParquetWriter(data / "data", split, about.recipe.record.kinds))
            for writer in writers[split]:
                stack.callback(writer.close)
        provenance = {
            split: stack.enter_context(JsonlWriter(data / "provenance" / f"{split}.jsonl"))
            for split in output.split
        }
        ledger = stack.enter_context(JsonlWriter(data / LEDGER))
        dropped = stack.enter_context(JsonlWriter(staged / "dropped.jsonl"))
        failed: JsonlWriter | None = None
        for entry, body in journal.records(version):
            written_row = None if body is None else row_bytes(entry.id, body)
            said = statement(entry, body, written_row)
            line = ledger_entry(entry, said)
            written.tree.append(checked_leaf(entry, line, journal.path))
            written.states[entry.state] += 1
            ledger.line(line)
            if entry.erased is not None:
                written.erased.append({"id": entry.id, "state": entry.state})
                continue
            if entry.state == "failed":
                if failed is None:
                    failed = stack.enter_context(JsonlWriter(staged / "failed.jsonl"))
                failed.write(_failed_row(entry, journal))
                continue
            assert written_row is not None
            row = orjson.loads(written_row)
            if entry.state == "dropped":
                dropped.write(_dropped_row(row, entry, bounds))
                continue
            split = splits.of(entry.id)
            for writer in writers[split]:
                writer.write(row, written_row)
            provenance[split].line(said)
    closed = [ledger, dropped, *([failed] if failed else []), *provenance.values()]
    for writer in (*closed, *(each for of_split in writers.values() for each in of_split)):
        for path, count in writer.counts.items():
            written.rows[path.relative_to(staged).as_posix()] = count
    return written


def checked_leaf(entry: RecordEntry, line: bytes, journal: Path) -> bytes:
    """The leaf of a record's line in the ledger. Raises RunError where it is not the one that was judged."""
    leaf = leaf_hash(line)
    if entry.leaf not in (leaf, None):
        raise RunError(
            f"the record {entry.id} in {journal} is not what was judged: somebody changed it",
            hint="restore run.sqlite from a copy, or run the recipe in another directory",
        )
    return leaf


def _dropped_row(row: dict[str, Any], entry: RecordEntry, bounds: Mapping[str, Bounded]) -> dict[str, Any]:
    assert entry.dropped_by is not None
    link, verdict = bounds[entry.dropped_by], entry.verdicts[entry.dropped_by]
    row["dropped_by"] = {
        "filter": entry.dropped_by,
        "value": verdict["value"],
        "min": link.min,
        "max": link.max,
        "detail": verdict.get("detail"),
    }
    row["measurements"] = entry.verdicts
    return row


def _failed_row(entry: RecordEntry, journal: Journal) -> dict[str, Any]:
    errors = journal.errors(entry.requests)
    return {
        "id": entry.id,
        "task": entry.task,
        "error": entry.error,
        "attempts": max(len(errors), len(entry.requests)),
        "errors": errors[-ERRORS_SHOWN:],
        "requests": [key.hex() for key in entry.requests],
        "sources": entry.sources,
    }


def dataset_files(directory: Path) -> Sequence[Path]:
    """The files of a published dataset, sorted."""
    return sorted(path for path in (directory / "dataset").rglob("*") if path.is_file())
