"""Growth: kept records become rows of their own seeds, in rounds that see earlier verdicts alone."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthgen.audit.place import place_of
from synthgen.audit.recorded import RecordedRun
from synthgen.audit.trace import trace
from synthgen.audit.transcript import transcript
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.engines.base import Request
from synthgen.growth import Added, Grown, Growth
from synthgen.journal_entries import RecordEntry
from synthgen.journal_reading import open_for_reading, stored_records
from synthgen.plan import Plan, Task
from synthgen.prompt import Expression
from synthgen.recurate import recurate
from synthgen.rounds import Fate
from synthgen.samplers import Several
from synthgen.seeds import ListRows, SeedRow, value_digest
from synthgen.stopping import Stop
from tests.support import FakeEngine, adds_up, loaded, no_more_than, problems, project, read_jsonl

from tests.support import recipe, run_it, tree  # isort: skip


def evolving(**parts: Any) -> dict[str, Any]:
    """Each instruction is made harder, and what is kept of that again."""
    said: dict[str, Any] = {
        "seeds": {"row": {"path": "data/docs.jsonl"}},
        "steps": [{"harder": {"prompt": {"user": "Make harder: {{ row.text }}"}}}],
        "record": {"messages": [{"user": "{{ row.text }}"}, {"assistant": "{{ harder }}"}]},
        "filters": [{"words": {"min": 2}}],
        "grow": {"row": {"add": "{'text': harder}", "depth": 4}},
        "round": 7,
    }
    return recipe(**(said | parts))


def harder(request: Request) -> str:
    """What is asked for with one more word; one in eight is a single word, and dropped."""
    asked = request.messages[-1]["content"].removeprefix("Make harder: ")
    return "no" if int(request.key[:2], 16) < 32 else f"{asked} and {request.key[:4]}"


def stored(directory: Path) -> list[tuple[RecordEntry, bytes | None]]:
    with closing(open_for_reading(directory)) as journal:
        return list(stored_records(journal, 1))


def made(directory: Path) -> list[dict[str, Any]]:
    stated = read_jsonl(directory / "dataset" / "provenance" / "train.jsonl")
    rows = {row["id"]: row for row in read_jsonl(directory / "dataset" / "train.jsonl")}
    return [{**each, "messages": rows[each["id"]]["messages"]} for each in stated]


def test_what_is_kept_is_made_harder_again(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, evolving(), rows=10), FakeEngine(harder))
    assert result.outcome == "done"
    assert adds_up(result)
    records = {each["id"]: each for each in made(result.dir)}
    generations: Counter[int] = Counter()
    for each in records.values():
        [source] = each["sources"]
        question = each["messages"][0]["content"]
        assert question.count(" and ") == source.get("generation", 0)
        generations[1 + source.get("generation", 0)] += 1
        if "record" in source:
            parent = records[source["record"]]
            assert parent["messages"][1]["content"] == question
            assert parent["task"] < each["task"]
        else:
            assert source["path"] == "data/docs.jsonl"
    assert sorted(generations) == [1, 2, 3, 4]
    told = result.as_json()["growth"]
    assert told["kept_by_generation"] == {str(n): count for n, count in sorted(generations.items())}
    assert told["seeds"] == {"row": {"added": sum(generations.values()) - generations[4], "refused": {}}}
    # Each row once: those of the file, and each record that was kept and is not of the last generation.
    assert result.planned == 10 + told["seeds"]["row"]["added"]
    assert run_it(loaded(tmp_path, evolving(), rows=10)).growth == result.growth


def test_a_target_goes_through_the_file_again_where_nothing_else_is_left(tmp_path: Path) -> None:
    said = evolving(target=60, grow={"row": {"add": "{'text': harder}", "depth": 2}})
    result = run_it(loaded(tmp_path, said, rows=5), FakeEngine(harder))
    assert (result.kept, result.outcome) == (60, "done")
    ids = [each["id"] for each in made(result.dir)]
    assert len(set(ids)) == len(ids)
    short = run_it(
        loaded(tmp_path / "once", said | {"passes": 1, "name": "once"}, rows=5), FakeEngine(harder)
    )
    assert short.outcome == "short"
    assert short.kept < 10
    assert short.pending == 0


def instructing(**parts: Any) -> dict[str, Any]:
    """New instructions after examples, of which two of five may be the run's own."""
    said: dict[str, Any] = {
        "seeds": {"examples": {"path": "data/docs.jsonl", "n": 5}},
        "steps": [{"new": {"prompt": {"user": "{{ examples | map(attribute='text') | join('; ') }}"}}}],
        "record": {"messages": [{"user": "{{ new }}"}, {"assistant": "yes"}]},
        "filters": [{"regex": {"of": "instruction", "pattern": "new [0-9a-e]", "min": 1, "max": 9}}],
        "grow": {"examples": {"add": "{'text': new}", "most": 2}},
        "round": 8,
        "tasks": 60,
    }
    return recipe(**(said | parts))


