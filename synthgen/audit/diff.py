"""`audit diff`: which inputs of two versions differ, and which records entered, left or changed, and why.

Every record of both is put into a temporary database on disk, about 200 bytes for each, so that memory stays
flat.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import orjson

from synthgen.audit.history import exact
from synthgen.audit.place import Place, entries, reading, splits
from synthgen.audit.progress import Tell, counted
from synthgen.journal_reading import open_for_reading
from synthgen.provenance.manifest import LEDGER

SIDES = ("a", "b")
PARTS = ("synthgen", "recipe", "seeds", "prompts", "sampling", "models", "filters")
_TABLE = """
CREATE TABLE fates (
    side TEXT NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL, why TEXT, task INTEGER, content BLOB,
    requests BLOB, PRIMARY KEY (side, id)) WITHOUT ROWID
"""
_ADD = "INSERT OR IGNORE INTO fates VALUES (?, ?, ?, ?, ?, ?, ?)"
# Kept on one side and not on the other, in the order of ids; then kept on both with other contents.
_ONE = (
    "FROM fates AS k LEFT JOIN fates AS o ON o.side = ? AND o.id = k.id "
    "WHERE k.side = ? AND k.state = 'kept' AND o.state IS NOT 'kept'"
)
_BOTH = (
    "FROM fates AS x JOIN fates AS y ON y.side = 'b' AND y.id = x.id WHERE x.side = 'a' "
    "AND x.state = 'kept' AND y.state = 'kept' AND x.content IS NOT y.content"
)


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two: how many records it judged, the number of its last task, and whether a cut ended it."""

    name: str
    place: Place
    inputs: Mapping[str, Any]
    plan: list[Any]
    kept: int
    last: int | None
    cut: bool


def diff(a: Place, b: Place, limit: int = 20, tell: Tell | None = None) -> dict[str, Any]:
    """Inputs that differ, and the first records that entered, left or changed from `a` to `b`, with counts.

    `inputs` is None where a side has no lock yet; `tell` hears how far it is. Raises CannotJudge where the
    files of one are not in order.
    """
    with closing(sqlite3.connect("")) as both:  # "": a file of its own, which is gone afterwards
        both.executescript(f"PRAGMA journal_mode = OFF; PRAGMA cache_size = -64000; {_TABLE}")
        sides = [_read(name, place, both, tell) for name, place in zip(SIDES, (a, b), strict=True)]
        one, other = sides
        same_plan = one.plan == other.plan
        common = both.execute(
            "SELECT count(*) FROM fates AS x JOIN fates AS y ON y.side = 'b' AND y.id = x.id "
            "WHERE x.side = 'a' AND x.state = 'kept' AND y.state = 'kept'"
        ).fetchone()[0]
        return {
            "a": {"dir": str(a.directory), "version": a.version, "kept": one.kept},
            "b": {"dir": str(b.directory), "version": b.version, "kept": other.kept},
            "inputs": _differing(one.inputs, other.inputs) if one.inputs and other.inputs else None,
            "entered": _moved(both, other, one, same_plan, limit),
            "left": _moved(both, one, other, same_plan, limit),
            "changed": _changed(both, limit),
            "kept_in_both": common,
        }


def _read(name: str, place: Place, both: sqlite3.Connection, tell: Tell | None) -> _Side:
    with reading(place.directory):
        lock = place.lock()
        rows = _of_journal(place) if place.run is not None else _of_dataset(place)
        told = counted(rows, f"records of {name.upper()}", tell)
        both.executemany(_ADD, ((name, *row) for row in told))
        kept, last = both.execute(
            "SELECT count(*) FILTER (WHERE state = 'kept'), max(task) FROM fates WHERE side = ?", (name,)
        ).fetchone()
        recipe = lock.get("recipe", {})
        target = recipe.get("target")
        cut = bool(recipe.get("budget")) or (isinstance(target, int) and kept >= target)
        return _Side(name, place, _inputs(lock), _plan(lock), kept, last, cut)


_Row = tuple[str, str, str | None, int | None, bytes | None, bytes | None]


def _of_journal(place: Place) -> Iterator[_Row]:
    assert place.run is not None
    query = (
        "SELECT id, state, dropped_by, verdicts, error, task, content, requests FROM records "
        "WHERE version = ? ORDER BY task, branch"
    )
    with closing(open_for_reading(place.run)) as journal:
        for id, state, by, verdicts, why, task, content, requests in journal.execute(query, (place.version,)):
            said = orjson.loads(verdicts)
            if by in said:
                why = f"{by} {exact(said[by]['value'])}"  # noqa: PLW2901
            elif by is not None:  # what it measured was erased
                why = by  # noqa: PLW2901
            yield id, state, why and why[:200], task, content, hashlib.sha256(requests).digest()


