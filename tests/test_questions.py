"""Filters that ask a model: who is asked about, in what order, and what is never asked again."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import driver
from synthgen import recurate as recuration
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import EngineUnreachable, RunError, UsageError
from synthgen.recurate import recurate
from synthgen.workers import InProcess
from tests.support import (
    FakeEngine,
    adds_up,
    answer_of,
    loaded,
    no_more_than,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

GRADE = """
from synthgen import Measurement, Question, abstain, filter

@filter(kind="engine", min=3)
class grade:
    \"\"\"A digit that the model gives.\"\"\"
    def __init__(self, twice: bool = False, broken: bool = False):
        self.twice, self.broken = twice, broken
    def ask(self, record):
        if "nothing" in record.text:
            return []
        if self.broken:
            raise LookupError("no idea")
        question = Question([{"role": "user", "content": f"Grade: {record.text}"}], {"max_tokens": 3})
        return [question, question] if self.twice else question
    def measure(self, record, answers):
        if not answers:
            return abstain("nothing to ask")
        return Measurement(sum(int(answer) for answer in answers) / len(answers))
"""
SAME = """
from synthgen import filter

@filter(kind="run", max=0)
class same:
    \"\"\"How many kept answers have as many words.\"\"\"
    def __init__(self):
        self.kept = {}
    def features(self, records):
        return [str(len(record.text.split())).encode() for record in records]
    def resolve(self, id, feature):
        return self.kept.get(feature, 0)
    def keep(self, id, feature):
        self.kept[feature] = self.kept.get(feature, 0) + 1
