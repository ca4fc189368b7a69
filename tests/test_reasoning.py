"""`reasoning:` of a step: what a model thought, in a field of its own, and the answer without it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthgen import load, run
from synthgen.answers import Form, InvalidAnswer, Thoughtful
from synthgen.audit.replay import replay
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.engines.base import Completion, Request
from synthgen.errors import UsageError
from synthgen.export.thoughts import with_thoughts
from synthgen.recipe_steps import Extract
from synthgen.stopping import Stop
from tests.standin import StandIn
from tests.support import (
    FakeEngine,
    answer_of,
    docs,
    loaded,
    no_more_than,
    problems,
    project,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

THINKS = Form(thinks=True)
SAID = recipe(
    steps=[{"answer": {"prompt": {"user": "Say something of {{ doc }}"}, "reasoning": "thoughts"}}],
    record={
        "messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}],
        "reasoning": {"value": "thoughts", "type": "text"},
    },
)


def read(text: str, why: str = "stop", reasoning: str | None = None, form: Form = THINKS) -> Any:
    return form.read(Completion(text, why, 1, 1, reasoning))


def thinking(request: Request) -> str:
    """Thoughts, as the request's key has it: in both tags, behind one that the template wrote, or none."""
    kind = int(request.key[:2], 16) % 3
    said = answer_of(request)
    return [f"<think>\nOf {said}?\n</think>\n\n{said}", f"Of {said}?</think>{said}", said][kind]


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Hm.", "Yes."),
        ("Hm.\n</think>\nYes.", "Hm.", "Yes."),
        ("<think>\n\n</think>\n\nYes.", None, "Yes."),
        ("Yes.", None, "Yes."),
        ("So: <think>Hm.</think>Yes.", "Hm.", "So: Yes."),
        ("<think>a</think>Write </think> at its end.", "a", "Write </think> at its end."),
    ],
)
def test_thoughts_in_the_text(text: str, thoughts: str | None, answer: str) -> None:
    assert read(text) == Thoughtful(answer, thoughts)
    assert read(text, form=Form()) == text.strip()  # a step that does not ask for them: as ever


def test_thoughts_that_a_server_gives_apart() -> None:
    assert read("Yes.", reasoning="\nHm.\n") == Thoughtful("Yes.", "Hm.")
    assert read("Yes </think>", reasoning="Hm.") == Thoughtful("Yes </think>", "Hm.")
    assert read("<think>Hm.</think>Yes.", reasoning=" ") == Thoughtful("Yes.", "Hm.")
    assert read("Yes.", reasoning="Hm.", form=Form()) == "Yes."


@pytest.mark.parametrize(
    ("text", "why", "reasoning", "said"),
    [
        ("<think>Hm, so", "length", None, "cut at max_tokens before the reasoning's end, </think>"),
        ("Hm, so", "length", None, "cut at max_tokens before the reasoning's end, </think>"),
        ("<think>Hm, so", "stop", None, "the reasoning has no end, </think>"),
        ("", "length", "Hm, so", "the reasoning was cut at max_tokens"),
        ("<think>Hm.</think>\n ", "stop", None, "the answer is empty"),
        ("", "stop", "Hm.", "the answer is empty"),
    ],
)
def test_thoughts_without_an_answer(text: str, why: str, reasoning: str | None, said: str) -> None:
    with pytest.raises(InvalidAnswer, match=said):
        read(text, why, reasoning)


def test_forms_are_for_the_answer_alone() -> None:
    text = '<think>{"n": "x"} <q>no</q> 5/10</think>{"n": 1} <q>yes</q> 7/10'
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    parsed = read(text[: text.index(" <q>yes")], form=Form(schema=schema, thinks=True))
    assert parsed == Thoughtful({"n": 1}, '{"n": "x"} <q>no</q> 5/10')
    assert read(text, form=Form(extract=Extract(tag="q"), thinks=True)).value == "yes"
    assert read(text, form=Form(extract=Extract(regex=r"(\d+)/10"), thinks=True)).value == "7"


def test_a_model_that_is_asked_again_sees_its_answer_alone() -> None:
    form = Form(extract=Extract(tag="q"), tells=True, thinks=True)
    asked = [{"role": "user", "content": "Ask."}]
    failure = InvalidAnswer("the answer has no <q>...</q>")
    assert form.again(asked, "<think>long</think>No tag.", failure)[1]["content"] == "No tag."
    assert form.again(asked, "<think>long and cut", failure)[1]["content"] == "(nothing)"


