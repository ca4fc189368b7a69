"""Erasing records from a journal, with all that no other record uses."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import orjson

from synthgen.journal_entries import asked_by_filters


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


_ERASE = (
    "UPDATE records SET content = NULL, verdicts = '{}', requests = x'', sources = '[]', "
    "error = 'its contents were erased', original = NULL, erased = ? "
    "WHERE version = ? AND task = ? AND branch = ?"
)
