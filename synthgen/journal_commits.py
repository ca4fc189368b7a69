"""Writes to the journal, gathered and committed as a group by a thread of their own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from synthgen.engines.base import Completion
from synthgen.errors import RunError

COMMIT_EVERY = 0.25
BACKLOG = 8000
PROGRESS = "UPDATE versions SET progress = ? WHERE version = ?"
REQUEST = "INSERT OR IGNORE INTO requests (key, body, session, issued) VALUES (?, ?, ?, ?)"
COMPLETION = (
    "INSERT OR IGNORE INTO completions "
    "(key, text, finish_reason, input_tokens, output_tokens, session, arrived, source, reasoning) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
ASKED = "INSERT OR IGNORE INTO asked (content, key) VALUES (?, ?)"
FAILURE = "INSERT INTO failures (key, error, final, session, at) VALUES (?, ?, ?, ?, ?)"
UNUSABLE = (
    "INSERT INTO failures (key, error, final, session, at) SELECT ?, ?, 2, ?, ? "
    "WHERE NOT EXISTS (SELECT 1 FROM failures WHERE key = ? AND final = 2)"
)
CONTENT = (
    "INSERT INTO contents (sha256, body, measured) VALUES (?, ?, ?) "
    "ON CONFLICT (sha256) DO UPDATE SET measured = excluded.measured"
)
RECORD = (
    "INSERT INTO records (version, task, branch, id, content, state, dropped_by, verdicts, requests, "
    "sources, error, original, leaf, erased) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Commits:
    """A database whose writes are gathered, to be committed as a group. `Journal` says what is written."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._write = connection
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._full, self._room = asyncio.Event(), asyncio.Event()
        self._fresh: dict[bytes, Completion] = {}
        self._lost: BaseException | None = None  # why a commit failed, after which nothing follows on
        self.on_commit: Callable[[], tuple[int, Mapping[str, Any]]] | None = None

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
            waiting.append((PROGRESS, (orjson.dumps(progress).decode(), version)))
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
            raise disk_error(self.path, error) from error

    def _commit(self, waiting: list[tuple[str, tuple[Any, ...]]]) -> None:
        by_statement: dict[str, list[tuple[Any, ...]]] = {}
        for statement, values in waiting:
            if self._lost and statement in (RECORD, PROGRESS):
                continue  # they follow records that are not stored
            by_statement.setdefault(statement, []).append(values)
        try:
            with self._writing():
                for statement, rows in by_statement.items():
                    self._write.executemany(statement, rows)
        except BaseException as error:
            self._lost = self._lost or error
            raise
        for values in by_statement.get(COMPLETION, ()):
            self._fresh.pop(values[0], None)


def disk_error(path: Path, error: sqlite3.Error) -> RunError:
    """What SQLite could not do, in a sentence for people."""
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