"""
FILTERS = {"grade": GRADE, "same": SAME}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (driver, recuration):
        monkeypatch.setattr(place, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)


def graded(request: Request) -> Any:
    """A digit that follows from what is graded, an answer for everything else."""
    text = str(request.messages[-1]["content"])
    return str(int(request.key[:4], 16) % 6) if text.startswith("Grade: ") else answer_of(request)


def grades(engine: FakeEngine) -> list[Request]:
    return [request for request in engine.asked if str(request.messages[-1]["content"]).startswith("Grade")]


def chain(*names: Any) -> dict[str, Any]:
    return recipe(filters=[{"words": {"min": 5}}, *names])


def outputs(directory: Path) -> dict[str, bytes]:
    names = ("dataset/", "dropped", "failed")
    return {name: data for name, data in tree(directory).items() if name.startswith(names)}


def test_only_survivors_are_asked_about(tmp_path: Path) -> None:
    engine = FakeEngine(graded)
    result = run_it(loaded(tmp_path, chain("grade"), rows=40, filters=FILTERS), engine)
    short = [
        row for row in read_jsonl(result.dir / "dropped.jsonl") if row["dropped_by"]["filter"] == "words"
    ]
    assert len(short) > 5
    assert all("grade" not in row["measurements"] for row in short)
    assert len(grades(engine)) == 40 - len(short)
    assert adds_up(result)
    assert result.usage["requests"] == len(engine.asked)
    for row in read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl"):
        [key] = row["measurements"]["grade"]["detail"]["requests"]
        assert row["measurements"]["grade"]["value"] == int(key[:4], 16) % 6 >= 3
        assert key not in row["requests"]


def test_what_a_filter_of_the_run_drops_is_in_no_verdict_of_a_model(tmp_path: Path) -> None:
    result = run_it(
        loaded(tmp_path, chain("same", "grade"), rows=40, filters=FILTERS), FakeEngine(graded, slots=32)
    )
    by = {row["dropped_by"]["filter"] for row in read_jsonl(result.dir / "dropped.jsonl")}
    assert by == {"words", "same", "grade"}
    for row in read_jsonl(result.dir / "dropped.jsonl"):
        assert ("grade" in row["measurements"]) == (row["dropped_by"]["filter"] == "grade")


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([None, 8]), st.booleans())
def test_the_dataset_does_not_depend_on_the_order_of_answers(
    seed: int, slots: int, target: int | None, twice: bool
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        said = recipe(
            filters=["same", {"grade": {"twice": twice}}, {"words": {"min": 4}}, {"characters": {"max": 60}}],
            target=target,
        )
        given_recipe = loaded(root, said, rows=30, filters=FILTERS)
        plain = run_it(given_recipe, FakeEngine(graded, slots=1), directory=root / "one" / "a")
        other = run_it(
            given_recipe,
            FakeEngine(graded, slots=slots, shuffle=random.Random(seed)),
            directory=root / "other" / "a",
        )
        assert outputs(plain.dir) == outputs(other.dir)
        assert (plain.kept, plain.dropped) == (other.kept, other.dropped)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_a_run_goes_on_where_it_stopped_and_asks_nothing_twice(stops: list[int]) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        given_recipe = loaded(root, chain("same", "grade"), rows=25, filters=FILTERS)
        plain = FakeEngine(graded)
        whole = run_it(given_recipe, plain, directory=root / "one" / "a")
        answered: list[str] = []
        for stop in stops:
            cancel = threading.Event()
            engine = FakeEngine(no_more_than(stop, cancel, graded))
            run_it(given_recipe, engine, directory=root / "other" / "a", cancel=cancel)
            answered += engine.answered
        last = FakeEngine(graded)
        done = run_it(given_recipe, last, directory=root / "other" / "a")
        answered += last.answered
        assert outputs(whole.dir) == outputs(done.dir)
        assert len(answered) == len(set(answered))


def test_equal_questions_of_one_record_are_two_requests(tmp_path: Path) -> None:
    engine = FakeEngine(graded)
    run_it(loaded(tmp_path, recipe(filters=[{"grade": {"twice": True}}]), rows=3, filters=FILTERS), engine)
    assert len({request.key for request in grades(engine)}) == len(grades(engine)) == 6


def test_a_filter_may_know_without_asking(tmp_path: Path) -> None:
    engine = FakeEngine(lambda request: "nothing at all")
    result = run_it(loaded(tmp_path, recipe(filters=["grade"]), rows=3, filters=FILTERS), engine)
    assert (result.kept, len(grades(engine))) == (3, 0)


def test_equal_contents_are_asked_about_once_and_spend_the_same(tmp_path: Path) -> None:
    """In whatever order: what a budget counts must not depend on who came first."""
    rows = [{"text": "document number 1"}] * 6
    said = recipe(filters=[{"grade": {"min": 0}}], budget={"output_tokens": 35})
    engine = FakeEngine(lambda request: "4" if "Grade" in str(request.messages) else "word " * 6)
    result = run_it(loaded(tmp_path, said, rows=rows, filters=FILTERS), engine)
    assert len(grades(engine)) == 1
    # five tokens an answer and five a grade, counted for each record
    assert (result.ended_by, result.kept) == ("output_tokens", 4)


def test_a_request_that_fails_fails_its_record(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        text = str(request.messages[-1]["content"])
        return (
            RequestFailed("too long") if text.startswith("Grade") and request.key < "8" else graded(request)
        )

    result = run_it(
        loaded(tmp_path, recipe(filters=[{"grade": {"min": 0}}]), rows=20, filters=FILTERS),
        FakeEngine(answer),
    )
    assert 0 < result.failed < 20
    assert result.kept == 20 - result.failed
    assert all(row["error"] == "filter grade: too long" for row in read_jsonl(result.dir / "failed.jsonl"))
    again = run_it(
        loaded(tmp_path, recipe(filters=[{"grade": {"min": 0}}]), rows=20, filters=FILTERS),
        FakeEngine(graded),
        directory=result.dir,
        retry_failed=True,
    )
    assert (again.failed, again.kept) == (0, 20)


def test_an_engine_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        text = str(request.messages[-1]["content"])
        return EngineUnreachable("gone") if text.startswith("Grade") else answer_of(request)

    with pytest.raises(EngineUnreachable, match="gone"):
        run_it(loaded(tmp_path, recipe(filters=["grade"]), filters=FILTERS), FakeEngine(answer))


def test_a_second_judge_asks_about_what_the_first_lets_pass_and_many_at_a_time(tmp_path: Path) -> None:
    chain_of_two = [{"grade": {"min": 2}}, "same", {"again": {"filter": "grade", "twice": True, "min": 3}}]
    engine = FakeEngine(graded, slots=16, shuffle=random.Random(1))
    result = run_it(loaded(tmp_path, recipe(filters=chain_of_two), rows=60, filters=FILTERS), engine)
    assert engine.most > 8
    slow = FakeEngine(graded, slots=1)
    again = run_it(
        loaded(tmp_path / "slow", recipe(filters=chain_of_two), rows=60, filters=FILTERS),
        slow,
        directory=tmp_path / "slow" / "runs" / "a",
    )
    assert outputs(result.dir) == outputs(again.dir)
    for row in read_jsonl(result.dir / "dropped.jsonl"):
        assert ("again" in row["measurements"]) == (row["dropped_by"]["filter"] == "again")


def test_two_models(tmp_path: Path) -> None:
    said = recipe(models={"critic": "other-model"}, filters=[{"grade": {"model": "critic", "min": 0}}])
    given_recipe = loaded(tmp_path, said, rows=4, filters=FILTERS)
    writer, critic = FakeEngine(graded), FakeEngine(graded)
    result = run_it(given_recipe, {"": writer, "critic": critic})
    assert (len(grades(writer)), len(grades(critic)), result.kept) == (0, 4, 4)


def made(root: Path, **parts: Any) -> Any:
    said = recipe(**{"filters": [{"words": {"min": 7}}, "grade"], **parts})
    return run_it(
        loaded(root, said, rows=40, filters=FILTERS), FakeEngine(graded), directory=root / "runs" / "a"
    )


def test_a_bound_is_moved_without_asking(tmp_path: Path) -> None:
    first = made(tmp_path)
    done = recurate(first.dir, ["grade.min=5"])
    values = [
        row["measurements"]["grade"]["value"]
        for row in read_jsonl(first.dir / "dataset/provenance/train.jsonl")
    ]
    assert done.result.kept == sum(value >= 5 for value in values)
    assert done.result.usage["requests"] == 0


def test_what_was_never_measured_stays_as_it_was(tmp_path: Path) -> None:
    first = made(tmp_path)
    done = recurate(first.dir, ["words.min=1"])
    assert (done.result.kept, done.result.dropped) == (first.kept, first.dropped)
    rows = read_jsonl(done.result.dir / "dropped.jsonl")
    unmeasured = [row for row in rows if row["measurements"]["grade"]["value"] is None]
    assert len(unmeasured) == first.filters["words"]["dropped"] > 5
    assert all(row["dropped_by"]["filter"] == "grade" for row in unmeasured)
    assert "--measure" in unmeasured[0]["dropped_by"]["detail"]["reason"]


def test_a_judge_that_is_another_now_passes_nobody_in_silence(tmp_path: Path) -> None:
    first = made(tmp_path)
    notes: list[str] = []
    done = recurate(first.dir, ["grade.twice=true"], on_notice=notes.append)
    assert done.result.kept == first.kept
    told = read_jsonl(done.result.dir / "dataset/provenance/train.jsonl")
    assert {row["measurements"]["grade"]["verdict"] for row in told} == {"unmeasured"}
    survivors = 40 - first.filters["words"]["dropped"]
    [note] = [note for note in notes if "has not measured" in note]
    assert f"has not measured {survivors} records" in note
    assert "--measure" in note


def test_the_card_says_that_a_model_was_asked(tmp_path: Path) -> None:
    card = (made(tmp_path).dir / "dataset" / "README.md").read_text()
    assert "The filter `grade` asked `fake-model` (fake) about records." in card


def test_measure_asks_about_them_and_nobody_else(tmp_path: Path) -> None:
    first = made(tmp_path)
    engine = FakeEngine(graded)
    done = recurate(first.dir, ["words.min=1"], measure=True, own=engine)
    assert len(engine.asked) == len(grades(engine)) == first.filters["words"]["dropped"]
    assert done.result.usage["requests"] == len(engine.asked)
    fresh = made(tmp_path / "fresh", filters=[{"words": {"min": 1}}, "grade"])
    for name in ("dataset/train.jsonl", "dataset/provenance/train.jsonl", "dropped.jsonl"):
        assert (done.result.dir / name).read_bytes() == (fresh.dir / name).read_bytes()
    silent = FakeEngine(graded)
    again = recurate(first.dir, ["words.min=1"], measure=True, own=silent)
    assert (silent.asked, again.result.kept) == ([], done.result.kept)


def test_measure_can_be_interrupted(tmp_path: Path) -> None:
    first = made(tmp_path)
    cancel = threading.Event()
    engine = FakeEngine(no_more_than(3, cancel, graded))
    done = recurate(first.dir, ["words.min=1"], measure=True, own=engine, cancel=cancel)
    assert done.result.outcome == "interrupted"
    assert adds_up(done.result)
    assert not done.result.dir.exists()
    rest = FakeEngine(graded)
    recurate(first.dir, ["words.min=1"], measure=True, own=rest)
    assert len(rest.answered) == first.filters["words"]["dropped"] - 3


def test_measure_and_dry_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a dry run asks no model"):
        recurate(made(tmp_path).dir, [], measure=True, dry_run=True)


def test_the_address_of_a_server_is_asked_for(tmp_path: Path) -> None:
    first = made(tmp_path, model={"engine": "openai", "id": "m", "base_url": "http://127.0.0.1:9"})
    with pytest.raises(UsageError, match="where m is served is not recorded") as caught:
        recurate(first.dir, ["words.min=1"], measure=True)
    assert "--base-url" in (caught.value.hint or "")


def test_answers_are_in_the_journal(tmp_path: Path) -> None:
    first = made(tmp_path)
    with sqlite3.connect(first.dir / "run.sqlite") as journal:
        bodies = [json.loads(row[0]) for row in journal.execute("SELECT body FROM requests")]
        measured = journal.execute("SELECT count(*) FROM measurements WHERE filter = 'grade'").fetchone()[0]
    graded_bodies = [body for body in bodies if body["messages"][-1]["content"].startswith("Grade")]
    assert len(graded_bodies) == measured == 40 - first.filters["words"]["dropped"]
    assert graded_bodies[0]["sampling"] == {"max_tokens": 3, "temperature": 0}


def test_an_error_of_its_code_is_the_records(tmp_path: Path) -> None:
    said = recipe(filters=[{"grade": {"broken": True}}])
    result = run_it(loaded(tmp_path, said, rows=4, filters=FILTERS), FakeEngine(graded))
    assert result.failed == 4
    assert result.errors[0][1] == 4  # alike but for the record
    assert "LookupError: no idea (line 13 of grade.py)" in result.errors[0][0]


FAILING = """
from synthgen import filter

