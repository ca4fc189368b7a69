"""`audit trace --quarantine`: a version of a dataset without what descends from a source, with provenance.

The other records are as they were: nothing is measured again. What `curate` makes later begins from the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synthgen import __version__
from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import reading
from synthgen.audit.republish import own_lock, published
from synthgen.audit.trace import Traced
from synthgen.digests import sha256
from synthgen.environment import environment
from synthgen.errors import UsageError
from synthgen.export.dataset import write_version
from synthgen.journal import VERSIONS, Journal, open_journal
from synthgen.journal_entries import RecordEntry
from synthgen.provenance.lock import derived_fingerprint, lock_yaml
from synthgen.provenance.merkle import Growing
from synthgen.provenance.statement import leaf_of
from synthgen.why import why

NAME = "quarantine"
AT_A_TIME = 5000


@dataclass(frozen=True)
class Quarantined:
    """The new version, where it is, and how many of the kept records are not in it."""

    version: int
    dir: Path
    removed: int
    kept: int

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"version": self.version, "dir": str(self.dir), "removed": self.removed, "kept": self.kept}


def quarantine(traced: Traced) -> Quarantined:
    """Write the version. Raises UsageError where nothing that was kept descends from the source, RunError."""
    place = traced.place
    if place.run is None or place.version is None or not place.finished:
        raise CannotJudge(f"{place.directory} holds no finished version with its journal")
    out = set(traced.ids["kept"])
    if not out:
        raise UsageError(f"nothing that was kept descends from {traced.source!r}")
    with reading(place.directory):
        return _quarantine(traced, place.run, place.version, out)


def _quarantine(traced: Traced, run: Path, version: int, out: set[str]) -> Quarantined:
    journal = open_journal(run, str(traced.place.lock()["recipe"]["name"]))
    outcome, reason = "failed", None
    try:
        lock = own_lock(journal, traced.place, version)
        journal.begin_session(NAME, environment())
        try:
            done = _written(journal, traced, run, version, lock, out)
        except BaseException as error:
            reason = why(error, run)
            raise
        else:
            outcome = "done"
            return done
        finally:
            journal.end_session(outcome, reason=reason)
    finally:
        journal.close()


def _written(
    journal: Journal, traced: Traced, run: Path, base: int, lock: Mapping[str, Any], out: set[str]
) -> Quarantined:
    made, chain_said = journal.version_said(base)
    taken = {each["name"] for each in chain_said}
    name = next(each for each in (NAME, *(f"{NAME}-{n}" for n in range(2, 1000))) if each not in taken)
    link = {
        "name": name,
        "origin": "audit",
        "of": "sources",
        "min": 1,
        "max": None,
        "action": "drop",
        "params": {"source": traced.source, "kind": traced.kind},
        "code_sha256": sha256(f"synthgen audit {NAME} {__version__}".encode()),
    }
    chain = [*chain_said, link]
    locked = {**lock, "filters": [*lock["filters"], link]}
    about = published(locked, chain)
    version = journal.begin_version("curate", derived_fingerprint(base, locked), chain)
    tree = Growing()
    detail = {"source": traced.source, "kind": traced.kind}
    verdict = {"value": 0, "min": 1, "verdict": "drop", "detail": detail}
    for number, (entry, body) in enumerate(journal.records(base), 1):
        copy = entry
        if entry.id in out:
            copy = _dropped(entry, name, verdict)
            copy = replace(copy, leaf=leaf_of(copy, body))
        elif entry.leaf is None:
            copy = replace(entry, leaf=leaf_of(entry, body))
        assert copy.leaf is not None
        tree.append(copy.leaf)
        journal.add_record(version, copy)
        if number % AT_A_TIME == 0:
            journal.flush()
    journal.checkpoint(version, tree.size, tree.root())
    place = run / VERSIONS / str(version)
    removed = len(out)
    summary = {
        **made,
        "dir": str(place),
        "kept": made["kept"] - removed,
        "dropped": made["dropped"] + removed,
        "filters": {**made["filters"], name: {"dropped": removed, "flagged": 0}},
        "usage": {"input_tokens": 0, "output_tokens": 0, "requests": 0},
        "seconds": 0.0,
    }
    place.mkdir(parents=True, exist_ok=True)
    write_version(place, about, journal, version, lock_yaml(locked), summary)
    journal.finish_version(version, summary)
    return Quarantined(version, place, removed, summary["kept"])


def _dropped(entry: RecordEntry, name: str, verdict: Mapping[str, Any]) -> RecordEntry:
    return replace(entry, state="dropped", dropped_by=name, verdicts={**entry.verdicts, name: verdict})
