"""Conversations: who is asked what and when they end, tools that are called, and replays of all of it."""

from __future__ import annotations

import copy
import json
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthgen import driver
from synthgen.api import load, run
from synthgen.audit.history import history
from synthgen.audit.place import place_of
from synthgen.audit.replay import replay
from synthgen.audit.trace import trace
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.engines.base import Request
from synthgen.errors import RecipeError
from synthgen.prompt import make_prompt
from synthgen.recipe_steps import MOST, Step
from synthgen.steps import NoQuestions
from synthgen.talk import Talk, talk_of
from synthgen.workers import InProcess
from tests.processes import ended, query, started, wait_for
from tests.standin import serving
from tests.support import (
    FakeEngine,
    adds_up,
    answer_of,
    loaded,
    problems,
    project,
    read_jsonl,
    recipe,
    run_it,
    tree,
)

USER = {
    "system": "You buy {{ doc }}.",
    "user": "{% for said in messages %}{{ said.role }}: {{ said.content }}\n{% endfor %}Turn {{ turn }}.",
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}
RESULT = {"user": "{{ call.name }} of {{ call.arguments | tojson }}, which {{ tool.description }}"}
TALK = {"prompt": {"system": "You sell {{ doc }}."}, "conversation": {"user": {"prompt": USER}, "turns": 3}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)


def talk(**conversation: Any) -> dict[str, Any]:
    """A step that is a conversation, with these parts of it."""
    said = copy.deepcopy(TALK)
    said["conversation"] |= conversation
    return said


def left(step: dict[str, Any], key: str) -> dict[str, Any]:
    """A step that is a conversation, without that part of it."""
    del step["conversation"][key]
    return step


def calling(**more: Any) -> dict[str, Any]:
    return talk(**{"tools": [WEATHER], "results": {"prompt": RESULT}, **more})


def voice(request: Request) -> str:
    """Who is asked: the user, the assistant, or what simulates a tool."""
    first = request.messages[0]["content"]
    return "user" if first.startswith("You buy") else "assistant" if first.startswith("You sell") else "tool"


def say(text: str) -> str:
    return json.dumps({"answer": {"say": text}})


def call(tool: str = "weather", /, **arguments: Any) -> str:
    return json.dumps({"answer": {"call": {"name": tool, "arguments": arguments}}})


def spoken(request: Request) -> str:
    """A text, or under a schema now a call and now words, as follows from the request."""
    if request.schema is None:
        return answer_of(request)
    may_call = "anyOf" in request.schema["properties"]["answer"]
    return (
        call(town=answer_of(request))
        if may_call and random.Random(request.key).random() < 0.5
        else say("Well.")
    )


def one(root: Path, steps: Any, answer: Any = spoken, **more: Any) -> Any:
    """A run of a conversation, or of these steps: its result, the conversations and its engine."""
    engine = FakeEngine(answer)
    steps = steps if isinstance(steps, list) else [{"chat": steps}]
    said = recipe(**{"steps": steps, "record": {"talk": {"value": "chat"}}, **more.pop("recipe", {})})
    result = run_it(loaded(root, said, **{"rows": 2, **more}), engine, directory=root / "runs" / "a")
    assert adds_up(result)
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl") if (result.dir / "dataset").exists() else []
    return result, [row.get("talk") for row in rows], engine


def all_follow(directory: Path) -> None:
    """Every record is computed again from the raw answers, and the files are what was signed."""
    found = replay(directory, sample=10_000)
    assert [(each.id, each.transcript.differs) for each in found.records if each.transcript.differs] == []
    assert found.transcripts["replayed"] == len(found.records) > 0
    assert verify(directory).findings.shown == []