def _of_dataset(place: Place) -> Iterator[_Row]:
    """What it says of those that were kept; the ledger has the others, without a reason."""
    assert place.dataset is not None
    for path in splits(place.dataset):
        for _, _, said in entries(path):
            requests = hashlib.sha256(b"".join(bytes.fromhex(key) for key in said["requests"])).digest()
            yield (
                str(said["id"]),
                "kept",
                None,
                int(said["task"]),
                bytes.fromhex(said["content_sha256"]),
                requests,
            )
    for number, _, said in entries(place.dataset / LEDGER):
        if said["state"] != "kept":
            yield str(said["id"]), str(said["state"]), None, number - 1, None, None


def _plan(lock: Mapping[str, Any]) -> list[Any]:
    """What the tasks and their order depend on."""
    recipe = lock.get("recipe", {})
    return [lock.get("seeds"), *(recipe.get(name) for name in ("name", "seed", "seeds", "tasks", "passes"))]


def _moved(
    both: sqlite3.Connection, here: _Side, there: _Side, same_plan: bool, limit: int
) -> dict[str, Any]:
    """Those that are kept here and not there, each with what became of it there."""
    count = both.execute(f"SELECT count(*) {_ONE}", (there.name, here.name)).fetchone()[0]
    rows = both.execute(
        f"SELECT k.id, k.task, o.state, o.why {_ONE} ORDER BY k.id LIMIT ?",
        (there.name, here.name, limit),
    )
    causes = both.execute(
        f"SELECT o.state, count(*) {_ONE} GROUP BY o.state",
        (there.name, here.name),
    ).fetchall()
    return {
        "count": count,
        "states": {state or "absent": number for state, number in causes},
        "records": [
            {"id": id, "cause": _cause(there, task, state, why, same_plan)} for id, task, state, why in rows
        ],
    }


def _cause(there: _Side, task: int | None, state: str | None, why: str | None, same_plan: bool) -> str:
    """What became of it on the side that has not got it."""
    name = there.name.upper()
    if state is not None:
        said = why or "why is not said in a dataset alone"
        return (
            f"{state} in {name}: {said}"
            if state == "failed" or why is None
            else f"dropped in {name} by {said}"
        )
    beyond = task is not None and (there.last is None or task > there.last)
    if beyond and not there.place.finished:
        return f"not judged yet in {name}"
    if beyond and there.cut:
        return f"beyond the cut of {name}" + ("" if same_plan else ", or not planned there")
    return f"not planned in {name}"


def _changed(both: sqlite3.Connection, limit: int) -> dict[str, Any]:
    rows = both.execute(
        f"SELECT x.id, x.requests IS y.requests {_BOTH} ORDER BY x.id LIMIT ?",
        (limit,),
    )
    causes = {
        0: "it was asked otherwise: another prompt, model, sampling or answer before",
        1: "the same requests with other answers, or the record is made or redacted otherwise",
    }
    return {
        "count": both.execute(f"SELECT count(*) {_BOTH}").fetchone()[0],
        "records": [{"id": id, "cause": causes[same]} for id, same in rows],
    }


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each input that differs, by its path in recipe.lock.yaml; None where a side has none."""
    return [
        {"input": path, "a": one.get(path), "b": other.get(path)}
        for path in {**one, **other}
        if one.get(path) != other.get(path)
    ]


def _inputs(lock: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: lock[name] for name in PARTS if name in lock}
    if isinstance(said.get("recipe"), dict):  # its filters are among the filters, with all that took effect
        said["recipe"] = {key: value for key, value in said["recipe"].items() if key != "filters"}
    if isinstance(said.get("filters"), list):
        order = [str(link["name"]) for link in said["filters"]]
        said["filters"] = {"order": order} | {str(link["name"]): link for link in said["filters"]}
    found: dict[str, Any] = {}
    for name, part in said.items():
        _flatten(name, part, found)
    return found


def _flatten(path: str, value: Any, found: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _flatten(f"{path}.{key}", item, found)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            _flatten(f"{path}.{number}", item, found)
    else:
        found[path] = value
