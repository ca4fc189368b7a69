"""The run's one durable file: requests, completions, records, measurements, verdicts and sessions.

SQLite in WAL mode with full synchronisation. Writes are gathered and committed as a group, at least once
a second, by a thread of their own, so that what is generated is durable at once and costs little.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from synthgen.engines.base import Completion
from synthgen.errors import RunError, UsageError

STATES = ("kept", "dropped", "failed")
VERSIONS = "versions"  # the folder of a run that later versions are in
SCHEMA_VERSION = 6
COMMIT_EVERY = 0.25
BACKLOG = 8000
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "ceph",
    "fuse.glusterfs",
    "lustre",
    "afs",
}

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- reason: why it failed, in a sentence
CREATE TABLE sessions (
    session INTEGER PRIMARY KEY, command TEXT NOT NULL, started TEXT NOT NULL, ended TEXT,
    outcome TEXT, environment TEXT NOT NULL, engines TEXT, reason TEXT);
CREATE TABLE requests (
    key BLOB PRIMARY KEY, body BLOB NOT NULL, session INTEGER NOT NULL, issued REAL NOT NULL);
-- source: the run that an answer was taken from, where this one did not ask for it
-- reasoning: what the model thought before, where a server said that apart from the text
CREATE TABLE completions (
    key BLOB PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, session INTEGER NOT NULL, arrived REAL NOT NULL, source TEXT,
    reasoning TEXT);
CREATE TABLE set_aside (
    key BLOB NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL, session INTEGER NOT NULL, arrived REAL NOT NULL, source TEXT,
    reasoning TEXT);
-- final: 0 it will be asked again, 1 given up for good, 2 answered, and the answer could not be used
CREATE TABLE failures (
    key BLOB NOT NULL, error TEXT NOT NULL, final INTEGER NOT NULL, session INTEGER NOT NULL,
    at REAL NOT NULL);
CREATE INDEX failures_key ON failures (key);
CREATE TABLE filters (
    filter INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, description TEXT NOT NULL);
CREATE TABLE contents (
    sha256 BLOB PRIMARY KEY, body BLOB NOT NULL, measured TEXT NOT NULL);
-- original: the contents before something was redacted, which no output has; leaf: its hash in the ledger
-- erased: the digest of its statement, of a record whose contents were erased
-- progress: how far it is, changed in the transactions that records are stored in
-- cut: where a budget that depends on the clock ended it; chain: its filters, with their bounds
CREATE TABLE versions (
    version INTEGER PRIMARY KEY, command TEXT NOT NULL, fingerprint TEXT NOT NULL, started TEXT NOT NULL,
    finished TEXT, summary TEXT, progress TEXT, cut TEXT, chain TEXT);
CREATE TABLE records (
    version INTEGER NOT NULL, task INTEGER NOT NULL, branch TEXT NOT NULL, id TEXT NOT NULL,
    content BLOB, state TEXT NOT NULL CHECK (state IN ('kept', 'dropped', 'failed')),
    dropped_by TEXT, verdicts TEXT NOT NULL, requests BLOB NOT NULL, sources TEXT NOT NULL, error TEXT,
    original BLOB, leaf BLOB, erased BLOB, PRIMARY KEY (version, task, branch)) WITHOUT ROWID;
CREATE INDEX records_id ON records (id);
-- the ledger's root when a session began to write to a version, stopped, or finished it
CREATE TABLE checkpoints (
    version INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, session INTEGER NOT NULL,
    at TEXT NOT NULL);
-- what filters asked a model about which contents, whatever came of it
CREATE TABLE asked (
    content BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (content, key)) WITHOUT ROWID;
CREATE VIEW measurements AS
    SELECT lower(hex(contents.sha256)) AS content, filters.name AS filter,
           json_extract(item.value, '$[0]') AS value, json_extract(item.value, '$[1]') AS detail
    FROM contents, json_each(contents.measured) AS item JOIN filters ON filters.filter = item.key;
"""

# What brings a journal of each earlier schema to the next. Readers, who change nothing, make of it views in
# which added columns are null (`_as_now`): so columns and tables are added here, and nothing else.
_MIGRATIONS = {
    1: """
ALTER TABLE completions ADD COLUMN source TEXT;
ALTER TABLE set_aside ADD COLUMN source TEXT;
ALTER TABLE versions ADD COLUMN progress TEXT;
ALTER TABLE versions ADD COLUMN cut TEXT;
ALTER TABLE versions ADD COLUMN chain TEXT;
""",
    2: """
ALTER TABLE records ADD COLUMN original BLOB;
ALTER TABLE records ADD COLUMN leaf BLOB;
CREATE TABLE checkpoints (
    version INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, session INTEGER NOT NULL,
    at TEXT NOT NULL);
""",
    3: "ALTER TABLE records ADD COLUMN erased BLOB;",
    4: """
CREATE TABLE asked (
    content BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (content, key)) WITHOUT ROWID;
""",
    5: """
ALTER TABLE completions ADD COLUMN reasoning TEXT;
ALTER TABLE set_aside ADD COLUMN reasoning TEXT;
ALTER TABLE sessions ADD COLUMN reason TEXT;
""",
}


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


