"""The run's one durable file: requests, completions, records, measurements, verdicts and sessions.

SQLite in WAL mode with full synchronisation. Writes are gathered and committed as a group, at least once
a second, by a thread of their own, so that what is generated is durable at once and costs little.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from synthgen.engines.base import Completion
from synthgen.errors import RunError, UsageError
from synthgen.journal_commits import (
    ASKED,
    COMPLETION,
    CONTENT,
    FAILURE,
    RECORD,
    REQUEST,
    UNUSABLE,
    Commits,
    disk_error,
)
from synthgen.journal_entries import RecordEntry
from synthgen.journal_erasing import erase_records
from synthgen.journal_lock import hold, refuse_network
from synthgen.journal_reading import Answers, stored_record, stored_records, stored_sessions
from synthgen.journal_schema import now, prepare

VERSIONS = "versions"  # the folder of a run that later versions are in
BUSY_SECONDS = 30  # that another process is waited for


class Journal(Commits):
    """One run's journal, open for writing by this process alone. Use `open_journal`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int) -> None:
        super().__init__(path, connection)
        self._read = _connect(path)
        self._lock = lock
        self.session = 0
        self.had_answers = bool(self._read.execute("SELECT EXISTS (SELECT 1 FROM completions)").fetchone()[0])
        self.had_failures = bool(self._read.execute("SELECT EXISTS (SELECT 1 FROM failures)").fetchone()[0])
        self.had_contents = bool(self._read.execute("SELECT EXISTS (SELECT 1 FROM contents)").fetchone()[0])

    def begin_session(self, command: str, environment: Mapping[str, Any]) -> None:
        """Note that a process has begun to write."""
        with self._writing():
            self.session = (
                self._write.execute(
                    "INSERT INTO sessions (command, started, environment) VALUES (?, ?, ?)",
                    (command, now(), orjson.dumps(environment).decode()),
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
                (now(), outcome, orjson.dumps(engines or {}).decode(), reason, self.session),
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
        self._waiting.append((REQUEST, (key, body, self.session, time.time())))

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
        self._waiting.append((COMPLETION, values))
        return completion

    def asked_about(self, content: bytes, key: bytes) -> None:
        """A filter asks this about the contents of that digest."""
        self._waiting.append((ASKED, (content, key)))

    def request_failed(self, key: bytes, error: str, *, final: bool) -> None:
        """A try at it failed; `final` says that it will not be asked again."""
        self._waiting.append((FAILURE, (key, storable(error), int(final), self.session, time.time())))

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
        self._waiting.append((UNUSABLE, (key, storable(error), self.session, time.time(), key)))

    def given_up(self) -> tuple[bool, bool]:
        """Whether there are requests that the engine refused for good, and answers that no step can use."""
        query = "SELECT EXISTS (SELECT 1 FROM failures WHERE final = ?)"
        refused, unusable = (bool(self._read.execute(query, (final,)).fetchone()[0]) for final in (1, 2))
        return refused, unusable

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
        self._waiting.append((CONTENT, (content, body, orjson.dumps(measured).decode())))

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
        self._waiting.append((RECORD, values))

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
                (version, command, fingerprint, now(), orjson.dumps(chain).decode()),
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
                (now(), orjson.dumps(summary).decode(), version),
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
            raise disk_error(self.path, error) from error
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
                (version, size, root, self.session, now(), version, size),
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

    def close(self) -> None:
        """Commit what waits and let go of the run."""
        try:
            self._commit_rest()
        finally:
            self._thread.shutdown()
            self._read.close()
            self._write.close()
            os.close(self._lock)


_SET_ASIDE = (
    "INSERT INTO set_aside SELECT * FROM completions WHERE key IN (SELECT key FROM failures WHERE final = 2)"
)
_FORGET_UNUSABLE = "DELETE FROM completions WHERE key IN (SELECT key FROM failures WHERE final = 2)"


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
    refuse_network(directory)
    if not path.exists() and any(entry.name != "run.lock" for entry in directory.iterdir()):
        raise UsageError(
            f"{directory} is not empty and holds no run",
            hint="give another directory with `-o`, or move what is in it",
        )
    lock = hold(directory)
    try:
        connection = _connect(path)
        try:
            prepare(connection, directory, recipe)
        except BaseException:
            connection.close()
            raise
        return Journal(path, connection, lock)
    except sqlite3.DatabaseError as error:
        os.close(lock)
        raise disk_error(path, error) from error
    except BaseException:
        os.close(lock)
        raise


def storable(text: str) -> str:
    """The text, with halves of surrogate pairs, which nothing can store, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