def new(request: Request) -> str:
    return f"new {request.key[:6]}"


def test_examples_are_drawn_from_what_was_kept_too(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, instructing(), rows=12), FakeEngine(new))
    records = made(result.dir)
    ids = {each["id"] for each in records}
    own = []
    for each in records:
        assert len(each["sources"]) == 5
        grown = [source for source in each["sources"] if "record" in source]
        assert len(grown) <= 2
        assert {source["record"] for source in grown} <= ids
        own.append(len(grown))
        tasks = {other["id"]: other["task"] for other in records}
        assert all(tasks[source["record"]] // 8 < each["task"] // 8 for source in grown)
    assert set(own[:7]) == {0}
    assert 2 in own
    assert result.planned == 60


@pytest.mark.parametrize("slots", [1, 3, 64])
@pytest.mark.parametrize("given", [evolving(), instructing()], ids=["evolving", "instructing"])
def test_the_same_bytes_in_whatever_order_answers_come(
    tmp_path: Path, slots: int, given: dict[str, Any]
) -> None:
    how = harder if "target" in given or "depth" in str(given) else new
    ready = loaded(tmp_path, given, rows=15)
    here = run_it(ready, FakeEngine(how), directory=tmp_path / "here")
    engine = FakeEngine(how, slots=slots, shuffle=random.Random(slots))
    there = run_it(ready, engine, directory=tmp_path / "there")
    assert tree(here.dir / "dataset") == tree(there.dir / "dataset")


@pytest.mark.parametrize("answered", [1, 6, 7, 8, 21, 40])
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, answered: int) -> None:
    given = loaded(tmp_path, evolving(), rows=15)
    whole = run_it(given, FakeEngine(harder), directory=tmp_path / "whole")
    cancel = Stop()
    engine = FakeEngine(no_more_than(answered, cancel, harder))
    parts = tmp_path / "parts"
    assert run_it(given, engine, directory=parts, cancel=cancel).outcome == "interrupted"
    rest = FakeEngine(harder)
    result = run_it(given, rest, directory=parts)
    assert tree(parts / "dataset") == tree(whole.dir / "dataset")
    assert set(rest.keys).isdisjoint(engine.answered)
    assert result.growth == whole.growth


def test_what_cannot_be_added_is_told(tmp_path: Path) -> None:
    said = evolving(
        grow={"row": {"add": "{'text': harder} if harder.split() | length > 3 else 1 // 0"}}, tasks=40
    )
    result = run_it(loaded(tmp_path, said, rows=12), FakeEngine(lambda request: "two words"))
    told = result.as_json()["growth"]["seeds"]["row"]
    assert told["added"] == 0
    [(reason, count)] = told["refused"].items()
    assert "cannot be rendered" in reason
    assert count == result.kept == 40