class OtherVersion(UsageError):
    """A journal that this version of synthgen does not know."""


class Journal:
    """One run's journal, open for writing by this process alone. Use `open_journal`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int) -> None:
        self.path = path
        self._write = connection
        self._read = _connect(path)
        self._lock = lock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._full, self._room = asyncio.Event(), asyncio.Event()
        self._fresh: dict[bytes, Completion] = {}
        self._lost: BaseException | None = None  # why a commit failed, after which nothing follows on
        self.session = 0
        self.on_commit: Callable[[], tuple[int, Mapping[str, Any]]] | None = None
        self.had_answers = bool(self._read.execute("SELECT EXISTS (SELECT 1 FROM completions)").fetchone()[0])
        self.had_failures = bool(self._read.execute("SELECT EXISTS (SELECT 1 FROM failures)").fetchone()[0])
        self.had_contents = bool(self._read.execute("SELECT EXISTS (SELECT 1 FROM contents)").fetchone()[0])

    def begin_session(self, command: str, environment: Mapping[str, Any]) -> None:
        """Note that a process has begun to write."""
        with self._writing():
            self.session = (
                self._write.execute(
                    "INSERT INTO sessions (command, started, environment) VALUES (?, ?, ?)",
                    (command, _now(), orjson.dumps(environment).decode()),
                ).lastrowid
                or 0
            )

    def end_session(
        self, outcome: str, engines: Mapping[str, Any] | None = None, reason: str | None = None
    ) -> None:
        """Note how it ended, after writing what waits, what its engines ran on, and why it failed."""
        self.flush()
        with self._writing():
            self._write.execute(
                "UPDATE sessions SET ended = ?, outcome = ?, engines = ?, reason = ? WHERE session = ?",
                (_now(), outcome, orjson.dumps(engines or {}).decode(), reason, self.session),
            )

    def note_engines(self, engines: Mapping[str, Any]) -> None:
        """Note what this session's engines run on, before its end. Waits for a commit that is under way."""
        values = (orjson.dumps(engines).decode(), self.session)

        def note() -> None:
            with self._writing():
                self._write.execute("UPDATE sessions SET engines = ? WHERE session = ?", values)

        self._thread.submit(note).result()

    def request_issued(self, key: bytes, body: bytes) -> None:
        """A request goes out."""
        self._waiting.append((_REQUEST, (key, body, self.session, time.time())))

    def completed(self, key: bytes, completion: Completion, source: str | None = None) -> Completion:
        """Its answer has arrived; durable within a second. Gives the answer as it is stored.

        `source` names the run that it was taken from, where nobody was asked.
        """
        text, reasoning = storable(completion.text), completion.reasoning and storable(completion.reasoning)
        if text is not completion.text or reasoning is not completion.reasoning:
            completion = replace(completion, text=text, reasoning=reasoning)
        completion = self._fresh.setdefault(key, completion)
        self.had_answers = True
        values = (
            key,
            completion.text,
            completion.finish_reason,
            completion.input_tokens,
            completion.output_tokens,
            self.session,
            time.time(),
            source,
            completion.reasoning,
        )
        self._waiting.append((_COMPLETION, values))
        return completion

    def asked_about(self, content: bytes, key: bytes) -> None:
        """A filter asks this about the contents of that digest."""
        self._waiting.append((_ASKED, (content, key)))

    def request_failed(self, key: bytes, error: str, *, final: bool) -> None:
        """A try at it failed; `final` says that it will not be asked again."""
        self._waiting.append((_FAILURE, (key, storable(error), int(final), self.session, time.time())))

    def stored_answer(self, key: bytes) -> Completion | None:
        """The answer that this or an earlier session got to this very request."""
        if not self.had_answers:
            return None
        fresh = self._fresh.get(key)
        if fresh is not None:
            return fresh
        row = self._read.execute(
            "SELECT text, finish_reason, input_tokens, output_tokens, reasoning FROM completions "
            "WHERE key = ?",
            (key,),
        ).fetchone()
        return Completion(*row) if row else None

    def stored_failure(self, key: bytes) -> str | None:
        """Why an earlier session gave this very request up for good, if it did."""
        if not self.had_failures:
            return None
        row = self._read.execute("SELECT error FROM failures WHERE key = ? AND final = 1", (key,)).fetchone()
        return row[0] if row else None

    def errors(self, keys: Sequence[bytes]) -> list[str]:
        """Of every try at these requests that failed, one after the other."""
        query = "SELECT error FROM failures WHERE key = ? ORDER BY rowid"
        return [row[0] for key in keys for row in self._read.execute(query, (key,))]

    def answer_unusable(self, key: bytes, error: str) -> None:
        """An answer came, and the step that asked cannot use it."""
        self._waiting.append((_UNUSABLE, (key, storable(error), self.session, time.time(), key)))

    def forget_failures(self) -> None:
        """Let every request be asked again that was given up, or whose answer could not be used.

        Such answers are kept in `set_aside`.
        """
        with self._writing():
            self._write.execute(_SET_ASIDE)
            self._write.execute(_FORGET_UNUSABLE)
            self._write.execute("UPDATE failures SET final = 0")
        self.had_failures = False

    def stored_measurements(self, content: bytes) -> dict[str, list[Any]] | None:
        """What filters measured of these contents, by the filter's number; None if they are not stored."""
        if not self.had_contents:
            return None
        row = self._read.execute("SELECT measured FROM contents WHERE sha256 = ?", (content,)).fetchone()
        return orjson.loads(row[0]) if row else None

    def add_content(self, content: bytes, body: bytes, measured: Mapping[str, Any]) -> None:
        """Store a record's contents, under their SHA-256, with all that was measured of them."""
        self._waiting.append((_CONTENT, (content, body, orjson.dumps(measured).decode())))

    def filter_number(self, key: str, name: str, description: Mapping[str, Any]) -> str:
        """The number under which a filter's measurements are stored."""
        with self._writing():
            self._write.execute(
                "INSERT OR IGNORE INTO filters (key, name, description) VALUES (?, ?, ?)",
                (key, name, orjson.dumps(description).decode()),
            )
        return str(self._write.execute("SELECT filter FROM filters WHERE key = ?", (key,)).fetchone()[0])

    def known_filter(self, key: str) -> str | None:
        """The number under which this filter's measurements are stored, if it has any."""
        row = self._read.execute("SELECT filter FROM filters WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def add_record(self, version: int, entry: RecordEntry) -> None:
        """Store the fate of one branch."""
        values = (
            version,
            entry.task,
            entry.branch,
            entry.id,
            entry.content,
            entry.state,
            entry.dropped_by,
            orjson.dumps(entry.verdicts).decode(),
            b"".join(entry.requests),
            orjson.dumps(entry.sources).decode(),
            entry.error,
            entry.original,
            entry.leaf,
            entry.erased,
        )
        self._waiting.append((_RECORD, values))

    def knows(self, fingerprint: str) -> bool:
        """Whether a version of this very recipe was begun before."""
        query = "SELECT EXISTS (SELECT 1 FROM versions WHERE fingerprint = ?)"
        return bool(self._read.execute(query, (fingerprint,)).fetchone()[0])

    def begin_version(self, command: str, fingerprint: str, chain: Sequence[Mapping[str, Any]] = ()) -> int:
        """Begin a version, with its filters. What this command, or `curate`, did not finish is no more."""
        with self._writing():
            unfinished = self._write.execute(
                "SELECT version FROM versions WHERE finished IS NULL AND command IN (?, 'curate')", (command,)
            ).fetchall()
            for old in unfinished:
                self._write.execute("DELETE FROM records WHERE version = ?", old)
                self._write.execute("DELETE FROM versions WHERE version = ?", old)
            version = 1 + (self._write.execute("SELECT max(version) FROM versions").fetchone()[0] or 0)
            self._write.execute(
                "INSERT INTO versions (version, command, fingerprint, started, chain) VALUES (?, ?, ?, ?, ?)",
                (version, command, fingerprint, _now(), orjson.dumps(chain).decode()),
            )
        return version

    def unfinished_version(self, command: str, fingerprint: str) -> tuple[int, dict[str, Any]] | None:
        """A version begun for the very same and not finished, with its progress: to be gone on with."""
        row = self._write.execute(
            "SELECT version, progress, cut FROM versions "
            "WHERE version = (SELECT max(version) FROM versions WHERE command = ?) "
            "AND finished IS NULL AND progress IS NOT NULL AND fingerprint = ?",
            (command, fingerprint),
        ).fetchone()
        if row is None:
            return None
        return row[0], {**orjson.loads(row[1]), "cut": orjson.loads(row[2]) if row[2] else None}

    def cut_version(self, version: int, cut: Mapping[str, Any]) -> None:
        """It ends here, and will when it is gone on with."""
        self.flush()
        with self._writing():
            self._write.execute(
                "UPDATE versions SET cut = ? WHERE version = ?", (orjson.dumps(cut).decode(), version)
            )

    def finish_version(self, version: int, summary: Mapping[str, Any]) -> None:
        """Its files are written. Where on this machine that is does not stay."""
        summary = {name: value for name, value in summary.items() if name != "dir"}
        self.flush()
        with self._writing():
            self._write.execute(
                "UPDATE versions SET finished = ?, summary = ? WHERE version = ?",
                (_now(), orjson.dumps(summary).decode(), version),
            )

    def has_unfinished(self, command: str) -> bool:
        """Whether a version that this command began is not finished."""
        query = "SELECT EXISTS (SELECT 1 FROM versions WHERE command = ? AND finished IS NULL)"
        return bool(self._read.execute(query, (command,)).fetchone()[0])

    def last_finished(self, command: str) -> tuple[int, str, dict[str, Any], dict[str, Any] | None] | None:
        """Version, fingerprint, summary and cut of the latest that this command finished."""
        row = self._read.execute(
            "SELECT version, fingerprint, summary, cut FROM versions WHERE finished IS NOT NULL "
            "AND command = ? ORDER BY version DESC LIMIT 1",
            (command,),
        ).fetchone()
        if row is None:
            return None
        return row[0], row[1], orjson.loads(row[2]), orjson.loads(row[3]) if row[3] else None

    def finished_versions(self) -> list[tuple[int, str]]:
        """Number and command of each finished version."""
        query = "SELECT version, command FROM versions WHERE finished IS NOT NULL ORDER BY version"
        return self._read.execute(query).fetchall()

    def places_of(self, id: str) -> list[tuple[int, int, str]]:
        """Version, task and branch of a record in every version that has it."""
        query = "SELECT version, task, branch FROM records WHERE id = ? ORDER BY version"
        return self._read.execute(query, (id,)).fetchall()

    def stored(self, version: int, task: int, branch: str) -> tuple[RecordEntry, bytes | None]:
        """One record of a version with the JSON of its contents."""
        entry, body, _ = stored_record(self._read, version, task, branch)
        return entry, body

    def erase(self, erased: Mapping[tuple[int, int, str], bytes]) -> dict[str, int]:
        """Erase the contents of records, given by version, task and branch, each with its statement's digest.

        What no other record uses goes with them: contents, requests, answers and errors, also those that
        were beyond the cut, and what errors of sessions quote. Nothing of it stays in the file or its log.
        Gives how many contents and answers went. Raises RunError.
        """
        self.flush()
        self._write.execute("PRAGMA secure_delete = ON")
        with self._writing():
            gone = erase_records(self._write, erased)
        try:
            self._write.execute("VACUUM")
            busy = self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise _disk_error(self.path, error) from error
        if busy:
            raise RunError(
                f"somebody is reading {self.path}, whose log still holds what was erased",
                hint="run the same command again when they have ended",
            )
        return gone

    def fingerprint(self, version: int) -> str:
        """The digest of what a version was made from."""
        row = self._read.execute("SELECT fingerprint FROM versions WHERE version = ?", (version,)).fetchone()
        return str(row[0])

    def version_said(self, version: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Summary and filters of a finished version."""
        query = "SELECT summary, chain FROM versions WHERE version = ?"
        summary, chain = self._read.execute(query, (version,)).fetchone()
        return orjson.loads(summary), orjson.loads(chain) if chain else []

    def records(
        self, version: int, state: str | None = None, *, original: bool = False
    ) -> Iterator[tuple[RecordEntry, bytes | None]]:
        """Every record of a version in task order, with the JSON of its contents.

        With `original` these are what they were before anything was redacted.
        """
        with closing(_connect(self.path)) as reader:
            yield from stored_records(reader, version, state, original=original)

    def leaves(self, version: int) -> Iterator[bytes | None]:
        """The leaf hash of each record of a version, in order; None where an earlier synthgen judged it."""
        with closing(_connect(self.path)) as reader:
            query = "SELECT leaf FROM records WHERE version = ? ORDER BY task, branch"
            for row in reader.execute(query, (version,)):
                yield row[0]

    def checkpoint(self, version: int, size: int, root: bytes) -> None:
        """Note how far the ledger of a version is, and its root, unless that was noted before."""
        self.flush()
        with self._writing():
            self._write.execute(
                "INSERT INTO checkpoints (version, size, root, session, at) SELECT ?, ?, ?, ?, ? "
                "WHERE NOT EXISTS (SELECT 1 FROM checkpoints WHERE version = ? AND size = ?)",
                (version, size, root, self.session, _now(), version, size),
            )

    def sessions(self, version: int) -> list[dict[str, Any]]:
        """Every session so far, each with the checkpoints that it made of a version."""
        with closing(_connect(self.path)) as reader:
            return stored_sessions(reader, version)

    def answers(self) -> Answers:
        """What was asked for each record, and every attempt at it, up to this session."""
        return Answers(self._read, self.session)

    def usage(self) -> dict[str, int]:
        """Tokens and requests of this session's answers."""
        row = self._write.execute(
            "SELECT count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0) "
            "FROM completions WHERE session = ? AND source IS NULL",
            (self.session,),
        ).fetchone()
        return {"input_tokens": row[1], "output_tokens": row[2], "requests": row[0]}

    def flush(self) -> None:
        """Commit what waits, now. Raises RunError where the disk will not have it, or would not before."""
        self._commit_rest()
        if self._lost is not None:
            raise self._lost

    def _commit_rest(self) -> None:
        waiting = self._take()
        if waiting:
            self._thread.submit(self._commit, waiting).result()

    def _take(self) -> list[tuple[str, tuple[Any, ...]]]:
        """What waits, with the progress that it makes."""
        waiting, self._waiting = self._waiting, []
        if waiting and self.on_commit is not None:
            version, progress = self.on_commit()
            waiting.append((_PROGRESS, (orjson.dumps(progress).decode(), version)))
        return waiting

    async def room(self) -> None:
        """Wait while more waits to be committed than a second's writing, so that memory stays flat."""
        if len(self._waiting) >= BACKLOG:
            self._full.set()
            self._room.clear()
            await self._room.wait()

    async def keep_flushing(self) -> None:
        """Commit what waits, four times a second or as soon as much does, until cancelled.

        Once taken it is committed, also when cancelled. Raises RunError where the disk will not have it.
        """
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), COMMIT_EVERY)
            waiting = self._take()
            self._full.clear()
            self._room.set()
            if waiting:
                committing = self._thread.submit(self._commit, waiting)
                committed = asyncio.wrap_future(committing)
                try:
                    await asyncio.shield(committed)
                except asyncio.CancelledError:
                    try:
                        committing.result()
                    finally:
                        committed.cancel()
                    raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._write:
                yield
        except sqlite3.DatabaseError as error:
            raise _disk_error(self.path, error) from error

    def _commit(self, waiting: list[tuple[str, tuple[Any, ...]]]) -> None:
        by_statement: dict[str, list[tuple[Any, ...]]] = {}
        for statement, values in waiting:
            if self._lost and statement in (_RECORD, _PROGRESS):
                continue  # they follow records that are not stored
            by_statement.setdefault(statement, []).append(values)
        try:
            with self._writing():
                for statement, rows in by_statement.items():
                    self._write.executemany(statement, rows)
        except BaseException as error:
            self._lost = self._lost or error
            raise
        for values in by_statement.get(_COMPLETION, ()):
            self._fresh.pop(values[0], None)

    def close(self) -> None:
        """Commit what waits and let go of the run."""
        try:
            self._commit_rest()
        finally:
            self._thread.shutdown()
            self._read.close()
            self._write.close()
            os.close(self._lock)


