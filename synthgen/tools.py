"""Tools that a model may call in a conversation: how they are described, and how its calls are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from synthgen.answers import Form, InvalidAnswer, told
from synthgen.digests import canonical
from synthgen.recipe_parts import NAME
from synthgen.schema_checks import SchemaValidator, deeper_than
from synthgen.schemas import NotASchema, check_references, check_schema, moved, subschemas

MOST_TOOLS = 128  # that one conversation has; more than that no model is offered at once
MOST_TEXT = 200_000  # characters of all of them, as JSON
MOST_DEPTH = 32  # of a call's arguments
NONE = {"type": "object", "properties": {}, "additionalProperties": False}  # parameters of a tool without

_OFFER = """You can call tools. Each is given with the JSON schema of its arguments:

{tools}

Answer with one JSON object. To say something to the user: {{"answer": {{"say": "..."}}}}. To call a tool: \
{{"answer": {{"call": {{"name": "...", "arguments": {{...}}}}}}}}; its result is shown to you next, \
and the user does not see it. Make no argument up: ask the user for what is missing."""


class NotTools(ValueError):
    """Something is no list of tools. `at` leads from the list to the place."""

    def __init__(self, message: str, at: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.at = tuple(at)


@dataclass(frozen=True)
class Tool:
    """A function that may be called: its name, the schema of its arguments, and all that is said of it."""

    name: str
    parameters: Mapping[str, Any]
    said: Mapping[str, Any]

    def wrong(self, arguments: Any) -> str | None:
        """What no schema of its allows, in words that no version of a library changes. Raises TooMuch."""
        found = sorted(
            told(error, "answer.call.arguments") for error in self._validator.iter_errors(arguments)
        )
        return found[0][1] if found else None

    @cached_property
    def _validator(self) -> SchemaValidator:
        return SchemaValidator(self.parameters)


def tools_of(given: Any) -> list[Tool]:
    """The tools of a list of `{type: function, function: {name: ..., description: ..., parameters: ...}}`.

    Raises NotTools.
    """
    if not isinstance(given, list) or not given:
        raise NotTools(f"is no list of tools: {str(given)[:60]!r}")
    if len(given) > MOST_TOOLS:
        raise NotTools(f"{len(given):,} tools are more than {MOST_TOOLS}")
    tools: list[Tool] = []
    for place, said in enumerate(given):
        tool = _tool(said, place)
        if tool.name in [other.name for other in tools]:
            raise NotTools(f"two tools are called {tool.name!r}", (place,))
        tools.append(tool)
    if len(orjson.dumps(given)) > MOST_TEXT:
        raise NotTools(f"the tools are larger than {MOST_TEXT:,} characters")
    return tools


def _tool(said: Any, place: int) -> Tool:
    function = said.get("function") if isinstance(said, Mapping) else None
    if not isinstance(function, Mapping) or said.get("type") != "function":
        raise NotTools("a tool is `{type: function, function: {name: ..., parameters: ...}}`", (place,))
    at: tuple[str | int, ...] = (place, "function")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise NotTools(
            f"{str(name)[:60]!r} is no name of a tool: 1 to 80 of A-Z a-z 0-9 . _ -", (*at, "name")
        )
    if not isinstance(function.get("description", ""), str):
        raise NotTools(f"the description of {name} is no text", (*at, "description"))
    parameters = parameters or NONE
    at = (*at, "parameters")
    if not isinstance(parameters, Mapping) or parameters.get("type") != "object":
        raise NotTools(f"the parameters of {name} are no JSON schema with `type: object`", at)
    try:
        check_schema(parameters)
        check_references(parameters)
        canonical(dict(said))
    except NotASchema as error:
        raise NotTools(f"the parameters of {name}: {error}", (*at, *error.at)) from None
    except (ValueError, RecursionError) as error:
        raise NotTools(f"{name} cannot be written as canonical JSON: {error}", at) from None
    for part, inner in subschemas(parameters):
        if "patternProperties" in part:
            message = f"the parameters of {name}: no engine decodes under `patternProperties`"
            raise NotTools(message, (*at, *inner))
    return Tool(name, parameters, said)


def offer(tools: Sequence[Tool]) -> str:
    """What a model is told of the tools, and of how it calls them."""
    listed = [orjson.dumps(tool.said["function"]).decode() for tool in tools]
    return _OFFER.format(tools="\n".join(listed))


@dataclass(frozen=True)
class CallForm(Form):
    """An answer that says something, or calls one of these tools: `{"answer": {"say" or "call": ...}}`."""

    tools: Sequence[Tool] = ()

    def check(self, value: Any) -> None:
        """Raises InvalidAnswer, saying what is wrong with what is said, or with the call."""
        answer = value.get("answer") if isinstance(value, Mapping) else None
        if not isinstance(answer, Mapping) or len(answer) != 1 or not {"say", "call"} >= {*answer}:
            raise InvalidAnswer('the answer is not `{"answer": {"say": ...}}` or `{"answer": {"call": ...}}`')
        if "say" in answer:
            if not isinstance(answer["say"], str) or not answer["say"].strip():
                raise InvalidAnswer("the answer says nothing")
            return
        call = answer["call"]
        if not isinstance(call, Mapping) or {*call} != {"name", "arguments"}:
            raise InvalidAnswer("the call is not `{name: ..., arguments: {...}}`")
        tool = next((tool for tool in self.tools if tool.name == call["name"]), None)
        if tool is None:
            names = ", ".join(tool.name for tool in self.tools)
            raise InvalidAnswer(
                f"there is no such tool; there are: {names}" if names else "no tool may be called"
            )
        _check_arguments(tool, call["arguments"])


def _check_arguments(tool: Tool, arguments: Any) -> None:
    if deeper_than(arguments, MOST_DEPTH):  # a limit of its own, for Python's depends on who calls
        raise InvalidAnswer(f"the arguments of {tool.name} are nested more than {MOST_DEPTH} deep")
    try:
        wrong = tool.wrong(arguments)
        canonical(arguments)
    except (RecursionError, OverflowError, ValueError):  # TooMuch among them
        raise InvalidAnswer(
            f"the arguments of {tool.name} take too long to check, or are too large"
        ) from None
    if wrong is not None:
        raise InvalidAnswer(f"the call is not valid under the schema of {tool.name}: {wrong}")


def call_form(tools: Sequence[Tool], retries: int) -> CallForm:
    """The form of answers that may call these tools; without any of them, of answers that say something."""
    ways: list[dict[str, Any]] = [_object({"say": {"type": "string", "minLength": 1}})]
    definitions: dict[str, Any] = {}
    for number, tool in enumerate(tools, 1):
        arguments = {key: value for key, value in tool.parameters.items() if key != "$schema"}
        if any("$ref" in part for part, _ in subschemas(arguments)):
            name = f"tool_{number}"
            definitions[name] = moved(arguments, f"#/$defs/{name}")
            arguments = {"$ref": f"#/$defs/{name}"}
        ways.append(_object({"call": _object({"name": {"const": tool.name}, "arguments": arguments})}))
    answer = {"anyOf": ways} if tools else ways[0]
    schema = _object({"answer": answer}) | ({"$defs": definitions} if definitions else {})
    return CallForm(schema, None, retries, tells=True, tools=tools)


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [*properties],
        "additionalProperties": False,
    }
