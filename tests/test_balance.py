"""Balance: kept rows near the wished shares, by an order that depends on earlier rounds' verdicts alone."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.api import load
from synthgen.balance import Balance, Schedule, value_of
from synthgen.engines.base import Request
from synthgen.errors import RunError
from synthgen.plan import Plan
from synthgen.recurate import recurate
from synthgen.rounds import Fate
from synthgen.run_result import RunResult
from synthgen.seed_kinds import ChoiceSeed
from synthgen.seeds import ListRows, SeedRow, drawn, value_digest
from synthgen.stopping import Stop
from tests.support import FakeEngine, adds_up, docs, loaded, no_more_than, problems, project, recipe, tree

from tests.support import answer_of, read_jsonl, run_it  # isort: skip

EASY_IS_COMMON = {
    "doc": {"path": "data/docs.jsonl", "field": "text"},
    "level": {"choice": {"easy": 0.8, "hard": 0.2}},
}


def balanced(**parts: Any) -> dict[str, Any]:
    """Most are easy, and most hard ones are dropped."""
    said: dict[str, Any] = {
        "seeds": EASY_IS_COMMON,
        "steps": [{"answer": {"prompt": {"user": "{{ level }}: {{ doc }}"}}}],
        "record": {
            "messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}],
            "level": "{{ level }}",
        },
        "filters": [{"words": {"min": 7}}],
        "target": 80,
        "budget": {"attempts": 4000},
        "balance": {"level": "even"},
        "round": 20,
    }
    return recipe(**(said | parts))


def hard_is_rarely_good(request: Request) -> str:
    text = answer_of(request)
    return text if "easy" in str(request.messages) or int(request.key[:2], 16) < 150 else "too short"


def levels(result: RunResult) -> Counter[str]:
    return Counter(row["level"] for row in read_jsonl(result.dir / "dataset" / "train.jsonl"))


def test_kept_rows_come_near_the_wished_shares(tmp_path: Path) -> None:
    rows = docs(1500)
    left = run_it(
        loaded(tmp_path / "left", balanced(balance=None, round=None), rows=rows),
        FakeEngine(hard_is_rarely_good),
    )
    assert levels(left)["hard"] < 0.2 * left.kept
    result = run_it(loaded(tmp_path / "steered", balanced(), rows=rows), FakeEngine(hard_is_rarely_good))
    assert result.kept == 80
    assert adds_up(result)
    assert 36 <= levels(result)["hard"] <= 44
    hard = result.as_json()["balance"]["level"]["hard"]
    assert hard == {"wished": 0.5, "kept": levels(result)["hard"], "share": round(hard["kept"] / 80, 4)}
    assert run_it(loaded(tmp_path / "steered", balanced(), rows=rows)).balance == result.balance


def test_a_field_of_a_files_rows_and_values_that_are_no_texts(tmp_path: Path) -> None:
    rows = [{"text": f"document {n}", "grade": n % 10 if n % 10 < 2 else 7} for n in range(900)]
    said = balanced(
        seeds={"row": {"path": "data/docs.jsonl"}},
        steps=[{"answer": {"prompt": {"user": "{{ row.text }}"}}}],
        record={
            "messages": [{"user": "{{ row.text }}"}, {"assistant": "{{ answer }}"}],
            "level": "{{ row.grade }}",
        },
        balance={"row.grade": {0: 1, 1: 3}},
        filters=[],
        target=60,
    )
    result = run_it(loaded(tmp_path, said, rows=rows))
    assert levels(result) == {"0": 15, "1": 45}


def test_what_is_not_there_is_made_up_for_and_said(tmp_path: Path) -> None:
    rows = [{"text": f"document {n}", "kind": "even"} for n in range(100)]
    said = balanced(
        seeds={"row": {"path": "data/docs.jsonl"}},
        steps=[{"answer": {"prompt": {"user": "{{ row.text }}"}}}],
        record={"text": "{{ answer }}"},
        balance={"row.kind": {"even": 1, "odd": 1}},
        filters=[],
        target=30,
    )
    result = run_it(loaded(tmp_path, said, rows=rows))
    assert result.kept == 30
    assert result.balance["row.kind"]["odd"] == {"wished": 0.5, "kept": 0, "share": 0.0}


def test_seeds_that_run_out_end_the_run_short(tmp_path: Path) -> None:
    rows = [{"text": f"document {n}", "kind": "ab"[n % 2]} for n in range(20)]
    said = balanced(
        seeds={"row": {"path": "data/docs.jsonl"}},
        steps=[{"answer": {"prompt": {"user": "{{ row.text }}"}}}],
        record={"text": "{{ answer }}"},
        balance={"row.kind": {"a": 1}},
        filters=[],
        target=60,
        passes=2,
    )
    result = run_it(loaded(tmp_path, said, rows=rows))
    assert (result.kept, result.outcome, result.pending) == (20, "short", 0)


@pytest.mark.parametrize("slots", [1, 3, 64])
def test_the_same_bytes_in_whatever_order_answers_come(tmp_path: Path, slots: int) -> None:
    given = loaded(tmp_path, balanced(), rows=600)
    here = run_it(given, FakeEngine(hard_is_rarely_good), directory=tmp_path / "here")
    engine = FakeEngine(hard_is_rarely_good, slots=slots, shuffle=random.Random(slots))
    there = run_it(given, engine, directory=tmp_path / "there")
    assert tree(here.dir / "dataset") == tree(there.dir / "dataset")


@pytest.mark.parametrize("answered", [1, 19, 20, 21, 57, 100])
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, answered: int) -> None:
    given = loaded(tmp_path, balanced(), rows=600)
    whole = run_it(given, FakeEngine(hard_is_rarely_good), directory=tmp_path / "whole")
    cancel = Stop()
    engine = FakeEngine(no_more_than(answered, cancel, hard_is_rarely_good))
    parts = tmp_path / "parts"
    assert run_it(given, engine, directory=parts, cancel=cancel).outcome == "interrupted"
    rest = FakeEngine(hard_is_rarely_good)
    result = run_it(given, rest, directory=parts)
    assert tree(parts / "dataset") == tree(whole.dir / "dataset")
    assert set(rest.keys).isdisjoint(engine.answered)
    assert result.balance == whole.balance


def test_curating_says_that_it_chooses_no_seeds(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, balanced(), rows=600))
    notes: list[str] = []
    recurate(result.dir, ["words.min=8"], on_notice=notes.append)
    assert any("`balance:`" in note for note in notes)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"target": None, "budget": None}, "`balance:` chooses tasks for a `target:`"),
        ({"balance": None}, "`round:` is the size of the rounds of `balance:`"),
        ({"balance": {"answer": {"a": 1}}}, "`answer` is no seed"),
        ({"balance": {"doc": "even"}}, "name the values of `doc`"),
        ({"balance": {"level": {"easy": 0}}}, "more than 0"),
        ({"balance": {"level": {}}}, "is empty"),
        ({"balance": {"level": {"easy": 1, "medium": 1}}}, "the seed `level` never has the value 'medium'"),
    ],
)
def test_mistakes_point_at_their_line(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    found = problems(project(tmp_path, balanced(**parts)))
    assert any(message in problem.message for problem in found), found
    assert all(problem.line and problem.line > 1 for problem in found)


def test_a_value_that_no_task_has_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    engine = FakeEngine()
    with pytest.raises(RunError, match=r"none of the first .* tasks has a value of `doc`"):
        run_it(loaded(tmp_path, balanced(balance={"doc": {"Easy": 1}})), engine)
    assert engine.asked == []


def plan(kinds: str, weights: dict[str, float], limit: int | None) -> Plan:
    rows = [
        SeedRow({"n": n, "kind": kind}, value_digest({"n": n, "kind": kind})) for n, kind in enumerate(kinds)
    ]
    return Plan(7, {"row": ListRows(rows)}, {"level": drawn(ChoiceSeed(choice=weights))}, limit)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.text("ab", min_size=1, max_size=40),
    size=st.integers(1, 17),
    limit=st.integers(1, 120),
    dice=st.randoms(use_true_random=False),
    stops=st.integers(0, 119),
)
def test_the_law_of_a_schedule(kinds: str, size: int, limit: int, dice: random.Random, stops: int) -> None:
    """Every task at most once, none that is not wished; told the same again, it goes the same way."""
    base = plan(kinds, {"x": 0.7, "y": 0.2, "z": 0.1}, limit)
    wished = Balance({"row.kind": {"a": 0.5, "b": 0.5}, "level": {"x": 0.3, "y": 0.7}}, size, 1000)
    known = {(task.digest, task.repeat): task for task in base.tasks()}
    if all(task.values["level"] == "z" for task in known.values()):
        with pytest.raises(RunError):
            Schedule(base, wished)
        return
    schedule = Schedule(base, wished)
    told: list[Fate] = []
    order = []
    while schedule.limit is None:
        for task in schedule.tasks(len(order)):
            assert task.index == len(order)
            order.append((task.digest, task.repeat))
            assert known[order[-1]].values == task.values
            assert value_of(task.values, "level") in "xy"
            for _ in range(dice.randrange(1, 3)):
                told.append(Fate(task.index, "", dice.random() < 0.5, None))
                schedule.tell(told[-1])
        schedule.go_on()
    assert len(set(order)) == len(order) == schedule.limit
    assert len(order) == sum(task.values["level"] != "z" for task in known.values())

    again = Schedule(base, wished)
    some = [fate for fate in told if fate.task < stops]
    again.recall(some)
    if some and some[-1].task + 1 == again.open:
        again.go_on()
    seen = again.open
    for task in again.tasks(again._first):
        assert (task.digest, task.repeat) == order[task.index]
    assert seen >= min(stops, len(order))


@pytest.mark.parametrize(
    ("seeds", "field", "message", "hint"),
    [
        ({"row": {"path": "data/docs.jsonl"}}, "row.kynd", "no row of `row` has a field 'kynd'", "'kind'"),
        ({"row": {"path": "data/docs.jsonl", "sample": True}}, "row.kynd", "has a field 'kynd'", "'kind'"),
        ({"row": {"path": "data/docs.jsonl", "field": "kind"}}, "row.kind", "gives a single value", None),
        ({"row": {"path": "data/docs.jsonl", "n": 2}}, "row.kind", "gives a list", None),
        ({"row": [{"kind": "a"}, {"kind": "b"}]}, "row.kynd", "no row of `row`", "'kind'"),
        ({"row": {"taxonomy": {"a": ["b"]}}}, "row.path.x", "no row of `row`", None),
        ({"row": {"int": {"min": 1, "max": 2}}}, "row.kind", "gives a single value", None),
    ],
)
def test_a_field_that_no_row_has_is_said_with_its_line(
    tmp_path: Path, seeds: dict[str, Any], field: str, message: str, hint: str | None
) -> None:
    rows = [{"kind": "a", "text": "x"}, {"kind": "b", "text": "y"}, {"kind": "c", "text": "z"}]
    said = recipe(
        seeds=seeds,
        steps=[{"answer": {"prompt": {"user": "{{ row }}"}}}],
        record={"messages": [{"user": "{{ row }}"}, {"assistant": "{{ answer }}"}]},
        target=2,
        balance={field: {"a": 1}},
    )
    path = project(tmp_path, said, rows=rows)
    (found,) = problems(path)
    assert message in found.message
    assert (hint or "") in (found.hint or "")
    assert found.line is not None
    assert field in path.read_text().splitlines()[found.line - 1]


def test_a_field_that_only_the_last_row_has_is_taken(tmp_path: Path) -> None:
    rows = [*({"text": f"{number}"} for number in range(30)), {"text": "x", "kind": "a"}]
    said = recipe(
        seeds={"row": {"path": "data/docs.jsonl"}},
        steps=[{"answer": {"prompt": {"user": "{{ row.text }}"}}}],
        record={"messages": [{"user": "{{ row.text }}"}, {"assistant": "{{ answer }}"}]},
        target=2,
        balance={"row.kind": {"a": 1}},
    )
    assert load(project(tmp_path, said, rows=rows)).balance is not None
