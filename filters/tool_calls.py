"""Are the calls of tools in a conversation ones that its tools allow, and are they answered?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from synthgen import Measurement, Record, filter, schema_validator
from synthgen.calls import NoCalls, tools_in
from synthgen.filters.valid_json import NotJson, _at, checked, parsed
from synthgen.schema_checks import SchemaValidator, TooMuch, pattern_of
from synthgen.schemas import subschemas

QUOTED = 200
MOST_CHECKERS = 1_000
Problem = tuple[int, str]


@lru_cache(MOST_CHECKERS)
def _checker(schema: str) -> SchemaValidator | str:
    """For the JSON of a schema; or why there is none."""
    value = json.loads(schema)
    if not isinstance(value, dict):
        return "the parameters of the tool are no JSON schema"
    try:
        for part, _ in list(subschemas(value)):
            if isinstance(part, dict):
                _forget_unknown_patterns(part)
        return schema_validator(checked(value))
    except (ValueError, RecursionError) as error:
        return f"the parameters of the tool are no JSON schema: {error}"


def _forget_unknown_patterns(part: dict[str, Any]) -> None:
    """A pattern that RE2 does not know asks for nothing."""
    if isinstance(part.get("pattern"), str) and not _known(part["pattern"]):
        del part["pattern"]
    names = part.get("patternProperties")
    if isinstance(names, dict) and not all(map(_known, names)):
        del part["patternProperties"]
        part.pop("additionalProperties", None)


def _known(pattern: str) -> bool:
    try:
        return pattern_of(pattern) is not None
    except ValueError:
        return False


@filter(max=0, of="all")
class tool_calls:
    """How many things are wrong with the calls of tools in a conversation.

    Each of these counts: a call of a tool that is not among `tools`, arguments that are no JSON object or do
    not fit the JSON schema of the tool, a call with the id of another; a result that names no call before it,
    one that was answered already, or another tool; and a call that has no result though the conversation goes
    on. Calls at the end need none. A conversation without calls measures 0, whatever its tools are.

    The detail has what is wrong first, and the number of its message.

    Parameters: none. The tools are the field `tools` of the row or the record, a list or its JSON, each
    `{type: function, function: {name, description, parameters}}` or the function alone. Of a preference the
    prompt and the chosen answer are looked at. Of two tools of one name a call has to fit either.

    Source: the interface of OpenAI's chat completions; JSON Schema Draft 2020-12, through jsonschema.

    Weak at: whether a call is the right one to make. Patterns that RE2 does not know are left out, and
    `format` is not checked, as the standard has it. A property that no schema describes is allowed unless
    `additionalProperties` forbids it.

    Examples:
        "A text, which calls nothing." -> 0
        '{"name": "weather", "arguments": {}}' -> pass
    """

    def measure(self, record: Record) -> Measurement:
        """How many, with the first."""
        wrong = list(_problems(record.messages, record))
        if not wrong:
            return Measurement(0.0)
        place, reason = wrong[0]
        return Measurement(float(len(wrong)), {"reason": reason, "message": place})


def _problems(messages: Sequence[Mapping[str, Any]], record: Record) -> Iterator[Problem]:
    """Each with the number of its message, from 1."""
    called: dict[str, str] = {}  # names, by id
    waiting: dict[str, int] = {}  # for a result, by id: the number of the message
    for place, message in enumerate(messages, 1):
        calls = message.get("tool_calls") or []
        if message.get("role") == "tool":
            yield from ((place, each) for each in _result(message, called, waiting))
        elif message.get("role") == "user" or (message.get("role") == "assistant" and not calls):
            for id, number in waiting.items():
                yield number, f"the call of {called[id][:QUOTED]} has no result, and the conversation goes on"
            waiting.clear()
        for call in calls:
            function = call.get("function") or {}
            name, id = str(function.get("name")), str(call.get("id"))
            if id in called:
                yield place, f"two calls have the id {id[:QUOTED]!r}"
            called[id], waiting[id] = name, place
            if (reason := _call(name, function.get("arguments"), record)) is not None:
                yield place, f"{name[:QUOTED]}: {reason}"


def _result(message: Mapping[str, Any], called: Mapping[str, str], waiting: dict[str, int]) -> Iterator[str]:
    id, name = message.get("tool_call_id"), message.get("name")
    if id is None:
        yield "a result names no call"
    elif id not in called:
        yield f"a result names the call {str(id)[:QUOTED]!r}, which is not before it"
    elif waiting.pop(id, None) is None:
        yield f"another result of the call {str(id)[:QUOTED]!r}"
    elif name not in (None, called[id]):
        yield f"the result of a call of {called[id][:QUOTED]} is said to be of {str(name)[:QUOTED]}"


def _call(name: str, arguments: Any, record: Record) -> str | None:
    """What is wrong with a call."""
    given = record.row["tools"] if "tools" in record.row else record.fields.get("tools")
    try:
        tools = tools_in(given) or []
    except NoCalls as error:
        return str(error)
    schemas = [tool["function"].get("parameters") for tool in tools if tool["function"]["name"] == name]
    if not schemas:
        return "there is no such tool" if tools else "no tools are given"
    if isinstance(arguments, str):
        try:
            arguments = parsed(arguments)
        except NotJson as error:
            return f"the arguments are no JSON: {error}"
    if not isinstance(arguments, Mapping):
        return "the arguments are no JSON object"
    found = [_against(schema, arguments) for schema in schemas]
    return None if None in found else found[0]


def _against(schema: Any, arguments: Mapping[str, Any]) -> str | None:
    if schema is None:
        return None
    checker = _checker(json.dumps(schema))
    if isinstance(checker, str):
        return checker[: 2 * QUOTED]
    try:
        error = next(checker.iter_errors(arguments), None)
    except TooMuch as much:
        return f"the arguments {much}"
    if error is None:
        return None
    return f"the arguments do not fit: {_at(error)[:QUOTED]}: {error.message[:QUOTED]}"
