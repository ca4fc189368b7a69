"""`audit verify` of each kind of place that there is: seeded mutations, every one found and named."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from synthgen import load, run
from synthgen.audit.erase import erase
from synthgen.audit.place import place_of
from synthgen.audit.quarantine import quarantine
from synthgen.audit.trace import trace
from synthgen.audit.verify import verify
from synthgen.mixing import given, make_project, named
from synthgen.recurate import recurate
from tests.audit.test_bad_faith import fitting
from tests.audit.test_verify import SPLITS, answer, copied, found, judged, restored
from tests.export.test_calls import RECORD, ROWS, WEATHER, run_of
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
    return run_of(root, [ROWS[0], ROWS[2], ROWS[3]] * 1, record=columns, filters=["tool_calls"]).dir / "dataset"


PLACES: list[Callable[[Path], Path]] = [erased, grown, steered, curated, quarantined, mixed, calling]