@pytest.mark.parametrize(
    ("add", "reason"),
    [("harder", "no mapping, as the seed's rows are (`text`"), ("{'txt': harder}", "none of the fields")],
)
def test_a_row_of_another_form_is_not_added_but_told(tmp_path: Path, add: str, reason: str) -> None:
    said = evolving(grow={"row": {"add": add, "depth": 2}})
    result = run_it(loaded(tmp_path, said, rows=9), FakeEngine(harder))
    told = result.growth["seeds"]["row"]
    assert (result.failed, told["added"], result.planned) == (0, 0, 9)
    assert sum(count for said, count in told["refused"].items() if reason in said) == result.kept


def test_null_adds_nothing(tmp_path: Path) -> None:
    said = evolving(grow={"row": {"add": "none", "depth": 3}})
    result = run_it(loaded(tmp_path, said, rows=12), FakeEngine(harder))
    assert (result.planned, result.growth["seeds"]["row"]) == (12, {"added": 0, "refused": {}})


def test_curating_says_that_it_chooses_no_seeds(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, evolving(), rows=6), FakeEngine(harder))
    notes: list[str] = []
    recurate(result.dir, ["words.min=3"], on_notice=notes.append)
    assert any("`grow:`" in note for note in notes)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"grow": {"rows": "row"}}, "`rows` is no seed"),
        ({"grow": {"row": "harder.text.x("}}, "not a valid expression"),
        ({"grow": {"row": "{{ harder }}"}}, "an expression stands without `{{ }}`"),
        ({"grow": {"row": "hardest"}}, "'hardest'"),
        ({"grow": {"row": "{'text': harder}"}}, "nothing says when growth ends"),
        ({"grow": {"row": {"add": "row", "depth": 0}}}, "has to be 1 or more"),
        ({"grow": {"row": {"add": "row", "depth": 2, "most": 1}}}, "`most:` is for a seed with `n:`"),
        ({"grow": {"row": {"depth": 2}}}, "add"),
        ({"grow": None}, "`round:` is the size of the rounds of `balance:` and `grow:`"),
        ({"balance": {"row.text": {"a": 1}}, "target": 5}, "either `balance:` or `grow:`"),
        ({"seeds": {"row": {"path": "data/docs.jsonl"}, "other": ["a", "b"]}}, "together with other seeds"),
        ({"seeds": {"row": {"choice": [{"text": "a"}, {"text": "b"}]}}, "tasks": 3}, "has no rows to add to"),
    ],
)
def test_mistakes_point_at_their_line(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    found = problems(project(tmp_path, evolving(**parts)))
    assert any(message in problem.message for problem in found), found
    assert all(problem.line and problem.line > 1 for problem in found)


def test_most_is_of_what_is_drawn(tmp_path: Path) -> None:
    said = instructing(grow={"examples": {"add": "{'text': new}", "most": 6}})
    [problem] = problems(project(tmp_path, said))
    assert "a task draws 5 rows" in problem.message


def test_an_unknown_key_names_those_of_growth(tmp_path: Path) -> None:
    found = problems(project(tmp_path, evolving(grow={"row": {"add": "row", "dept": 2}})))
    assert [(problem.message, problem.hint) for problem in found] == [
        ("unknown key 'dept'", "did you mean 'depth'?")
    ]


def test_what_grew_from_a_row_descends_from_it(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, evolving(), rows=10), FakeEngine(harder))
    place = place_of(result.dir)
    records = {each["id"]: each for each in made(result.dir)}

    def root(id: str) -> Any:
        [source] = records[id]["sources"]
        return root(source["record"]) if "record" in source else (source["row"], id)

    row, first = next(root(id) for id, each in records.items() if "record" in each["sources"][0])
    traced = trace(place, f"data/docs.jsonl:{row}")
    assert set(traced.ids["kept"]) == {id for id in records if root(id)[0] == row}
    assert len(traced.ids["kept"]) > 1
    assert trace(place, f"record:{first}").ids == traced.ids
    assert trace(place, first).kind == "record"


