"""The language of steps: answers with a form, fans, conditions, lists, and the rows that are made of them."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthgen import driver, engines
from synthgen import recurate as recuration
from synthgen.api import load
from synthgen.audit.croissant import croissant
from synthgen.audit.erase import erase
from synthgen.audit.history import history
from synthgen.audit.material import Material
from synthgen.audit.place import place_of
from synthgen.audit.replay import replay
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.counting import Counts
from synthgen.engines.base import Completion, Request, RequestFailed
from synthgen.errors import RecipeError, RunError
from synthgen.record import Record
from synthgen.recurate import recurate
from synthgen.steps import path_of
from synthgen.view import RunView
from synthgen.workers import InProcess
from tests.support import (
    FakeEngine,
    adds_up,
    answer_of,
    loaded,
    no_more_than,
    problems,
    project,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

CARD = {
    "type": "object",
    "properties": {
        "topic": {"enum": ["rivers", "bread"]},
        "facts": {"type": "array", "items": {"type": "object", "properties": {"text": {"type": "string"}}}},
    },
    "required": ["topic", "facts"],
    "additionalProperties": False,
}
SCORE = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
USER = {"user": "Tell me of {{ doc }}"}
CUT = "(it was cut at max_tokens)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (driver, recuration):
        monkeypatch.setattr(place, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)


def answered(request: Request) -> str:
    """Under a schema a value that follows from the request, else a text that does."""
    chance = random.Random(request.key)
    if request.schema is None:
        return answer_of(request)
    if "score" in request.schema["properties"]:
        return json.dumps({"score": chance.randint(0, 9)})
    facts = [{"text": f"fact {chance.randint(0, 99)}"} for _ in range(chance.randint(1, 4))]
    return json.dumps({"topic": chance.choice(["rivers", "bread"]), "facts": facts})


def one(root: Path, steps: list[Any], record: dict[str, Any], answer: Any = answered, **more: Any) -> Any:
    """A run of these steps: its result, its rows and its engine."""
    engine = FakeEngine(answer)
    said = recipe(steps=steps, record=record, **more.pop("recipe", {}))
    result = run_it(loaded(root, said, **{"rows": 2, **more}), engine, directory=root / "runs" / "a")
    assert adds_up(result)
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl") if (result.dir / "dataset").exists() else []
    return result, rows, engine


def all_follow(directory: Path) -> None:
    """Every record is computed again from the raw answers, and the files are what was signed."""
    found = replay(directory, sample=10_000)
    assert [(each.id, each.transcript.differs) for each in found.records if each.transcript.differs] == []
    assert found.transcripts["replayed"] == len(found.records) > 0
    assert verify(directory).findings.shown == []


def outputs(directory: Path) -> dict[str, bytes]:
    names = ("dataset/", "dropped", "failed")
    return {name: data for name, data in tree(directory).items() if name.startswith(names)}


# Structured output


def test_a_steps_own_schema_is_decoded_under_and_its_parts_go_where_they_are_named(tmp_path: Path) -> None:
    steps = [
        {"card": {"prompt": USER, "output": CARD}},
        {"answer": {"prompt": {"user": "{{ card.facts[0].text }} of {{ card.topic }}?"}}},
    ]
    record = {"messages": [{"user": "{{ card.topic }}"}, {"assistant": "{{ answer }}"}]}
    result, rows, engine = one(tmp_path, steps, record)
    assert {json.dumps(request.schema) for request in engine.asked} == {json.dumps(CARD), "null"}
    asked = {request.messages[-1]["content"] for request in engine.asked}
    assert all(row["messages"][0]["content"] in ("rivers", "bread") for row in rows)
    assert sum("fact" in text and " of " in text for text in asked) == 2
    all_follow(result.dir)


def test_a_steps_schema_takes_the_place_of_its_prompts(tmp_path: Path) -> None:
    steps = [{"card": {"prompt": {**USER, "output": CARD}, "output": SCORE}}]
    result, rows, _ = one(tmp_path, steps, {"score": "{{ card.score }}"})
    assert all(row["score"].isdecimal() for row in rows)
    all_follow(result.dir)


def wrong_at_first(times: int) -> Any:
    """An answer under a schema is wrong so many times, each time otherwise."""

    def given(request: Request) -> Any:
        attempt = (len(request.messages) - 1) // 2
        if request.schema is None or attempt or times == 0:
            return answered(request) if times < 2 or request.schema is None else '{"score": "five"}'
        return '{"score": "ten"}'

    return given


def test_an_answer_of_the_wrong_form_is_asked_for_again_with_what_was_wrong(tmp_path: Path) -> None:
    steps = [{"card": {"prompt": USER, "output": SCORE}}]
    result, rows, engine = one(tmp_path, steps, {"score": "{{ card.score }}"}, wrong_at_first(1))
    assert (len(rows), len(engine.asked)) == (2, 4)
    again = [request for request in engine.asked if len(request.messages) > 1]
    assert len(again) == 2
    assert [message["role"] for message in again[0].messages] == ["user", "assistant", "user"]
    assert again[0].messages[1]["content"] == '{"score": "ten"}'
    assert "answer.score must have `type: " in again[0].messages[2]["content"]
    said = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    assert [len(each["requests"]) for each in said] == [2, 2]  # every attempt is the record's
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal:
        bodies = [json.loads(row[0]) for row in journal.execute("SELECT body FROM requests")]
        unusable = journal.execute("SELECT error FROM failures WHERE final = 2").fetchall()
    assert sorted(body["attempt"] for body in bodies) == [0, 0, 1, 1]
    assert len(unusable) == 2
    assert "not valid under its schema" in unusable[0][0]
    all_follow(result.dir)


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_a_record_whose_attempts_are_used_up_has_failed(tmp_path: Path, retries: int) -> None:
    steps = [{"card": {"prompt": USER, "output": SCORE, "retries": retries}}]
    result, _, engine = one(tmp_path, steps, {"score": "{{ card.score }}"}, wrong_at_first(2), rows=1)
    assert (result.failed, len(engine.asked)) == (1, retries + 1)
    [failed] = read_jsonl(result.dir / "failed.jsonl")
    assert len(failed["requests"]) == retries + 1
    times = f"asked {retries + 1} times" if retries else "asked once"
    assert failed["error"] == (
        'step card: the answer is not valid under its schema: answer.score must have `type: "integer"`, '
        + times
    )


def test_without_anything_new_it_is_asked_again_in_the_same_words(tmp_path: Path) -> None:
    steps = [{"card": {"prompt": {**USER, "output": SCORE}}}]
    _, _, engine = one(tmp_path, steps, {"score": "{{ card.score }}"}, lambda _: "no JSON", rows=1)
    assert len({json.dumps(request.messages) for request in engine.asked}) == 1
    assert len({request.key for request in engine.asked}) == 3


def test_a_recipe_that_uses_none_of_it_gives_the_bytes_that_it_gave_before(tmp_path: Path) -> None:
    """Digests of what the version before these steps wrote."""
    from tests.audit.test_replay import SAID, TELL, answer, engine

    result = run_it(
        loaded(tmp_path, SAID, rows=8, files=TELL), engine(answer), directory=tmp_path / "r" / "a"
    )
    digests = {
        name: hashlib.sha256((result.dir / name).read_bytes()).hexdigest()[:16]
        for name in ("dataset/provenance/ledger.jsonl", "dataset/train.jsonl", "dropped.jsonl")
    }
    assert digests == {
        "dataset/provenance/ledger.jsonl": "858cdbda210f6277",
        "dataset/train.jsonl": "a0a1c0a13b24306b",
        "dropped.jsonl": "a17437455505d4a9",
    }
    assert "retries" not in (result.dir / "recipe.lock.yaml").read_text()


# Extraction


@pytest.mark.parametrize(
    ("extract", "text", "field"),
    [
        ({"tag": "answer"}, "<answer>no</answer> or <answer> 42\n</answer>.", "42"),
        ({"tag": ["q", "a"]}, "<q>Why?</q><a>So.</a>", {"q": "Why?", "a": "So."}),
        (
            {"regex": r"(?P<score>\d+)/10: (?P<why>.+)"},
            "I say 7/10: it is fine",
            {"score": "7", "why": "it is fine"},
        ),
        ({"regex": r"Score: (\d+)"}, "Score: 8 of ten", "8"),
        ({"regex": r"\d+"}, "about 12 or 13", "12"),
    ],
)
def test_what_is_taken_out_of_a_text(tmp_path: Path, extract: Any, text: str, field: Any) -> None:
    steps = [{"found": {"prompt": USER, "extract": extract}}]
    result, rows, engine = one(tmp_path, steps, {"found": {"value": "found"}}, lambda _: text)
    assert [row["found"] for row in rows] == [field, field]
    assert {request.schema for request in engine.asked} == {None}
    all_follow(result.dir)


@pytest.mark.parametrize(
    ("extract", "text", "said"),
    [
        ({"tag": "answer"}, "<answer>42", "the answer has no <answer>...</answer> " + CUT),
        ({"tag": "answer"}, "</answer><answer>", "the answer has no <answer>...</answer> " + CUT),
        ({"tag": "answer"}, "<answer> </answer>", "the answer has nothing between <answer> and </answer>"),
        ({"regex": "[0-9]+"}, "none", "the answer does not match the pattern " + CUT),
        ({"regex": "(?P<n>[0-9]*)x"}, "x", "the answer has no 'n' where the pattern looks for it " + CUT),
        ({"tag": "answer"}, " ", "the answer is empty"),
    ],
)
def test_what_cannot_be_taken_out_is_asked_for_again(
    tmp_path: Path, extract: Any, text: str, said: str
) -> None:
    steps = [{"found": {"prompt": USER, "extract": extract, "retries": 1}}]
    result, _, engine = one(
        tmp_path, steps, {"found": "{{ found }}"}, lambda _: Completion(text, "length", 1, 1), rows=1
    )
    assert result.failed == 1
    assert read_jsonl(result.dir / "failed.jsonl")[0]["error"] == f"step found: {said}, asked 2 times"
    assert said[1:] in engine.asked[1].messages[2]["content"]
    assert engine.asked[1].messages[1]["content"] == (text.strip() or "(nothing)")


# Fans


def test_each_sample_is_a_branch_and_each_branch_a_record(tmp_path: Path) -> None:
    steps = [
        {"question": {"prompt": USER, "n": 3}},
        {"answer": {"prompt": {"user": "{{ question }}?"}}},
    ]
    record = {"messages": [{"user": "{{ question }}"}, {"assistant": "{{ answer }}"}]}
    result, rows, engine = one(tmp_path, steps, record)
    assert (result.planned, result.kept, len(engine.asked)) == (6, 6, 12)
    assert len({row["id"] for row in rows}) == len({row["messages"][1]["content"] for row in rows}) == 6
    said = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    assert [(each["task"], each["branch"]) for each in said] == [
        (task, f"00{branch}") for task in range(2) for branch in range(3)
    ]
    asked = [request for request in engine.asked if request.messages[0]["content"].startswith("Tell")]
    assert len({request.seed for request in asked}) == len({request.key for request in asked}) == 6
    assert len({json.dumps(request.messages) for request in asked}) == 2
    all_follow(result.dir)


def test_gathered_samples_are_one_field(tmp_path: Path) -> None:
    steps = [
        {"answers": {"prompt": USER, "n": 4, "gather": True}},
        {
            "grades": {
                "prompt": {"user": "{{ a }}"},
                "foreach": "answers",
                "as": "a",
                "gather": True,
                "output": SCORE,
            }
        },
    ]
    record = {
        "prompt": [{"user": "{{ doc }}"}],
        "chosen": [{"assistant": "{{ answers | best(grades | map(attribute='score')) }}"}],
        "rejected": [{"assistant": "{{ answers | worst(grades | map(attribute='score')) }}"}],
        "scores": {"value": "grades | map(attribute='score')"},
        "gap": {"value": "grades[0].score - grades[1].score", "type": "integer"},
        "half": {"value": "grades[0].score / 2", "type": "number"},
        "label": {"value": "grades[0].score > 4", "type": "boolean"},
        "tools": {"value": "none"},
    }
    result, rows, engine = one(tmp_path, steps, record)
    assert (result.kept, len(engine.asked)) == (2, 16)
    said = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    assert {(each["branch"], len(each["requests"])) for each in said} == {("0", 8)}
    for row in rows:
        best = max(row["scores"])
        assert row["prompt"] == [{"role": "user", "content": row["prompt"][0]["content"]}]
        assert row["chosen"][0]["content"] != row["rejected"][0]["content"]
        assert row["gap"] == row["scores"][0] - row["scores"][1]
        assert (row["half"], row["label"], row["tools"]) == (row["scores"][0] / 2, row["scores"][0] > 4, None)
        shown = history(place_of(result.dir, None), row["id"])
        assert [each["step"] for each in shown["requests"]] == ["answers"] * 4 + ["grades"] * 4
        first = row["scores"].index(best)
        answers = [each["answer"]["text"] for each in shown["requests"][:4]]
        assert row["chosen"][0]["content"] == answers[first]
    all_follow(result.dir)


def test_parquet_has_the_types_and_the_rows_that_json_has(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    record = {
        "chosen": [{"system": "Be kind."}, {"user": "{{ doc }}"}],
        "card": {"value": "card"},
        "level": {"value": "card.facts | length", "type": "integer"},
        "share": {"value": "1 / 4", "type": "number"},
        "known": {"value": "card.topic == 'bread'", "type": "boolean"},
        "topic": {"value": "card.topic", "type": "text"},
    }
    result, rows, _ = one(tmp_path, [{"card": {"prompt": USER, "output": CARD}}], record)
    [shard] = (result.dir / "dataset" / "data").iterdir()
    table = pq.read_table(shard)
    types = [str(field.type) for field in table.schema]
    assert types[0] == types[2] == types[6] == "string"
    assert types[3:6] == ["int64", "double", "bool"]
    assert types[1].startswith("list<")
    there = [{**row, "card": json.loads(row["card"])} for row in table.to_pylist()]
    assert there == rows
    jsonl = result.dir / "dataset" / "train.jsonl"
    before = jsonl.read_bytes()
    jsonl.write_bytes(before.replace(b"Be kind.", b"Be nice."))
    assert verify(result.dir).findings.shown != []
    jsonl.write_bytes(before)
    all_follow(result.dir)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"value": "doc", "type": "integer"}, "`doc` is no integer"),
        ({"value": "true", "type": "number"}, "`true` is no number"),
        ({"value": "2 ** 63", "type": "integer"}, "`2 ** 63` is no integer"),
        ({"value": "{}.items"}, "'items' is a method"),
        ({"value": "1 / 0"}, "division by zero"),
    ],
)
def test_a_value_of_another_type_fails_its_record(tmp_path: Path, said: Any, message: str) -> None:
    result, _, _ = one(tmp_path, [{"answer": {"prompt": USER}}], {"text": "{{ answer }}", "x": said}, rows=1)
    assert result.failed == 1
    assert message in read_jsonl(result.dir / "failed.jsonl")[0]["error"]


def test_a_list_that_a_step_returned_is_gone_through(tmp_path: Path) -> None:
    steps = [
        {"card": {"prompt": USER, "output": CARD}},
        {
            "question": {
                "prompt": {"user": "Ask about {{ fact.text }}"},
                "foreach": "card.facts",
                "as": "fact",
            }
        },
        {"answer": {"prompt": {"user": "{{ question }} {{ fact.text }}"}}},
    ]
    record = {
        "messages": [{"user": "{{ question }}"}, {"assistant": "{{ answer }}"}],
        "fact": "{{ fact.text }}",
    }
    result, rows, engine = one(tmp_path, steps, record, rows=5)
    cards = [json.loads(answered(request)) for request in engine.asked if request.schema]
    assert result.kept == sum(len(card["facts"]) for card in cards) > 5
    assert [row["fact"] for row in rows] == [fact["text"] for card in cards for fact in card["facts"]]
    all_follow(result.dir)


def test_equal_items_are_asked_about_apart(tmp_path: Path) -> None:
    rows_of_files = [{"text": ["same", "same", "other"]}]
    steps = [{"answer": {"prompt": {"user": "Of {{ item }}"}, "foreach": "doc"}}]
    _, rows, engine = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=rows_of_files)
    assert len({request.key for request in engine.asked}) == len({row["text"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("foreach", "said"),
    [
        ("doc", "step answer: `foreach: doc` is an empty list"),
        ("doc | length", "step answer: `foreach: doc | length` is no list: '0'"),
        ("[1] | list | batch(1) | first | map('string') | list ~ 'x'", "is no list"),
        ("doc.nothing", "has no attribute 'nothing'"),
    ],
)
def test_a_list_that_is_none_fails_its_branch(tmp_path: Path, foreach: str, said: str) -> None:
    steps = [{"answer": {"prompt": {"user": "Of {{ item }}"}, "foreach": foreach}}]
    result, _, engine = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=[{"text": []}])
    assert (result.planned, result.failed, engine.asked) == (1, 1, [])
    assert said in read_jsonl(result.dir / "failed.jsonl")[0]["error"]


def test_an_item_without_what_the_prompt_needs_fails_alone(tmp_path: Path) -> None:
    rows_of_files = [{"text": [{"a": 1}, {"b": 2}, {"a": 3}]}]
    steps = [{"answer": {"prompt": {"user": "Of {{ item.a }}"}, "foreach": "doc"}}]
    result, rows, engine = one(tmp_path, steps, {"text": "{{ item.a }}"}, rows=rows_of_files)
    assert ([row["text"] for row in rows], result.failed, len(engine.asked)) == (["1", "3"], 1, 2)
    assert "no attribute 'a'" in read_jsonl(result.dir / "failed.jsonl")[0]["error"]
    all_follow(result.dir)
    gathering = [{"answers": {**steps[0]["answer"], "gather": True}}]
    done, _, _ = one(tmp_path / "b", gathering, {"n": {"value": "answers"}}, rows=rows_of_files)
    assert (done.failed, done.planned) == (1, 1)


def test_an_empty_list_gathers_nothing(tmp_path: Path) -> None:
    steps = [{"answers": {"prompt": {"user": "Of {{ item }}"}, "foreach": "doc", "gather": True}}]
    result, rows, engine = one(tmp_path, steps, {"n": {"value": "answers"}}, rows=[{"text": []}])
    assert ([row["n"] for row in rows], engine.asked) == ([[]], [])
    assert result.kept == 1


def test_a_step_is_skipped_where_its_condition_is_false(tmp_path: Path) -> None:
    steps = [
        {"card": {"prompt": USER, "output": CARD}},
        {"more": {"prompt": {"user": "More of {{ doc }}"}, "when": "card.topic == 'bread'", "n": 2}},
    ]
    record = {"topic": "{{ card.topic }}", "more": {"value": "more", "type": "text"}}
    result, rows, engine = one(tmp_path, steps, record, rows=12)
    topics = [row["topic"] for row in rows]
    assert min(topics.count("bread") // 2, topics.count("rivers")) > 0
    assert result.planned == len(rows) == 12 + topics.count("bread") // 2
    assert len(engine.asked) == 12 + topics.count("bread")
    assert all((row["more"] is not None) == (row["topic"] == "bread") for row in rows)
    all_follow(result.dir)


def test_a_branch_that_fails_leaves_its_siblings_alone(tmp_path: Path) -> None:
    steps = [
        {"question": {"prompt": USER, "n": 6}},
        {"answer": {"prompt": {"user": "{{ question }}?"}}},
    ]

    def answer(request: Request) -> Any:
        bad = request.key < "4" and request.messages[0]["content"].startswith("Tell")
        return RequestFailed("no") if bad else answered(request)

    result, rows, _ = one(tmp_path, steps, {"text": "{{ answer }}"}, answer, rows=4)
    assert 0 < result.failed < 24
    assert (result.kept, len(rows)) == (24 - result.failed,) * 2
    again = run_it(
        load(tmp_path / "recipes" / "a.yaml"), FakeEngine(answered), directory=result.dir, retry_failed=True
    )
    assert (again.kept, again.failed) == (24, 0)
    all_follow(result.dir)


def test_one_answer_that_fails_fails_what_is_gathered(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        return RequestFailed("no") if request.key < "3" else answered(request)

    steps = [{"answers": {"prompt": USER, "n": 5, "gather": True}}]
    result, _, engine = one(tmp_path, steps, {"n": {"value": "answers"}}, answer, rows=6)
    assert min(result.failed, result.kept) > 0
    assert len(engine.asked) == 30
    assert all(len(row["requests"]) == 5 for row in read_jsonl(result.dir / "failed.jsonl"))


def test_paths_sort_as_their_numbers_do() -> None:
    turns = [(1,), (0, 10), (0, 9), (0, 9, 2), (999,), (0, 100)]
    assert sorted(turns) == sorted(turns, key=path_of)
    assert path_of(()) == "0"


# The laws


def fanned(target: int | None = None, **more: Any) -> dict[str, Any]:
    steps = [
        {"card": {"prompt": USER, "output": CARD, "retries": 1}},
        {"question": {"prompt": {"user": "Ask of {{ fact.text }}"}, "foreach": "card.facts", "as": "fact"}},
        {"hint": {"prompt": {"user": "A hint for {{ question }}"}, "when": "card.topic == 'bread'"}},
        {"answer": {"prompt": {"user": "{{ question }} ({{ hint }})"}, "n": 2}},
        {"grades": {"prompt": {"user": "Grade {{ answer }}"}, "n": 2, "gather": True, "output": SCORE}},
    ]
    record = {
        "messages": [{"user": "{{ question }}"}, {"assistant": "{{ answer }}"}],
        "scores": {"value": "grades | map(attribute='score')"},
    }
    return recipe(steps=steps, record=record, filters=[{"words": {"min": 5}}], target=target, **more)


def sometimes_wrong(request: Request) -> Any:
    """Some answers are no JSON, some requests are refused: which, follows from the request."""
    chance = random.Random(request.key + "wrong").random()
    if chance < 0.04:
        return RequestFailed("refused")
    return "no JSON" if request.schema is not None and chance < 0.3 else answered(request)


BUDGETS = [{}, {"target": 12}, {"target": 30, "budget": {"attempts": 33}}, {"budget": {"output_tokens": 400}}]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 512]), st.sampled_from(BUDGETS))
def test_the_dataset_does_not_depend_on_the_order_of_answers(
    seed: int, slots: int, end: dict[str, Any]
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        given_recipe = loaded(root, fanned(**end), rows=12)
        plain = run_it(given_recipe, FakeEngine(sometimes_wrong, slots=1), directory=root / "one" / "a")
        other = run_it(
            given_recipe,
            FakeEngine(sometimes_wrong, slots=slots, shuffle=random.Random(seed)),
            directory=root / "other" / "a",
        )
        assert outputs(plain.dir) == outputs(other.dir)
        assert adds_up(plain)
        assert adds_up(other)
        assert (plain.kept, plain.dropped, plain.failed) == (other.kept, other.dropped, other.failed)
        if "budget" in end and "attempts" in end["budget"]:
            assert plain.planned <= 33
        all_follow(plain.dir.rename(root / "runs"))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.sampled_from(BUDGETS), st.integers(1, 9))
def test_a_run_goes_on_where_it_stopped_and_asks_nothing_twice(
    stops: list[int], end: dict[str, Any], slots: int
) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        given_recipe = loaded(root, fanned(**end), rows=9)
        whole = run_it(given_recipe, FakeEngine(sometimes_wrong), directory=root / "one" / "a")
        there, answered_before = root / "other" / "a", []
        for stop in stops:
            cancel = threading.Event()
            engine = FakeEngine(no_more_than(stop, cancel, sometimes_wrong), slots=slots)
            done = run_it(given_recipe, engine, directory=there, cancel=cancel)
            answered_before += engine.answered
            assert adds_up(done)
            if done.outcome == "interrupted":
                with RunView(there) as view:
                    said = view.status()
                if said["planned"] is not None:
                    assert (
                        said["planned"] == said["kept"] + said["dropped"] + said["failed"] + said["pending"]
                    )
        last = FakeEngine(sometimes_wrong)
        done = run_it(given_recipe, last, directory=there)
        answered_before += last.answered
        assert outputs(whole.dir) == outputs(done.dir)
        assert len(answered_before) == len(set(answered_before))


STOPS = """
import os
from pathlib import Path
from synthgen import filter

