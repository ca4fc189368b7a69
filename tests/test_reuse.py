"""Answers of other runs, and a version that is gone on with: nothing is asked twice, nothing judged twice."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver
from synthgen.errors import UsageError
from synthgen.workers import InProcess
from tests.support import FakeEngine, adds_up, answers, loaded, no_more_than, recipe, run_it, tree


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "TICK", 0.001)
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)


def test_equal_requests_of_another_run_are_not_asked(tmp_path: Path) -> None:
    first = run_it(loaded(tmp_path, recipe(), rows=6), directory=tmp_path / "runs" / "first")
    other = loaded(tmp_path, recipe(name="b", filters=["refusal"]), rows=9)
    engine = FakeEngine()
    result = run_it(other, engine, directory=tmp_path / "runs" / "b", reuse=[tmp_path / "runs" / "first"])
    assert (result.kept, result.reused, len(engine.asked)) == (9, 6, 3)
    assert dict(result.reused_from) == {"first": 6}
    assert result.usage["requests"] == 3
    assert answers(result.dir)[:6] == answers(first.dir)
    with sqlite3.connect(result.dir / "run.sqlite") as journal:
        rows = journal.execute("SELECT source, count(*) FROM completions GROUP BY 1 ORDER BY 1").fetchall()
        assert rows == [(None, 3), ("first", 6)]
        assert journal.execute("SELECT count(*) FROM requests").fetchall() == [(9,)]
    # it has them now, and needs the other no more
    again = run_it(
        loaded(tmp_path, recipe(name="b"), rows=9), FakeEngine(), directory=tmp_path / "runs" / "b"
    )
    assert (again.reused, dict(again.reused_from)) == (9, {})


def test_a_folder_of_runs_is_all_of_them_but_itself(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_it(loaded(tmp_path, recipe(name="x"), rows=3), directory=runs / "x")
    run_it(loaded(tmp_path, recipe(name="y"), rows=5), directory=runs / "y", reuse=[runs / "x"])
    engine = FakeEngine()
    result = run_it(loaded(tmp_path, recipe(name="z"), rows=6), engine, directory=runs / "z", reuse=[runs])
    assert (result.reused, len(engine.asked)) == (5, 1)
    assert run_it(loaded(tmp_path, recipe(name="z"), rows=7), directory=runs / "z", reuse=[runs]).kept == 7


@pytest.mark.parametrize(
    "part",
    [
        {"seed": 1},
        {"sampling": {"temperature": 0.1}},
        {"steps": [{"answer": {"prompt": {"user": "{{ doc }}!"}}}]},
    ],
    ids=["seed", "sampling", "prompt"],
)
def test_what_is_not_equal_is_asked(tmp_path: Path, part: dict[str, Any]) -> None:
    run_it(loaded(tmp_path, recipe(), rows=3), directory=tmp_path / "first")
    engine = FakeEngine()
    result = run_it(loaded(tmp_path, recipe(**part), rows=3), engine, reuse=[tmp_path / "first"])
    assert (result.reused, len(engine.asked), dict(result.reused_from)) == (0, 3, {})


def test_where_there_is_no_run(tmp_path: Path) -> None:
    given = loaded(tmp_path, recipe())
    with pytest.raises(UsageError, match="holds no run to reuse"):
        run_it(given, reuse=[tmp_path / "nowhere"])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.sqlite").write_text("no database, but as long as one may be" * 100)
    with pytest.raises(UsageError, match="cannot be read"):
        run_it(given, reuse=[tmp_path / "bad"])


SEEN = """
from synthgen import filter

@filter(kind="run", max=0)
class seen:
    def __init__(self):
        self.kept = set()
    def features(self, records):
        return [str(len(record.text.split())).encode() for record in records]
    def resolve(self, id, feature):
        return feature in self.kept
    def keep(self, id, feature):
        self.kept.add(feature)
"""


@pytest.mark.parametrize("end", [{}, {"target": 6}, {"budget": {"output_tokens": 77}}])
def test_a_version_is_gone_on_with_where_judging_stopped(tmp_path: Path, end: dict[str, Any]) -> None:
    """Also by a filter that compares records: it is told again of what was kept."""
    said = recipe(filters=[{"words": {"min": 4}}, "seen"], **end)
    given = loaded(tmp_path, said, rows=40, filters={"seen": SEEN})
    whole = run_it(given, directory=tmp_path / "whole")
    judged: list[int] = []
    sessions = 0
    while True:
        sessions += 1
        cancel = threading.Event()
        result = run_it(
            given,
            FakeEngine(no_more_than(5, cancel), slots=2),
            directory=tmp_path / "parts",
            cancel=cancel,
            on_record=lambda record: judged.append(record.entry.task),
        )
        assert adds_up(result)
        if result.outcome != "interrupted":
            break
    assert sessions >= whole.planned // 5
    assert judged == list(range(whole.planned))
    assert tree(tmp_path / "parts" / "dataset") == tree(tmp_path / "whole" / "dataset")
    same = ("planned", "kept", "dropped", "failed", "pending", "filters", "ended_by")
    assert [getattr(result, name) for name in same] == [getattr(whole, name) for name in same]


def test_an_edited_recipe_judges_anew(tmp_path: Path) -> None:
    cancel = threading.Event()
    given = loaded(tmp_path, recipe(), rows=30)
    assert run_it(given, FakeEngine(no_more_than(5, cancel), slots=1), cancel=cancel).pending
    judged: list[int] = []
    edited = loaded(tmp_path, recipe(filters=[{"words": {"min": 4}}]), rows=30)
    run_it(edited, on_record=lambda record: judged.append(record.entry.task))
    assert judged == list(range(30))


def test_retrying_takes_no_bad_answer_of_another_run_again(tmp_path: Path) -> None:
    given = loaded(tmp_path, recipe(), rows=4)
    run_it(given, FakeEngine(lambda request: " "), directory=tmp_path / "bad")
    place = tmp_path / "run"
    again = FakeEngine()
    first = run_it(given, again, directory=place, reuse=[tmp_path / "bad"])
    assert (first.failed, again.asked) == (4, [])
    mended = run_it(given, again, directory=place, reuse=[tmp_path / "bad"], retry_failed=True)
    assert (mended.failed, mended.kept, len(again.asked)) == (0, 4, 4)


def test_a_reuse_that_is_refused_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run to reuse"):
        run_it(loaded(tmp_path, recipe()), directory=tmp_path / "run", reuse=[tmp_path / "nowhere"])
    assert not (tmp_path / "run").exists()