@filter(min=0)
def fussy(record):
    \"\"\"Raises on some.\"\"\"
    number = int(record["doc"].rsplit(maxsplit=1)[1])
    if number >= 10:
        raise ValueError("too many")
    return number
"""


@pytest.mark.parametrize(("policy", "judged"), [(None, 30), ("stop", 11), ("fail", 40)])
def test_a_filter_that_goes_on_failing(tmp_path: Path, policy: str | None, judged: int) -> None:
    use = {"fussy": {"on_error": policy} if policy else {}}
    given_recipe = loaded(tmp_path, recipe(filters=[use]), rows=40, filters={"fussy": FAILING})
    directory = tmp_path / "runs" / "a"
    if policy == "fail":
        result = run_it(given_recipe, directory=directory)
        assert (result.kept, result.failed) == (10, 30)
        return
    with pytest.raises(RunError) as caught:
        run_it(given_recipe, directory=directory)
    assert "ValueError: too many (line 9 of fussy.py)" in caught.value.message
    assert ("20 records in a row" in caught.value.message) == (policy is None)
    assert ("on_error" in (caught.value.hint or "")) == (policy is None)
    # what was generated is kept: mended, the run asks for nothing that was answered
    mended = FAILING.replace("raise ValueError", "print")
    again = loaded(tmp_path, recipe(filters=[use]), rows=40, filters={"fussy": mended})
    engine = FakeEngine()
    result = run_it(again, engine, directory=directory)
    assert result.kept == 40
    assert len(engine.asked) <= 40 - judged