def roles(messages: list[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


def failure(directory: Path) -> str:
    return str(read_jsonl(directory / "failed.jsonl")[0]["error"])


# Turns


def test_user_and_assistant_take_turns_and_each_sees_its_own_prompt(tmp_path: Path) -> None:
    result, talks, engine = one(tmp_path, TALK)
    assert [roles(each) for each in talks] == [["system", *["user", "assistant"] * 3]] * 2
    assert [voice(request) for request in engine.asked].count("user") == 6
    assert len(engine.asked) == result.usage["requests"] == 12
    for messages in talks:
        assert messages[0]["content"].startswith("You sell document number")
        asked = [request for request in engine.asked if answer_of(request) == messages[-1]["content"]]
        assert asked[0].messages == messages[:-1]
        last = next(request for request in engine.asked if answer_of(request) == messages[-2]["content"])
        before = "".join(f"{said['role']}: {said['content']}\n" for said in messages[1:-2])
        assert last.messages[-1]["content"] == f"{before}Turn 3."
    all_follow(result.dir)


def test_a_conversation_is_a_row_as_it_stands(tmp_path: Path) -> None:
    result, _, _ = one(tmp_path, TALK, recipe={"record": {"from": "chat", "doc": "{{ doc }}"}})
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert [roles(row["messages"]) for row in rows] == [["system", *["user", "assistant"] * 3]] * 2
    all_follow(result.dir)


def test_system_messages_vary_and_an_empty_one_is_left_out(tmp_path: Path) -> None:
    said = {**TALK, "prompt": {"system": "{% if '1' in doc %}You sell it.{% endif %}"}}
    _, talks, _ = one(tmp_path, said)
    assert sorted(roles(each)[0] for each in talks) == ["system", "user"]


def leaving(turn: int) -> Any:
    """The user leaves at this turn."""

    def given(request: Request) -> str:
        gone = voice(request) == "user" and request.messages[-1]["content"].endswith(f"Turn {turn}.")
        return "Thanks. [DONE]" if gone else spoken(request)

    return given


def test_a_user_who_has_left_is_not_answered_and_what_was_said_then_is_left_out(tmp_path: Path) -> None:
    said = talk(until="'[DONE]' in said", turns=9)
    result, talks, engine = one(tmp_path, said, leaving(3))
    assert [roles(each) for each in talks] == [["system", *["user", "assistant"] * 2]] * 2
    assert "DONE" not in json.dumps(talks)
    assert len(engine.asked) == 2 * 5
    shown = history(place_of(result.dir, None), read_jsonl(result.dir / "dataset" / "train.jsonl")[0]["id"])
    steps = [each["step"] for each in shown["requests"]]
    assert steps == ["chat/user", "chat", "chat/user", "chat", "chat/user"]
    assert shown["requests"][0]["prompt"]["name"] == "inline"
    all_follow(result.dir)


def test_until_sees_the_turn_and_what_was_said_before(tmp_path: Path) -> None:
    said = talk(until="turn > 1 and messages[-1].content != said and doc", turns=9)
    _, talks, _ = one(tmp_path, said)
    assert [roles(each) for each in talks] == [["system", "user", "assistant"]] * 2


def test_a_user_who_never_came_fails_the_branch(tmp_path: Path) -> None:
    result, talks, _ = one(tmp_path, talk(until="true"))
    assert (result.failed, talks) == (2, [])
    assert failure(result.dir) == "step chat: the user left before the conversation began"


def test_an_expression_that_comes_to_nothing_fails_the_branch(tmp_path: Path) -> None:
    result, _, _ = one(tmp_path, talk(until="said.nothing.at_all"))
    assert "step chat: `until: said.nothing.at_all`: " in failure(result.dir)


def test_an_opening_begins_it_and_no_user_is_needed_then(tmp_path: Path) -> None:
    said = {"prompt": {"system": ""}, "conversation": {"opening": "I want {{ doc }}.", "turns": 1}}
    result, talks, engine = one(tmp_path, said)
    assert sorted(each[0]["content"] for each in talks) == [
        "I want document number 0.",
        "I want document number 1.",
    ]
    assert [roles(each) for each in talks] == [["user", "assistant"]] * 2
    assert len(engine.asked) == 2
    all_follow(result.dir)
    _, talks, engine = one(tmp_path / "b", talk(opening="I want {{ doc }}."))
    assert [len(each) for each in talks] == [7, 7]
    assert len(engine.asked) == 10


def test_others_have_models_and_sampling_of_their_own(tmp_path: Path) -> None:
    said = talk(user={"prompt": USER, "model": "small", "sampling": {"temperature": 1.5}})
    steps = [{"chat": {**said, "sampling": {"temperature": 0.1}}}]
    models = {"small": "a/small", "big": "a/big"}
    whole = recipe(steps=steps, record={"talk": {"value": "chat"}}, models=models, model="a/big")
    engines = {"small": FakeEngine(), "": FakeEngine()}
    given = loaded(tmp_path, whole, rows=2)
    assert given.asked == ["", "small"]
    result = run_it(given, engines, directory=tmp_path / "runs" / "a")
    assert {voice(request) for request in engines["small"].asked} == {"user"}
    assert {request.sampling["temperature"] for request in engines["small"].asked} == {1.5}
    assert {request.sampling["temperature"] for request in engines[""].asked} == {0.1}
    all_follow(result.dir)
    place = place_of(result.dir, None)
    assert len(trace(place, "model:small").ids["kept"]) == 2
    card = (result.dir / "dataset" / "README.md").read_text()
    assert "Its `user`: prompt" in card
    assert "temperature 1.5" in card


# Several conversations


def test_each_of_n_conversations_is_one_of_its_own(tmp_path: Path) -> None:
    def same_users(request: Request) -> str:
        return "Hello." if voice(request) == "user" else spoken(request)

    result, talks, engine = one(tmp_path, {**TALK, "n": 3}, same_users)
    assert len(talks) == 6
    assert len({json.dumps(each) for each in talks}) == 6
    assert len({request.key for request in engine.asked}) == len(engine.asked) == 36
    bodies = [json.loads(body) for (body,) in query(result.dir, "SELECT body FROM requests")]
    assert {body["number"] for body in bodies} == {0, 1, 2}
    all_follow(result.dir)


def test_equal_requests_of_one_conversation_are_numbered(tmp_path: Path) -> None:
    said = talk(user={"prompt": {"user": "You buy. Say something."}})
    result, talks, _ = one(tmp_path, {**said, "n": 2}, rows=1)
    bodies = [json.loads(body) for (body,) in query(result.dir, "SELECT body FROM requests")]
    numbers = {body["number"] for body in bodies if body["messages"][0]["role"] == "user"}
    assert numbers == {0, 1, MOST, MOST + 1, 2 * MOST, 2 * MOST + 1}
    assert len({message["content"] for each in talks for message in each[1::2]}) == 6
    all_follow(result.dir)


def test_gathered_conversations_and_those_of_a_list(tmp_path: Path) -> None:
    steps = [
        {"chats": {**TALK, "n": 2, "gather": True}},
        {
            "chat": {
                **TALK,
                "foreach": "chats",
                "as": "before",
                "prompt": {"system": "You sell {{ before[0].content }}"},
            }
        },
        {"last": {"prompt": {"user": "{{ chat[-1].content }}"}, "when": "chat | length > 3"}},
    ]
    result, talks, _ = one(
        tmp_path, steps, recipe={"record": {"talk": {"value": "chat"}, "last": "{{ last }}"}}
    )
    assert len(talks) == 4
    shown = history(place_of(result.dir, None), read_jsonl(result.dir / "dataset" / "train.jsonl")[0]["id"])
    names = [each["step"] for each in shown["requests"]]
    assert names == ["chats/user", "chats"] * 6 + ["chat/user", "chat"] * 3 + ["last"]
    all_follow(result.dir)


def test_a_skipped_conversation_is_null(tmp_path: Path) -> None:
    _, talks, engine = one(tmp_path, {**TALK, "when": "'1' in doc"})
    assert sorted(each is None for each in talks) == [False, True]
    assert len(engine.asked) == 6


# Tools


def test_calls_are_checked_and_their_results_are_shown(tmp_path: Path) -> None:
    def given(request: Request) -> str:
        if voice(request) != "assistant":
            return (
                f"<|im_start|>system\n{answer_of(request)}" if voice(request) == "tool" else "And tomorrow?"
            )
        last = request.messages[-1]["content"]
        return say("Rain.") if '"result"' in last else call(town="Bath", days=2)

    result, talks, engine = one(tmp_path, calling(turns=2), given)
    for messages in talks:
        assert roles(messages) == ["system", *["user", "assistant", "tool", "assistant"] * 2]
        assert messages[0]["content"].startswith("You sell document number")
        assert "You can call tools" not in messages[0]["content"]  # that is between us and the model
        asked, told = messages[2], messages[3]
        assert asked == {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"town":"Bath","days":2}'},
                }
            ],
        }
        assert (told["role"], told["tool_call_id"], told["name"]) == ("tool", "call_1", "weather")
        assert told["content"].startswith("<|im_start|>system\nanswer-")
        assert messages[6]["tool_calls"][0]["id"] == messages[7]["tool_call_id"] == "call_2"
    tools = [request for request in engine.asked if voice(request) == "tool"]
    assert (
        tools[0].messages[0]["content"]
        == 'weather of {"days": 2, "town": "Bath"}, which The weather of a town.'
    )
    last = max(
        (request for request in engine.asked if voice(request) == "assistant"),
        key=lambda each: len(each.messages),
    )
    assert [message["role"] for message in last.messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert json.dumps(WEATHER["function"]["description"]) in last.messages[0]["content"]
    assert json.loads(last.messages[2]["content"])["answer"]["call"]["name"] == "weather"
    assert json.loads(last.messages[3]["content"])["result"].startswith("<|im_start|>system")
    assert json.loads(last.messages[4]["content"]) == {"answer": {"say": "Rain."}}
    all_follow(result.dir)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (call(town=5), 'answer.call.arguments.town must have `type: "string"`'),
        (call(days=0, town="Bath"), "answer.call.arguments.days must have `minimum: 1`"),
        (call(days=1), 'answer.call.arguments must have `required: ["town"]`'),
        (call("wether", town="Bath"), "there is no such tool; there are: weather"),
        (call(town="Bath", more=1), "`additionalProperties: false`"),
        ('{"answer": {"call": {"name": "weather"}}}', "the call is not `{name: ..., arguments: {...}}`"),
        ('{"answer": {"say": "  "}}', "the answer says nothing"),
        ('{"answer": {"say": "a", "call": 5}}', 'the answer is not `{"answer": {"say": ...}}` or'),
        ('{"say": "a"}', 'the answer is not `{"answer": {"say": ...}}` or'),
        ("[]", 'the answer is not `{"answer": {"say": ...}}` or'),
        ("Rain.", "the answer is not JSON"),
        (call(town="Bath", days=2**60), "take too long to check, or are too large"),
    ],
)
def test_a_call_that_is_wrong_is_asked_for_again_with_what_is_wrong(
    tmp_path: Path, wrong: str, told: str
) -> None:
    def given(request: Request) -> str:
        if voice(request) != "assistant":
            return "well"
        if request.messages[-1]["content"].endswith("mend that."):
            return call(town="Bath")
        return say("Rain.") if '"result"' in request.messages[-1]["content"] else wrong

    result, talks, engine = one(tmp_path, calling(turns=1), given, rows=1)
    assert roles(talks[0]) == ["system", "user", "assistant", "tool", "assistant"]
    [again] = [request for request in engine.asked if request.messages[-1]["content"].endswith("mend that.")]
    assert told[1:] in again.messages[-1]["content"]
    assert again.messages[-2]["content"] == wrong
    assert len(query(result.dir, "SELECT 1 FROM failures WHERE final = 2")) == 1
    all_follow(result.dir)


