"""What was not kept: dropped.jsonl and failed.jsonl against the journal, or else against the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.findings import Findings
from synthgen.audit.lines import Broken, lines, parsed
from synthgen.export.dataset import dropped_row, failed_row
from synthgen.journal_entries import RecordEntry
from synthgen.provenance.statement import row_bytes

DROPPED = "dropped.jsonl"
FAILED = "failed.jsonl"
FILES = {"dropped": DROPPED, "failed": FAILED}


class Unkept:
    """Both files, compared with records that come in task order.

    `failed` is False where failed.jsonl is of a later run. Methods raise Broken, with the file's name.
    """

    def __init__(self, directory: Path, findings: Findings, *, failed: bool = True) -> None:
        self._findings = findings
        self._files = {
            state: _lines(directory / name, name)
            for state, name in FILES.items()
            if failed or state != "failed"
        }
        self._lost: set[str] = set()  # states whose files are in another order: one finding says so

    def named(self, state: str, id: str) -> None:
        """Compare a record of which no more is known."""
        self._next(state, id)

    def compare(
        self, entry: RecordEntry, body: bytes | None, chain: Mapping[str, Any], errors: Sequence[str]
    ) -> None:
        """Compare a record as the journal has it; `errors` are those of every try at its requests."""
        line = self._next(entry.state, entry.id)
        if line is None:
            return
        if entry.state == "failed":
            wanted = failed_row(entry, errors)
        elif body is not None and entry.dropped_by in entry.verdicts:
            link = chain.get(str(entry.dropped_by), {})
            row = orjson.loads(row_bytes(entry.id, body))
            wanted = dropped_row(row, entry, link.get("min"), link.get("max"))
        else:
            return  # that its contents or its measurement are gone is found with the record
        if line == orjson.dumps(wanted):
            return
        said = parsed(line, 0)
        field = next((key for key in {**wanted, **said} if _differ(said, wanted, key)), None)
        what = "is not what the journal has" if field is not None else "is not as synthgen writes it"
        self._findings.add(what, FILES[entry.state], entry.id, field)

    def ends(self) -> None:
        """After the last record: nothing may be left."""
        for state, rows in self._files.items():
            if state not in self._lost:
                for line in rows:
                    id = str(parsed(line, 0).get("id"))[:80]
                    self._findings.add("was added: there is no such record", FILES[state], id)

    def _next(self, state: str, id: str) -> bytes | None:
        """The line of a record, where it is the one that comes next."""
        if state not in self._files or state in self._lost:
            return None
        line = next(self._files[state], None)
        if line is None:
            self._findings.add("is missing", FILES[state], id)
            return None
        said = str(parsed(line, 0).get("id"))[:80]
        if said != id:
            self._findings.add(f"stands where {id} should", FILES[state], said, "id")
            self._lost.add(state)
            return None
        return line


def _differ(said: Mapping[str, Any], wanted: Mapping[str, Any], key: str) -> bool:
    return key not in said or key not in wanted or orjson.dumps(said[key]) != orjson.dumps(wanted[key])


def _lines(path: Path, name: str) -> Iterator[bytes]:
    """The lines of a file; none where it is not there, which the manifest tells."""
    if not path.is_file():
        return
    number = 0
    try:
        for number, line in enumerate(lines(path), 1):
            parsed(line, number)
            yield line
    except Broken as broken:
        broken.file = name
        raise
