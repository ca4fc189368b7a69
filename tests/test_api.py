"""The law: a dataset depends on the recipe and the engine's answers alone, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import driver, load, run
from synthgen.curate import Judged
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import EngineUnreachable, RunError, UsageError
from synthgen.journal import Journal
from synthgen.run_result import Progress
from synthgen.workers import InProcess
from tests.support import (
    FakeEngine,
    adds_up,
    answer_of,
    docs,
    full_at_the_last_commit,
    loaded,
    project,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

STEPS = [
    {"question": {"prompt": {"user": "Ask a {{ level }} question about {{ doc }}"}}},
    {"answer": {"prompt": {"user": "Answer {{ question }}"}}},
]
SEEDS = {
    "doc": {"path": "data/docs.jsonl", "field": "text"},
    "level": {"choice": {"easy": 0.6, "hard": 0.4}},
}
SEEN = """\
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
            if len(self.kept) < 4:
                self.kept.add(feature)
"""


def said(**parts: Any) -> dict[str, Any]:
    whole = {
        "seeds": SEEDS,
        "steps": STEPS,
        "filters": [{"words": {"min": 4}}, "refusal", {"characters": {"max": 52, "action": "flag"}}, "seen"],
        "output": {"split": {"train": 0.7, "test": 0.3}},
        **parts,
    }
    return recipe(**whole)


def answer(request: Request) -> Any:
    """Some answers fail for good, some refuse."""
    if request.key.startswith("7"):
        return RequestFailed("the prompt is too long")
    if request.key.startswith("3"):
        return "I'm sorry, but I can't help with that."
    return answer_of(request)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring here, and no waiting for the clock: a cancelled run looks every moment."""
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "TICK", 0.001)


def outputs(directory: Path) -> dict[str, bytes]:
    """All but what holds times and sessions: the journal, and what the run's own manifest is over."""
    its_own = ("manifest.json", "sessions.jsonl", "answers.jsonl")
    return {
        name: data
        for name, data in tree(directory).items()
        if not name.startswith("run.") and name not in its_own
    }


@pytest.mark.parametrize("end", [{}, {"target": 7}], ids=["all", "target"])
def test_the_same_bytes_at_one_slot_and_at_many(tmp_path: Path, end: dict[str, Any]) -> None:
    path = project(tmp_path, said(**end), rows=40, filters={"seen": SEEN})
    first = run(path, tmp_path / "one", engine=FakeEngine(answer, slots=1))
    assert first.kept
    assert first.dropped
    assert first.failed or end
    for slots, seed in ((128, 1), (7, 2)):
        place = tmp_path / f"{slots}"
        result = run(path, place, engine=FakeEngine(answer, slots=slots, shuffle=random.Random(seed)))
        assert outputs(place) == outputs(tmp_path / "one")
        assert result.filters == first.filters
        assert adds_up(result)
        assert (result.planned, result.kept) == (first.planned, first.kept)


def test_how_many_at_a_time_is_in_no_output(tmp_path: Path) -> None:
    given_ = {"engine": "openai", "id": "m", "base_url": "http://localhost:1/v1"}
    for name, options in (("one", {"concurrency": 1}), ("many", {"concurrency": 512}), ("none", {})):
        model = {**given_, "options": options} if options else given_
        run_it(loaded(tmp_path, recipe(model=model)), directory=tmp_path / name)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "many") == outputs(tmp_path / "none")


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 2**32), st.booleans())
def test_interruptions_change_nothing_and_lose_nothing(
    moments: list[int], seed: int, with_target: bool
) -> None:
    """Cancelled after so many answers, again and again, then let go: the bytes of a run in one go."""
    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
        patch.setattr(driver, "TICK", 0.0005)
        root = Path(place)
        end = {"target": 6} if with_target else {}
        path = project(root, said(**end), rows=25, filters={"seen": SEEN})
        whole = run(path, root / "whole", engine=FakeEngine(answer, slots=8))
        chance = random.Random(seed)
        answered: list[str] = []
        for moment in moments:
            cancel = threading.Event()
            engine = interrupting(cancel, moment, chance)
            result = run(path, root / "broken", engine=engine, cancel=cancel)
            assert adds_up(result)
            assert set(engine.answered).isdisjoint(answered)
            assert result.usage["requests"] == len(engine.answered)
            answered += engine.answered
            if result.outcome != "interrupted":
                break
            assert result.pending > 0
            assert not (root / "broken" / "dataset").exists()
        last = FakeEngine(answer, slots=8, shuffle=chance)
        result = run(path, root / "broken", engine=last)
        assert set(last.answered).isdisjoint(answered)
        assert outputs(root / "broken") == outputs(root / "whole")
        assert (result.planned, result.kept, result.dropped, result.failed) == (
            whole.planned, whole.kept, whole.dropped, whole.failed,
        )  # fmt: skip
        assert adds_up(result)