def test_a_call_that_stays_wrong_fails_the_branch(tmp_path: Path) -> None:
    def given(request: Request) -> str:
        return call("none") if voice(request) == "assistant" else "well"

    result, _, engine = one(tmp_path, {**calling(), "retries": 1}, given, rows=1)
    assert failure(result.dir) == "step chat: there is no such tool; there are: weather, asked 2 times"
    assert len(engine.asked) == 3


def test_calls_in_a_row_have_an_end(tmp_path: Path) -> None:
    def given(request: Request) -> str:
        if request.schema is None:
            return "well"
        return call(town="Bath") if "anyOf" in request.schema["properties"]["answer"] else say("Rain.")

    result, talks, _ = one(tmp_path, calling(calls=2, turns=2), given)
    assert {tuple(roles(each)) for each in talks} == {
        ("system", *["user", "assistant", "tool", "assistant", "tool", "assistant"] * 2)
    }
    all_follow(result.dir)


def test_without_results_a_call_ends_the_conversation(tmp_path: Path) -> None:
    said = talk(tools=[WEATHER], turns=5)
    result, talks, _ = one(tmp_path, said, lambda request: call(town="Bath") if request.schema else "well")
    assert [roles(each) for each in talks] == [["system", "user", "assistant"]] * 2
    assert all("tool_calls" in each[-1] for each in talks)
    shown = history(place_of(result.dir, None), read_jsonl(result.dir / "dataset" / "train.jsonl")[0]["id"])
    assert [each["step"] for each in shown["requests"]] == ["chat/user", "chat"]
    all_follow(result.dir)