_PROGRESS = "UPDATE versions SET progress = ? WHERE version = ?"
_REQUEST = "INSERT OR IGNORE INTO requests (key, body, session, issued) VALUES (?, ?, ?, ?)"
_COMPLETION = (
    "INSERT OR IGNORE INTO completions "
    "(key, text, finish_reason, input_tokens, output_tokens, session, arrived, source, reasoning) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ASKED = "INSERT OR IGNORE INTO asked (content, key) VALUES (?, ?)"
_FAILURE = "INSERT INTO failures (key, error, final, session, at) VALUES (?, ?, ?, ?, ?)"
_UNUSABLE = (
    "INSERT INTO failures (key, error, final, session, at) SELECT ?, ?, 2, ?, ? "
    "WHERE NOT EXISTS (SELECT 1 FROM failures WHERE key = ? AND final = 2)"
)
_SET_ASIDE = (
    "INSERT INTO set_aside SELECT * FROM completions WHERE key IN (SELECT key FROM failures WHERE final = 2)"
)
_FORGET_UNUSABLE = "DELETE FROM completions WHERE key IN (SELECT key FROM failures WHERE final = 2)"
_CONTENT = (
    "INSERT INTO contents (sha256, body, measured) VALUES (?, ?, ?) "
    "ON CONFLICT (sha256) DO UPDATE SET measured = excluded.measured"
)
_RECORD = (
    "INSERT INTO records (version, task, branch, id, content, state, dropped_by, verdicts, requests, "
    "sources, error, original, leaf, erased) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def erase_records(
    connection: sqlite3.Connection, erased: Mapping[tuple[int, int, str], bytes]
) -> dict[str, int]:
    """See `Journal.erase`."""
    contents, keys, errors = set[bytes](), set[bytes](), set[str]()
    used_contents, used_keys = set[bytes](), set[bytes]()
    query = "SELECT version, task, branch, content, original, requests, verdicts, error FROM records"
    for version, task, branch, content, original, requests, verdicts, error in connection.execute(query):
        mine = (version, task, branch) in erased
        asked = {requests[place : place + 32] for place in range(0, len(requests), 32)}
        if '"requests"' in verdicts:
            asked.update(asked_by_filters(orjson.loads(verdicts)))
        (keys if mine else used_keys).update(asked)
        (contents if mine else used_contents).update(each for each in (content, original) if each is not None)
        if mine and error is not None:
            errors.add(error)
    for content, key in connection.execute("SELECT content, key FROM asked"):
        (used_keys if content in used_contents else keys).add(key)
    # What no record has, such as answers beyond the cut, goes too: it may hold the same, and has no name.
    contents.update(row[0] for row in connection.execute("SELECT sha256 FROM contents"))
    for table in ("requests", "completions", "set_aside", "failures"):
        keys.update(row[0] for row in connection.execute(f"SELECT key FROM {table}"))  # noqa: S608
    contents, keys = contents - used_contents, keys - used_keys
    counts = {"contents": 0, "answers": 0}
    for content in contents:
        counts["contents"] += connection.execute("DELETE FROM contents WHERE sha256 = ?", (content,)).rowcount
        connection.execute("DELETE FROM asked WHERE content = ?", (content,))
    for key in keys:
        counts["answers"] += connection.execute("DELETE FROM completions WHERE key = ?", (key,)).rowcount
        for table in ("requests", "set_aside", "failures"):
            connection.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608
    connection.execute("UPDATE sessions SET reason = substr(reason, 1, instr(reason || ':', ':') - 1)")
    connection.executemany(_ERASE, [(digest, *place) for place, digest in erased.items()])
    for column in ("progress", "summary"):
        query = f"SELECT version, {column} FROM versions WHERE {column} IS NOT NULL"  # noqa: S608
        for version, text in connection.execute(query).fetchall():
            said = orjson.loads(text)
            if any(each[0] in errors for each in said.get("errors", ())):
                said["errors"] = [each for each in said["errors"] if each[0] not in errors]
                values = (orjson.dumps(said).decode(), version)
                connection.execute(f"UPDATE versions SET {column} = ? WHERE version = ?", values)  # noqa: S608
    return counts


def asked_by_filters(verdicts: Mapping[str, Any]) -> Iterator[bytes]:
    """The keys of the requests that verdicts followed from."""
    for verdict in verdicts.values():
        for key in (verdict.get("detail") or {}).get("requests", ()):
            yield bytes.fromhex(key)


_ERASE = (
    "UPDATE records SET content = NULL, verdicts = '{}', requests = x'', sources = '[]', "
    "error = 'its contents were erased', original = NULL, erased = ? "
    "WHERE version = ? AND task = ? AND branch = ?"
)


def open_journal(directory: Path, recipe: str) -> Journal:
    """Open the journal of a run directory, making both where they are not there yet.

    Raises UsageError where the directory holds another recipe's run, something else, or is in use; RunError
    where it cannot be written.
    """
    path = directory / "run.sqlite"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the run directory {directory} cannot be made: {error.strerror}") from None
    _refuse_network(directory)
    if not path.exists() and any(entry.name != "run.lock" for entry in directory.iterdir()):
        raise UsageError(
            f"{directory} is not empty and holds no run",
            hint="give another directory with `-o`, or move what is in it",
        )
    lock = _lock(directory)
    try:
        connection = _connect(path)
        try:
            _prepare(connection, directory, recipe)
        except BaseException:
            connection.close()
            raise
        return Journal(path, connection, lock)
    except sqlite3.DatabaseError as error:
        os.close(lock)
        raise _disk_error(path, error) from error
    except BaseException:
        os.close(lock)
        raise


def _prepare(connection: sqlite3.Connection, directory: Path, recipe: str) -> None:
    new = not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]
    meta = {} if new else _check(connection, directory, recipe)  # before anything in it changes
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if new:
        with connection:
            connection.executescript(f"BEGIN; {_SCHEMA}")
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("schema", str(SCHEMA_VERSION)), ("recipe", recipe), ("created", _now())],
            )
        return
    for schema in range(int(meta["schema"]), SCHEMA_VERSION):
        with connection:
            connection.executescript(f"BEGIN; {_MIGRATIONS[schema]}")
            connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(schema + 1),))