def interrupting(cancel: threading.Event, moment: int, chance: random.Random) -> FakeEngine:
    left = [moment]

    def counted(request: Request) -> Any:
        left[0] -= 1
        if left[0] < 0:
            cancel.set()
        return answer(request)

    return FakeEngine(counted, slots=6, shuffle=chance)


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    given_ = loaded(tmp_path, said(), filters={"seen": SEEN})
    first = run_it(given_, FakeEngine())
    places = [path for path in first.dir.rglob("*") if path.is_file() and not path.name.startswith("run.")]
    before = {place: place.stat().st_mtime_ns for place in places}
    assert len(before) > 8
    files = outputs(first.dir)
    engine = FakeEngine()
    again = run_it(given_, engine)
    assert again.outcome == "nothing to do"
    assert (engine.asked, engine.started) == ([], 0)
    assert (again.planned, again.kept, again.dropped, again.failed, again.pending) == (
        first.planned, first.kept, first.dropped, first.failed, first.pending,
    )  # fmt: skip
    assert again.usage == {"input_tokens": 0, "output_tokens": 0, "requests": 0}
    assert outputs(first.dir) == files
    assert {place: place.stat().st_mtime_ns for place in places} == before


def test_what_was_deleted_is_written_again_for_nothing(tmp_path: Path) -> None:
    import shutil

    given_ = loaded(tmp_path, said(), filters={"seen": SEEN})
    first = run_it(given_)
    files = outputs(first.dir)
    shutil.rmtree(first.dir / "dataset")
    engine = FakeEngine()
    run_it(given_, engine)
    assert engine.asked == []
    assert outputs(first.dir) == files


def test_an_edited_bound_asks_nothing(tmp_path: Path) -> None:
    first = run_it(loaded(tmp_path, recipe(filters=[{"words": {"min": 1}}]), rows=20))
    engine = FakeEngine()
    second = run_it(loaded(tmp_path, recipe(filters=[{"words": {"min": 6}}]), rows=20), engine)
    assert engine.asked == []
    assert (first.kept, second.reused) == (20, 20)
    assert 0 < second.kept < 20
    assert len(read_jsonl(second.dir / "dataset" / "train.jsonl")) == second.kept
    fresh = run_it(load(second.dir.parent.parent / "recipes" / "a.yaml"), directory=tmp_path / "fresh")
    assert outputs(fresh.dir) == outputs(second.dir)


def test_an_edited_prompt_asks_only_what_it_changes(tmp_path: Path) -> None:
    run_it(loaded(tmp_path, said(filters=[]), rows=8))
    changed = [STEPS[0], {"answer": {"prompt": {"user": "Answer briefly {{ question }}"}}}]
    engine = FakeEngine()
    result = run_it(loaded(tmp_path, said(filters=[], steps=changed), rows=8), engine)
    assert len(engine.asked) == 8
    assert all(request.messages[0]["content"].startswith("Answer briefly") for request in engine.asked)
    assert (result.reused, result.usage["requests"]) == (8, 8)
    back = FakeEngine()
    run_it(loaded(tmp_path, said(filters=[]), rows=8), back)
    assert back.asked == []


