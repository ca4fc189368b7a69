"""The whole run: its other files, and the journal, record by record, against the ledger."""

from __future__ import annotations

import filecmp
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from synthgen.audit.cache import check_cache
from synthgen.audit.files import Manifest
from synthgen.audit.findings import CannotJudge, Findings
from synthgen.audit.lines import Broken, lines, parsed
from synthgen.audit.material import mapping
from synthgen.audit.place import LOCK, journal_of, read_lock
from synthgen.audit.progress import Tell, counted
from synthgen.audit.unkept import FAILED, Unkept
from synthgen.errors import UsageError
from synthgen.export.dataset import ANSWERS, SESSIONS
from synthgen.journal_entries import STATES, RecordEntry, asked_by_filters
from synthgen.journal_reading import Answers, open_for_reading, stored_records, stored_sessions
from synthgen.journal_schema import OtherVersion
from synthgen.provenance.lock import locked_as
from synthgen.provenance.manifest import MANIFEST, REPORT
from synthgen.provenance.merkle import Growing, leaf_hash
from synthgen.provenance.schema import CheckpointLine, SessionLine
from synthgen.provenance.statement import ledger_entry, statement

if TYPE_CHECKING:
    from synthgen.audit.verify import FolderVerdict

LEDGER = "dataset/provenance/ledger.jsonl"
OF_A_VERSION = ("dataset", REPORT)
OF_THE_RUN = (*OF_A_VERSION, "versions", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "run.lock")
MOST_VERSIONS = 1000  # that one may have been made from


@dataclass(frozen=True, slots=True)
class Claim:
    """That the ledger had this root when it had so many entries, and the file that says so."""

    size: int
    root: str
    file: str


def check_run(
    directory: Path,
    verdict: FolderVerdict,
    key: Path | None,
    *,
    version_of: Path | None = None,
    tell: Tell | None = None,
) -> None:
    """Add to the verdict what is wrong with a run's files beside its dataset, and with its journal.

    Of a version of a run the journal is that run's, `version_of`.
    """
    findings = verdict.findings
    if not (directory / MANIFEST).is_file():
        findings.add("is missing", MANIFEST)
    else:
        _check_files(directory, verdict, key, OF_A_VERSION if version_of is not None else _others(directory))
    lock, inside = (directory / "recipe.lock.yaml", directory / "dataset" / "provenance" / "recipe.lock.yaml")
    if lock.is_file() and inside.is_file() and not filecmp.cmp(lock, inside, shallow=False):
        findings.add("is not the one of the dataset", "recipe.lock.yaml")
    if os.path.lexists(directory / "run.sqlite") and not (directory / "run.sqlite").is_file():
        findings.add("is no regular file", "run.sqlite")
    try:
        place, version = journal_of(directory)
        if place is None:
            _check_unkept(directory, findings, verdict.erased)
            return
        with closing(open_for_reading(place)) as journal:
            version = _version(journal, version)
            _check_journal(directory, journal, version, findings, verdict.erased, tell)
            _check_lock(directory, journal, version, findings)
            _check_answers(directory, journal, version, findings, tell)
            _check_sessions(directory, journal, version, findings)
            check_cache(journal, version, verdict.states, bool(verdict.erased), findings)
        verdict.journal = True
    except OtherVersion as error:
        if not findings:
            raise CannotJudge(f"the journal: {error}") from None
        findings.add(error.message, "run.sqlite")
    except UsageError as error:
        findings.add(error.message, "run.sqlite")
    except sqlite3.DatabaseError as error:
        findings.add(f"is damaged: {error}", "run.sqlite")
    except Broken as broken:
        findings.add(f"line {broken.number} {broken}", broken.file or LEDGER)
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # columns hold something else
        findings.add(f"is not a journal that synthgen wrote: {error}", "run.sqlite")
    except OSError as error:
        findings.add(f"cannot be read: {error.strerror}", str(error.filename or ""))


def _check_files(directory: Path, verdict: FolderVerdict, key: Path | None, others: Sequence[str]) -> None:
    try:
        manifest = Manifest(directory)
    except CannotJudge as error:
        verdict.findings.add(str(error), MANIFEST)
        return
    manifest.check_files(verdict.findings, others)
    if key is not None:
        authentic = manifest.check_signature(key, verdict.findings)
        verdict.authentic = bool(verdict.authentic and authentic)
    verdict.files += len(manifest.subjects)
    counts = {state: verdict.states[state] for state in STATES}
    counts["erased"] = len(verdict.erased)
    seen = {"file": LEDGER.removeprefix("dataset/"), "size": verdict.size, "root": verdict.root, **counts}
    for name, value in seen.items():
        if getattr(manifest.ledger, name) != value:
            verdict.findings.add("is not that of the dataset's ledger", MANIFEST, None, f"ledger.{name}")


