"""Are the calls of tools in a conversation ones that its tools allow, and are they answered?"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from synthgen import Measurement, Record, filter
from synthgen.calls import NoCalls, tools_in
from synthgen.filters.valid_json import NotJson, _at, _checked, parsed

QUOTED = 200
MOST_REFERENCES = 10_000  # that are followed for one call: a schema can lead anywhere, and to itself twice
MOST_CHECKERS = 1_000
Problem = tuple[int, str]


class TooMuch(Exception):
    """A schema leads to more parts than a call could need."""


class Checker:
    """Holds arguments against the schema of a tool. Raises ValueError where that is none."""

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema import Draft202012Validator, ValidationError, validators
        from referencing import Registry

        self._left = threading.local()
        _checked(schema)

        def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[ValidationError]:
            if isinstance(value, str) and not _fits(wanted, value):
                yield ValidationError(f"{value[:QUOTED]!r} does not match {wanted[:QUOTED]!r}")

        def counted(word: str) -> Any:
            follow = Draft202012Validator.VALIDATORS[word]

            def following(validator: Any, reference: Any, value: Any, schema: Any) -> Iterator[Any]:
                self._left.references -= 1
                if self._left.references < 0:
                    raise TooMuch
                yield from follow(validator, reference, value, schema) or ()

            return following

        words = {word: counted(word) for word in ("$ref", "$dynamicRef")}
        kind: Any = validators.extend(Draft202012Validator, {"pattern": pattern, **words})
        # Patterns of names are looked for in Python's way, which some texts make slow: nothing is checked.
        self._validator = (
            None if "patternProperties" in json.dumps(schema) else kind(schema, registry=Registry())
        )

    def wrong(self, arguments: Mapping[str, Any]) -> str | None:
        """What does not fit."""
        if self._validator is None:
            return None
        self._left.references = MOST_REFERENCES
        try:
            error = next(self._validator.iter_errors(arguments), None)
        except (RecursionError, TooMuch):
            return "nest too deep for the schema"
        return None if error is None else f"do not fit: {_at(error)[:QUOTED]}: {error.message[:QUOTED]}"


def _fits(pattern: str, value: str) -> bool:
    """Patterns are RE2's, which no text makes slow; one that is not RE2's asks for nothing."""
    found = _compiled(pattern)
    return found is None or found.search(value) is not None


@lru_cache(MOST_CHECKERS)
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


@lru_cache(MOST_CHECKERS)
def _checker(schema: str) -> Checker | str:
    """For the JSON of a schema; or why there is none."""
    value = json.loads(schema)
    if not isinstance(value, dict):
        return "the parameters of the tool are no JSON schema"
    try:
        return Checker(value)
    except (ValueError, RecursionError) as error:
        return f"the parameters of the tool are no JSON schema: {error}"


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

    Weak at: whether a call is the right one to make. Of schemas with `patternProperties` nothing is checked,
    of patterns only those that RE2 knows, and `format` not, as the standard has it. A property that no schema
    describes is allowed unless `additionalProperties` forbids it.

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
    wrong = checker.wrong(arguments)
    return None if wrong is None else f"the arguments {wrong}"