def test_an_edited_recipe_says_what_it_would_ask_and_can_be_stopped(tmp_path: Path) -> None:
    notes: list[str] = []
    first = run_it(loaded(tmp_path, recipe(), rows=8), on_notice=notes.append, confirm=lambda: False)
    assert (first.kept, notes) == (8, [])
    before = outputs(first.dir)
    edited = recipe(steps=[{"answer": {"prompt": {"user": "Say more of {{ doc }}"}}}])
    engine = FakeEngine()
    with pytest.raises(UsageError, match="nothing was asked"):
        run_it(loaded(tmp_path, edited, rows=10), engine, on_notice=notes.append, confirm=lambda: False)
    assert engine.asked == []
    assert outputs(first.dir) == before
    assert "of 10 tasks 10 would be asked anew" in notes[0]
    more = run_it(loaded(tmp_path, recipe(), rows=10), engine, on_notice=notes.append, confirm=lambda: True)
    assert "of 10 tasks 2 would be asked anew" in notes[1]
    assert (more.kept, len(engine.asked)) == (10, 2)
    # other bounds ask nothing, and so nobody is asked
    run_it(loaded(tmp_path, recipe(filters=["refusal"]), rows=10), engine, confirm=lambda: False)
    assert len(engine.asked) == 2


def test_renamed_steps_and_other_surroundings_ask_nothing(tmp_path: Path) -> None:
    run_it(loaded(tmp_path, recipe()))
    renamed = recipe(
        steps=[{"reply": {"prompt": {"user": "Say something of {{ text }}"}}}],
        seeds={"text": {"path": "data/docs.jsonl", "field": "text", "licence": "CC0-1.0"}},
        record={"question": "{{ text }}", "reply": "{{ reply }}"},
        description="another description",
    )
    engine = FakeEngine()
    result = run_it(loaded(tmp_path, renamed), engine)
    assert engine.asked == []
    assert (result.kept, result.reused) == (5, 5)


def test_inserted_rows_ask_for_themselves_alone(tmp_path: Path) -> None:
    rows = docs(10)
    first = run_it(loaded(tmp_path, said(filters=[]), rows=rows))
    before = {row["id"]: row for row in read_jsonl(first.dir / "dataset" / "train.jsonl")}
    new = docs(2, start=100)
    engine = FakeEngine()
    result = run_it(loaded(tmp_path, said(filters=[]), rows=[new[0], *rows[:5], new[1], *rows[5:]]), engine)
    assert len(engine.asked) == 4
    assert (result.kept, result.reused) == (12, 20)
    after = {row["id"]: row for row in read_jsonl(result.dir / "dataset" / "train.jsonl")}
    assert all(after[id] == row for id, row in before.items())


def test_another_seed_asks_everything(tmp_path: Path) -> None:
    run_it(loaded(tmp_path, recipe(seed=1)))
    engine = FakeEngine()
    run_it(loaded(tmp_path, recipe(seed=2)), engine)
    assert len(engine.asked) == 5


def test_failures_stay_until_they_are_asked_for(tmp_path: Path) -> None:
    given_ = loaded(tmp_path, recipe())
    failing = FakeEngine(
        lambda request: RequestFailed("no") if "number 2" in str(request.messages) else answer_of(request)
    )
    first = run_it(given_, failing)
    assert (first.outcome, first.kept, first.failed) == ("failures", 4, 1)
    (failed,) = read_jsonl(first.dir / "failed.jsonl")
    assert failed["error"] == "no"
    engine = FakeEngine()
    again = run_it(given_, engine)
    assert (again.outcome, again.failed, engine.asked) == ("nothing to do", 1, [])
    assert again.errors == first.errors == [("no", 1)]
    mended = run_it(given_, engine, retry_failed=True)
    assert (mended.outcome, mended.kept, mended.failed) == ("done", 5, 0)
    assert len(engine.asked) == 1
    assert not (first.dir / "failed.jsonl").exists()
    whole = run_it(given_, directory=tmp_path / "whole")
    assert outputs(whole.dir) == outputs(mended.dir)


