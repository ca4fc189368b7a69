"""Calls of tools, in the layouts that they have in practice, each read as the same conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.calls import NoCalls, functions, tools_in
from synthgen.conversation import NoConversation, conversation
from synthgen.export.rows import CALLING
from synthgen.record import Record

ASK = {"role": "user", "content": "Weather in Bath?"}
SAY = {"role": "assistant", "content": "It rains."}


def call(id: str = "call_1", name: str = "weather", arguments: str = '{"city":"Bath"}') -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Any, content: Any = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls) or [call()]}


def result(id: str = "call_1", content: str = "rain", name: str = "weather") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id, "name": name}


WHOLE = [ASK, calling(), result(), SAY]
TOLD = '{"name": "weather", "arguments": {"city": "Bath"}}'
HUMAN, GPT = {"from": "human", "value": "Weather in Bath?"}, {"from": "gpt", "value": "It rains."}


def called(**said: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, **said}


@pytest.mark.parametrize(
    "turns",
    [
        WHOLE,
        [ASK, calling(content=None), result(), SAY],
        [ASK, called(tool_calls=[{**call(), "index": 0}]), {**result(), "refusal": None}, SAY],
        [ASK, called(tool_calls=[{"name": "weather", "arguments": {"city": "Bath"}}]),
         {"role": "tool", "content": "rain"}, SAY],
        [ASK, called(tool_calls=[call()], function_call=None),
         {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]}, SAY],
        [ASK, called(function_call={"name": "weather", "arguments": '{"city":"Bath"}'}),
         {"role": "function", "name": "weather", "content": "rain"}, SAY],
        [HUMAN, {"from": "function_call", "value": TOLD}, {"from": "observation", "value": "rain"}, GPT],
        [HUMAN, {"from": "tool_call", "value": f"[{TOLD}]"}, {"from": "tool_response", "value": "rain"}, GPT],
        [{**ASK, "tool_calls": None, "tool_call_id": None, "name": None}, calling(),
         {**result(), "tool_calls": []}, {**SAY, "tool_calls": None}],
    ],
)  # fmt: skip
def test_layouts_of_calls(turns: list[Any]) -> None:
    for key in ("messages", "conversations"):
        assert conversation({key: turns}, calls=True) == WHOLE
    assert conversation(turns, calls=True) == WHOLE
    assert conversation({"prompt": turns[:-1], "completion": turns[-1:]}, calls=True) == WHOLE


def test_several_calls_and_their_results() -> None:
    other = '{"name": "time", "arguments": {}}'
    turns = [
        HUMAN,
        {"from": "function_call", "value": f"[{TOLD},{other}]"},
        {"from": "observation", "value": "rain"},
        {"from": "observation", "value": "noon"},
        {"from": "function_call", "value": TOLD},
        {"from": "observation", "value": "sun"},
    ]
    messages = conversation({"conversations": turns}, calls=True)
    assert [each["id"] for message in messages for each in message.get("tool_calls", ())] == [
        "call_1", "call_2", "call_3"
    ]  # fmt: skip
    told = [each for each in messages if each["role"] == "tool"]
    assert [(each["tool_call_id"], each["name"], each["content"]) for each in told] == [
        ("call_1", "weather", "rain"), ("call_2", "time", "noon"), ("call_3", "weather", "sun")
    ]  # fmt: skip
    # A result without an id is that of the call whose name it has.
    named = [
        ASK,
        calling(call(), call("b", "time", "{}")),
        {"role": "tool", "name": "time", "content": "noon"},
    ]
    assert conversation(named, calls=True)[-1] == result("b", "noon", "time")
    # A new id is one that no call has.
    given = [ASK, calling(call("call_2")), result("call_2"), calling({"name": "time"})]
    assert conversation(given, calls=True)[-1]["tool_calls"] == [call("call_3", "time", "{}")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"city": "Bath"}', '{"city": "Bath"}'),
        ({"b": [1, None], "ä": "ü"}, '{"b":[1,null],"ä":"ü"}'),
        ({"n": 2**70}, f'{{"n":{2**70}}}'),
        (None, "{}"),
        ("", ""),
        ("no JSON", "no JSON"),
    ],
)
def test_arguments_are_a_text_that_is_left_as_it_is(arguments: Any, text: str) -> None:
    read = conversation([ASK, calling({"name": "f", "arguments": arguments})], calls=True)
    assert read[1]["tool_calls"][0]["function"]["arguments"] == text
    told = json.dumps({"name": "f", "arguments": arguments})
    assert conversation([HUMAN, {"from": "function_call", "value": told}], calls=True) == read


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (called(tool_calls=["x"]), "message 2: a call is a mapping, not str"),
        (called(tool_calls=[{"type": "custom", "custom": {}}]), "message 2: a call is of the type 'custom'"),
        (called(tool_calls=[{"id": "1"}]), "message 2: a call names no function"),
        (called(function_call={"name": ""}), "message 2: a call names no function"),
        (
            {"role": "user", "content": "x", "tool_calls": [call()]},
            "message 2 has tool_calls, and only an assistant",
        ),
        ({"from": "function_call", "value": "weather(Bath)"}, "message 2: its text is no call in JSON"),
        ({"from": "function_call", "value": "[]"}, "message 2: its text is no call in JSON"),
        (called(tool_calls=[]), "message 2 has no text"),
        (called(audio={"id": "x"}), "message 2 has audio"),
        (called(tool_calls=[{"name": "f", "arguments": {"a": {1, 2}}}]), "cannot be written as JSON"),
        ({"role": "narrator", "content": "x"}, "unknown role 'narrator'"),
    ],
)
def test_what_a_row_cannot_hold_is_told(turn: Any, message: str) -> None:
    with pytest.raises(NoConversation, match=message):
        conversation([ASK, turn], calls=True)


@pytest.mark.parametrize(
    "turn", [calling(), {"from": "function_call", "value": TOLD}, {"role": "function", "content": "x"}]
)
def test_without_tools_nothing_calls_them(turn: Any) -> None:
    with pytest.raises(NoConversation, match="where it has a field `tools`"):
        conversation([ASK, turn])


def test_without_tools_a_result_is_a_text() -> None:
    assert conversation([ASK, result()]) == [ASK, {"role": "tool", "content": "rain"}]


names, short = st.sampled_from(["a", "b"]), st.text(max_size=2)
values = st.dictionaries(short, st.none() | st.integers() | short, max_size=2)
made = st.fixed_dictionaries({"name": names, "arguments": values | short}, optional={"id": short})
said = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})
caller = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none() | short,
        "tool_calls": st.lists(made, min_size=1, max_size=3),
    }
)
answered = st.fixed_dictionaries(
    {"role": st.just("tool"), "content": short}, optional={"name": names, "tool_call_id": short}
)
messages = st.lists(said | caller | answered, min_size=1, max_size=6)


@given(messages)
def test_what_was_read_is_read_again_as_it_is(turns: list[Any]) -> None:
    once = conversation(turns, calls=True)
    assert conversation(once, calls=True) == once
    gaps = [{key: each.get(key) for key in CALLING} for each in once]  # as Parquet gives them back
    assert conversation(gaps, calls=True) == once
    for each in once:
        assert list(each) == [key for key in CALLING if key in each]
        assert all(isinstance(made["function"]["arguments"], str) for made in each.get("tool_calls", ()))


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("given", "tools"),
    [
        ([TOOL], [TOOL]),
        (json.dumps([TOOL]), [TOOL]),
        ([TOOL["function"]], [TOOL]),
        (json.dumps([TOOL["function"]]), [TOOL]),
        ([{"function": TOOL["function"], "strict": True}], [{**TOOL, "strict": True}]),
        (None, None),
        ("", None),
        (" null ", None),
        ([], None),
        ("[]", None),
    ],
)
def test_tools(given: Any, tools: Any) -> None:
    assert tools_in(given) == tools
    assert tools_in(functions(None if tools is None else json.dumps(tools))) == (
        tools and [{"type": "function", "function": each["function"]} for each in tools]
    )


@pytest.mark.parametrize(
    "given", [5, {}, "{}", "weather", ["weather"], [{}], [{"function": {}}], [{"name": 5}]]
)
def test_what_are_no_tools(given: Any) -> None:
    with pytest.raises(NoCalls, match=r"a tool is|tools are a list"):
        tools_in(given)


def test_what_filters_see() -> None:
    record = Record("r", {}, {"messages": WHOLE})
    assert record.answer == "It rains."
    assert record.instruction == "Weather in Bath?"
    assert record.all == 'Weather in Bath?\n\nweather({"city":"Bath"})\n\nrain\n\nIt rains.'
    ends = Record("r", {}, {"messages": [ASK, SAY, ASK, calling()]})
    assert ends.answer == "It rains."
    alone = Record("r", {}, {"messages": [ASK, calling(call(), call("b", "time", "{}"))]})
    assert alone.answer == 'weather({"city":"Bath"})\ntime({})'
    assert alone.both == 'Weather in Bath?\n\nweather({"city":"Bath"})\ntime({})'
    both = Record("r", {}, {"messages": [ASK, calling(content="I look.")]})
    assert (both.answer, both.all) == ("I look.", 'Weather in Bath?\n\nI look.\nweather({"city":"Bath"})')
    # Without calls an answer without a text is still the answer.
    assert Record("r", {}, {"messages": [ASK, SAY, ASK, {**SAY, "content": ""}]}).answer == ""
