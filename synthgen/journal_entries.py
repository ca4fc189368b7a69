"""What the journal says of one branch: a row of its table of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

STATES = ("kept", "dropped", "failed")


@dataclass(frozen=True, slots=True)
class RecordEntry:
    """The fate of one branch, as stored in one version."""

    task: int
    branch: str
    id: str
    content: bytes | None
    state: str
    dropped_by: str | None
    verdicts: Mapping[str, Any]
    requests: Sequence[bytes]
    sources: Sequence[Mapping[str, Any]]
    error: str | None
    original: bytes | None = None
    leaf: bytes | None = None
    erased: bytes | None = None


def entry_of(row: tuple[Any, ...]) -> RecordEntry:
    """One row of the table, its columns in the order that `journal_reading` asks for."""
    task, branch, id, sha, state, dropped_by, verdicts, requests, sources, error, original = row[:11]
    return RecordEntry(
        task=task,
        branch=branch,
        id=id,
        content=sha,
        state=state,
        dropped_by=dropped_by,
        verdicts=orjson.loads(verdicts),
        requests=[requests[place : place + 32] for place in range(0, len(requests), 32)],
        sources=orjson.loads(sources),
        error=error,
        original=original,
        leaf=row[11],
        erased=row[12],
    )


def asked_by_filters(verdicts: Mapping[str, Any]) -> Iterator[bytes]:
    """The keys of the requests that verdicts followed from."""
    for verdict in verdicts.values():
        for key in (verdict.get("detail") or {}).get("requests", ()):
            yield bytes.fromhex(key)