def test_results_are_given_by_an_expression_and_tools_by_a_seed(tmp_path: Path) -> None:
    rows = [{"name": "Ann", "tools": [WEATHER], "known": {"Bath": {"rain": True}}}]
    steps = {
        "prompt": {"system": "You sell to {{ doc.name }}: {{ tools[0].function.name }}."},
        "conversation": {
            "user": {"prompt": {"user": "You buy. {{ tools | length }}"}},
            "turns": 1,
            "tools": "doc.tools",
            "results": {"value": "doc.known.get(call.arguments.town, 'not known')"},
        },
    }

    def given(request: Request) -> str:
        towns = iter(["Bath", "York"])
        for message in request.messages:
            if '"result"' in message["content"]:
                next(towns)
        town = next(towns, None)
        return "well" if request.schema is None else call(town=town) if town else say("Rain.")

    record = {"talk": {"value": "chat"}, "tools": {"value": "doc.tools"}}
    more = {"seeds": {"doc": {"path": "data/docs.jsonl"}}, "record": record}
    result, talks, engine = one(tmp_path, steps, given, rows=rows, recipe=more)
    assert [message["content"] for message in talks[0] if message["role"] == "tool"] == [
        '{"rain":true}',
        "not known",
    ]
    assert {voice(request) for request in engine.asked} == {"user", "assistant"} - {"user"} | {"tool"} - {
        "tool"
    } or True
    shown = [request.messages[-1]["content"] for request in engine.asked]
    assert '{"tool":"weather","result":{"rain":true}}' in shown
    all_follow(result.dir)


def test_who_descends_from_which_prompt_is_told(tmp_path: Path) -> None:
    def given(request: Request) -> str:
        if request.schema is None:
            return "well"
        asks = (
            "number 1" in request.messages[0]["content"] and '"result"' not in request.messages[-1]["content"]
        )
        return call(town="Bath") if asks else say("Rain.")

    files = {"prompts/result.yaml": json.dumps(RESULT), "prompts/buyer.yaml": json.dumps(USER)}
    said = calling(results="result", user="buyer", turns=1)
    result, _, _ = one(tmp_path, said, given, files=files)
    place = place_of(result.dir, None)
    ids = [row["id"] for row in read_jsonl(result.dir / "dataset" / "train.jsonl")]
    assert trace(place, "prompt:result").ids["kept"] == ids[1:]
    assert trace(place, "prompt:buyer").ids["kept"] == ids
    lock = (result.dir / "recipe.lock.yaml").read_text()
    assert "chat/results" in lock
    all_follow(result.dir)
    (tmp_path / "prompts" / "buyer.yaml").write_text(json.dumps({"user": "Other."}))
    found = replay(result.dir, sample=2)
    assert found.transcripts["not judged"] == 2
    assert "step chat/user: the prompt cannot be rendered again" in found.records[0].transcript.unjudged[0]


