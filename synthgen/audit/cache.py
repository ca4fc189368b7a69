"""What later versions are made from: the measurements that a journal keeps with contents, filters, counts.

`curate` takes them from there without measuring again, and cards are written from the counts: whoever edits
one has the next version, signed by its owner, say what he likes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from synthgen.audit.agreement import AUDIT
from synthgen.audit.findings import MOST, Findings
from synthgen.audit.material import mapping
from synthgen.chain import described_keys
from synthgen.journal_entries import STATES
from synthgen.journal_schema import SCHEMA_VERSION

FILE = "run.sqlite"
COMMANDS = ("run", "curate")
_MEASURED = (
    "SELECT r.id, r.dropped_by, r.verdicts, c.sha256, c.measured, o.sha256, o.measured FROM records AS r "
    "JOIN contents AS c ON c.sha256 = r.content LEFT JOIN contents AS o ON o.sha256 = r.original "
    "WHERE r.version = ? AND r.erased IS NULL ORDER BY r.task, r.branch"
)
_Cached = tuple[bytes, Mapping[str, Any]]


def check_cache(
    journal: sqlite3.Connection, version: int, states: Mapping[str, int], erased: bool, findings: Findings
) -> None:
    """What was measured of each record of a version is what is kept for the next; and how many there are.

    `states` are those of the ledger; where records were `erased`, what filters dropped cannot be counted.
    Raises ValueError, LookupError, TypeError or AttributeError where a column holds something else.
    """
    links = list(_numbered(journal, version, findings))
    features: dict[str, bool] = {}
    counts = {link["name"]: {"dropped": 0, "flagged": 0} for link, _ in links}
    for id, by, verdicts, content, measured, original, before in journal.execute(_MEASURED, (version,)):
        said = orjson.loads(verdicts)
        for name, of in counts.items():
            of["dropped"] += name == by
            of["flagged"] += name in said and said[name]["verdict"] == "flag"
        own = (content, orjson.loads(measured))
        whole = own if original is None else (original, orjson.loads(before))
        for link, numbers in links:
            name = link["name"]
            cached = whole if link["action"] == "redact" else own
            for value, detail in _entries(cached, numbers):
                held = value is None and "feature" in mapping(detail)
                if features.setdefault(name, held) != held:
                    findings.add(
                        "is not of the kind that is kept for this filter", FILE, id, f"measured.{name}"
                    )
                elif not held and not _agrees(
                    journal, link, said.get(name), cached[0], [value, detail], findings
                ):
                    findings.add("is kept otherwise for the next curation", FILE, id, f"measured.{name}")
    _check_counts(journal, version, states, None if erased else counts, findings)


def _check_counts(
    journal: sqlite3.Connection,
    version: int,
    states: Mapping[str, int],
    counts: Mapping[str, Mapping[str, int]] | None,
    findings: Findings,
) -> None:
    query = "SELECT command, summary FROM versions WHERE version = ?"
    command, summary = journal.execute(query, (version,)).fetchone() or (None, None)
    name = f"version {version}"
    if command not in COMMANDS:
        findings.add(f"there is no command {str(command)[:40]!r} that makes one", FILE, name, "command")
    said = orjson.loads(summary) if summary else {}
    for state in STATES if said else ():
        if said[state] != states[state]:
            findings.add("is not the number of those in the ledger", FILE, name, f"summary.{state}")
    if said and said["planned"] != said["pending"] + sum(states[state] for state in STATES):
        findings.add("is not the sum of the others", FILE, name, "summary.planned")
    for of, seen in (counts or {}).items():
        for field, number in seen.items():
            if said and said["filters"][of][field] != number:
                findings.add(
                    f"is not the {number:,} of its records", FILE, name, f"summary.filters.{of}.{field}"
                )


def _entries(cached: _Cached, numbers: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    for number in numbers:
        if number in cached[1]:
            value, detail = cached[1][number]
            yield value, detail


def _agrees(
    journal: sqlite3.Connection,
    link: Mapping[str, Any],
    verdict: Mapping[str, Any] | None,
    content: bytes,
    cached: list[Any],
    findings: Findings,
) -> bool:
    """Whether a verdict is on what is kept. It need not be where another record has the same contents."""
    if verdict is None or (verdict["value"] is None and "model" in link):
        return True  # it was not asked then, and may have been for a later version
    if _same(verdict, cached):
        return True
    if findings.count >= MOST:  # looking further takes the longer the more there is
        return False
    query = "SELECT verdicts FROM records WHERE content = ?1 OR original = ?1"
    others = (orjson.loads(each).get(link["name"]) for (each,) in journal.execute(query, (content,)))
    return any(other is not None and _same(other, cached) for other in others)


def _same(verdict: Mapping[str, Any], cached: list[Any]) -> bool:
    return [verdict["value"], verdict.get("detail")] == [cached[0], cached[1] or None]


def _numbered(
    journal: sqlite3.Connection, version: int, findings: Findings
) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """The filters of a version, each with the numbers under which its measurements are kept."""
    schema = journal.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0]
    known: dict[str, str] = {}
    alike: dict[bytes, list[str]] = {}
    for number, key, name, description in journal.execute("SELECT * FROM filters"):
        said = orjson.loads(description)
        if said["name"] != name or (_keyed(said, schema) and key not in described_keys(said)):
            findings.add("is not the filter of that key", FILE, str(name)[:80], "filters")
        known[key] = str(number)
        alike.setdefault(_manner(said), []).append(str(number))
    row = journal.execute("SELECT chain FROM versions WHERE version = ?", (version,)).fetchone()
    for link in orjson.loads(row[0]) if row and row[0] else ():
        if link["origin"] == AUDIT:
            yield link, []
            continue
        if _keyed(link, schema):
            numbers = [known[key] for key in described_keys(link) if key in known]
        else:
            numbers = alike.get(_manner(link), [])
        if not numbers:
            findings.add(
                f"version {version} was judged by it, and it is not there", FILE, link["name"], "filters"
            )
        yield link, numbers if len(numbers) == 1 else []


def _keyed(said: Mapping[str, Any], schema: str) -> bool:
    """Whether a filter's key follows from its description: not where it may lack an address's password."""
    return schema == str(SCHEMA_VERSION) and b'"base_url"' not in orjson.dumps(said["params"])


def _manner(said: Mapping[str, Any]) -> bytes:
    parts = ("code_sha256", "params", "of", "model", "files", "weights")
    return orjson.dumps([said.get(part) for part in parts])