def test_records_are_watched_in_task_order(tmp_path: Path) -> None:
    seen: list[Judged] = []
    progress: list[Progress] = []
    result = run_it(
        loaded(tmp_path, said(), rows=30, filters={"seen": SEEN}),
        FakeEngine(answer, shuffle=random.Random(1)),
        on_record=seen.append,
        on_progress=progress.append,
    )
    assert [judged.entry.task for judged in seen] == list(range(30))
    states = [judged.entry.state for judged in seen]
    assert [states.count(state) for state in ("kept", "dropped", "failed")] == [
        result.kept, result.dropped, result.failed,
    ]  # fmt: skip
    assert progress[-1].stage == "writing"
    assert (progress[-1].planned, progress[-1].kept, progress[-1].in_flight) == (30, result.kept, 0)


def test_what_was_answered_survives_an_engine_that_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_ = loaded(tmp_path, recipe(), rows=20)

    def goes(request: Request) -> Any:
        if len(first.answered) >= 7:
            return EngineUnreachable("the server is gone")
        return answer_of(request)

    first = FakeEngine(goes, slots=1)
    with pytest.raises(EngineUnreachable, match="gone"):
        run_it(given_, first)
    assert not (tmp_path / "runs" / "a" / "dataset").exists()
    second = FakeEngine()
    result = run_it(given_, second)
    assert (result.kept, result.reused, len(second.asked)) == (20, 7, 13)
    assert first.closed == 1


def test_cancelled_before_it_begins(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()

    class Slow(FakeEngine):
        async def start(self) -> None:
            await asyncio.Event().wait()

    engine = Slow()
    result = run_it(loaded(tmp_path, recipe()), engine, cancel=cancel)
    assert (result.outcome, result.pending, result.planned) == ("interrupted", 5, 5)
    assert engine.closed == 1
    assert adds_up(result)


def test_a_hanging_request_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)
    cancel = threading.Event()
    judged: list[Judged] = []

    async def hang(request: Request) -> str:
        if "number 3" in str(request.messages):
            while len(judged) < 3:
                await asyncio.sleep(0.001)
            cancel.set()
            await asyncio.Event().wait()
        return answer_of(request)

    engine = FakeEngine(hang, slots=1)
    result = run_it(loaded(tmp_path, recipe()), engine, cancel=cancel, on_record=judged.append)
    assert (result.outcome, result.kept, result.pending) == ("interrupted", 3, 2)
    second = FakeEngine()
    assert run_it(loaded(tmp_path, recipe()), second).kept == 5
    assert {*second.keys, *engine.answered} == set(all_keys(tmp_path))
    assert len(second.asked) + len(engine.answered) == 5


def all_keys(root: Path) -> list[str]:
    """The keys that a run in one go asks for."""
    engine = FakeEngine()
    run_it(loaded(root, recipe()), engine, directory=root / "in-one-go")
    return engine.keys


def test_curating_what_there_is_asks_nobody(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a " * n}]}
            for n in range(1, 6)]  # fmt: skip
    whole = recipe(
        model=None, steps=[], seeds={"row": {"path": "data/docs.jsonl"}}, record={"from": "row"},
        filters=[{"words": {"min": 3}}],
    )  # fmt: skip
    engine = FakeEngine()
    result = run_it(loaded(tmp_path, whole, rows=[*rows, {"text": "no conversation"}]), engine)
    assert engine.asked == []
    assert (result.kept, result.dropped, result.failed) == (3, 2, 1)
    kept = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert [row["messages"] for row in kept] == [row["messages"] for row in rows[2:]]
    (failed,) = read_jsonl(result.dir / "failed.jsonl")
    assert "no conversation in a row that has: text" in failed["error"]