def rows_of(texts: str) -> list[SeedRow]:
    values = [{"text": text} for text in texts]
    return [SeedRow(value, value_digest(value), {"path": "a", "row": n}) for n, value in enumerate(values, 1)]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.text("ab", min_size=3, max_size=12),
    size=st.integers(1, 9),
    depth=st.integers(1, 4),
    drawn=st.booleans(),
    dice=st.randoms(use_true_random=False),
    stops=st.integers(0, 60),
)
def test_the_law_of_growth(
    texts: str, size: int, depth: int, drawn: bool, dice: random.Random, stops: int
) -> None:
    """No task twice, none of a row that is not there yet; told the same again, it goes the same way."""
    rows = rows_of(texts)
    through, pool = {"row": ListRows(rows)}, {"row": Several(rows, 1)}
    plan = Plan(7, {}, pool, 60) if drawn else Plan(7, through, {}, None)
    grown = Grown({"row": Added(Expression("{'text': made}"), depth, None)}, size, 1)
    growth = Growth(plan, grown)
    told: list[Fate] = []
    order: list[Task] = []
    kept: dict[str, int] = {}  # of each record that may be taken up, its round
    turn = 0
    while growth.limit is None and len(order) < 200:
        joined: dict[str, int] = {}
        for task in growth.tasks(len(order)):
            assert task.index == len(order)
            order.append(task)
            [source] = task.sources
            if "record" in source:
                assert source["record"] in kept
                assert 0 < source["generation"] < depth
            for branch in range(dice.randrange(3)):
                fields = {"made": dice.choice("abcd") * dice.randrange(1, 3)}
                id = f"{task.index}.{branch}"
                fate = Fate(task.index, id, dice.random() < 0.5, orjson.dumps({"fields": fields}))
                told.append(fate)
                growth.tell(fate)
                if fate.kept and source.get("generation", 0) + 1 < depth:
                    joined[id] = turn
        kept |= joined
        turn += 1
        growth.go_on()
    assert len({(task.digest, task.repeat) for task in order}) == len(order)
    if not drawn and growth.limit is not None:
        assert Counter(task.sources[0].get("record") for task in order) == Counter(
            {None: len(rows), **dict.fromkeys(kept, 1)}
        )

    again = Growth(plan, grown)
    again.recall(fate for fate in told if fate.task < stops)
    for task in again.tasks(again.open - len(again._round)):
        if task.index < min(stops, len(order)):
            assert task == order[task.index]


def test_a_grown_run_is_replayed_verified_and_exported(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, evolving(), rows=10), FakeEngine(harder))
    assert verify(result.dir).intact
    run = RecordedRun(result.dir)
    grown = [each["id"] for each in made(result.dir) if "record" in each["sources"][0]]
    for id in run.ids():
        found = transcript(run, *run.record(id))
        assert (found.differs, found.unjudged) == ([], [])
    entry, body = run.record(grown[0])
    other = {**entry.sources[0], "record": grown[-1]}
    assert transcript(run, replace(entry, sources=[other]), body).differs
    run.close()
    columns = pq.read_table(next((result.dir / "dataset" / "provenance").glob("*.parquet"))).to_pylist()
    assert {row["id"] for row in columns if row["sources"][0]["record"]} == set(grown)
    for form in ("prov", "csv", "croissant"):
        done = CliRunner().invoke(app, ["audit", "export", str(result.dir), form])
        assert done.exit_code == 0, done.output
    prov = orjson.loads(CliRunner().invoke(app, ["audit", "export", str(result.dir), "prov"]).output)
    used = Counter(
        each["prov:usedEntity"]
        for each in prov["wasDerivedFrom"].values()
        if each["prov:usedEntity"].startswith("record:")
    )
    entries = [entry for entry, _ in stored(result.dir)]
    assert used == Counter(
        f"record:{source['record']}" for entry in entries for source in entry.sources if "record" in source
    )