@given(st.text(), st.text(), st.booleans())
def test_nothing_of_either_is_lost(thoughts: str, answer: str, opened: bool) -> None:
    thoughts = thoughts.replace("think>", "")
    if not answer.strip():
        answer = "x"
    got = read(f"{'<think>' if opened else ''}{thoughts}</think>{answer}")
    assert got == Thoughtful(answer.strip(), thoughts.strip() or None)


def test_a_run_keeps_them_apart_and_replays(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, SAID, rows=30), FakeEngine(thinking), directory=tmp_path / "run")
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert result.kept == len(rows) == 30
    assert {row["reasoning"] is None for row in rows} == {True, False}
    for row in rows:
        answer = row["messages"][1]["content"]
        assert answer.startswith("answer-")
        assert "think" not in answer
        assert row["reasoning"] in (None, f"Of {answer}?")
    assert verify(result.dir).findings.shown == []
    found = replay(result.dir, sample=30)
    assert [record.transcript.outcome for record in found.records] == ["replayed"] * 30
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal, journal:
        journal.execute("UPDATE completions SET text = replace(text, 'Of ', 'On ')")
    changed = replay(result.dir, sample=30)
    assert any("fields.thoughts" in each for record in changed.records for each in record.transcript.differs)


def test_requests_are_the_same_with_it_and_without(tmp_path: Path) -> None:
    plain = {"answer": {"prompt": {"user": "Say something of {{ doc }}"}}}
    with_it, without = FakeEngine(thinking), FakeEngine(thinking)
    run_it(loaded(tmp_path / "a", SAID), with_it, directory=tmp_path / "a" / "run")
    bare = recipe(steps=[plain])
    result = run_it(loaded(tmp_path / "b", bare), without, directory=tmp_path / "b" / "run")
    assert sorted(with_it.keys) == sorted(without.keys)
    texts = [row["messages"][1]["content"] for row in read_jsonl(result.dir / "dataset" / "train.jsonl")]
    assert any("</think>" in text for text in texts)  # as ever: nothing is taken off unasked


@pytest.mark.parametrize(
    ("fan", "thoughts"),
    [
        ({"n": 3}, str),
        ({"n": 3, "gather": True}, list),
        ({"foreach": "['a', 'b']", "as": "part"}, str),
        ({"foreach": "['a', 'b']", "gather": True}, list),
        ({"when": "doc == 'no such'"}, type(None)),
    ],
    ids=["n", "n gathered", "foreach", "foreach gathered", "skipped"],
)
def test_steps_that_fan_out_or_are_skipped(tmp_path: Path, fan: dict[str, Any], thoughts: type) -> None:
    step = {"prompt": {"user": "Say something of {{ doc }} {{ part }}{{ item }}"}, **fan}
    for name in ("part", "item"):
        if fan.get("as", "item" if "foreach" in fan else "") != name:
            step["prompt"] = {"user": step["prompt"]["user"].replace(f"{{{{ {name} }}}}", "")}
    said = {**SAID, "steps": [{"answer": {**step, "reasoning": "thoughts"}}]}
    said["record"] = {"doc": "{{ doc }}", "answer": {"value": "answer"}, "thoughts": {"value": "thoughts"}}
    engine = FakeEngine(lambda request: f"<think>t{request.key[:4]}</think>{answer_of(request)}")
    result = run_it(loaded(tmp_path, said), engine, directory=tmp_path / "run")
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert result.failed == 0
    for row in rows:
        assert isinstance(row["thoughts"], thoughts)
        if thoughts is list:
            assert len(row["thoughts"]) == len(row["answer"]) == fan.get("n", 2)
    found = replay(result.dir, sample=len(rows))
    assert {record.transcript.outcome for record in found.records} == {"replayed"}