def test_an_engine_for_each_model_is_asked_for(tmp_path: Path) -> None:
    steps = [{"answer": {"prompt": {"user": "x"}, "model": "large"}}]
    path = project(tmp_path, recipe(model=None, models={"large": "m"}, steps=steps))
    with pytest.raises(UsageError, match="no engine was given for the model 'large'"):
        run(path, engine={"small": FakeEngine()})
    assert run(path, engine={"large": FakeEngine()}).kept == 5


def test_a_bug_in_an_engine_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    def broken(request: Request) -> Any:
        return ZeroDivisionError("a bug") if "number 3" in str(request.messages) else answer_of(request)

    first = FakeEngine(broken, slots=1)
    with pytest.raises(ZeroDivisionError):
        run_it(loaded(tmp_path, recipe()), first)
    second = FakeEngine()
    assert run_it(loaded(tmp_path, recipe()), second).kept == 5
    assert sorted([*first.answered, *second.keys]) == sorted(all_keys(tmp_path))


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Journal._commit
    commits: list[int] = []

    def full(self: Journal, waiting: list[Any]) -> None:
        commits.append(len(waiting))
        raise RunError("the disk is full")

    monkeypatch.setattr(Journal, "_commit", full)
    with pytest.raises(RunError, match="the disk is full"):
        run_it(loaded(tmp_path, recipe()))
    assert commits
    monkeypatch.setattr(Journal, "_commit", commit)
    assert run_it(loaded(tmp_path, recipe())).kept == 5


