"""The journal's tables, and what brings a journal of an earlier schema to them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from synthgen.errors import UsageError

SCHEMA_VERSION = 6
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
# which added columns are null (`as_now`): so columns and tables are added here, and nothing else.
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


class OtherVersion(UsageError):
    """A journal that this version of synthgen does not know."""


def prepare(connection: sqlite3.Connection, directory: Path, recipe: str) -> None:
    """Make the tables, or bring those that are there to today's. Raises UsageError where that is no journal,
    or not one for this recipe.
    """
    new = not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]
    meta = {} if new else _check(connection, directory, recipe)  # before anything in it changes
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if new:
        with connection:
            connection.executescript(f"BEGIN; {_SCHEMA}")
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("schema", str(SCHEMA_VERSION)), ("recipe", recipe), ("created", now())],
            )
        return
    for schema in range(int(meta["schema"]), SCHEMA_VERSION):
        with connection:
            connection.executescript(f"BEGIN; {_MIGRATIONS[schema]}")
            connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(schema + 1),))


def _check(connection: sqlite3.Connection, directory: Path, recipe: str) -> dict[str, str]:
    """What a journal says of itself. Raises UsageError where it is none, or not one for this recipe."""
    meta = meta_of(connection)
    if not meta.keys() >= {"schema", "recipe"}:
        raise UsageError(
            f"{directory}/run.sqlite is not a journal of synthgen", hint="give another directory with `-o`"
        )
    check_schema(meta, directory)
    if meta["recipe"] != recipe:
        raise UsageError(
            f"{directory} holds the run of the recipe {meta['recipe']!r}, not of {recipe!r}",
            hint="give another directory with `-o`, or give the recipe its old `name:`",
        )
    return meta


def check_schema(meta: Mapping[str, str], directory: Path) -> None:
    """Refuse a journal of a schema that this version of synthgen does not know."""
    schema, known = str(meta["schema"]), [*map(str, _MIGRATIONS), str(SCHEMA_VERSION)]
    if schema not in known:
        raise OtherVersion(
            f"{directory} was written by another version of synthgen "
            f"(journal schema {schema[:20]}, this one reads {', '.join(known)})",
            hint="run it with that version, or give another directory with `-o`",
        )


def as_now(connection: sqlite3.Connection, schema: int) -> None:
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


def meta_of(connection: sqlite3.Connection) -> dict[str, str]:
    """What a journal says of itself; nothing where it says nothing."""
    if not connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'meta')").fetchone()[
        0
    ]:
        return {}
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def now() -> str:
    """The time, as the journal states it: ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
