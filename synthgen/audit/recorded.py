"""A finished run as its journal and its lock have it, for replays: nothing that it names is executed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import LOCK
from synthgen.engines.base import Completion
from synthgen.errors import RecipeError, UsageError
from synthgen.journal_entries import RecordEntry
from synthgen.journal_reading import open_for_reading, stored_record
from synthgen.loading_locked import Recorded, load_recorded
from synthgen.project import Project
from synthgen.yamlfile import LOCK_BYTES, read_yaml


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored completion, the run that it was taken from, if any, and what its session's engines ran on."""

    completion: Completion
    source: str | None
    engines: Mapping[str, Any]


def as_bytes(value: object) -> bytes:
    """What a column holds, also where somebody made a text of it."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


class RecordedRun:
    """One run directory. Raises CannotJudge where it holds no finished run that can be read."""

    def __init__(self, directory: Path, project: Path | None = None) -> None:
        self.directory = directory
        try:
            self.journal = open_for_reading(directory)
        except UsageError as error:
            raise CannotJudge(error.message) from None
        above = directory.resolve().parent
        self.project = Project((project or (above.parent if above.name == "runs" else Path())).resolve())
        try:
            locked = read_yaml(directory / LOCK, LOCK_BYTES)
            self.recorded: Recorded = load_recorded(locked, self.project)
            self.lock: Mapping[str, Any] = locked.data
            row = self.journal.execute(
                "SELECT max(version) FROM versions WHERE command = 'run' AND finished IS NOT NULL"
            ).fetchone()
        except (RecipeError, UsageError) as error:
            raise CannotJudge(str(error)) from None
        except OSError as error:
            raise CannotJudge(f"{directory} holds no finished run: {error.strerror}") from None
        except sqlite3.DatabaseError as error:
            raise CannotJudge(f"{directory / 'run.sqlite'} is damaged: {error}") from None
        if row[0] is None:
            raise CannotJudge(f"{directory} holds no finished run")
        self.version: int = row[0]

    def close(self) -> None:
        """Let go of the journal."""
        self.journal.close()

    def ids(self) -> list[str]:
        """Ids of the records that have contents, in task order."""
        query = "SELECT id FROM records WHERE version = ? AND content IS NOT NULL ORDER BY task, branch"
        return [row[0] for row in self.journal.execute(query, (self.version,))]

    def record(self, id: str) -> tuple[RecordEntry, bytes | None]:
        """A record by its id or the beginning of it, with its contents before anything was redacted.

        Raises UsageError where there is none, or more than one.
        """
        query = "SELECT task, branch FROM records WHERE version = ? AND id >= ? AND id < ? LIMIT 2"
        found = self.journal.execute(query, (self.version, id, id + "g")).fetchall()
        if len(found) != 1:
            what = "more than one record begins" if found else "no record begins"
            raise UsageError(f"{what} with {id!r} in {self.directory}")
        entry, body, before = stored_record(self.journal, self.version, *found[0])
        whole = before if entry.original is not None else body
        return entry, None if whole is None else as_bytes(whole)

    def kept(self, id: str) -> tuple[RecordEntry, bytes | None] | None:
        """A kept record by its id, with its contents as they are in the dataset; None where there is none."""
        query = "SELECT task, branch FROM records WHERE version = ? AND id = ? AND state = 'kept'"
        row = self.journal.execute(query, (self.version, id)).fetchone()
        if row is None:
            return None
        entry, body, _ = stored_record(self.journal, self.version, *row)
        return entry, None if body is None else as_bytes(body)

    def request(self, key: bytes) -> bytes | None:
        """The body of a request."""
        row = self.journal.execute("SELECT body FROM requests WHERE key = ?", (key,)).fetchone()
        return as_bytes(row[0]) if row else None

    def answer(self, key: bytes) -> Answer | None:
        """The answer to a request."""
        row = self.journal.execute(
            "SELECT c.text, c.finish_reason, c.input_tokens, c.output_tokens, c.reasoning, c.source, "
            "s.engines FROM completions AS c LEFT JOIN sessions AS s ON s.session = c.session "
            "WHERE c.key = ?",
            (key,),
        ).fetchone()
        if row is None:
            return None
        *said, source, noted = row
        engines = orjson.loads(noted) if noted else {}
        return Answer(Completion(*said), source, engines if isinstance(engines, dict) else {})