def test_a_disk_that_is_full_at_the_last_commit_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every record is judged by then, and nothing would be judged after it."""

    full_at_the_last_commit(monkeypatch)
    with pytest.raises(RunError, match="the disk is full"):
        run_it(loaded(tmp_path, recipe()))
    assert not (tmp_path / "runs" / "a" / "dataset").exists()


def test_once_stopped_nothing_more_is_asked(tmp_path: Path) -> None:
    cancel = threading.Event()
    released = asyncio.Event()

    async def wait(request: Request) -> str:
        if len(engine.asked) == 4:
            cancel.set()
        await released.wait()
        return answer_of(request)

    def release(progress: Progress) -> None:
        if cancel.is_set():
            released.set()

    engine = FakeEngine(wait, slots=4)
    given_ = loaded(tmp_path, recipe(), rows=50)
    result = run_it(given_, engine, cancel=cancel, on_progress=release)
    assert (result.outcome, len(engine.asked), len(engine.answered)) == ("interrupted", 4, 4)
    assert adds_up(result)
    rest = FakeEngine()
    whole = run_it(given_, rest)
    assert (whole.kept, whole.reused, len(rest.asked)) == (50, 4, 46)


def test_answers_that_could_not_be_used_are_asked_again(tmp_path: Path) -> None:
    given_ = loaded(tmp_path, recipe(), rows=3)
    first = run_it(given_, FakeEngine(lambda request: " "))
    assert (first.failed, first.errors[0][1]) == (3, 3)
    assert "empty" in first.errors[0][0]
    mended = FakeEngine()
    assert run_it(given_, mended).outcome == "nothing to do"
    result = run_it(given_, mended, retry_failed=True)
    assert (result.outcome, result.kept, len(mended.asked)) == ("done", 3, 3)


def test_a_filter_that_takes_its_bound_is_measured_again_when_the_bound_changes(tmp_path: Path) -> None:
    longer = """
    from synthgen import filter

    @filter(max=1000)
    def longer(record, *, max):
        return len(record.text) if len(record.text) > max else 0
    """
    filters = {"longer": longer}
    first = run_it(loaded(tmp_path, recipe(filters=["longer"]), filters=filters), FakeEngine())
    assert (first.kept, first.dropped) == (5, 0)
    second = run_it(loaded(tmp_path, recipe(filters=[{"longer": {"max": 1}}]), filters=filters), FakeEngine())
    assert (second.kept, second.dropped) == (0, 5)


def test_a_dataset_of_another_recipe_is_not_taken_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = recipe(), recipe(tasks=2)
    first = run_it(loaded(tmp_path, whole), FakeEngine())
    with monkeypatch.context() as dies:
        dies.setattr(driver.Journal, "finish_version", lambda *_: (_ for _ in ()).throw(RunError("dies")))
        with pytest.raises(RunError, match="dies"):
            run_it(loaded(tmp_path, part), FakeEngine())
    assert len(read_jsonl(first.dir / "dataset" / "train.jsonl")) == 2
    engine = FakeEngine()
    again = run_it(loaded(tmp_path, whole), engine)
    assert (again.outcome, len(read_jsonl(again.dir / "dataset" / "train.jsonl"))) == ("done", 5)
    assert engine.asked == []


def test_a_run_that_only_fails_leaves_the_dataset(tmp_path: Path) -> None:
    first = run_it(loaded(tmp_path, recipe()), FakeEngine())
    before = outputs(first.dir)
    other = recipe(steps=[{"answer": {"prompt": {"user": "Differently: {{ doc }}"}}}])
    second = run_it(loaded(tmp_path, other), FakeEngine(lambda request: RequestFailed("no")))
    assert (second.outcome, second.failed) == ("failures", 5)
    assert len(read_jsonl(second.dir / "failed.jsonl")) == 5
    after = outputs(second.dir)
    assert {name: after[name] for name in before} == before


def test_it_runs_inside_a_running_loop(tmp_path: Path) -> None:
    given_ = loaded(tmp_path, recipe())

    async def notebook() -> int:
        return run_it(given_, FakeEngine()).kept

    assert asyncio.run(notebook()) == 5


def test_too_many_failures_lose_no_answer_that_is_in_flight(tmp_path: Path) -> None:
    full, judged = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Any:
        if str(request.messages[0]["content"]).endswith(" 0"):
            await full.wait()
            return RequestFailed("refused")
        if len(engine.asked) == 8:
            full.set()
        await judged.wait()
        return answer_of(request)

    engine, again = FakeEngine(answer, slots=8), FakeEngine()
    given_ = loaded(tmp_path, rows=30)
    stopped = run_it(given_, engine, max_failures=0, on_record=lambda _: judged.set())
    assert (stopped.outcome, stopped.failed, stopped.kept) == ("too many failures", 1, 0)
    others = {
        request.key for request in engine.asked if not str(request.messages[0]["content"]).endswith(" 0")
    }
    assert len(others) >= 7
    assert set(engine.answered) == others
    assert run_it(given_, again, max_failures=5).kept == 29
    assert set(engine.answered).isdisjoint(again.keys)


def test_too_many_failures_stop_at_the_one_too_many(tmp_path: Path) -> None:
    def bad(request: Request) -> Any:
        number = int(str(request.messages[0]["content"]).rpartition(" ")[2])
        return RequestFailed("too long") if number % 4 == 3 else answer_of(request)

    given_ = loaded(tmp_path, recipe(), rows=40)
    stopped = run_it(given_, FakeEngine(bad), max_failures=2)
    assert (stopped.outcome, stopped.ended_by) == ("too many failures", None)
    assert (stopped.failed, stopped.kept, stopped.pending) == (3, 9, 28)
    assert not (stopped.dir / "dataset").exists()
    again = FakeEngine(bad)
    assert run_it(given_, again, max_failures=2).failed == 3
    assert again.asked == []
    more = run_it(given_, again, max_failures=10)
    assert (more.outcome, more.failed, more.kept, more.pending) == ("failures", 10, 30, 0)
    # the one too many is the last of all: there is nothing to stop
    last = run_it(
        loaded(tmp_path, recipe(), rows=4), FakeEngine(bad), directory=tmp_path / "l", max_failures=0
    )
    assert (last.outcome, last.failed, last.pending) == ("failures", 1, 0)
    assert (last.dir / "failed.jsonl").exists()
