"""The tree of a task: seeds, what was asked and answered where, records, measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthgen.engines.base import Completion, Request, RequestFailed
from tests.cli.test_commands import Command, command
from tests.support import FakeEngine, answer_of, project, recipe

__all__ = ["command"]

GUIDE = "# Guide\n\n## Bread\n\n" + "Bread is made of flour and water. " * 8

TREE = recipe(
    seeds={
        "doc": {"path": "data/guide.md", "field": "text", "chunk": {"words": 30}},
        "level": {"choice": {"easy": 0.5, "hard": 0.5}},
        "shots": {"path": "data/docs.jsonl", "n": 2},
    },
    steps=[
        {"facts": {"prompt": {"user": "Facts: {{ doc }}"}, "output": {"type": "object"}}},
        {
            "ask": {
                "prompt": {"user": "{{ fact }}, as in {{ shots[0].text }}"},
                "foreach": "facts.list",
                "as": "fact",
            }
        },
        {"answers": {"prompt": {"user": "{{ ask }}"}, "n": 2, "gather": True}},
        {"extra": {"prompt": {"user": "More of {{ ask }}"}, "when": "level == 'hard' and fact == 'why'"}},
    ],
    record={
        "prompt": [{"user": "{{ ask }}"}],
        "chosen": [{"assistant": "{{ answers[0] }} {{ extra or '' }}"}],
        "rejected": [{"assistant": "{{ answers[1] }}"}],
    },
    filters=[{"words": {"min": 1}}, {"judge": {"min": 3}}],
    target=8,
    balance={"level": "even"},
)


def answer(request: Request) -> Any:
    if request.schema is None:
        return answer_of(request)
    if "score" in json.dumps(request.schema):
        return json.dumps({"reason": "well said", "score": 4})
    return json.dumps({"list": ["why", "how"]})


@pytest.fixture
def shown(tmp_path: Path, command: Command) -> tuple[str, list[dict[str, Any]]]:
    project(tmp_path, TREE, files={"data/guide.md": GUIDE})
    engine = FakeEngine(answer)
    ended = command("preview", "a", "-n", "3", engine=engine)
    assert ended.code == 0, ended.err
    assert "`balance:` is for a `target:`" in ended.err
    return ended.out, command("preview", "a", "-n", "3", "--json", engine=engine).json


def test_a_task_is_a_tree(shown: tuple[str, list[dict[str, Any]]]) -> None:
    text, _ = shown
    tasks = text.split("── task ")[1:]
    assert len(tasks) == 3
    for number, task in enumerate(tasks, 1):
        assert task.startswith(f"{number}/3  2 branches\nseed doc: ")
        assert task.count("step facts") == 1  # what branches share is shown once, above them
        assert task.index("step facts") < task.index("├─ branch 000") < task.index("└─ branch 001")
        assert task.count("step answers, once more") == task.count("record ") == 2
        assert "seed doc: # Guide\n\n  ## Bread" in task or number > 1
        assert "\nseed level: " in task
        assert '\nseed shots: [{"text": "document number' in task
        assert "  from seed doc, path data/guide.md" in task
        assert "heading ['Guide'" in task
        assert task.count("chosen:") == task.count("rejected:") == 2
        assert task.count('→ {"reason": "well said", "score": 4}') == 2  # what the filter asked is there
        assert "requests" not in task
        skipped = "step extra: skipped, since `level == 'hard' and fact == 'why'` is false"
        assert task.count(skipped) == (1 if "seed level: hard" in task else 2)
        first, second = task.split("└─ branch 001")
        assert all(line.startswith("│") for line in first.split("├─ branch 000\n")[1].splitlines())
        assert all(line.startswith("   ") for line in second.splitlines()[1:] if line)


def test_the_same_as_json(shown: tuple[str, list[dict[str, Any]]]) -> None:
    _, records = shown
    assert [(record["task"], record["branch"]) for record in records] == [
        (task, branch) for task in range(3) for branch in ("000", "001")
    ]
    for record in records:
        assert record["seeds"].keys() == {"doc", "level", "shots"}
        assert record["sources"][0]["path"] == "data/guide.md"
        asked = ["facts", "ask", "answers", "answers", "extra"]
        assert [step["step"] for step in record["steps"]] == asked[: 5 - len(record["skipped"])]
        [judged] = record["asked_by_filters"]["judge"]
        assert "<<<" in judged["messages"][1]["content"]
        assert json.loads(judged["answer"])["score"] == 4 == record["measurements"]["judge"]["value"]
    assert {tuple(record["skipped"]) for record in records} == {(), ("extra",)}


def test_branches_of_branches_say_what_they_share(tmp_path: Path, command: Command) -> None:
    steps = [
        {"one": {"prompt": {"user": "{{ doc }}"}, "n": 2}},
        {"two": {"prompt": {"user": "{{ one }}"}, "n": 2}},
    ]
    record = {"messages": [{"user": "{{ one }}"}, {"assistant": "{{ two }}"}]}
    project(tmp_path, recipe(steps=steps, record=record), rows=1)
    text = command("preview", "a", "-n", "1").out
    assert text.count("step one\n") == 2
    assert "step one: as in branch 000.000" in text
    assert "step one: as in branch 001.000" in text


def test_what_fails_is_shown_with_its_seeds_and_why(tmp_path: Path, command: Command) -> None:
    steps = [{"answer": {"prompt": {"user": "{{ doc }}"}, "extract": {"tag": "a"}, "retries": 1}}]
    project(tmp_path, recipe(steps=steps), rows=2)

    def given(request: Request) -> Any:
        return RequestFailed("too long") if "number 1" in str(request.messages) else "no tag"

    ended = command("preview", "a", "-n", "2", engine=FakeEngine(given))
    first, second = ended.out.split("── task ")[1:]
    assert "step answer, asked again (1)" in first
    assert "! there is no <a>" in first or "! " in first
    assert "failed: " in first
    assert "seed doc: document number 1" in second
    assert "failed: too long" in second
    [_, failed] = command("preview", "a", "-n", "2", "--json", engine=FakeEngine(given)).json
    assert (failed["state"], failed["seeds"]) == ("failed", {"doc": "document number 1"})


def test_an_answer_that_was_cut_off_is_marked(tmp_path: Path, command: Command) -> None:
    project(tmp_path, rows=1)
    engine = FakeEngine(lambda _: Completion("half an ans", "length", 3, 3))
    assert "→ half an ans\n    (cut off at max_tokens)" in command("preview", "a", engine=engine).out


def test_a_balanced_recipe_takes_as_many_tasks_as_it_is_told(tmp_path: Path, command: Command) -> None:
    seeds = {"doc": {"path": "data/docs.jsonl", "field": "text"}, "level": {"choice": ["easy", "hard"]}}
    project(tmp_path, recipe(seeds=seeds, target=5, balance={"level": "even"}), rows=9)
    ended = command("run", "a", "--tasks", "7", "--json")
    assert (ended.code, ended.json["planned"], ended.json["kept"]) == (0, 7, 7)
    assert "balance" in ended.err
