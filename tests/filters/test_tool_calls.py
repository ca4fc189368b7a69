import json
import time
from typing import Any

import pytest

from synthgen.filters.tool_calls import tool_calls
from synthgen.measure import Measurement
from synthgen.record import Record

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = {"role": "user", "content": "Weather?"}
SAY = {"role": "assistant", "content": "It rains."}


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    more = {} if parameters is None else {"parameters": parameters}
    return {"type": "function", "function": {"name": name, **more}}


TOOLS = [tool("weather", CITY), tool("time")]


def call(name: str = "weather", arguments: Any = '{"city": "Bath"}', id: str = "1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Any, content: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id: str | None = "1", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": "rain", **({} if id is None else {"tool_call_id": id}), **more}


def measured(messages: Any, tools: Any = TOOLS) -> Measurement:
    return of_row({"messages": messages, "tools": tools})


def of_row(given: dict[str, Any]) -> Measurement:
    [found] = tool_calls.make().measure([Record("r", {}, given)])
    assert isinstance(found, Measurement), found
    return found


@pytest.mark.parametrize(
    "messages",
    [
        [ASK, SAY],
        [ASK, calling(call()), result(), SAY],
        [ASK, calling(call())],  # calls at the end are what is learned
        [ASK, calling(call(), content="I look."), result(name="weather"), SAY],
        [ASK, calling(call(), call("time", "{}", "2")), result("2"), result("1"), SAY],
        [ASK, calling(call()), calling(call("time", "{}", "2")), result("1"), result("2"), SAY],
        [ASK, calling(call()), result(), calling(call(id="2")), result("2"), SAY],
        [ASK, calling(call("time", {"zone": "UTC"}))],  # a tool without a schema takes anything
        [ASK, calling(call("time", "{}")), result(), calling(call("time", "{}", "2")), result("2")],
        [ASK, calling(call(arguments='{"city": "Bath", "more": 1}'))],
    ],
)  # fmt: skip
@pytest.mark.parametrize("tools", [TOOLS, json.dumps(TOOLS), [each["function"] for each in TOOLS]])
def test_where_nothing_is_wrong(messages: Any, tools: Any) -> None:
    assert measured(messages, tools) == Measurement(0.0)


def test_without_calls_tools_do_not_matter() -> None:
    for tools in (None, [], "", 5, "no JSON", [tool("weather", {"type": "dict"})]):
        assert measured([ASK, SAY], tools) == Measurement(0.0)
    assert of_row({"text": "No conversation."}) == Measurement(0.0)


@pytest.mark.parametrize(
    ("messages", "place", "reason"),
    [
        ([ASK, calling(call("wether"))], 2, "wether: there is no such tool"),
        ([ASK, calling(call(arguments="{'city': 'Bath'}"))], 2, "weather: the arguments are no JSON: "),
        ([ASK, calling(call(arguments=""))], 2, "weather: the arguments are no JSON: the text is empty"),
        ([ASK, calling(call(arguments="[1]"))], 2, "weather: the arguments are no JSON object"),
        ([ASK, calling(call(arguments="{}"))], 2, "do not fit: $: 'city' is a required property"),
        ([ASK, calling(call(arguments='{"city": 5}'))], 2, "do not fit: $.city: 5 is not of type 'string'"),
        ([ASK, calling(call(arguments='{"city": "a", "city": "b"}'))], 2, "stands twice"),
        ([ASK, calling(call(), call())], 2, "two calls have the id '1'"),
        ([ASK, calling(call()), result("2")], 3, "a result names the call '2', which is not before it"),
        ([ASK, calling(call()), result(None)], 3, "a result names no call"),
        ([ASK, result(), calling(call())], 2, "a result names the call '1', which is not before it"),
        ([ASK, calling(call()), result(), result()], 4, "another result of the call '1'"),
        ([ASK, calling(call()), result(name="time")], 3, "of a call of weather is said to be of time"),
        ([ASK, calling(call()), SAY], 2, "the call of weather has no result, and the conversation goes on"),
        ([ASK, calling(call()), ASK, SAY], 2, "the call of weather has no result"),
        (
            [ASK, calling(call(), call("time", "{}", "2")), result("2"), SAY],
            2,
            "the call of weather has no result",
        ),
    ],
)
def test_what_is_wrong(messages: Any, place: int, reason: str) -> None:
    found = measured(messages)
    assert found.value == 1
    assert found.detail is not None
    assert found.detail["message"] == place
    assert reason in found.detail["reason"]