def _check_lock(directory: Path, journal: sqlite3.Connection, version: int, findings: Findings) -> None:
    """The lock is the one that the version was judged by: the journal has its digest, and its filters."""
    path = directory / "dataset" / "provenance" / LOCK
    query = "SELECT fingerprint, chain, cut FROM versions WHERE version = ?"
    row = journal.execute(query, (version,)).fetchone()
    if row is None or not path.is_file():
        return  # that is found with the records, and by the manifest
    digest, chain, cut = row
    try:
        lock = read_lock(path)
    except CannotJudge as error:
        findings.add(str(error)[:300], LOCK)
        return
    name = journal.execute("SELECT value FROM meta WHERE key = 'recipe'").fetchone()[0]
    if name != mapping(lock.get("recipe")).get("name"):
        findings.add(f"is not the one of {LOCK}", "run.sqlite", None, "recipe")
    query = "SELECT version FROM versions WHERE version < ? ORDER BY version DESC LIMIT ?"
    bases = [int(base) for (base,) in journal.execute(query, (version, MOST_VERSIONS))]
    if not locked_as(digest, lock, bases):
        findings.add("is not the one that the journal has the digest of", LOCK)
    elif chain and orjson.loads(chain) and orjson.loads(chain) != lock.get("filters"):
        findings.add(f"are not those of {LOCK}", "run.sqlite", f"version {version}", "chain")
    if cut and orjson.loads(cut) != lock.get("cut"):
        findings.add("is not the one of the journal", LOCK, None, "cut")


def _version(journal: sqlite3.Connection, version: int | None) -> int:
    """The version that is meant: where none is named, the one that `run` finished last."""
    if version is not None:
        return version
    query = "SELECT max(version) FROM versions WHERE command = 'run' AND finished IS NOT NULL"
    return int(journal.execute(query).fetchone()[0] or 0)


def checkpoints(directory: Path) -> list[Claim]:
    """What the sessions of a run said of its ledger, in `sessions.jsonl` and in the journal.

    Whatever is wrong with either file is for `check_run` to find.
    """
    found = []
    with suppress(Broken, OSError):
        for said in _sessions(directory):
            found += [Claim(each.size, each.root, SESSIONS) for each in said.checkpoints]
    with suppress(UsageError, sqlite3.Error, OSError, ValueError, TypeError, AttributeError):
        place, version = journal_of(directory)
        if place is not None:
            with closing(open_for_reading(place)) as journal:
                query = "SELECT size, root, at FROM checkpoints WHERE version = ?"
                for size, root, at in journal.execute(query, (_version(journal, version),)):
                    said_then = CheckpointLine(size=size, root=root.hex(), at=at)
                    found.append(Claim(said_then.size, said_then.root, "run.sqlite"))
    return found


def _others(directory: Path) -> Sequence[str]:
    """Files of a run that its manifest is not over.

    Where a later run is not finished, failed.jsonl is one: if all of that failed, it is written for it.
    """
    with suppress(UsageError, sqlite3.Error), closing(open_for_reading(directory)) as journal:
        query = (
            "SELECT EXISTS (SELECT 1 FROM versions WHERE command = 'run' AND finished IS NULL AND version > "
            "(SELECT max(version) FROM versions WHERE command = 'run' AND finished IS NOT NULL))"
        )
        if journal.execute(query).fetchone()[0]:
            return (*OF_THE_RUN, FAILED)
    return OF_THE_RUN


def derived_versions(directory: Path) -> list[int]:
    """The finished versions that have a folder each, as far as the journal can be read."""
    with suppress(UsageError, sqlite3.Error), closing(open_for_reading(directory)) as journal:
        query = (
            "SELECT version FROM versions WHERE command <> 'run' AND finished IS NOT NULL ORDER BY version"
        )
        return [int(version) for (version,) in journal.execute(query)]
    return []


def _sessions(directory: Path) -> Iterator[SessionLine]:
    """Raises Broken."""
    path = directory / SESSIONS
    if not path.is_file():
        return
    for number, line in enumerate(lines(path), 1):
        try:
            yield SessionLine.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise Broken(f"is no session: {place}: {first['msg']}", number) from None


def _check_sessions(directory: Path, journal: sqlite3.Connection, version: int, findings: Findings) -> None:
    """The sessions that were published are those of the journal, which has the later ones too."""
    there = {each["session"]: each for each in stored_sessions(journal, version)}
    try:
        published = list(_sessions(directory))
    except Broken as broken:
        findings.add(f"line {broken.number} {broken}", SESSIONS)
        return
    for said in published:
        name = f"session {said.session}"
        now = there.get(said.session)
        if now is None:
            findings.add("is not in the journal", "run.sqlite", name)
            continue
        for field, value in said.model_dump().items():
            # The session that wrote the file had not ended.
            writing = said is published[-1] and field in ("ended", "outcome", "reason") and value is None
            if not writing and now[field] != value:
                findings.add(f"is not what {SESSIONS} has", "run.sqlite", name, field)


def _last_session(directory: Path) -> int | None:
    """That wrote the files; None where sessions.jsonl is not there, or not in order: that is found there."""
    try:
        return max((said.session for said in _sessions(directory)), default=None)
    except (Broken, OSError):
        return None


