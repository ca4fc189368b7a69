"""New bounds for a finished run: no model, another version, and who enters and who leaves."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver
from synthgen import recurate as module
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import RecipeError, RunError, UsageError
from synthgen.loading_locked import load_curation
from synthgen.project import Project
from synthgen.recurate import recurate
from synthgen.run_result import RunResult
from synthgen.view import RunView
from synthgen.workers import InProcess
from synthgen.yamlfile import read_yaml
from tests.support import (
    FakeEngine,
    adds_up,
    answer_of,
    answers,
    full_at_the_last_commit,
    loaded,
    no_more_than,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

SAME = """
from synthgen import filter

@filter(kind="run", max=0)
class same:
    \"\"\"How many kept answers have as many words, above `slack`.\"\"\"
    def __init__(self, slack: int = 3):
        self.slack = slack
        self.kept = {}
    def features(self, records):
        return [str(len(record.text.split())).encode() for record in records]
    def resolve(self, id, feature):
        return max(0, self.kept.get(feature, 0) - self.slack + 1)
    def keep(self, id, feature):
        self.kept[feature] = self.kept.get(feature, 0) + 1
"""
FILTERS = [{"words": {"min": 5}}, {"characters": {"max": 50}}, "same"]


def answer(request: Request) -> Any:
    return RequestFailed("too long") if request.key.startswith("7") else answer_of(request)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (driver, module):
        monkeypatch.setattr(place, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)


def made(root: Path, rows: int = 60, **parts: Any) -> RunResult:
    said = recipe(**{"filters": FILTERS, **parts})
    given = loaded(root, said, rows=rows, filters={"same": SAME})
    return run_it(given, FakeEngine(answer), directory=root / "runs" / "a")


@pytest.mark.parametrize(
    ("changes", "filters"),
    [
        (["words.min=7"], [{"words": {"min": 7}}, {"characters": {"max": 50}}, "same"]),
        (["words.min=1", "characters.max=80"], [{"words": {"min": 1}}, {"characters": {"max": 80}}, "same"]),
        (["same.max=2"], [{"words": {"min": 5}}, {"characters": {"max": 50}}, {"same": {"max": 2}}]),
        (["same.slack=1"], [{"words": {"min": 5}}, {"characters": {"max": 50}}, {"same": {"slack": 1}}]),
        (
            ["words.action=flag"],
            [{"words": {"min": 5, "action": "flag"}}, {"characters": {"max": 50}}, "same"],
        ),
    ],
)
def test_the_dataset_is_that_of_a_run_with_those_bounds(
    tmp_path: Path, changes: list[str], filters: list[Any]
) -> None:
    """All but what names the recipe's own bytes."""
    first = made(tmp_path)
    before = {name: data for name, data in tree(first.dir).items() if not name.startswith("run.")}
    done = recurate(first.dir, changes)
    assert done.version == 2
    assert adds_up(done.result)
    assert done.result.usage["requests"] == 0
    fresh = made(tmp_path / "fresh", filters=filters)
    same = ("planned", "kept", "dropped", "failed", "filters")
    assert [getattr(done.result, name) for name in same] == [getattr(fresh, name) for name in same]
    place = first.dir / "versions" / "2"
    assert done.result.dir == place
    for name, data in tree(fresh.dir / "dataset").items():
        if not name.endswith(("recipe.lock.yaml", "manifest.json", "croissant.json")):
            assert (place / "dataset" / name).read_bytes() == data, name
    assert (place / "dropped.jsonl").read_bytes() == (fresh.dir / "dropped.jsonl").read_bytes()
    # and the run's own files are as they were
    after = {
        name: data for name, data in tree(first.dir).items() if not name.startswith(("run.", "versions"))
    }
    assert after == before


def test_who_enters_and_who_leaves(tmp_path: Path) -> None:
    first = made(tmp_path)
    kept = {row["id"] for row in read_jsonl(first.dir / "dataset" / "train.jsonl")}
    done = recurate(first.dir, ["words.min=7", "same.max=9"])
    now = {row["id"] for row in read_jsonl(done.result.dir / "dataset" / "train.jsonl")}
    assert {id for id, _ in done.changes.leave} == kept - now
    assert {id for id, _ in done.changes.enter} == now - kept
    assert {name for _, name in done.changes.leave} == {"words"}
    assert {name for _, name in done.changes.enter} == {"same"}
    said = done.as_json()
    assert said["version"] == 2
    assert len(said["enter"]) == len(now - kept) > 0


def test_a_target_cuts_where_it_is_reached(tmp_path: Path) -> None:
    first = made(tmp_path, target=10, filters=[{"words": {"min": 7}}])
    done = recurate(first.dir, ["words.min=1"])
    assert (first.kept, done.result.kept) == (10, 10)
    assert done.result.planned < first.planned
    beyond = [id for id, name in done.changes.leave if name == "surplus"]
    assert len(beyond) == len(done.changes.enter) > 0
    fewer = recurate(first.dir, ["words.min=9"])
    assert (fewer.result.outcome, fewer.version) == ("short", 3)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    first = made(tmp_path)
    with sqlite3.connect(first.dir / "run.sqlite") as journal:
        journal.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = tree(first.dir)
    shown = recurate(first.dir, ["words.min=8", "same.slack=2"], dry_run=True)
    after = tree(first.dir)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed <= {"run.sqlite-shm", "run.sqlite-wal", "run.lock"}
    assert shown.version is None
    done = recurate(first.dir, ["words.min=8", "same.slack=2"])
    assert done.changes == shown.changes
    assert done.result.kept == shown.result.kept


