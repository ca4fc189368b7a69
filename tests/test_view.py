"""Looking at a run: while it runs, when it was stopped, and at one record with all that is known of it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import UsageError
from synthgen.report.collect import collect
from synthgen.report.story import story
from synthgen.run_result import Progress
from synthgen.view import RunView
from synthgen.workers import InProcess
from tests.support import FakeEngine, answer_of, loaded, no_more_than, recipe, run_it

FILTERED = recipe(filters=[{"words": {"min": 6}}, "refusal"])


def answer(request: Request) -> Any:
    if "number 3" in str(request.messages):
        return RequestFailed("the prompt is too long")
    return answer_of(request)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)


def status(directory: Path) -> dict[str, Any]:
    with RunView(directory) as view:
        return view.status()


def test_a_finished_run(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, FILTERED, rows=10), FakeEngine(answer))
    said = status(result.dir)
    assert (said["run"], said["state"], said["process"], said["version"]) == ("a", "finished", None, 1)
    for name in ("planned", "kept", "dropped", "failed", "pending", "filters"):
        assert said[name] == getattr(result, name)
    assert (said["requests"], said["answers"]) == (10, 9)
    assert said["last_error"] == "the prompt is too long"
    assert [session["outcome"] for session in said["sessions"]] == ["failures"]


def test_while_it_runs_the_sum_always_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "TICK", 0.001)
    monkeypatch.setattr("synthgen.journal_commits.COMMIT_EVERY", 0.005)
    seen: list[dict[str, Any]] = []
    directory = tmp_path / "run"

    def look(progress: Progress) -> None:
        if progress.stage == "generating":
            seen.append(status(directory))

    async def soon(request: Request) -> Any:
        await asyncio.sleep(0.002)
        return answer(request)

    given = loaded(tmp_path, FILTERED, rows=2000)
    run_it(given, FakeEngine(soon), directory=directory, on_progress=look)
    assert {said["state"] for said in seen} == {"running"}
    assert {said["process"] for said in seen} == {str(os.getpid())}
    counted = [said for said in seen if said["kept"] is not None]
    assert len({said["kept"] for said in counted}) > 2
    for said in counted:
        assert said["planned"] == said["kept"] + said["dropped"] + said["failed"] + said["pending"] == 2000


def test_a_stopped_run(tmp_path: Path) -> None:
    cancel = threading.Event()
    given = loaded(tmp_path, FILTERED, rows=50)
    result = run_it(given, FakeEngine(no_more_than(7, cancel), slots=1), cancel=cancel)
    said = status(result.dir)
    assert (said["state"], said["pending"]) == ("stopped", result.pending)
    assert said["pending"] > 0


def test_a_stopped_run_with_a_target_counts_what_is_wanted_still(tmp_path: Path) -> None:
    cancel = threading.Event()
    given = loaded(tmp_path, recipe(target=40, filters=[{"words": {"min": 6}}]), rows=500)
    result = run_it(given, FakeEngine(no_more_than(11, cancel), slots=1), cancel=cancel)
    said = status(result.dir)
    assert said["state"] == "stopped"
    assert said["dropped"] > 0
    assert said["pending"] == 40 - said["kept"] == 40 - result.kept > 0
    assert said["planned"] == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
    counts = collect(result.dir, meaning=False)["counts"]
    assert (counts["pending"], counts["planned"]) == (said["pending"], said["planned"])
    assert f"{said['pending']:,} rows are wanted still" in " ".join(story(collect(result.dir, meaning=False)))


def test_records_and_one_of_them(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, FILTERED, rows=10), FakeEngine(answer))
    with RunView(result.dir) as view:
        listed = list(view.records(None, 100))
        assert [record["task"] for record in listed] == list(range(10))
        for state in ("kept", "dropped", "failed"):
            assert len(list(view.records(state, 100))) == getattr(result, state) > 0
        assert len(list(view.records(None, 4))) == 4
        kept = next(view.records("kept", 1))
        whole = view.record(kept["id"])
        assert view.record(kept["id"][:12]) == whole
        [request] = whole["requests"]
        assert request["answer"]["text"] == whole["row"]["messages"][-1]["content"]
        assert request["request"]["messages"] == [
            {"role": "user", "content": f"Say something of {whole['row']['messages'][0]['content']}"}
        ]
        assert whole["measurements"]["words"]["verdict"] == "pass"
        assert whole["sources"][0]["path"] == "data/docs.jsonl"
        failed = view.record(next(view.records("failed", 1))["id"])
        assert failed["requests"][0]["failures"] == [
            {"error": "the prompt is too long", "outcome": "given up"}
        ]
        assert failed["requests"][0]["answer"] is None
        with pytest.raises(UsageError, match="no record begins"):
            view.record("nothing")
        with pytest.raises(UsageError, match="more than one"):
            view.record("")


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        RunView(tmp_path)
