"""Samplers: inside what they say, as likely as they say, and moved by nothing but their own key."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections import Counter
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthgen import load
from synthgen.audit.replay import replay
from synthgen.audit.verify import verify
from synthgen.digests import value_digest
from synthgen.samplers import Several
from synthgen.seeds import Draw, SeedRow
from tests.support import FakeEngine, docs, jsonl, problems, project, recipe, run_it, write

DOC = {"path": "data/docs.jsonl", "field": "text"}
TREE = {
    "science": {"_weight": 3, "physics": ["optics", "heat"], "biology": {"cells": 3, "plants": 1}},
    "arts": None,
}
ALL: dict[str, Any] = {
    "doc": DOC,
    "age": {"int": {"min": -3, "max": 7}},
    "height": {"float": {"min": 1.5, "max": 2, "digits": 2}},
    "score": {"float": {"mean": 100, "sd": 15, "digits": 0, "min": 55, "max": 145}},
    "tail": {"float": {"mean": 0, "sd": 1, "min": -100, "max": -1}},
    "day": {"date": {"from": "2023-12-30", "to": "2024-03-01"}},
    "level": {"choice": {"easy": 0.6, "hard": 0.4}},
    "count": {"by": "level", "cases": {"easy": {"int": {"min": 1, "max": 3}}, "hard": {"choice": ["many"]}}},
    "topic": {"taxonomy": TREE},
    "line": {"text": "{{ level }} {{ topic.leaf }} on {{ day }} of {{ doc }}"},
}


def tasks(root: Path, seeds: dict[str, Any], rows: Any = 300, **more: Any) -> list[Any]:
    return list(load(project(root, recipe(seeds=seeds, **more), rows=rows)).plan.tasks())


def near(count: int, draws: int, share: float) -> bool:
    """Whether so many draws of a share are within four standard errors of it."""
    return abs(count - draws * share) < 4 * (draws * share * (1 - share)) ** 0.5


def test_every_sampler_is_inside_its_bounds(tmp_path: Path) -> None:
    made = tasks(tmp_path, ALL, 2000)
    assert {task.values["age"] for task in made} == set(range(-3, 8))
    heights = [task.values["height"] for task in made]
    assert 1.5 <= min(heights) < 1.52 < 1.98 < max(heights) <= 2
    scores = [task.values["score"] for task in made]
    assert 55 <= min(scores) <= max(scores) <= 145
    assert all(isinstance(score, int) for score in scores)
    normal = NormalDist(100, 15)
    for bound in (80, 92, 100, 108, 120):  # a uniform one has the same bounds and mean
        share = (normal.cdf(bound + 0.5) - normal.cdf(55)) / (normal.cdf(145) - normal.cdf(55))
        assert near(sum(score <= bound for score in scores), 2000, share)
    assert -5 < min(task.values["tail"] for task in made) < -2.5
    assert max(task.values["tail"] for task in made) <= -1
    days = {datetime.date.fromisoformat(task.values["day"]) for task in made}
    assert (min(days), max(days), len(days)) == (datetime.date(2023, 12, 30), datetime.date(2024, 3, 1), 63)
    for task in made:
        many = task.values["level"] == "hard"
        assert task.values["count"] in (["many"] if many else [1, 2, 3])
        assert task.values["line"].startswith(f"{task.values['level']} {task.values['topic']['leaf']} on ")
    leaves = Counter(task.values["topic"]["path"] for task in made)
    shares = {"arts": 1 / 4, "science / physics / optics": 3 / 16, "science / physics / heat": 3 / 16,
              "science / biology / cells": 9 / 32, "science / biology / plants": 3 / 32}  # fmt: skip
    assert set(leaves) == set(shares)
    for leaf, share in shares.items():
        assert near(leaves[leaf], 2000, share)
    assert made[0].values["topic"]["levels"][-1] == made[0].values["topic"]["leaf"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(st.integers(0, 20))
def test_an_inserted_row_leaves_every_other_draw_alone(tmp_path: Path, place: int) -> None:
    rows = docs(20)
    before = {task.values["doc"]: task.values for task in tasks(tmp_path, ALL, rows)}
    after = tasks(tmp_path, ALL, [*rows[:place], {"text": "new"}, *rows[place:]])
    assert {task.values["doc"]: task.values for task in after if task.values["doc"] != "new"} == before


def test_few_shot_examples_are_different_and_never_the_tasks_own(tmp_path: Path) -> None:
    rows = [{"text": f"t{n % 12}", "n": n % 12} for n in range(15)]  # some twice
    made = tasks(tmp_path, {"doc": DOC, "shots": {"path": "data/docs.jsonl", "n": 3}}, rows)
    for task in made:
        shown = [shot["text"] for shot in task.values["shots"]]
        assert len(set(shown)) == 3
        assert task.values["doc"] not in shown or rows.count({"text": task.values["doc"], "n": None}) == 0
        named = [source for source in task.sources if source["seed"] == "shots"]
        assert [source["sha256"] for source in named] == [value_digest(s).hex() for s in task.values["shots"]]
        own = next(source for source in task.sources if source["seed"] == "doc")
        assert all(source["row"] != own["row"] for source in named)
    assert len({tuple(shot["text"] for shot in task.values["shots"]) for task in made}) > 10
    assert made == tasks(tmp_path, {"doc": DOC, "shots": {"path": "data/docs.jsonl", "n": 3}}, rows)


def pool(names: list[str]) -> list[SeedRow]:
    return [
        SeedRow(name, value_digest(name), {"path": "pool", "row": number, "sha256": value_digest(name).hex()})
        for number, name in enumerate(names, 1)
    ]


@given(
    st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=4, max_size=40, unique=True),
    st.binary(max_size=8),
)
def test_a_row_put_into_the_pool_changes_only_the_draws_it_comes_into(names: list[str], task: bytes) -> None:
    before = Several(pool(names), 3).pick(Draw(7, "shots", task, 0)).value
    after = Several(pool(["NEW", *names]), 3).pick(Draw(7, "shots", task, 0)).value
    assert after == before if "NEW" not in after else [name for name in after if name != "NEW"] == before[:2]


def test_every_row_of_a_pool_is_drawn_as_often() -> None:
    few = Several(pool([f"row {n}" for n in range(10)]), 2)
    counts = Counter(name for n in range(3000) for name in few.pick(Draw(7, "s", b"%d" % n, 0)).value)
    assert all(near(count, 3000, 0.2) for count in counts.values())
    assert len(counts) == 10


def test_a_taxonomy_in_a_file_has_a_source(tmp_path: Path) -> None:
    write(tmp_path, {"data/topics.yaml": "maths: [sets, graphs]\narts: {music: 2, dance: 1}\n"})
    seeds = {"doc": DOC, "topic": {"taxonomy": "data/topics.yaml", "licence": "CC0-1.0"}}
    made = tasks(tmp_path, seeds, 50)
    sources = {task.values["topic"]["path"]: task.sources[1] for task in made}
    assert set(sources) == {"maths / sets", "maths / graphs", "arts / music", "arts / dance"}
    assert sources["arts / music"] == {
        "seed": "topic", "path": "data/topics.yaml", "row": 3, "licence": "CC0-1.0",
        "sha256": value_digest({"path": "arts / music", "leaf": "music", "levels": ["arts", "music"]}).hex(),
    }  # fmt: skip


def test_what_is_drawn_is_proven_and_drawn_again(tmp_path: Path) -> None:
    write(tmp_path, {"data/topics.yaml": "maths: [sets, graphs]\n"})
    seeds = {**ALL, "area": {"taxonomy": "data/topics.yaml"}, "shots": {"path": "data/docs.jsonl", "n": 2}}
    result = run_it(load(project(tmp_path, recipe(seeds=seeds), rows=12)), directory=tmp_path / "runs" / "a")
    assert (result.kept, result.failed) == (12, 0)
    assert verify(result.dir).intact
    found = replay(result.dir, sample=99, project=tmp_path)
    assert found.exit_code == 0, found
    assert "data/topics.yaml" in (result.dir / "recipe.lock.yaml").read_text()


def test_a_choice_that_was_changed_in_the_journal_is_found(tmp_path: Path) -> None:
    from synthgen.audit.recorded import RecordedRun
    from synthgen.audit.transcript import transcript

    run = run_it(load(project(tmp_path, recipe(seeds=ALL), rows=3)), directory=tmp_path / "runs" / "a")
    lock = run.dir / "recipe.lock.yaml"
    lock.write_text(lock.read_text().replace("max: 7", "max: 900"))
    recorded = RecordedRun(run.dir, tmp_path)
    found = [transcript(recorded, *recorded.record(id)) for id in recorded.ids()]
    assert any("fields.age: is not what is drawn" in said for each in found for said in each.differs)


def test_a_text_that_cannot_be_rendered_fails_its_task_alone(tmp_path: Path) -> None:
    seeds = {"doc": {"path": "data/docs.jsonl"}, "line": {"text": "{{ 6 // doc.n }}"}}
    said = recipe(seeds=seeds, steps=[{"answer": {"prompt": {"user": "{{ line }}"}}}],
                  record={"messages": [{"user": "{{ line }}"}, {"assistant": "{{ answer }}"}]})  # fmt: skip
    result = run_it(load(project(tmp_path, said, rows=[{"n": 1}, {"n": 0}, {"n": 3}])), FakeEngine())
    assert (result.kept, result.failed) == (2, 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"int": {"min": 3, "max": 1}}, "above max"),
        ({"int": {"min": 0, "max": 10**18}}, "or less"),
        ({"int": {"min": -(2**53) + 1, "max": 2**53 - 1}}, "wider than"),
        ({"float": {"min": 1}}, "give `min:` and `max:`"),
        ({"float": {"mean": 1}}, "`mean:` and `sd:`"),
        ({"float": {"mean": 0, "sd": 1, "min": 50}}, "billionth"),
        ({"float": {"mean": 0, "sd": 1, "max": -7, "min": -8}}, "billionth"),
        ({"float": {"min": 2, "max": 1}}, "not below max"),
        ({"date": {"from": "2024-02-30", "to": "2024-03-01"}}, "date"),
        ({"date": {"from": "2024-03-02", "to": "2024-03-01"}}, "after to"),
        ({"taxonomy": {}}, "nothing beneath"),
        ({"taxonomy": {"a": {"b": -1}}}, "no weight"),
        ({"taxonomy": ["a", "a"]}, "twice"),
        ({"taxonomy": {"a": True}}, "no weight"),
        ({"taxonomy": "data/none.yaml"}, "there is no file"),
        ({"taxonomy": "../none.yaml"}, "leads out of the project"),
        ({"text": "{{ nothing }}"}, "'nothing', which is not defined"),
        ({"text": "{{ later }}"}, "'later', which is not defined"),
        ({"by": "nothing", "cases": {"a": {"choice": [1]}}}, "there is no seed 'nothing'"),
        ({"by": "later", "cases": {"a": {"choice": [1]}}}, "there is no seed 'later' before"),
        ({"by": "doc", "cases": {"a": {"choice": [1]}}}, "has to be an `otherwise:`"),
        ({"by": "tone", "cases": {"dry": {"choice": [1]}}}, "no case for 'warm'"),
        ({"by": "tone", "cases": {"dry": {"choice": [1]}, "warm": {"choice": [1]}, "wram": {"choice": [1]}}},
         "never 'wram'"),
        ({"path": "data/docs.jsonl", "n": 5}, "5 different rows, too few for 5 besides"),
        ({"chioce": [1]}, "unknown key 'chioce'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_with_its_line(
    tmp_path: Path, spec: dict[str, Any], message: str
) -> None:
    seeds = {"doc": DOC, "tone": ["dry", "warm"], "x": spec, "later": {"choice": ["a"]}}
    found = problems(project(tmp_path, recipe(seeds=seeds)))
    assert any(message in problem.message for problem in found), found
    assert all(problem.line is not None for problem in found)


def test_people_follow_from_the_key(tmp_path: Path) -> None:
    pytest.importorskip("faker")
    seeds = {"doc": DOC, "who": {"faker": ["name", "city"], "locale": "de_DE"}, "job": {"faker": "job"}}
    made = tasks(tmp_path, seeds, 20)
    assert [task.values for task in made] == [task.values for task in tasks(tmp_path, seeds, 20)]
    assert len({task.values["who"]["name"] for task in made}) > 15
    result = run_it(load(project(tmp_path, recipe(seeds=seeds), rows=3)), directory=tmp_path / "runs" / "a")
    assert "made up by faker" in (result.dir / "dataset" / "README.md").read_text()
    assert replay(result.dir, sample=9, project=tmp_path).exit_code == 0
    shorter = tasks(tmp_path, seeds, docs(10, start=5))
    by_doc = {task.values["doc"]: task.values for task in made}
    assert all(by_doc[task.values["doc"]] == task.values for task in shorter)
    for spec, message in [
        ({"faker": "binary"}, "nothing that is made up"), ({"faker": "__class__"}, "nothing that is made up"),
        ({"faker": "name", "locale": "xx_YY"}, "no locale"),
        ({"faker": "name", "locale": "../x"}, "no locale"),
    ]:  # fmt: skip
        (found,) = problems(project(tmp_path, recipe(seeds={"doc": DOC, "who": spec})))
        assert message in found.message


def test_without_faker_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faker", None)
    (found,) = problems(project(tmp_path, recipe(seeds={"doc": DOC, "who": {"faker": "name"}})))
    assert "synthgen-data[faker]" in found.message


def test_rows_of_a_finished_dataset_are_seeds(tmp_path: Path) -> None:
    first = run_it(load(project(tmp_path, rows=6)), directory=tmp_path / "data" / "first")
    seeds = {"row": {"path": "data/first/dataset", "split": "train"}}
    said = recipe(
        name="b",
        seeds=seeds,
        steps=[{"answer": {"prompt": {"user": "{{ row.messages[1].content }}"}}}],
        record={"messages": [{"user": "{{ row.messages[0].content }}"}, {"assistant": "{{ answer }}"}]},
    )
    result = run_it(load(project(tmp_path, said, name="b", rows=0)))
    assert result.kept == first.kept == 6
    write(tmp_path, {"hub/data/train-00000-of-00001.jsonl": jsonl(docs(4)), "hub/README.md": "# a card\n"})
    assert len(tasks(tmp_path, {"doc": {"path": "hub", "split": "train", "field": "text"}})) == 4


def test_the_personas_are_two_hundred_and_all_different() -> None:
    lines = (Path(__file__).parent.parent / "recipes" / "data" / "personas.jsonl").read_text().splitlines()
    personas = [json.loads(line)["persona"] for line in lines]
    assert len({persona.lower() for persona in personas}) == 200
    assert all(20 < len(persona) < 120 and persona.endswith(".") for persona in personas)


def test_a_recipe_of_before_gives_the_bytes_of_before(tmp_path: Path) -> None:
    """Written by the version that knew files, lists and choices alone."""
    seeds = {
        "doc": {"path": "data/docs.jsonl", "field": "text", "licence": "CC0-1.0"},
        "shot": {"path": "data/docs.jsonl", "field": "text", "sample": True},
        "page": {"path": "data/*.md"},
        "level": {"choice": {"easy": 0.6, "hard": 0.4}},
        "tone": ["dry", "warm"],
    }
    text = "{{ doc }} {{ shot }} {{ page.text }} {{ level }} {{ tone }}"
    said = recipe(seeds=seeds, steps=[{"answer": {"prompt": {"user": text}}}])
    files = {"data/a.md": "# A\n", "data/b.md": "# B\n\ntext"}
    result = run_it(load(project(tmp_path, said, rows=6, files=files)), directory=tmp_path / "runs" / "a")
    found = {
        name: hashlib.sha256((result.dir / "dataset" / "provenance" / name).read_bytes()).hexdigest()[:16]
        for name in ("ledger.jsonl", "train.jsonl")
    }
    assert found == {"ledger.jsonl": "1b91ab1edb3c58fe", "train.jsonl": "1d07b39e9e8c094d"}