def test_the_lock_is_of_the_new_bounds(tmp_path: Path) -> None:
    """As if a run with those bounds had written it."""
    first = made(tmp_path, filters=FILTERS[:2])
    done = recurate(first.dir, ["words.min=7"])
    fresh = made(tmp_path / "fresh", filters=[{"words": {"min": 7}}, FILTERS[1]])
    assert (done.result.dir / "recipe.lock.yaml").read_bytes() == (
        fresh.dir / "recipe.lock.yaml"
    ).read_bytes()
    assert (done.result.dir / "recipe.lock.yaml").read_bytes() != (
        first.dir / "recipe.lock.yaml"
    ).read_bytes()


def test_a_disk_that_fills_up_at_the_last_commit_writes_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it is found out that records are not stored, none are left out unnoticed."""
    first = made(tmp_path)
    with monkeypatch.context() as filling:
        full_at_the_last_commit(filling)
        with pytest.raises(RunError, match="the disk is full"):
            recurate(first.dir, ["words.min=7"])
    assert not (first.dir / "versions" / "2" / "dataset").exists()
    assert recurate(first.dir, ["words.min=7"]).result.kept > 0


def test_moved_bounds_measure_nothing_and_the_run_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path, filters=FILTERS[:2])

    class Never(InProcess):
        def measure(self, *_: Any) -> Any:
            raise AssertionError

    with monkeypatch.context() as refusing:
        refusing.setattr(module, "open_measurer", lambda chain, _project, _records: Never(chain))
        recurate(first.dir, ["words.min=2"])
    engine = FakeEngine(answer)
    given = loaded(tmp_path, recipe(filters=FILTERS[:2]), rows=60, filters={"same": SAME})
    assert run_it(given, engine, directory=first.dir).outcome == "nothing to do"
    assert engine.asked == []
    assert len(answers(first.dir)) == first.kept


def test_a_filter_that_changed_measures_again_and_says_so(tmp_path: Path) -> None:
    first = made(tmp_path)
    (tmp_path / "filters" / "same.py").write_text(SAME.replace("self.slack + 1", "self.slack + 2"))
    notices: list[str] = []
    recurate(first.dir, [], on_notice=notices.append)
    assert [notice.split(":")[0] for notice in notices] == [
        "filter same is not what it was when the run was made"
    ]


def test_a_bound_that_was_taken_away_stays_away(tmp_path: Path) -> None:
    chain = [{"words": {"min": 0, "max": None}}, {"quality": {"min": None, "max": 2}}]
    first = made(tmp_path, rows=6, filters=chain)
    lock = read_yaml(first.dir / "recipe.lock.yaml")
    assert lock.data["recipe"]["filters"] == chain
    assert load_curation(lock, [], Project(tmp_path)).chain[1].min is None
    assert recurate(first.dir, []).result.kept == first.kept == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("words", "is no change of a filter"),
        ("word.min=3", "no filter 'word'"),
        ("words.min=many", "words.min"),
        ("words.least=3", "no parameter 'least'"),
        ("words.min=900", "nothing could pass"),
        ("words.max=NaN", "words.max"),
        ("words.max=1e999", "words.max"),
        ("words.min=true", "words.min"),
        ("same.max=null", "has no bound"),
        ("same.slack=[1]", "'slack' of filter same"),
    ],
)
def test_changes_that_make_no_sense(tmp_path: Path, change: str, said: str) -> None:
    first = made(tmp_path, rows=3, filters=[{"words": {"min": 5, "max": 100}}, "same"])
    with pytest.raises((UsageError, RecipeError), match=said):
        recurate(first.dir, [change])
    assert not (first.dir / "versions").exists()


def test_where_there_is_no_finished_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished run"):
        recurate(tmp_path, [])


def test_a_run_that_is_not_finished_is_left_alone(tmp_path: Path) -> None:
    """A later recipe was interrupted: the run before it is curated, and the later one goes on."""
    first = made(tmp_path, filters=FILTERS[:1])
    cancel = threading.Event()
    edited = recipe(filters=FILTERS[:1], steps=[{"answer": {"prompt": {"user": "Say more of {{ doc }}"}}}])
    given = loaded(tmp_path, edited, rows=60)
    engine = FakeEngine(no_more_than(20, cancel), slots=2)
    assert run_it(given, engine, directory=first.dir, cancel=cancel).pending > 0
    with RunView(first.dir) as view:
        before = view.status()
    notices: list[str] = []
    done = recurate(first.dir, ["words.min=7"], on_notice=notices.append)
    assert (done.version, "a later run" in notices[0]) == (3, True)
    with RunView(first.dir) as view:
        after = view.status()
    same = ("state", "version", "planned", "kept", "dropped", "failed", "pending")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert (after["state"], after["curated"]) == ("stopped", [3])
    judged: list[int] = []
    run_it(given, directory=first.dir, on_record=lambda record: judged.append(record.entry.task))
    assert judged == list(range(before["kept"] + before["dropped"] + before["failed"], 60))
    with RunView(first.dir, 3) as view:
        assert len(list(view.records("kept", None))) == done.result.kept
    with pytest.raises(UsageError, match="no version 9"):
        RunView(first.dir, 9)
