"""The plan: tasks in order, the same every time, each with draws of its own that nothing else moves."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.plan import Plan, Task
from synthgen.seed_kinds import ChoiceSeed, ValuesSeed
from synthgen.seeds import drawn, list_rows
from tests.support import docs, loaded, recipe

words = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=6)


def plan(rows: dict[str, list[Any]], choices: dict[str, Any] | None = None, limit: int | None = None) -> Plan:
    made = {name: list_rows(ValuesSeed(values=values)) for name, values in rows.items()}
    drawing = {name: drawn(ChoiceSeed(choice=choice)) for name, choice in (choices or {}).items()}
    found = Plan(7, made, drawing, None)
    return Plan(7, made, drawing, found.once if limit is None else limit)


def identity(task: Task) -> tuple[bytes, int]:
    return task.digest, task.repeat


LEVELS = {"level": {"easy": 0.6, "hard": 0.4}, "tone": ["dry", "warm", "terse"]}


def test_seeds_make_a_cross_product_the_first_slowest() -> None:
    tasks = list(plan({"a": [1, 2], "b": ["x", "y", "z"]}).tasks())
    assert [(task.values["a"], task.values["b"]) for task in tasks] == [
        (1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z"),
    ]  # fmt: skip
    assert [task.index for task in tasks] == list(range(6))
    assert {task.repeat for task in tasks} == {0}
    assert len({task.digest for task in tasks}) == 6


@given(words, words, st.integers(1, 60))
def test_the_same_on_every_call(first: list[str], second: list[str], limit: int) -> None:
    made = plan({"a": first, "b": second}, LEVELS, limit)
    once, twice = list(made.tasks()), list(made.tasks())
    assert once == twice
    assert len(once) == limit
    again = plan({"a": list(first), "b": list(second)}, LEVELS, limit)
    assert list(again.tasks()) == once


@given(words, st.integers(1, 40))
def test_repeat_counts_earlier_tasks_with_the_same_values(values: list[str], limit: int) -> None:
    seen: Counter[str] = Counter()
    for task in plan({"a": values}, LEVELS, limit).tasks():
        assert task.repeat == seen[task.values["a"]]
        seen[task.values["a"]] += 1


@given(words, words, words, st.integers(1, 200), st.integers(0, 199))
def test_repeats_and_beginnings_in_the_middle(
    first: list[str], second: list[str], third: list[str], limit: int, start: int
) -> None:
    made = plan({"a": first, "b": second, "c": third}, LEVELS, limit)
    whole = list(made.tasks())
    seen: Counter[bytes] = Counter()
    for task in whole:
        assert task.repeat == seen[task.digest]
        seen[task.digest] += 1
    assert list(made.tasks(start)) == whole[start:]


def test_rows_that_come_again_are_found_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"row {n % 70}"} for n in range(100)]
    found = loaded(tmp_path, recipe(), rows=rows).plan
    monkeypatch.setattr("synthgen.seeds.MANY", 10)
    other = loaded(tmp_path, recipe(), rows=rows).plan
    [few], [many] = found.rows.values(), other.rows.values()
    assert few.repeats == many.repeats
    assert len(few.repeats) == 30
    assert [task.repeat for task in other.tasks()] == [0] * 70 + [1] * 30


@given(words, st.integers(1, 40))
def test_no_two_tasks_are_the_same(values: list[str], limit: int) -> None:
    tasks = list(plan({"a": values}, LEVELS, limit).tasks())
    assert len({identity(task) for task in tasks}) == len(tasks)
    drawn_only = list(plan({}, LEVELS, limit).tasks())
    assert len({identity(task) for task in drawn_only}) == limit


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=8, unique=True),
    st.text("xyz", min_size=1, max_size=3),
    st.data(),
)
def test_an_inserted_row_leaves_every_other_alone(values: list[str], new: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values)))
    other = data.draw(words)
    before = plan({"a": values, "b": other}, LEVELS)
    after = plan({"a": [*values[:place], new, *values[place:]], "b": other}, LEVELS)
    left = [task for task in after.tasks() if task.values["a"] != new]
    assert [(identity(task), task.values) for task in left] == [
        (identity(task), task.values) for task in before.tasks()
    ]


@given(words)
def test_more_passes_change_nothing_of_the_first(values: list[str]) -> None:
    once = list(plan({"a": values}, LEVELS).tasks())
    longer = plan({"a": values}, LEVELS, limit=3 * len(values) + 1)
    assert list(islice(longer.tasks(), len(once))) == once


def test_passes_draw_anew() -> None:
    tasks = list(plan({"a": ["x"]}, {"n": list(range(1000))}, limit=50).tasks())
    assert len({task.values["n"] for task in tasks}) > 40


def test_draws_of_two_fields_are_independent() -> None:
    tasks = list(plan({}, {"a": [0, 1], "b": [0, 1]}, limit=2000).tasks())
    counts = Counter((task.values["a"], task.values["b"]) for task in tasks)
    # 4 standard deviations of a binomial of 2000 at 1/4
    assert all(abs(count - 500) < 78 for count in counts.values())
    assert len(counts) == 4


def test_weights_are_kept_to_and_the_seed_moves_the_draws() -> None:
    tasks = list(plan({}, {"level": {"easy": 0.6, "hard": 0.3, "rare": 0.1}}, limit=4000).tasks())
    counts = Counter(task.values["level"] for task in tasks)
    for level, share in (("easy", 0.6), ("hard", 0.3), ("rare", 0.1)):
        assert abs(counts[level] - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5
    made = plan({}, {"n": list(range(100))}, limit=50)
    moved = Plan(8, made.rows, made.choices, made.limit)
    assert [task.values for task in moved.tasks()] != [task.values for task in made.tasks()]


def test_a_plan_without_an_end_goes_on() -> None:
    made = Plan(1, {"a": list_rows(ValuesSeed(values=["x", "y"]))}, {}, None)
    assert [(task.values["a"], task.repeat) for task in islice(made.tasks(), 5)] == [
        ("x", 0), ("y", 0), ("x", 1), ("y", 1), ("x", 2),
    ]  # fmt: skip


def test_sources_are_those_of_files_drawn_ones_too(tmp_path: Path) -> None:
    seeds = {
        "doc": {"path": "data/docs.jsonl", "field": "text"},
        "shot": {"path": "data/docs.jsonl", "field": "text", "sample": True},
        "n": [1],
    }
    found = loaded(tmp_path, recipe(seeds=seeds), rows=docs(4))
    tasks = list(found.plan.tasks())
    assert len(tasks) == 4
    for place, task in enumerate(tasks):
        by_seed = {source["seed"]: source for source in task.sources}
        assert set(by_seed) == {"doc", "shot"}
        assert by_seed["doc"]["row"] == place + 1
        assert task.values["shot"] == f"document number {by_seed['shot']['row'] - 1}"


def test_the_digest_knows_the_seeds_name() -> None:
    (one,), (two,) = plan({"a": ["x"]}).tasks(), plan({"b": ["x"]}).tasks()
    assert one.digest != two.digest