def _check_answers(
    directory: Path, journal: sqlite3.Connection, version: int, findings: Findings, tell: Tell | None
) -> None:
    """What stands behind each record in the journal is what it was when the run's files were written."""
    path = directory / ANSWERS
    until = _last_session(directory)
    if until is None or not path.is_file():
        return  # an earlier synthgen wrote no such files; what is missing is found by the manifest
    answers, published = Answers(journal, until), enumerate(lines(path), 1)
    try:
        stored = stored_records(journal, version, original=True)
        for entry, body in counted(stored, "answers in the journal", tell):
            before = entry.original
            if before is not None and (body is None or hashlib.sha256(body).digest() != before):
                findings.add("was altered, as it was before redaction", "run.sqlite", entry.id, "contents")
            digest = answers.digest(entry)
            if digest is None:
                continue
            number, line = next(published, (0, b"{}"))
            said = parsed(line, number)
            if said.get("id") != entry.id:
                there = str(said["id"])[:80] if "id" in said else None
                what = f"stands where {entry.id} should" if there else "has no line"
                findings.add(what, ANSWERS, there or entry.id)
                return
            if said != {"id": entry.id, "sha256": said.get("sha256")}:
                findings.add("is not as synthgen writes it", ANSWERS, entry.id)
            if said.get("sha256") != digest:
                message = f"its requests' answers or errors, or its own, are not those of {ANSWERS}"
                findings.add(message, "run.sqlite", entry.id, "answers")
        for number, line in published:
            name = str(parsed(line, number).get("id"))[:80]
            findings.add("was added: there is no such record", ANSWERS, name)
    except Broken as broken:
        findings.add(f"line {broken.number} {broken}", ANSWERS)


def _check_journal(
    directory: Path,
    journal: sqlite3.Connection,
    version: int,
    findings: Findings,
    erased: frozenset[str],
    tell: Tell | None,
) -> None:
    row = journal.execute("SELECT chain FROM versions WHERE version = ?", (version,)).fetchone()
    chain = {link["name"]: link for link in orjson.loads(row[0])} if row and row[0] else {}
    ledger = lines(directory / LEDGER)
    unkept = Unkept(directory, findings, failed=FAILED not in _others(directory))
    until = _last_session(directory)
    tree = Growing()
    for entry, body in counted(stored_records(journal, version), "records in the journal", tell):
        line = ledger_entry(entry, statement(entry, body))
        tree.append(leaf_hash(line))
        said = next(ledger, None)
        if said is None:
            findings.add("is in the journal, and not in the ledger", LEDGER, entry.id)
            break
        if (entry.erased is not None) != (entry.id in erased):
            findings.add("is erased in the journal or the dataset, and not in both", "run.sqlite", entry.id)
        if entry.content is not None and (body is None or hashlib.sha256(body).digest() != entry.content):
            findings.add("its contents in the journal were altered", "run.sqlite", entry.id, "contents")
        elif said != line:
            findings.add("in the journal is not what the ledger has", "run.sqlite", entry.id)
        _check_asked(entry, journal, findings)
        if entry.leaf not in (None, leaf_hash(line)):
            findings.add("is not what was judged: its leaf is another", "run.sqlite", entry.id, "leaf")
        if entry.erased is None:
            unkept.compare(entry, body, chain, _errors(entry, journal, until))
    for number, line in enumerate(ledger, tree.size + 1):
        name = str(parsed(line, number).get("id"))[:80]
        findings.add("is in the ledger, and not in the journal", LEDGER, name)
    unkept.ends()
    _check_requests(journal, findings)


def _errors(entry: RecordEntry, journal: sqlite3.Connection, until: int | None) -> list[str]:
    """Of every try at the requests of a record that failed, until the files were written."""
    if entry.state != "failed":
        return []
    query = "SELECT error FROM failures WHERE key = ?1 AND (?2 IS NULL OR session <= ?2) ORDER BY rowid"
    return [said for key in entry.requests for (said,) in journal.execute(query, (key, until))]


def _check_asked(entry: RecordEntry, journal: sqlite3.Connection, findings: Findings) -> None:
    """Every request that a record followed from is there."""
    for key in (*entry.requests, *asked_by_filters(entry.verdicts)):
        if journal.execute("SELECT 1 FROM requests WHERE key = ?", (key,)).fetchone() is None:
            findings.add(f"its request {key.hex()[:16]} is missing", "run.sqlite", entry.id, "requests")


def _check_requests(journal: sqlite3.Connection, findings: Findings) -> None:
    """A request's key is the digest of its body."""
    for key, body in journal.execute("SELECT key, body FROM requests"):
        if not isinstance(body, bytes) or hashlib.sha256(body).digest() != key:
            name = key.hex() if isinstance(key, bytes) else str(key)[:80]
            findings.add("its body is not the one that was asked", "run.sqlite", name, "requests")


def _check_unkept(directory: Path, findings: Findings, erased: frozenset[str]) -> None:
    """Without a journal: the same records in the same order as the ledger has them."""
    unkept = Unkept(directory, findings)
    for entry in _entries(directory / LEDGER):
        if entry.get("id") not in erased:
            unkept.named(str(entry.get("state")), str(entry.get("id"))[:80])
    unkept.ends()


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines(path), 1):
        yield parsed(line, number)