def _check(connection: sqlite3.Connection, directory: Path, recipe: str) -> dict[str, str]:
    """What a journal says of itself. Raises UsageError where it is none, or not one for this recipe."""
    meta = _meta(connection)
    if not meta.keys() >= {"schema", "recipe"}:
        raise UsageError(
            f"{directory}/run.sqlite is not a journal of synthgen", hint="give another directory with `-o`"
        )
    _check_schema(meta, directory)
    if meta["recipe"] != recipe:
        raise UsageError(
            f"{directory} holds the run of the recipe {meta['recipe']!r}, not of {recipe!r}",
            hint="give another directory with `-o`, or give the recipe its old `name:`",
        )
    return meta


def _check_schema(meta: Mapping[str, str], directory: Path) -> None:
    """Refuse a journal of a schema that this version of synthgen does not know."""
    schema, known = str(meta["schema"]), [*map(str, _MIGRATIONS), str(SCHEMA_VERSION)]
    if schema not in known:
        raise OtherVersion(
            f"{directory} was written by another version of synthgen "
            f"(journal schema {schema[:20]}, this one reads {', '.join(known)})",
            hint="run it with that version, or give another directory with `-o`",
        )


# A view in a table's place may never end, and a column that is computed takes as long as it likes:
# none of these is anything that synthgen makes.
_ODD = (
    "SELECT 1 FROM sqlite_master WHERE type = 'trigger' OR type = 'view' AND name <> 'measurements' "
    "OR type = 'table' AND sql LIKE 'CREATE VIRTUAL%' "
    "UNION ALL SELECT 1 FROM sqlite_master AS made, pragma_table_xinfo(made.name) AS part "
    "WHERE made.type = 'table' AND part.hidden > 1"
)