def test_traces_that_are_cut_are_asked_for_again_and_then_fail(tmp_path: Path) -> None:
    engine = FakeEngine(lambda _: Completion("<think>on and on", "length", 5, 5))
    given = loaded(tmp_path, SAID, rows=1)
    result = run_it(given, engine, directory=tmp_path / "run")
    assert (result.failed, len(engine.asked)) == (1, 3)
    dropped = CliRunner().invoke(app, ["show", str(result.dir), "--json"])
    assert "cut at max_tokens before the reasoning's end" in dropped.stdout


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_server_that_gives_them_apart(standin: StandIn, tmp_path: Path, name: str) -> None:
    """The journal keeps both, through an interruption and for others that reuse its answers."""
    standin.set(reasoning=name)
    model = {"engine": "openai", "id": "standin", "base_url": standin.url}
    path = project(tmp_path, {**SAID, "model": model}, rows=8)
    result = run(load(path), tmp_path / "run")
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    for row in rows:
        assert row["reasoning"] == f"Let me think of {row['messages'][1]['content'][:20].strip()}"
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal:
        kept = journal.execute("SELECT text, reasoning FROM completions").fetchall()
    assert len(kept) == 8
    assert all(reasoning.startswith("\nLet me think of ") and "Let" not in text for text, reasoning in kept)
    found = replay(result.dir, sample=8)
    assert [record.transcript.outcome for record in found.records] == ["replayed"] * 8
    shown = json.loads(
        CliRunner().invoke(app, ["audit", "show", str(result.dir), rows[0]["id"], "--json"]).stdout
    )
    assert shown["requests"][0]["answer"]["reasoning"].strip() == rows[0]["reasoning"]
    again = run(load(path), tmp_path / "other", reuse=[tmp_path / "run"])
    assert (again.reused, standin.requests) == (8, 8)
    assert tree(again.dir / "dataset") == tree(result.dir / "dataset")
    plain = project(tmp_path / "p", recipe(model=model), rows=8)
    unasked = run(load(plain), tmp_path / "p" / "run", reuse=[tmp_path / "run"])
    bare = read_jsonl(unasked.dir / "dataset" / "train.jsonl")
    assert [row["messages"] for row in bare] == [row["messages"] for row in rows]
    assert standin.requests == 8


def test_interrupted_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    def apart(request: Request) -> Completion:
        return Completion(answer_of(request), "stop", 5, 5, f"thought {request.key[:6]}")

    whole = run_it(loaded(tmp_path / "a", SAID), FakeEngine(apart), directory=tmp_path / "a" / "run")
    given, cancel = loaded(tmp_path / "b", SAID), Stop()
    engine = FakeEngine(no_more_than(3, cancel, apart))
    run_it(given, engine, directory=tmp_path / "b" / "run", cancel=cancel)
    again = run_it(given, FakeEngine(apart), directory=tmp_path / "b" / "run")
    assert again.reused >= 3
    assert tree(again.dir / "dataset") == tree(whole.dir / "dataset")


def test_a_journal_of_before_is_read_and_goes_on(tmp_path: Path) -> None:
    """One without the column: read as it is, brought up to date by the next run, and sealed as before."""
    bare = recipe()
    result = run_it(loaded(tmp_path, bare), directory=tmp_path / "run")
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal, journal:
        for table in ("completions", "set_aside"):
            journal.execute(f"ALTER TABLE {table} DROP COLUMN reasoning")
        journal.execute("ALTER TABLE sessions DROP COLUMN reason")
        journal.execute("UPDATE meta SET value = '5' WHERE key = 'schema'")
    assert verify(result.dir).findings.shown == []
    assert {record.transcript.outcome for record in replay(result.dir, sample=5).records} == {"replayed"}
    more = loaded(tmp_path, bare, rows=docs(7))
    again = run_it(more, directory=result.dir)
    assert (again.kept, again.reused) == (7, 5)
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal:
        assert journal.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == ("6",)
        assert journal.execute("SELECT count(*), count(reasoning) FROM completions").fetchone() == (7, 0)


def test_names_are_checked(tmp_path: Path) -> None:
    step = {"prompt": {"user": "{{ doc }}"}, "reasoning": "doc"}
    [taken] = problems(project(tmp_path / "a", {**SAID, "steps": [{"answer": step}]}))
    assert "'doc' is taken" in taken.message
    late = {"first": {"prompt": {"user": "{{ thoughts }}"}}}
    steps = [late, {"answer": {**step, "reasoning": "thoughts"}}]
    found = problems(project(tmp_path / "b", {**SAID, "steps": steps}))
    assert "'thoughts', which is not defined yet" in found[0].message
    given = loaded(tmp_path / "c", {**SAID, "record": {"messages": [{"user": "{{ answer }}"}]}})
    assert "reasoning thoughts: no prompt and no part of the record uses it" in given.notices


