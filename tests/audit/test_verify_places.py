"""`audit verify` of each kind of place that there is: seeded mutations, every one found and named."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from synthgen import load, run
from synthgen.audit.erase import erase
from synthgen.audit.place import place_of
from synthgen.audit.quarantine import quarantine
from synthgen.audit.trace import trace
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.mixing import given, make_project, named
from synthgen.provenance.lock import lock_yaml
from synthgen.recurate import recurate
from synthgen.yamlfile import read_yaml
from tests.audit.test_bad_faith import fitting
from tests.audit.test_verify import (
    AS_WRITTEN,
    SPLITS,
    Mutation,
    answer,
    flipped,
    found,
    judged,
    removed,
    renamed,
    resigned,
    restored,
    truncated,
)
from tests.export.test_calls import CHAT, PLAIN, WRONG, run_of
from tests.support import FakeEngine, docs, loaded, recipe, run_it, tree
from tests.test_balance import balanced, hard_is_rarely_good
from tests.test_growth import evolving, harder

SPLIT = {"split": SPLITS}


def plain(root: Path, name: str = "a", start: int = 0) -> Path:
    said = recipe(
        name=name, filters=[{"words": {"min": 5}}, {"duplicate": {"of": "instruction"}}], output=SPLIT
    )
    given = loaded(root, said, rows=docs(30, start=start), name=name)
    return run_it(given, FakeEngine(answer), directory=root / "runs" / name).dir


def ids(place: Path, state: str) -> list[str]:
    query = "SELECT id FROM records WHERE version = 1 AND state = ? ORDER BY task"
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        return [row[0] for row in journal.execute(query, (state,))]


def erased(root: Path) -> Path:
    place = plain(root)
    erase(place, [ids(place, state)[1] for state in ("kept", "dropped", "failed")])
    return place


def grown(root: Path) -> Path:
    said = evolving(output=SPLIT)
    place = run_it(loaded(root, said, rows=8), FakeEngine(harder), directory=root / "runs" / "a").dir
    assert '"record"' in (place / "dataset" / "provenance" / "train.jsonl").read_text()
    return place


def steered(root: Path) -> Path:
    said = balanced(target=24, output=SPLIT)
    engine = FakeEngine(hard_is_rarely_good)
    return run_it(loaded(root, said, rows=docs(400)), engine, directory=root / "runs" / "a").dir


def curated(root: Path) -> Path:
    return recurate(plain(root), ["words.min=7"], project=root).result.dir


def quarantined(root: Path) -> Path:
    return quarantine(trace(place_of(plain(root)), "data/docs.jsonl:2")).dir


def mixed(root: Path) -> Path:
    both = [plain(root / name, name, start) for name, start in (("one", 0), ("two", 20))]
    found = [given(path, name) for path, name in named(both)]
    return run(load(str(make_project(root / "mix", found, {}, None, 0.95)))).dir


def calling(root: Path) -> Path:
    """A dataset's folder alone, of preferences between answers that call tools."""
    columns = {
        "prompt": {"value": "row.messages[:1]", "type": "messages"},
        "chosen": {"value": "row.messages[1:]", "type": "messages"},
        "rejected": [{"assistant": "No."}],
        "tools": {"value": "row.tools", "type": "tools"},
    }
    cities = ["Bath", "York", "Ely", "Hull", "Leeds", "Truro"]
    rows = [json.loads(json.dumps(CHAT).replace("Bath", city)) for city in cities]
    return run_of(root, [*rows, PLAIN, WRONG], record=columns, filters=["tool_calls"]).dir / "dataset"


PLACES: list[Callable[[Path], Path]] = [erased, grown, steered, curated, quarantined, mixed, calling]
# What nothing binds: see docs/audit.md. Of the last session, that it ended is written after the files.
LOOSE = {
    "meta": ["created"],
    "sessions": ["ended", "outcome", "reason"],
    "requests": ["session", "issued"],
    "failures": ["final"],
    "filters": ["filter", "description"],
    "contents": ["measured"],  # of which values are tried apart: what is compared with others is a digest
    "versions": ["started", "finished", "progress", "summary"],  # the counts in it are tried apart
}


def whole_of(place: Path) -> Path:
    """The run that a version is in."""
    return place.parent.parent if place.parent.name == "versions" else place