def test_each_counts() -> None:
    wrong = [
        ASK,
        calling(call("a", "{}", "1"), call(arguments="{", id="2")),
        SAY,
        calling(call(id="3")),
        result("9"),
    ]
    assert measured(wrong).value == 5


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        (None, "no tools are given"),
        ("no JSON", "tools are a list, or its JSON"),
        (
            [tool("weather", {"type": "dict"})],
            "the parameters of the tool are no JSON schema: not a JSON schema",
        ),
        ([tool("weather", "none")], "the parameters of the tool are no JSON schema"),
        ([tool("weather", {"$ref": "#/$defs/x"})], "'#/$defs/x' is not in the schema"),
        ([tool("weather", {"$ref": "http://localhost:1/x.json"})], "is not in the schema"),
    ],
)
def test_tools_that_a_call_cannot_be_held_against(tools: Any, reason: str) -> None:
    found = measured([ASK, calling(call())], tools)
    assert found.value == 1
    assert found.detail is not None
    assert reason in found.detail["reason"]


def test_of_two_tools_of_a_name_a_call_fits_either() -> None:
    two = [tool("weather", {"type": "object", "required": ["zip"]}), tool("weather", CITY)]
    assert measured([ASK, calling(call())], two).value == 0
    assert measured([ASK, calling(call(arguments="{}"))], two).value == 1


def test_of_a_preference_the_chosen_answer_is_looked_at() -> None:
    right, wrong = [calling(call())], [calling(call("nothing"))]
    row = {"prompt": [ASK], "chosen": right, "rejected": wrong, "tools": TOOLS}
    assert of_row(row).value == 0
    assert of_row({**row, "chosen": wrong}).value == 1


def test_tools_may_be_a_field_beside_the_row() -> None:
    record = Record("r", {"tools": TOOLS}, {"messages": [ASK, calling(call())]})
    assert tool_calls.make().measure([record]) == [Measurement(0.0)]


def text(**schema: Any) -> list[Any]:
    return [tool("weather", {"type": "object", "properties": {"city": {"type": "string", **schema}}})]


def test_patterns_are_those_of_re2_alone() -> None:
    told = [ASK, calling(call())]
    assert measured(told, text(pattern="^B")).value == 0
    assert measured(told, text(pattern="^X")).value == 1
    assert measured(told, text(pattern="(?=X)")).value == 0  # which RE2 does not know
    for pattern, value in (("^c", 1), ("^d", 0), ("(?=c)", 0)):
        other = {"type": "object", "patternProperties": {pattern: {"type": "number"}}}
        assert measured(told, [tool("weather", other)]).value == value


def nested(deep: int) -> str:
    return '{"a":' * deep + "1" + "}" * deep


TWICE = {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
CIRCLE = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (TWICE, nested(90)),
        (CIRCLE, "{}"),
        ({"properties": {"city": {"pattern": "^(a+)+$"}}}, json.dumps({"city": "a" * 60 + "!"})),
        ({"patternProperties": {"^(a+)+$": True}, "additionalProperties": False}, f'{{"{"a" * 60}!": 1}}'),
        ({"type": "object"}, nested(5000)),
    ],
)  # fmt: skip
def test_a_schema_of_a_stranger_takes_no_time(schema: Any, arguments: str) -> None:
    begun = time.monotonic()
    measured([ASK, calling(call(arguments=arguments))], [tool("weather", schema)])
    assert time.monotonic() - begun < 5
    if schema in (TWICE, CIRCLE):
        found = measured([ASK, calling(call(arguments=arguments))], [tool("weather", schema)])
        assert found.detail is not None
        reason = "nests too deep for the schema" if schema == TWICE else "refers to itself without end"
        assert reason in found.detail["reason"]
