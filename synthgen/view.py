"""Reading a run, also while it is running: how far it is, and everything that is known of a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from synthgen.digests import sampling_seed
from synthgen.errors import UsageError
from synthgen.journal_entries import RecordEntry
from synthgen.journal_lock import running
from synthgen.journal_reading import open_for_reading, stored_record, stored_records
from synthgen.provenance.merkle import Growing
from synthgen.provenance.statement import tree_of

RECENT = 1000
BATCH = 256
OUTCOMES = {0: "asked again", 1: "given up", 2: "the answer could not be used"}
ANSWER = ("text", "finish_reason", "input_tokens", "output_tokens", "source", "reasoning")


class RunView:
    """One run, opened for reading. What is read is what was last committed: at most a second old."""

    def __init__(self, directory: Path, version: int | None = None) -> None:
        """`version` is that of a later `curate`; without it, what `run` made, or is making, is looked at.

        Raises UsageError where there is no run, no such version, or one of another version of synthgen.
        """
        self.directory = directory
        self._asked_for = version
        self._journal = open_for_reading(directory)
        self._meta = dict(self._rows("SELECT key, value FROM meta"))
        if self._meta["schema"] == "1":  # it did not note which filters judged
            self._journal.close()
            raise UsageError(
                f"{directory} was written by an earlier version of synthgen",
                hint="the next `synthgen run` in it brings it up to date",
            )
        known = [row[0] for row in self._rows("SELECT version FROM versions ORDER BY version")]
        if version is not None and version not in known:
            self._journal.close()
            listed = f"there are: {', '.join(map(str, known))}" if known else None
            raise UsageError(f"{directory} has no version {version}", hint=listed)

    def __enter__(self) -> RunView:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self._journal.execute(query, values).fetchall()

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        return self._journal.execute(query, values).fetchone()

    def status(self) -> dict[str, Any]:
        """How far it is. `planned` = `kept` + `dropped` + `failed` + `pending`; None before it is known.

        Of a target that is not reached yet, the rows that are wanted still are pending.

        `state` is `running`, `finished` or `stopped`; `answers` counts what is stored, surplus and all.
        """
        process = running(self.directory)
        self._journal.execute("BEGIN")  # one moment for everything
        try:
            version = self._one(
                "SELECT version, finished, progress, summary FROM versions WHERE command = 'run' "
                "ORDER BY version DESC LIMIT 1"
            )
            said = {
                "run": self._meta["recipe"],
                "dir": str(self.directory),
                "state": "running" if process else "finished" if version and version[1] else "stopped",
                "process": process,
                "version": version[0] if version else None,
                **_counts(version),
                "curated": [
                    row[0]
                    for row in self._rows(
                        "SELECT version FROM versions WHERE command = 'curate' AND finished IS NOT NULL"
                    )
                ],
                "requests": self._one("SELECT count(*) FROM requests")[0],
                "answers": self._one("SELECT count(*) FROM completions")[0],
                **self._pace(),
                "sessions": [
                    dict(zip(("started", "ended", "outcome"), row, strict=True))
                    for row in self._rows("SELECT started, ended, outcome FROM sessions ORDER BY session")
                ],
                "last_error": self._last_error(),
            }
        finally:
            self._journal.execute("ROLLBACK")
        return said

    def _pace(self) -> dict[str, Any]:
        """Of the latest answers."""
        count, tokens, first, last = self._one(
            "SELECT count(*), coalesce(sum(output_tokens), 0), min(arrived), max(arrived) FROM "
            "(SELECT output_tokens, arrived FROM completions ORDER BY rowid DESC LIMIT ?)",
            (RECENT,),
        )
        seconds = (last - first) if count > 1 else 0.0
        return {
            "answers_per_second": round((count - 1) / seconds, 3) if seconds > 0 else None,
            "output_tokens_per_second": round(tokens / seconds, 1) if seconds > 0 else None,
        }

    def _last_error(self) -> str | None:
        row = self._one("SELECT error FROM failures ORDER BY rowid DESC LIMIT 1")
        return row[0] if row else None

    @property
    def version(self) -> int:
        """The version whose records are shown; 0 where nothing is judged yet."""
        if self._asked_for is not None:
            return self._asked_for
        row = self._one(
            "SELECT max(version) FROM versions AS v WHERE command = 'run' "
            "AND EXISTS (SELECT 1 FROM records AS r WHERE r.version = v.version)"
        )
        return row[0] or 0

    def chain(self) -> list[dict[str, Any]]:
        """The filters of the version that is shown, in order, each with its bound."""
        row = self._one("SELECT chain FROM versions WHERE version = ?", (self.version,))
        return list(orjson.loads(row[0])) if row and row[0] else []

    def contents(self) -> Iterator[tuple[list[str], list[Any]]]:
        """Ids and parsed contents of the records that have any, a batch at a time."""
        rows = self._journal.execute(
            "SELECT r.id, c.body FROM records AS r JOIN contents AS c ON c.sha256 = r.content "
            "WHERE r.version = ? ORDER BY r.task, r.branch",
            (self.version,),
        )
        while batch := rows.fetchmany(BATCH):
            yield [id for id, _ in batch], [orjson.loads(body) for _, body in batch]

    def verdicts(self) -> Iterator[dict[str, Any]]:
        """What was measured of each record, by filter, with its verdict."""
        query = "SELECT verdicts FROM records WHERE version = ?"
        for (verdicts,) in self._journal.execute(query, (self.version,)):
            yield orjson.loads(verdicts)

    def records(self, state: str | None, limit: int | None) -> Iterator[dict[str, Any]]:
        """The first records in task order, of one state or of all."""
        chosen = "" if state is None else "AND r.state = ?"
        of_state = () if state is None else (state,)
        query = f"{_RECORD} WHERE r.version = ? {chosen} ORDER BY r.task, r.branch LIMIT ?"
        for row in self._journal.execute(query, (self.version, *of_state, -1 if limit is None else limit)):
            yield _record(row)

    def record(self, id: str) -> dict[str, Any]:
        """One record, by its id or the beginning of it, with its requests, answers and failed tries.

        Raises UsageError where there is none, or more than one.
        """
        found = self._rows(
            f"{_RECORD} WHERE r.version = ? AND r.id >= ? AND r.id < ? LIMIT 2",
            (self.version, id, id + "g"),
        )
        if len(found) != 1:
            what = "more than one record begins" if found else "no record begins"
            raise UsageError(f"{what} with {id!r} in {self.directory}", hint="`synthgen show DIR` lists them")
        record = _record(found[0])
        keys = found[0][-1]
        record["requests"] = [self.request(keys[place : place + 32]) for place in range(0, len(keys), 32)]
        return record

    def request(self, key: bytes) -> dict[str, Any]:
        """What was asked under a key, with its answer, those set aside before it, and the tries that failed.

        A step or a filter that could not use an answer asked again, with the next `attempt` in its request.
        `attempts` has every try and every answer in the order in which they came, with session and time.
        """
        request = self._one("SELECT body FROM requests WHERE key = ?", (key,))
        of_key = f"SELECT {', '.join(ANSWER)}, session, arrived FROM {{}} WHERE key = ?"  # noqa: S608
        answer = self._one(of_key.format("completions"), (key,))
        aside = self._rows(of_key.format("set_aside"), (key,))
        query = "SELECT error, final, session, at FROM failures WHERE key = ? ORDER BY rowid"
        tries = self._rows(query, (key,))
        attempts = [(at, session, OUTCOMES[final], error) for error, final, session, at in tries]
        attempts += [(*each[-1:-3:-1], "answered, and set aside", None) for each in aside]
        attempts += [(*answer[-1:-3:-1], "answered", None)] if answer else []
        return {
            "key": key.hex(),
            "seed": sampling_seed(key),
            "request": orjson.loads(request[0]) if request else None,
            "answer": _answer(answer) if answer else None,
            "failures": [{"error": error, "outcome": OUTCOMES[final]} for error, final, _, _ in tries],
            "set_aside": [_answer(each) for each in aside],
            "attempts": [
                {"outcome": outcome, "error": error, "session": session, "at": _time(at)}
                for at, session, outcome, error in sorted(attempts, key=lambda each: each[0])
            ],
        }

    def engines_of(self, key: bytes) -> Mapping[str, Any]:
        """What the engines of the session ran on that got the answer to a request; empty where none did."""
        row = self._one(
            "SELECT s.engines FROM completions AS c JOIN sessions AS s ON s.session = c.session "
            "WHERE c.key = ?",
            (key,),
        )
        said = orjson.loads(row[0]) if row and row[0] else {}
        return said if isinstance(said, dict) else {}

    def asked_about(self, content: bytes) -> list[bytes]:
        """Keys of what filters asked a model about these contents, whatever came of it."""
        return [key for (key,) in self._rows("SELECT key FROM asked WHERE content = ?", (content,))]

    def stored(self, record: Mapping[str, Any]) -> tuple[RecordEntry, bytes | None, bytes | None]:
        """A record as the journal has it, with the JSON of its contents, after and before redaction."""
        return stored_record(self._journal, self.version, record["task"], record["branch"])

    def place_in_ledger(self, record: Mapping[str, Any]) -> int:
        """How many records of its version come before it."""
        query = "SELECT count(*) FROM records WHERE version = ? AND (task, branch) < (?, ?)"
        return int(self._one(query, (self.version, record["task"], record["branch"]))[0])

    def tree(self) -> Growing:
        """The tree over the records of the version, by the leaves that are stored."""
        tree = Growing()
        for (leaf,) in self._journal.execute(
            "SELECT leaf FROM records WHERE version = ? ORDER BY task, branch", (self.version,)
        ):
            if leaf is None:  # an earlier synthgen judged it, and stored none
                return tree_of(stored_records(self._journal, self.version))
            tree.append(leaf)
        return tree


def _answer(row: Sequence[Any]) -> dict[str, Any]:
    """An answer as it is told, with what was thought before it where there is any."""
    told = dict(zip(ANSWER, row, strict=False))
    return told if told["reasoning"] is not None else {k: v for k, v in told.items() if k != "reasoning"}


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError, TypeError):  # somebody edited it
        return str(seconds)


_RECORD = (
    "SELECT r.id, r.task, r.branch, r.state, r.dropped_by, r.error, r.verdicts, r.sources, c.body, "
    "r.requests FROM records AS r LEFT JOIN contents AS c ON c.sha256 = r.content"
)


def _record(row: tuple[Any, ...]) -> dict[str, Any]:
    id, task, branch, state, dropped_by, error, verdicts, sources, body, _ = row
    return {
        "id": id,
        "task": task,
        "branch": branch,
        "state": state,
        "dropped_by": dropped_by,
        "error": error,
        "row": orjson.loads(body)["row"] if body else None,
        "measurements": orjson.loads(verdicts),
        "sources": orjson.loads(sources),
    }


def _counts(version: tuple[Any, ...] | None) -> Mapping[str, Any]:
    names = ("planned", "target", "kept", "dropped", "failed", "pending", "filters", "errors")
    if version is None or not (version[2] or version[3]):
        return dict.fromkeys(names)
    progress = orjson.loads(version[2]) if version[2] else {}
    said = {**progress, **(orjson.loads(version[3]) if version[3] else {})}
    judged = said["kept"] + said["dropped"] + said["failed"]
    if version[1] is None and said["target"] is not None:  # how many it takes, nobody knows: at least these
        said["pending"] = max(said["target"] - said["kept"], 0)
        said["planned"] = judged + said["pending"]
    elif "pending" not in said:
        said["pending"] = said["planned"] - judged if said["planned"] is not None else 0
        said["planned"] = judged + said["pending"]
    return {name: said.get(name) for name in names}