def other(value: Any, chance: random.Random) -> Any:
    """A value of the same kind that is another."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + chance.choice([1, -1])
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"x"
    if isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        return f"{value[:at]}~{value[at:]}"
    return "x"


def of_records(journal: sqlite3.Connection) -> set[bytes]:
    """Keys of requests and digests of contents that records have."""
    found: set[bytes] = set()
    for content, original, keys in journal.execute("SELECT content, original, requests FROM records"):
        found.update((content, original, *(keys[at : at + 32] for at in range(0, len(keys), 32))))
    return found


def cell(place: Path, chance: random.Random) -> set[str]:
    """One value of the journal is another, or one of its rows is gone."""
    with closing(sqlite3.connect(whole_of(place) / "run.sqlite")) as journal, journal:
        journal.execute("PRAGMA ignore_check_constraints = 1")
        query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        table = chance.choice([name for (name,) in journal.execute(query)])
        names = [name for _, name, *_ in journal.execute(f"PRAGMA table_info({table})")]
        rows = journal.execute(f"SELECT * FROM {table}").fetchall()
        if table == "meta":
            rows = [row for row in rows if row[0] != "created"]
        if table in ("requests", "completions", "set_aside", "failures", "contents"):
            known = of_records(journal)
            rows = [row for row in rows if row[0] in known]  # others are beyond the cut
        if not rows:
            return set()
        row = chance.choice(rows)
        where = " AND ".join(f"{name} IS ?" for name in names)
        name = ""
        if chance.random() < 0.2:
            journal.execute(f"DELETE FROM {table} WHERE {where}", row)
        else:
            name = chance.choice([name for name in names if name not in LOOSE.get(table, ())])
            new = other(row[names.index(name)], chance)
            try:
                journal.execute(f"UPDATE {table} SET {name} = ? WHERE {where}", (new, *row))
            except sqlite3.IntegrityError:  # there is such a row
                return set()
    return {
        "run.sqlite",
        "ledger.jsonl",
        "answers.jsonl",
        "versions/2",
        "the journal",
        f"{table}.{name} {row}"[:300],
    }


def measured(place: Path, chance: random.Random) -> set[str]:
    """A measurement that is kept for the next curation is another."""
    query = (
        "SELECT c.sha256, c.measured FROM contents AS c JOIN records AS r ON r.content = c.sha256 "
        "WHERE c.measured LIKE '{\"1\":[%' AND c.measured NOT LIKE '{\"1\":[null%' ORDER BY c.sha256"
    )
    with closing(sqlite3.connect(whole_of(place) / "run.sqlite")) as journal, journal:
        rows = journal.execute(query).fetchall()
        if not rows:
            return set()
        content, said = chance.choice(rows)
        kept = json.loads(said)
        kept["1"][0] += 1
        journal.execute("UPDATE contents SET measured = ? WHERE sha256 = ?", (json.dumps(kept), content))
    return {"measured.words", "measured.tool_calls"}


def places_in(said: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(said, dict | list) and said:
        items = said.items() if isinstance(said, dict) else enumerate(said)
        return [place for key, value in items for place in places_in(value, (*path, key))]
    return [path]


def changed_in(said: Any, chance: random.Random) -> None:
    """One value in it is another or gone, or there is one more."""
    path = chance.choice([each for each in places_in(said) if each])
    for key in path[:-1]:
        said = said[key]
    how = chance.choice(["value", "less", "more"]) if isinstance(said, dict) else "value"
    if how == "value":
        said[path[-1]] = other(said[path[-1]], chance)
    elif how == "less":
        del said[path[-1]]
    else:
        said["more"] = 1


def forged(place: Path, chance: random.Random) -> set[str]:
    """One value in one file is another, and the manifests fit again, with digests, counts and root."""
    names = [name for name in tree(place) if name.endswith((".jsonl", ".json", ".yaml"))]
    left_out = ("manifest.json", "versions/")
    path = place / chance.choice([name for name in names if not any(part in name for part in left_out)])
    named = {path.name}
    if path.suffix == ".jsonl":
        rows = path.read_bytes().splitlines()
        if not rows:
            return set()
        at = chance.randrange(len(rows))
        said = json.loads(rows[at])
        named.add(str(said.get("id")))
        changed_in(said, chance)
        rows[at] = orjson.dumps(said)
        path.write_bytes(b"".join(row + b"\n" for row in rows))
    elif path.suffix == ".json":
        said = json.loads(path.read_bytes())
        changed_in(said, chance)
        path.write_bytes(orjson.dumps(said, option=AS_WRITTEN if path.name == "croissant.json" else None))
    else:
        said = read_yaml(path).data
        changed_in(said, chance)
        path.write_bytes(lock_yaml(said))
        for name in ("recipe.lock.yaml", "dataset/provenance/recipe.lock.yaml"):
            if (place / name).is_file():
                (place / name).write_bytes(lock_yaml(said))
    whole = (place / "dataset").is_dir()
    try:
        fitting(place / "dataset" if whole else place)
    except (KeyError, TypeError):  # the ledger is none any more; the manifest is as it was
        return named
    if whole:
        resigned(place)
        inside, path = stated(place / "dataset"), place / "manifest.json"
        envelope, outside = json.loads(path.read_bytes()), stated(place)
        outside["predicate"] = inside["predicate"]
        envelope["payload"] = base64.b64encode(orjson.dumps(outside)).decode()
        path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))
    return named


def stated(folder: Path) -> Any:
    return json.loads(base64.b64decode(json.loads((folder / "manifest.json").read_bytes())["payload"]))


def at_files(mutate: Mutation) -> Callable[[Path, random.Random], set[str]]:
    def mutation(place: Path, chance: random.Random) -> set[str]:
        return {mutate(place, chance)}

    mutation.__name__ = mutate.__name__
    return mutation


FILES = [at_files(each) for each in (flipped, truncated, removed, renamed)]
MUTATIONS = 100


@pytest.mark.parametrize("make", PLACES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("count", [15, pytest.param(MUTATIONS, marks=pytest.mark.slow)])
def test_every_mutation_is_found_and_named(make: Callable[[Path], Path], count: int, tmp_path: Path) -> None:
    place = make(tmp_path)
    top = whole_of(place)
    verdict = verify(top)
    assert verdict.intact, found(verdict)
    chance = random.Random(f"{make.__name__} {count}")
    kinds = [
        *FILES,
        forged,
        forged,
        forged,
        *([cell, cell, cell, measured] if (top / "run.sqlite").exists() else []),
    ]
    whole, done = tree(top), 0
    while done < count:
        mutation = chance.choice(kinds)
        named = mutation(place, chance)
        now = tree(top)
        if named and now != whole:
            done += 1
            changed = [name for name in {**whole, **now} if whole.get(name) != now.get(name)]
            told = f"{done}: {mutation.__name__} of {named}, {changed}"
            verdict, refusal = judged(top)
            assert verdict is None or not verdict.intact, told
            said = refusal if verdict is None else found(verdict)
            assert any(each in said for each in named), (told, said)
        restored(top, whole)


def test_what_is_not_bound_is_said(tmp_path: Path) -> None:
    place = plain(tmp_path)
    assert verify(place).not_bound == []
    (place / "report.html").write_text("whatever somebody writes")
    recurate(place, ["words.min=7"], project=tmp_path)
    (place / "versions" / "2" / "report.html").write_text("and here")
    verdict = verify(place)
    assert verdict.intact
    assert verdict.not_bound == ["report.html", "versions/2/report.html"]
    said = CliRunner().invoke(app, ["audit", "verify", str(place)]).stdout
    assert "not judged  report.html, versions/2/report.html: no manifest is over it" in said


def test_where_the_files_are_on_this_machine_does_not_stay(tmp_path: Path) -> None:
    place = plain(tmp_path)
    assert str(tmp_path).encode() not in (place / "run.sqlite").read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE contents SET measured = json_set(measured, '$.1[0]', 99.0) "
         "WHERE json_extract(measured, '$.1[0]') NOT NULL", "measured.words"),
        ("UPDATE contents SET measured = json_set(measured, '$.1', json('[null,{\"feature\":\"x\"}]')) "
         "WHERE sha256 = (SELECT content FROM records WHERE state = 'kept' LIMIT 1)", "measured.words"),
        ("UPDATE filters SET key = 'x' WHERE name = 'words'", "filters"),
        ("UPDATE filters SET description = replace(description, 'answer', 'all') WHERE filter = 1", "filter"),
        ("DELETE FROM filters WHERE name = 'words'", "filters"),
        ("UPDATE versions SET summary = json_set(summary, '$.kept', 1)", "summary.kept"),
        ("UPDATE versions SET summary = json_set(summary, '$.filters.words.dropped', 0)", "summary.filters"),
        ("UPDATE versions SET command = 'conjure'", ""),
        ("UPDATE records SET leaf = zeroblob(32) WHERE task = 3", "leaf"),
        ("UPDATE meta SET value = 'other' WHERE key = 'recipe'", "recipe"),
    ],
)  # fmt: skip
def test_what_later_versions_are_made_from_is_bound(tmp_path: Path, change: str, named: str) -> None:
    place = plain(tmp_path)
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        assert journal.execute(change).rowcount > 0
    assert "run.sqlite: " in found(verify(place)) or named == ""
    assert named in found(verify(place))
    assert not verify(place).intact


@pytest.mark.parametrize("field", ["id", "task", "error", "attempts", "errors", "requests", "sources"])
def test_failed_records_are_those_of_the_journal(tmp_path: Path, field: str) -> None:
    place = plain(tmp_path)
    path = place / "failed.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    rows[1][field] = other(rows[1][field], random.Random(1))
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    resigned(place)
    assert "failed.jsonl" in found(verify(place))
    assert field in found(verify(place))