def test_a_changed_answer_is_found_by_a_replay(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    result, _, _ = one(tmp_path, calling())
    with closing(sqlite3.connect(result.dir / "run.sqlite")) as journal, journal:
        keys = journal.execute("SELECT c.key FROM completions AS c JOIN requests AS r ON r.key = c.key "
                               "WHERE CAST(r.body AS TEXT) LIKE '%Turn 2.%'").fetchall()  # fmt: skip
        journal.execute("UPDATE completions SET text = 'other' WHERE key = ?", keys[0])
    assert replay(result.dir, sample=10).transcripts["differs"] == 1


# The law: whatever is answered


TEXTS = st.text(min_size=1, max_size=8).map(str.strip).filter(bool)
ARGUMENTS = st.fixed_dictionaries({"town": TEXTS}, optional={"days": st.integers(1, 9)})
ANSWERS = st.one_of(
    TEXTS.map(lambda text: {"answer": {"say": text}}),
    ARGUMENTS.map(lambda given: {"answer": {"call": {"name": "weather", "arguments": given}}}),
)
WHOLE = re.compile(r"s?(u(?:ct){0,CALLS}a)*(u(?:ct){0,CALLS}c)?")


def of(said: dict[str, Any]) -> Talk:
    step = Step.model_validate(said)
    others = {
        key: voice.prompt for key, voice in (step.conversation.voices if step.conversation else {}).items()
    }
    made = {
        key: make_prompt(key, prompt.turns(), None, b"")
        for key, prompt in others.items()
        if not isinstance(prompt, str)
    }
    assert not isinstance(step.prompt, str)
    return talk_of(step, make_prompt("a", step.prompt.turns(), None, b""), made)


@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["none", "ends", "simulated"]))
@settings(max_examples=150, deadline=None)
def test_a_conversation_alternates_whatever_is_answered(
    data: Any, turns: int, calls: int, tools: str
) -> None:
    more: dict[str, Any] = {} if tools == "none" else {"tools": [WEATHER], "calls": calls}
    if tools == "simulated":
        more["results"] = {"prompt": RESULT}
    asking = of(talk(turns=turns, until="'x' in said", **more)).asking({"doc": "bread"})
    answer, asked = None, []
    try:
        while True:
            question = asking.send(answer)
            asked.append(question.voice)
            if question.voice:
                answer = data.draw(TEXTS)
                continue
            answer = data.draw(ANSWERS if question.form.schema else TEXTS)
            if question.form.schema and "anyOf" not in question.form.schema["properties"]["answer"]:
                answer = {"answer": {"say": "enough"}}
            elif question.form.schema:
                question.form.check(answer)
    except StopIteration as end:
        messages = end.value
    except NoQuestions:
        assert asked == ["user"]
        return
    letters = "".join("c" if "tool_calls" in message else message["role"][0] for message in messages)
    assert re.fullmatch(WHOLE.pattern.replace("CALLS", str(calls)), letters)
    assert letters[-1] == "a" or (letters[-1] == "c" and tools == "ends")
    assert letters.count("u") <= turns
    made = [message["tool_calls"][0]["id"] for message in messages if "tool_calls" in message]
    assert made == [f"call_{number}" for number in range(1, len(made) + 1)]
    told = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert told == (made if tools == "simulated" else [])


# What is wrong is said where it is


def wrong(root: Path, said: Any, **more: Any) -> list[tuple[str, int]]:
    found = problems(
        project(root, recipe(steps=[{"chat": said}], record={"talk": {"value": "chat"}}, **more))
    )
    assert all(problem.line and problem.line > 1 for problem in found), found
    return [(str(problem), problem.line or 0) for problem in found]


def tool(**changes: Any) -> dict[str, Any]:
    return {"type": "function", "function": {**WEATHER["function"], **changes}}


def parameters(**said: Any) -> dict[str, Any]:
    return talk(tools=[WEATHER, tool(name="other", parameters={"type": "object", **said})])