@pytest.mark.llamacpp
def test_thoughts_that_a_model_writes(default_model: Path, tmp_path: Path) -> None:
    turns = [
        {"user": "Name one fact about a river."},
        {"assistant": "<think>A river is water that flows to the sea.</think>A river flows to the sea."},
        {"user": "Name one fact about a bee."},
        {"assistant": "<think>Bees make honey from nectar.</think>A bee makes honey."},
        {"user": "Name one fact about {{ thing }}."},
    ]
    said = {
        **SAID,
        "model": {"id": "smollm2-135m", "options": {"slots": 1, "n_ctx": 256}},
        "sampling": {"temperature": 0, "max_tokens": 80},
        "seeds": {"thing": ["a pond", "bread"]},
        "steps": [{"answer": {"prompt": {"messages": turns}, "reasoning": "thoughts"}}],
    }
    said["record"] = {"answer": "{{ answer }}", "thoughts": {"value": "thoughts", "type": "text"}}
    result = run(load(project(tmp_path, said, rows=0)), tmp_path / "run")
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert len(rows) == result.kept == 2
    assert all(row["thoughts"] and row["answer"] and "think>" not in str(row) for row in rows)
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal:
        texts = [text for (text,) in journal.execute("SELECT text FROM completions")]
    assert sorted(texts) == sorted(f"<think>{row['thoughts']}</think>{row['answer']}" for row in rows)


def test_an_export_puts_them_before_the_answer(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, SAID, rows=9), FakeEngine(thinking), directory=tmp_path / "run")
    rows = {row["id"]: row for row in read_jsonl(result.dir / "dataset" / "train.jsonl")}

    def export(*more: str) -> Any:
        return CliRunner().invoke(app, ["export", str(result.dir), *more])

    def answer_in(row: dict[str, Any]) -> str:
        thoughts, answer = row["reasoning"], row["messages"][1]["content"]
        return answer if thoughts is None else f"<think>\n{thoughts}\n</think>\n\n{answer}"

    wanted = {id: answer_in(row) for id, row in rows.items()}
    assert 0 < sum("<think>" in text for text in wanted.values()) < 9
    done = export("messages", "-o", str(tmp_path / "m"), "--reasoning", "reasoning")
    assert done.exit_code == 0, done.output
    made = read_jsonl(tmp_path / "m" / "train.jsonl")
    assert {row["id"]: row["messages"][-1]["content"] for row in made} == wanted
    assert all(set(row) == {"id", "messages"} for row in made)
    assert json.loads((tmp_path / "m" / "export.json").read_text())["reasoning"] == "reasoning"
    done = export("alpaca", "-o", str(tmp_path / "a"), "--reasoning", "reasoning")
    assert {row["id"]: row["output"] for row in read_jsonl(tmp_path / "a" / "train.jsonl")} == wanted
    done = export("messages", "-o", str(tmp_path / "n"), "--reasoning", "thought")
    assert done.exit_code != 0
    assert "has no field 'thought'" in str(done.exception)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"id": "r", "messages": [{"role": "user", "content": "x"}], "t": "a"},
            "does not end with an answer",
        ),
        ({"id": "r", "text": "x", "t": "a"}, "does not end with an answer"),
        ({"id": "r", "completion": "x", "t": 3}, "is no text"),
    ],
)
def test_a_row_without_an_answer_has_no_place_for_them(row: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        list(with_thoughts(iter([row]), "t"))


def test_completions_are_answers_too() -> None:
    rows = [{"id": "r", "completion": "x", "t": "a"}, {"id": "s", "completion": "x", "t": None}]
    assert list(with_thoughts(iter(rows), "t")) == [
        {"id": "r", "completion": "<think>\na\n</think>\n\nx"},
        {"id": "s", "completion": "x"},
    ]


def test_a_conversation_keeps_none_apart(tmp_path: Path) -> None:
    talk = {"opening": "{{ doc }}", "turns": 1}
    step = {"prompt": {"system": "y"}, "conversation": talk, "reasoning": "thoughts"}
    said = {**SAID, "steps": [{"answer": step}], "record": {"from": "answer"}}
    [found] = problems(project(tmp_path, said))
    assert "a conversation keeps no reasoning apart" in found.message