@filter(min=0)
def sure(record):
    \"\"\"Fails on the record that a file names.\"\"\"
    at = Path(os.environ["FAILS_ON"])
    if at.exists() and at.read_text() == record.id:
        raise LookupError("not now")
    return 1
"""


@pytest.mark.parametrize("end", [{}, {"target": 17}, {"budget": {"output_tokens": 400}}])
def test_it_goes_on_in_the_midst_of_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: dict[str, Any]
) -> None:
    """Also between two branches of one task, with what was counted and spent until then."""
    monkeypatch.setenv("FAILS_ON", str(tmp_path / "fails"))
    said = fanned(**end)
    said["filters"] = [*said["filters"], {"sure": {"on_error": "stop"}}]
    given_recipe = loaded(tmp_path, said, rows=9, filters={"sure": STOPS})
    whole = run_it(given_recipe, FakeEngine(sometimes_wrong), directory=tmp_path / "one" / "a")
    with RunView(whole.dir) as view:
        order = [each for each in view.records(None, None) if each["state"] != "failed"]
    within = [each["id"] for each in order if each["branch"] not in ("0", "000.000")][:12:3]
    assert len(within) == 4
    there = tmp_path / "other" / "a"
    for id in within:
        (tmp_path / "fails").write_text(id)
        with pytest.raises(RunError, match="not now"):
            run_it(given_recipe, FakeEngine(sometimes_wrong), directory=there)
        with RunView(there) as view:
            now = view.status()
        assert now["planned"] == now["kept"] + now["dropped"] + now["failed"] + now["pending"]
    (tmp_path / "fails").unlink()
    last = FakeEngine(sometimes_wrong)
    done = run_it(given_recipe, last, directory=there)
    assert outputs(done.dir) == outputs(whole.dir)
    assert done.as_json() | {"dir": 0, "reused": 0, "usage": 0, "seconds": 0} == whole.as_json() | {
        "dir": 0,
        "reused": 0,
        "usage": 0,
        "seconds": 0,
    }


def test_a_target_cuts_between_the_branches_of_a_task(tmp_path: Path) -> None:
    steps = [{"answer": {"prompt": USER, "n": 4}}]
    said = {"target": 6}
    result, rows, _ = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=9, recipe=said)
    assert (result.planned, result.kept, len(rows)) == (6, 6, 6)
    more, rows_of_more, engine = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=9, recipe={"target": 8})
    assert rows_of_more[:6] == rows
    assert len(engine.asked) <= 4  # the seventh and eighth were surplus
    assert more.kept == 8


def test_attempts_are_branches(tmp_path: Path) -> None:
    steps = [{"answer": {"prompt": USER, "n": 4}}]
    said = {"target": 20, "budget": {"attempts": 10}}
    result, _, _ = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=9, recipe=said)
    assert (result.planned, result.kept, result.ended_by, result.outcome) == (10, 10, "attempts", "short")


def test_what_siblings_share_is_spent_once(tmp_path: Path) -> None:
    steps = [
        {"card": {"prompt": USER, "output": CARD}},
        {"answer": {"prompt": {"user": "{{ card.topic }}"}, "n": 3}},
    ]
    said = {"budget": {"output_tokens": 25}}  # five an answer: a task is twenty
    result, _, _ = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=9, recipe=said)
    assert (result.planned, result.kept) == (4, 4)


# What is wrong with a recipe


@pytest.mark.parametrize(
    ("step", "line", "message"),
    [
        ("{prompt: {user: x}, n: 2, foreach: doc}", 8, "either `n:` or `foreach:`"),
        ("{prompt: {user: x}, gather: true}", 8, "`gather:` is for steps with"),
        ("{prompt: {user: x}, as: it}", 8, "`as:` names the items"),
        ("{prompt: {user: x}, foreach: doc, as: doc}", 8, "the name 'doc' of an item is taken"),
        ("{prompt: {user: x}, n: 0}", 8, "has to be 1 or more"),
        ("{prompt: {user: x}, when: 'doc =='}", 8, "not a valid expression"),
        ("{prompt: {user: x}, when: 'later'}", 8, "'later', which is not defined yet"),
        ("{prompt: {user: x}, foreach: 'dok'}", 8, "'dok', which is not defined here"),
        ("{prompt: {user: x}, foreach: 'doc.__class__'}", 8, "'__class__'"),
        ("{prompt: {user: '{{ item }}'}, n: 2}", 8, "'item', which is not defined"),
        ("{prompt: {user: x}, extract: {}}", 8, "either `tag:` or `regex:`"),
        ("{prompt: {user: x}, extract: {regex: '('}}", 8, "not a regular expression of RE2"),
        ("{prompt: {user: x}, extract: {tag: '<b>'}}", 8, "has to be a letter, then"),
        ("{prompt: {user: x}, extract: {tag: a}, output: {}}", 8, "either `output:` or `extract:`"),
        ("{prompt: {user: x, output: {}}, extract: {tag: a}}", 8, "nothing to take out"),
        ("{prompt: {user: x}, output: {type: thing}}", 8, "not a JSON schema"),
        ("{prompt: {user: x}, output: {$ref: 'http://a.b/c'}}", 8, "leads out of the schema"),
    ],
)
def test_a_mistake_has_its_place(tmp_path: Path, step: str, line: int, message: str) -> None:
    text = f"""
        version: 1
        name: a
        model: m
        seeds:
          doc: {{path: data/docs.jsonl, field: text}}
        steps:
          - answer: {step}
          - later: {{prompt: {{user: "{{{{ answer }}}}"}}}}
        record: {{text: "{{{{ later }}}}"}}
    """.removeprefix("\n")
    found = problems(project(tmp_path, text, rows=1))
    assert [problem.line for problem in found if message in problem.message] == [line - 1], found


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{mesages: [{user: x}]}", "a list of messages is called"),
        ("{chosen: [{user: x, assistant: y}]}", "each message has one key"),
        ("{chosen: []}", "`record.chosen` is empty"),
        ("{x: {value: '1 +'}}", "not a valid expression"),
        ("{x: {value: 'dok'}}", "'dok', which is not defined"),
        ("{x: {valu: 'doc'}}", "unknown key 'valu'"),
        ("{x: {value: doc, type: float}}", "'json', 'text'"),
    ],
)
def test_a_mistake_in_a_row_has_its_place(tmp_path: Path, record: str, message: str) -> None:
    text = f"""
        version: 1
        name: a
        model: m
        seeds: {{doc: {{path: data/docs.jsonl, field: text}}}}
        record: {record}
    """.removeprefix("\n")
    found = problems(project(tmp_path, text, rows=1))
    assert 5 in [problem.line for problem in found if message in problem.message], found


def test_too_many_branches_are_refused(tmp_path: Path) -> None:
    steps = [{f"s{n}": {"prompt": USER, "n": 200}} for n in range(2)]
    [problem] = problems(project(tmp_path, recipe(steps=steps, record={"text": "{{ s0 }}"})))
    assert "a task would have 40,000 branches" in problem.message


def test_what_nothing_uses_is_said(tmp_path: Path) -> None:
    steps = [{"aside": {"prompt": USER}}, {"answer": {"prompt": USER}}]
    seeds = {"doc": {"path": "data/docs.jsonl", "field": "text"}, "tone": ["a", "b"]}
    found = loaded(tmp_path, recipe(steps=steps, seeds=seeds)).notices
    assert [notice.partition(":")[0] for notice in found] == ["seed tone", "step aside"]
    used = loaded(tmp_path / "b", recipe(steps=steps, filters=[{"words": {"of": "aside", "min": 1}}]))
    assert used.notices == ()
    balance = {"tone": "even", "row.text": {"1": 1}}
    seeds["row"] = {"path": "data/docs.jsonl", "sample": True}
    balanced = recipe(steps=steps[1:], seeds=seeds, target=2, balance=balance)
    assert loaded(tmp_path / "c", balanced).notices == ()


# What is done with a run of branches


def fanned_run(root: Path) -> Path:
    given_recipe = loaded(root, fanned(), rows=6)
    return run_it(given_recipe, FakeEngine(answered), directory=root / "runs" / "a").dir


def test_it_is_curated_anew(tmp_path: Path) -> None:
    place = fanned_run(tmp_path)
    done = recurate(place, ["words.min=7"])
    assert 0 < done.result.kept < done.result.planned == len(list(RunView(place).records(None, None)))
    assert verify(place).findings.shown == []


def test_erasing_a_branch_leaves_what_its_siblings_share(tmp_path: Path) -> None:
    place = fanned_run(tmp_path)
    with RunView(place) as view:
        records = list(view.records(None, None))
        keys = {each["id"]: {r["key"] for r in view.record(each["id"])["requests"]} for each in records}
    erased, sibling = records[0]["id"], records[1]["id"]
    own = keys[erased] - set().union(*(keys[each] for each in keys if each != erased))
    assert own
    assert keys[erased] & keys[sibling]
    erase(place, [erased])
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        left = {key.hex() for (key,) in journal.execute("SELECT key FROM completions")}
    assert own.isdisjoint(left)
    assert keys[sibling] <= left
    assert replay(place, [sibling]).exit_code == 0
    assert verify(place).findings.shown == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("UPDATE records SET branch = '000.002' WHERE branch = '000.001' AND task = 0", "branch: "),
        ("UPDATE records SET branch = '000' WHERE branch = '000.001' AND task = 0", "branch: "),
        (
            "UPDATE completions SET text = '{}' WHERE text LIKE '%score%'",
            "request .*: attempt",
        ),
        ("UPDATE contents SET body = replace(body, '\"scores\":[', '\"scores\":[1,')", "row.scores"),
        ('UPDATE contents SET body = replace(body, \'"question":"\', \'"question":"x\')', "fields.question"),
    ],
)
def test_what_was_changed_is_named(tmp_path: Path, query: str, said: str) -> None:
    place = fanned_run(tmp_path)
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        assert journal.execute(query).rowcount > 0
    differs = [each for record in replay(place, sample=999).records for each in record.transcript.differs]
    assert any(re.search(said, each) for each in differs), differs


def test_a_prompt_that_is_gone_leaves_what_cannot_be_judged(tmp_path: Path) -> None:
    steps = [
        {"answers": {"prompt": "tell", "n": 2, "gather": True}},
        {"more": {"prompt": "tell", "n": 2, "sampling": {"top_p": 0.5}}},
    ]
    files = {"prompts/tell.yaml": "user: Tell me of {{ doc }}\n"}
    result, _, _ = one(tmp_path, steps, {"text": "{{ more }}"}, files=files)
    all_follow(result.dir)
    (tmp_path / "prompts" / "tell.yaml").write_text("user: Another {{ doc }}\n")
    found = replay(result.dir, sample=9)
    assert [each.transcript.outcome for each in found.records] == ["not judged"] * 4
    assert not [each for record in found.records for each in record.transcript.differs]


def test_exports_know_the_columns(tmp_path: Path) -> None:
    record = {
        "prompt": [{"user": "{{ doc }}"}], "chosen": [{"assistant": "{{ answer }}"}],
        "gap": {"value": "2", "type": "integer"}, "tools": {"value": "[]"},
    }  # fmt: skip
    for formats in (["jsonl"], ["jsonl", "parquet"]):
        root = tmp_path / str(len(formats))
        output = {"output": {"formats": formats}}
        result, _, _ = one(root, [{"answer": {"prompt": USER}}], record, recipe=output)
        fields = croissant(Material(result.dir / "dataset"))["recordSet"][0]["field"]
        known = {"id": "sc:Text", "prompt": None, "chosen": None, "gap": "sc:Integer"}
        # Any JSON is text in Parquet; in JSONL it is of no one kind, and Croissant has no word for that.
        told = {**known, "tools": "sc:Text"} if "parquet" in formats else known
        assert {field["name"]: field.get("dataType") for field in fields} == told


def test_filters_see_what_is_preferred() -> None:
    row = {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    record = Record("r", {}, row)
    assert (record.instruction, record.answer, record.all) == ("Why?", "So.", "Why?\n\nSo.\n\nNo.")
    plain = Record("r", {}, {"prompt": "Why?", "completion": "So."})
    assert plain.messages == [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert (plain.instruction, plain.answer, plain.all) == ("Why?", "So.", "Why?\n\nSo.")


def test_validate_and_preview_show_the_fan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, fanned(), rows=2)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["validate", "a"]).output
    assert "for each fact of `card.facts`, a branch each" in shown
    assert "asked 2 times, gathered" in shown
    assert "retries 2" in shown
    assert "only when `card.topic == 'bread'`" in shown
    assert "about 18 requests" in shown  # a task's card, question, hint, two answers, and two grades of each


# A recipe from a stranger


@pytest.mark.parametrize(
    ("key", "expression"),
    [
        ("when", "doc.__class__.__mro__"),
        ("when", "doc | attr('__class__')"),
        ("when", "x }}{{ doc"),
        ("when", "doc) }}{% for a in doc %}{% endfor %}{{ (doc"),
        ("when", "self.__init__"),
        ("when", "range(10)"),
        ("foreach", "cycler"),
        ("foreach", "(" * 500 + "doc" + ")" * 500),
    ],
)
def test_an_expression_leads_nowhere(tmp_path: Path, key: str, expression: str) -> None:
    said = recipe(steps=[{"answer": {"prompt": USER, key: expression}}])
    assert problems(project(tmp_path, said))[0].file == tmp_path / "recipes" / "a.yaml"


@pytest.mark.parametrize(
    "expression",
    [
        "'x' * 10 ** 9",
        "[doc] * 10 ** 9",
        "9 ** 9 ** 9",
        "doc.format('{:1000000000}')",
        "('x' | center(10 ** 9)) or 1",
        "doc | indent(10 ** 9)",
        "doc | replace('', doc * 1) | replace('', doc | indent(9 ** 7))",
        "doc | best(doc | map('length')) | indent(10 ** 9)",
    ],
)
def test_an_expression_is_no_bomb(tmp_path: Path, expression: str) -> None:
    steps = [{"answer": {"prompt": {"user": "Of {{ doc }}"}, "when": expression}}]
    try:
        result, _, engine = one(tmp_path, steps, {"text": "{{ answer }}"}, rows=1)
    except RecipeError:
        return  # it is no expression here
    assert (result.failed, engine.asked) == (1, [])


def test_a_journal_of_the_version_before_is_gone_on_with() -> None:
    before = {
        "kept": 3, "dropped": 2, "failed": 1, "requests": 6, "filters": {}, "errors": [],
        "spent": {"input_tokens": 1, "output_tokens": 2, "units": 0},
    }  # fmt: skip
    counts = Counts.of_json(before)
    assert (counts.tasks, counts.rest, counts.planned(10)) == (6, 0, 10)
    assert Counts.of_json(json.loads(json.dumps(counts.as_json()))) == counts


def test_a_preview_shows_a_task_as_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What siblings share is shown once."""
    project(tmp_path, fanned(), rows=1)
    monkeypatch.chdir(tmp_path)
    fake = FakeEngine(wrong_at_first(1))
    monkeypatch.setattr(engines, "open_engines", lambda models, *_, **__: dict.fromkeys(models, fake))
    shown = CliRunner().invoke(app, ["preview", "a", "-n", "1"]).output
    assert shown.count("step card, asked again (1)\n") == 1
    assert shown.index("step card, asked again (1)\n") < shown.index("branch 000.000")
    assert "branch 000.001" in shown


