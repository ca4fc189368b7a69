"""Reading a journal that another process may be writing to."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from synthgen.errors import RunError, UsageError
from synthgen.journal_entries import RecordEntry, asked_by_filters, entry_of
from synthgen.journal_schema import as_now, check_schema, meta_of

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
        meta = meta_of(connection) if odd is None else {}
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not meta.keys() >= {"schema", "recipe"}:
        connection.close()
        raise UsageError(f"{path} is not a journal of synthgen")
    try:
        check_schema(meta, directory)
        as_now(connection, int(meta["schema"]))
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UsageError(f"{path} cannot be read: {error}") from None
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def making_sense(directory: Path) -> Iterator[None]:
    """Where a run's journal holds what nobody can make sense of, a sentence says so: raises RunError."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, sqlite3.DatabaseError) as error:
        raise RunError(
            f"what {directory / 'run.sqlite'} holds makes no sense: {type(error).__name__}: {error}",
            hint=f"`synthgen audit verify {directory}` says what was changed; if nothing was, synthgen is at "
            "fault: please report it",
        ) from error


def stored_records(
    reader: sqlite3.Connection, version: int, state: str | None = None, *, original: bool = False
) -> Iterator[tuple[RecordEntry, bytes | None]]:
    """Every record of a version in task order, with the JSON of its contents; see `Journal.records`."""
    query = f"{_STORED} ON c.sha256 = iif(?, coalesce(r.original, r.content), r.content) WHERE r.version = ?"
    values: tuple[Any, ...] = (original, version)
    if state is not None:
        query, values = f"{query} AND r.state = ?", (*values, state)
    for row in reader.execute(f"{query} ORDER BY r.task, r.branch", values):
        yield entry_of(row), row[13]


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
    entry = entry_of(row)
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