def open_for_reading(directory: Path) -> sqlite3.Connection:
    """A connection to a run's journal that can write nothing, also while the run goes on.

    Raises UsageError where there is no such journal, or one of another version of synthgen.
    """
    path = directory / "run.sqlite"
    if not path.is_file():
        raise UsageError(f"{directory} holds no run", hint="a run directory has a run.sqlite in it")
    # Whoever opens it makes the index of its write-ahead log. Where that cannot be made, and there is no log,
    # there is nothing to be missed.
    alone = not os.access(directory, os.W_OK) and not path.with_name("run.sqlite-wal").exists()
    mode = "mode=ro&immutable=1" if alone else "mode=ro"
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, check_same_thread=False)
        connection.execute("PRAGMA trusted_schema = OFF")
        odd = connection.execute(_ODD).fetchone()
        meta = _meta(connection) if odd is None else {}
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not meta.keys() >= {"schema", "recipe"}:
        connection.close()
        raise UsageError(f"{path} is not a journal of synthgen")
    try:
        _check_schema(meta, directory)
        _as_now(connection, int(meta["schema"]))
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UsageError(f"{path} cannot be read: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


def _as_now(connection: sqlite3.Connection, schema: int) -> None:
    """Let a journal of an earlier schema be read like one of today: by temporary views; it stays as it is."""
    script = "".join(_MIGRATIONS[each] for each in range(schema, SCHEMA_VERSION))
    added: dict[str, list[str]] = {}
    for table, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", script):
        added.setdefault(table, []).append(f"NULL AS {column}")
    for table, columns in added.items():
        rowid = [] if table == "records" else ["rowid AS rowid"]  # the one that has none of those altered
        chosen = ", ".join(["*", *columns, *rowid])
        view = f"CREATE TEMP VIEW {table} AS SELECT {chosen} FROM main.{table}"  # noqa: S608 - our own names
        connection.execute(view)
    for made in re.findall(r"CREATE TABLE (.*?);", script, re.DOTALL):
        connection.execute(f"CREATE TEMP TABLE {made}")
    connection.commit()


def stored_records(
    reader: sqlite3.Connection, version: int, state: str | None = None, *, original: bool = False
) -> Iterator[tuple[RecordEntry, bytes | None]]:
    """Every record of a version in task order, with the JSON of its contents; see `Journal.records`."""
    query = f"{_STORED} ON c.sha256 = iif(?, coalesce(r.original, r.content), r.content) WHERE r.version = ?"
    values: tuple[Any, ...] = (original, version)
    if state is not None:
        query, values = f"{query} AND r.state = ?", (*values, state)
    for row in reader.execute(f"{query} ORDER BY r.task, r.branch", values):
        yield _entry(row), row[13]


def stored_record(
    reader: sqlite3.Connection, version: int, task: int, branch: str
) -> tuple[RecordEntry, bytes | None, bytes | None]:
    """One record of a version, with the JSON of its contents, and of those before something was redacted.

    Raises LookupError where there is none.
    """
    query = f"{_STORED} ON c.sha256 = r.content WHERE r.version = ? AND r.task = ? AND r.branch = ?"
    row = reader.execute(query, (version, task, branch)).fetchone()
    if row is None:
        raise LookupError(f"there is no record of task {task}")
    entry = _entry(row)
    before = reader.execute("SELECT body FROM contents WHERE sha256 = ?", (entry.original,)).fetchone()
    return entry, row[13], before[0] if before else None


def stored_sessions(reader: sqlite3.Connection, version: int) -> list[dict[str, Any]]:
    """Every session in order: what it ran on, how it ended, and its checkpoints of a version."""
    made: dict[int, list[dict[str, Any]]] = {}
    query = "SELECT session, size, root, at FROM checkpoints WHERE version = ? ORDER BY rowid"
    for session, size, root, at in reader.execute(query, (version,)):
        made.setdefault(session, []).append({"size": size, "root": root.hex(), "at": at})
    query = (
        "SELECT session, command, started, ended, outcome, reason, environment, engines FROM sessions "
        "ORDER BY session"
    )
    return [
        {
            "session": session,
            "command": command,
            "started": started,
            "ended": ended,
            "outcome": outcome,
            "reason": reason,
            "environment": orjson.loads(ran_on),
            "engines": orjson.loads(engines) if engines else {},
            "checkpoints": made.get(session, []),
        }
        for session, command, started, ended, outcome, reason, ran_on, engines in reader.execute(query)
    ]


class Answers:
    """What stands in a journal behind a record's contents: its requests, with every answer and every error.

    That of sessions up to one, which stays the same for ever, whatever is asked again later.
    """

    def __init__(self, reader: sqlite3.Connection, until: int) -> None:
        self._reader = reader
        self._until = until
        self._aside = {key for (key,) in reader.execute("SELECT key FROM set_aside")}

    def digest(self, entry: RecordEntry) -> str | None:
        """SHA-256 of all that, with the record's error and what it was before anything was redacted.

        None where there is nothing of the kind.
        """
        keys = [*entry.requests, *asked_by_filters(entry.verdicts)]
        if entry.erased is not None or not (keys or entry.original or entry.error):
            return None
        before = entry.original.hex() if entry.original else None
        said = [before, entry.error, [[key.hex(), *self._attempts(key)] for key in keys]]
        return hashlib.sha256(orjson.dumps(said)).hexdigest()

    def _attempts(self, key: bytes) -> tuple[list[Any], list[Any]]:
        values = (key, self._until)
        answers = self._reader.execute(_ANSWERS.format("completions"), values).fetchall()
        if key in self._aside:
            answers += self._reader.execute(_ANSWERS.format("set_aside"), values).fetchall()
        errors = self._reader.execute(
            "SELECT session, at, error FROM failures WHERE key = ? AND session <= ?", values
        ).fetchall()
        # As it was before there were thoughts apart: what was sealed without them stays as it was.
        answers = [row if row[-1] is not None else row[:-1] for row in answers]
        return sorted(answers, key=repr), sorted(errors)


_ANSWERS = (
    "SELECT session, arrived, text, finish_reason, input_tokens, output_tokens, source, reasoning FROM {} "
    "WHERE key = ? AND session <= ?"
)

_STORED = (
    "SELECT r.task, r.branch, r.id, r.content, r.state, r.dropped_by, r.verdicts, r.requests, "
    "r.sources, r.error, r.original, r.leaf, r.erased, c.body FROM records AS r LEFT JOIN contents AS c"
)


def _entry(row: tuple[Any, ...]) -> RecordEntry:
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


def running(directory: Path) -> str | None:
    """The number of the process that is writing to this run, if one is."""
    try:
        handle = os.open(directory / "run.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(handle)
    return None


def storable(text: str) -> str:
    """The text, with halves of surrogate pairs, which nothing can store, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _meta(connection: sqlite3.Connection) -> dict[str, str]:
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'meta')").fetchone()[
        0
    ]:
        return {}
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=30, check_same_thread=False)


def _lock(directory: Path) -> int:
    """Hold the run for this process: the system lets go of it when the process ends, however it ends."""
    try:
        handle = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"the run directory {directory} cannot be written: {error.strerror}") from None
    try:
        _hold(handle)
    except OSError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
        os.close(handle)
        raise UsageError(
            f"another process{f' ({holder})' if holder else ''} is running in {directory}",
            hint="wait for it to end, or give another directory with `-o`",
        ) from None
    with suppress(OSError):  # a full disk; the number is for people alone
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _hold(handle: int) -> None:
    """Take the lock; whoever only asks whether the run is running has it for a moment."""
    for _ in range(10):
        with suppress(OSError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.02)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _refuse_network(directory: Path) -> None:
    try:
        mounts = Path("/proc/mounts").read_text()
    except OSError:
        return
    kinds = {
        _unescaped(fields[1]): fields[2] for line in mounts.splitlines() if len(fields := line.split()) > 2
    }
    full = directory.resolve()
    for folder in (full, *full.parents):
        kind = kinds.get(str(folder))
        if kind is not None:
            if kind in _NETWORK:
                raise UsageError(
                    f"{directory} is on a network file system ({kind}), where the journal is not safe",
                    hint="give a directory on a local disk with `-o`, and copy the dataset afterwards",
                )
            return


def _unescaped(place: str) -> str:
    """A mount point as /proc/mounts writes it has spaces and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)


def _disk_error(path: Path, error: sqlite3.Error) -> RunError:
    text = str(error)
    if "full" in text:
        return RunError(
            f"the disk is full: {path} cannot be written",
            hint="what was committed is safe; free some space and run the same command again",
        )
    if "not a database" in text or "malformed" in text:
        return RunError(
            f"{path} is damaged: {text}", hint="restore it from a copy, or give another directory"
        )
    return RunError(f"{path} cannot be written: {text}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