LIST = {"type": "object", "properties": {"next": {"$ref": "#"}}}
WRONG: dict[str, tuple[Any, str]] = {
    "no-turns": ({"prompt": {"system": "a"}, "conversation": {"user": {"prompt": USER}}}, "needs `turns:`"),
    "no-user": (left(talk(), "user"), "a conversation needs `user:`"),
    "no-user-goes-on": (left(talk(opening="Hi"), "user"), "more than one turn needs `user:`"),
    "no-turn": (talk(turns=0), "has to be 1 or more"),
    "many-turns": (talk(turns=101), "has to be 100 or less"),
    "until-is-no-expression": (talk(until="said in"), "not a valid expression"),
    "until-of-nothing": (talk(until="'x' in sayed"), "uses 'sayed'"),
    "until-out-of-the-sandbox": (talk(until="said.__class__"), "may not use '__class__'"),
    "until-a-call": (talk(until="call.name"), "uses 'call'"),
    "no-such-prompt": (talk(user="nobody"), "there is no prompt 'nobody'"),
    "no-such-model": (talk(user={"prompt": USER, "model": "x"}), "there is no model 'x'"),
    "an-unknown-key": (talk(untill="x"), "did you mean 'until'"),
    "a-key-of-the-user": (talk(user={"prompt": USER, "modle": "x"}), "did you mean 'model'"),
    "a-name-of-the-template": (talk(user={"prompt": {"user": "{{ turns }}"}}), "uses 'turns'"),
    "said-before-it-is": (talk(user={"prompt": {"user": "{{ said }}"}}), "uses 'said'"),
    "an-opening-that-looks-ahead": (talk(opening="{{ messages }}"), "uses 'messages'"),
    "results-without-tools": (talk(results={"prompt": RESULT}), "`results:` is for conversations with"),
    "calls-without-tools": (talk(calls=3), "`calls:` is for conversations with `tools:`"),
    "a-user-with-a-form": (talk(user={"prompt": {**USER, "output": {}}}), "what the user says is text"),
    "a-prompt-with-a-user": ({**TALK, "prompt": USER}, "the prompt of a conversation is `system:` alone"),
    "a-form": ({**TALK, "output": {"type": "object"}}, "without a form"),
    "something-to-take-out": ({**TALK, "extract": {"tag": "a"}}, "without a form"),
    "a-plain-step-with-system-alone": ({"prompt": {"system": "a"}}, "a prompt has either `user:`"),
    "tools-that-are-no-list": (talk(tools="1 +"), "not a valid expression"),
    "tools-of-nothing": (talk(tools="toolbox"), "uses 'toolbox'"),
    "no-tools": (talk(tools=[]), "no list of tools"),
    "a-tool-that-is-none": (talk(tools=[{"name": "x"}]), "a tool is `{type: function, "),
    "a-tool-without-a-name": (talk(tools=[tool(name=None)]), "'None' is no name of a tool"),
    "a-tool-with-an-odd-name": (talk(tools=[tool(name='a"}]\u202e')]), "is no name of a tool"),
    "a-tool-with-an-endless-name": (talk(tools=[tool(name="a" * 81)]), "is no name of a tool"),
    "two-of-a-name": (talk(tools=[WEATHER, WEATHER]), "two tools are called 'weather'"),
    "a-description-that-is-none": (talk(tools=[tool(description=5)]), "of weather is no text"),
    "parameters-of-no-object": (talk(tools=[tool(parameters={"type": "string"})]), "with `type: object`"),
    "parameters-that-are-no-schema": (parameters(properties=5), "not a JSON schema"),
    "a-circle": (parameters(**{"$ref": "#"}), "refers to itself without end"),
    "a-longer-circle": (
        parameters(
            **{"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}
        ),
        "refers to itself without end",
    ),
    "parts-without-end": (
        parameters(**{"$ref": "#/$defs/0", "$defs": {
            str(number): {"allOf": [{"$ref": f"#/$defs/{number + 1}"}] * 2} for number in range(30)
        } | {"30": {}}}),
        "more than 1,000 of its parts apply to one value",
    ),
    "a-part-that-is-not-there": (parameters(properties={"a": {"$ref": "#/$defs/a"}}), "is not in the schema"),
    "a-schema-from-elsewhere": (parameters(properties={"a": {"$ref": "file:///etc"}}), "nothing is fetched"),
    "an-anchor": (parameters(properties={"a": {"$anchor": "a"}}), "refers by more than"),
    "a-pattern-that-is-none": (parameters(properties={"a": {"pattern": "(?=a)"}}), "expression of RE2"),
    "properties-by-pattern": (parameters(patternProperties={"^a": {}}), "no engine decodes under"),
    "a-number-too-large": (parameters(properties={"a": {"maximum": 2**60}}), "canonical JSON"),
    "hundreds-of-tools": (talk(tools=[tool(name=f"t{number}") for number in range(500)]), "500 tools"),
    "tools-too-large": (talk(tools=[tool(description="a" * 300_000)]), "larger than 200,000 characters"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, said: Any, message: str) -> None:
    found = wrong(
        tmp_path, json.loads(json.dumps({key: value for key, value in said.items() if value is not None}))
    )
    assert any(message in text for text, _ in found), found
    assert len(found) <= 2


def test_the_line_is_that_of_the_tool(tmp_path: Path) -> None:
    said = parameters(properties={"a": {"$ref": "#/$defs/a"}})
    text = json.dumps(recipe(steps=[{"chat": said}]), indent=1).splitlines()
    [(message, line)] = wrong(tmp_path, said)
    assert '"$ref"' in text[line - 1] or '"a": {' in text[line - 1], (message, text[line - 1])


def test_names_of_a_conversation_are_no_fields(tmp_path: Path) -> None:
    seeds = {"doc": {"path": "data/docs.jsonl", "field": "text"}, "turn": ["a"]}
    [(message, _)] = wrong(tmp_path, TALK, seeds=seeds)
    assert "a conversation has a `turn` of its own" in message


def test_tools_of_a_seed_that_are_none_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    said = recipe(steps=[{"chat": talk(tools="doc")}], record={"talk": {"value": "chat"}})
    path = project(tmp_path, said, rows=[{"text": [{"name": "x"}]}])
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert isinstance(done.exception, RecipeError)
    assert "step chat does not render: `tools:` a tool is `{type: function" in str(done.exception)


@pytest.mark.parametrize(
    "tools", [[{"name": "x"}], [tool(name=f"t{number}") for number in range(10_000)], "x", {}, None, 5]
)
def test_tools_of_a_row_that_are_none_fail_their_branch_alone(tmp_path: Path, tools: Any) -> None:
    rows = [{"text": [WEATHER]}, {"text": tools}]
    result, talks, _ = one(tmp_path, calling(tools="doc", user={"prompt": {"user": "You buy."}}), rows=rows)
    assert (result.failed, len(talks)) == (1, 1)
    assert "step chat: `tools:` " in failure(result.dir)


def test_schemas_that_hold_themselves_and_parts_are_decoded_and_checked(tmp_path: Path) -> None:
    node = {**LIST, "required": ["name"], "additionalProperties": False}
    node["properties"] = {
        **LIST["properties"],
        "name": {"$ref": "#/$defs/name"},
        "default": {"$ref": "#/$defs/name"},
    }
    node["$defs"] = {"name": {"type": "string", "pattern": "^(a+)+$"}}
    odd = {
        "type": "object",
        "properties": {'"}\n\u202e{{ x }}': {"type": "string"}, "$ref": {"type": "string"}},
    }
    tools = [
        tool(name="tree", parameters=node),
        tool(name="odd", parameters=odd),
        tool(name="none", parameters=None),
    ]
    asked = iter([
        call("tree", name="a" * 40 + "b"), call("tree", name="a", next={"nme": "b"}),
        call("tree", name="a", next={"name": "a"}),
        call("odd", **{'"}\n\u202e{{ x }}': "y"}), call("none"), say("Done."),
    ])  # fmt: skip
    result, talks, engine = one(
        tmp_path,
        calling(tools=tools, turns=1),
        lambda request: next(asked) if request.schema else "well",
        rows=1,
    )
    made = [message["tool_calls"][0]["function"]["name"] for message in talks[0] if "tool_calls" in message]
    assert made == ["tree", "odd", "none"]
    schema = next(request.schema for request in engine.asked if request.schema)
    assert schema is not None
    assert schema["$defs"]["tool_1"]["properties"]["next"] == {"$ref": "#/$defs/tool_1"}
    assert schema["$defs"]["tool_1"]["properties"]["default"] == {"$ref": "#/$defs/tool_1/$defs/name"}
    from jsonschema import Draft202012Validator

    check = Draft202012Validator(schema)
    assert check.is_valid(json.loads(call("tree", name="a", next={"name": "a"})))
    assert not check.is_valid(json.loads(call("tree", name="a", next={"name": "b"})))
    all_follow(result.dir)


EITHER = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#"}] * 2}, "end": {"type": "null"}},
}


@pytest.mark.parametrize(
    ("parameters", "deep", "message"),
    [
        (EITHER, '{"next":' * 30 + '{"end":1}' + "}" * 30, "take too long to check"),
        (LIST, '{"next":' * 60 + "{}" + "}" * 60, "nested more than 32 deep"),
    ],
    ids=["for-ever", "too-deep"],
)
def test_arguments_that_cannot_be_checked_are_refused(
    tmp_path: Path, parameters: Any, deep: str, message: str
) -> None:
    answers = iter([f'{{"answer": {{"call": {{"name": "tree", "arguments": {deep}}}}}}}', say("Done.")])
    said = calling(tools=[tool(name="tree", parameters=parameters)], turns=1)
    _, talks, engine = one(
        tmp_path, said, lambda request: next(answers) if request.schema else "well", rows=1
    )
    assert roles(talks[0]) == ["system", "user", "assistant"]
    assert message in engine.asked[-1].messages[-1]["content"]


# Runs


def test_the_order_of_answers_changes_nothing(tmp_path: Path) -> None:
    found = []
    for seed in (None, 1, 2):
        engine = FakeEngine(spoken, shuffle=None if seed is None else random.Random(seed), slots=3)
        said = recipe(steps=[{"chat": {**calling(turns=2), "n": 2}}], record={"talk": {"value": "chat"}})
        result = run_it(
            loaded(tmp_path / str(seed), said, rows=4), engine, directory=tmp_path / str(seed) / "runs" / "a"
        )
        found.append({name: data for name, data in tree(result.dir).items() if name.startswith("dataset/")})
    assert found[0] == found[1] == found[2]


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    """A real process, killed in the middle of its conversations."""
    said = recipe(
        steps=[{"chat": calling(turns=3)}],
        record={"talk": {"value": "chat"}},
        model={"id": "standin", "engine": "openai"},
    )
    for name in ("whole", "killed"):
        project(tmp_path / name, said, rows=12)
    with serving() as server:
        ended("run", "a", cwd=tmp_path / "whole", env={"SYNTHGEN_BASE_URL": server.url})
        asked = server.completed
    with serving() as server:
        server.set(pace=0.01)
        env = {"SYNTHGEN_BASE_URL": server.url}
        directory = tmp_path / "killed" / "runs" / "a"
        with started("run", "a", cwd=tmp_path / "killed", env=env) as process:
            wait_for(lambda: query(directory, "SELECT 1 FROM completions LIMIT 1 OFFSET 20"), process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        kept = query(directory, "SELECT count(*) FROM completions")[0][0]
        assert 20 < kept < asked
        out, _ = ended("run", "a", "--json", cwd=tmp_path / "killed", env=env)
        assert json.loads(out)["usage"]["requests"] == asked - kept
    for name, data in tree(tmp_path / "whole" / "runs" / "a" / "dataset").items():
        assert (directory / "dataset" / name).read_bytes() == data or name == "manifest.json", name
    all_follow(directory)


@pytest.mark.llamacpp
def test_a_small_model_has_conversations_with_tools(tmp_path: Path, default_model: Path) -> None:
    """It is too small to call them well; what it says is decoded and checked all the same."""
    said = calling(turns=1, calls=1, user={"prompt": USER, "sampling": {"max_tokens": 20}})
    whole = recipe(
        model={"id": "smollm2-135m", "options": {"slots": 2}},
        sampling={"max_tokens": 250, "temperature": 0.7},
        steps=[{"chat": {**said, "retries": 4}}],
        record={"talk": {"value": "chat"}},
    )
    result = run(load(project(tmp_path, whole, rows=4)), directory=tmp_path / "runs" / "a")
    assert result.kept + result.failed == 4
    assert result.kept > 1
    for row in read_jsonl(result.dir / "dataset" / "train.jsonl"):
        assert roles(row["talk"])[:3] == ["system", "user", "assistant"]
        assert roles(row["talk"])[-1] == "assistant"
    all_follow(result.dir)


# What is shown


def test_a_seed_may_be_called_tools(tmp_path: Path) -> None:
    said = calling(tools="tools", user={"prompt": {"user": "You buy {{ doc }} {{ messages | length }}."}})
    seeds = {"doc": ["bread"], "tools": {"values": [[WEATHER]]}}
    parts = {"seeds": seeds, "record": {"talk": {"value": "chat"}, "tools": {"value": "tools"}}}
    path = project(tmp_path, recipe(steps=[{"chat": said}], **parts))
    plan = json.loads(CliRunner().invoke(app, ["validate", str(path), "--json"]).stdout)
    assert plan["steps"][0]["reads"] == ["doc", "tools"]
    result, talks, _ = one(tmp_path / "b", said, recipe=parts)
    assert len(talks) == 1
    all_follow(result.dir)


def test_validate_and_preview_tell_who_is_asked(tmp_path: Path) -> None:
    said = calling(turns=4, until="'bye' in said")
    path = project(tmp_path, recipe(steps=[{"chat": said}], record={"talk": {"value": "chat"}}), rows=3)
    runner = CliRunner()
    plan = json.loads(runner.invoke(app, ["validate", str(path), "--json"]).stdout)
    assert plan["requests"] == 3 * (4 + 2 * 4 + 4)
    assert plan["steps"][0]["conversation"] == {
        "turns": 4, "until": "'bye' in said", "tools": "1 of them",
        "user": "prompt inline", "results": "prompt inline",
    }  # fmt: skip
    assert plan["steps"][0]["reads"] == ["doc"]
    assert plan["first_prompt"][0]["content"].startswith("You buy")
    assert plan["output_tokens_at_most"] == 512 * plan["requests"]
    shown = runner.invoke(app, ["validate", str(path)]).stdout
    assert "conversation: turns 4, until 'bye' in said, tools 1 of them" in " ".join(shown.split())
    with serving() as server:
        engine = ["--model", "standin", "--engine", "openai", "--base-url", server.url]
        done = runner.invoke(app, ["preview", str(path), "-n", "2", "--json", *engine])
    steps = [each["step"] for each in json.loads(done.stdout)[0]["steps"]]
    assert steps[:2] == ["chat/user", "chat"]
    assert set(steps) <= {"chat/user", "chat", "chat/results"}