def test_one_model_writes_and_another_judges(tmp_path: Path) -> None:
    """Also where both are the same weights: equal prompts of two steps are two requests."""
    steps = [
        {"answer": {"prompt": USER, "model": "writer", "n": 2}},
        {"again": {"prompt": USER, "model": "judge"}},
        {"score": {"prompt": {"user": "Grade {{ answer }}"}, "model": "judge", "output": SCORE}},
    ]
    record = {"text": "{{ answer }} {{ again }}", "score": {"value": "score.score", "type": "number"}}
    said = recipe(model=None, models={"writer": "one", "judge": "other"}, steps=steps, record=record)
    writer, judge = FakeEngine(answered), FakeEngine(answered)
    given_recipe = loaded(tmp_path, said, rows=3)
    result = run_it(given_recipe, {"writer": writer, "judge": judge}, directory=tmp_path / "runs" / "a")
    assert (result.kept, len(writer.asked)) == (6, 6)
    # Both branches of a task ask `again` the very same: one request, and none that the writer was asked.
    assert len(judge.asked) == 3 + 6
    assert not {request.key for request in writer.asked} & {request.key for request in judge.asked}
    all_follow(result.dir)


def test_more_samples_keep_those_that_were_there(tmp_path: Path) -> None:
    record = {"text": "{{ answer }}"}
    _, few, _ = one(tmp_path, [{"answer": {"prompt": USER, "n": 2}}], record)
    _, many, engine = one(tmp_path, [{"answer": {"prompt": USER, "n": 5}}], record)
    assert len(engine.asked) == 2 * 3
    assert [many[place] for place in (0, 1, 5, 6)] == few


def test_what_was_answered_wrongly_is_asked_anew_on_request(tmp_path: Path) -> None:
    steps = [{"card": {"prompt": USER, "output": SCORE, "retries": 1, "n": 2}}]
    record = {"score": {"value": "card.score", "type": "integer"}}
    bad = FakeEngine(wrong_at_first(2))
    given_recipe = loaded(tmp_path, recipe(steps=steps, record=record), rows=2)
    there = tmp_path / "runs" / "a"
    first = run_it(given_recipe, bad, directory=there)
    assert (first.failed, len(bad.asked)) == (4, 8)
    done = run_it(given_recipe, FakeEngine(answered), directory=there, retry_failed=True)
    assert (done.kept, done.failed) == (4, 0)
    all_follow(there)
