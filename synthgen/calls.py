"""Calls of tools in a conversation, and the tools: the layouts that they have in practice, each as one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

import orjson

Call = dict[str, Any]


class NoCalls(ValueError):
    """Something is no call, no result of one, or no list of tools; the message says what it is."""


class Calls:
    """The calls of one conversation, as it is read.

    A call is `{id, type: function, function: {name, arguments}}`, its arguments the text that is there, or
    the JSON of what is there. One without an id is given one by its number; a result without one answers the
    first call that waits for its result, of that name where it has a name.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._waiting: list[str] = []

    def made(self, said: Any) -> list[Call]:
        """The calls of a message (OpenAI's `tool_calls` or `function_call`). Raises NoCalls."""
        return [self._made(each) for each in (said if isinstance(said, list) else [said])]

    def told(self, text: str) -> list[Call]:
        """The calls in the text of a ShareGPT turn, JSON. Raises NoCalls."""
        said = parsed(text)
        if not isinstance(said, list | dict) or not said:
            raise NoCalls("its text is no call in JSON")
        return self.made(said)

    def answered(self, message: Mapping[str, Any]) -> dict[str, str]:
        """Which call a result belongs to: `tool_call_id` and `name`, as far as they are known."""
        name = _text(message.get("name"))
        waiting = (each for each in self._waiting if name in (None, self._names[each]))
        id: str | None = _text(message.get("tool_call_id")) or next(waiting, None)
        if id is None:
            return {} if name is None else {"name": name}
        if id in self._waiting:
            self._waiting.remove(id)
        name = name or self._names.get(id)
        return {"tool_call_id": id} if name is None else {"tool_call_id": id, "name": name}

    def _next(self) -> str:
        """An id that no call has: by the number of the call, unless that is taken."""
        numbers = count(len(self._names) + 1)
        return next(id for id in map("call_{}".format, numbers) if id not in self._names)

    def _made(self, said: Any) -> Call:
        if not isinstance(said, Mapping):
            raise NoCalls(f"a call is a mapping, not {type(said).__name__}")
        if said.get("type") not in (None, "function"):
            raise NoCalls(f"a call is of the type {str(said['type'])[:40]!r}, for which a row has no room")
        function = said["function"] if isinstance(said.get("function"), Mapping) else said
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise NoCalls("a call names no function")
        id = _text(said.get("id")) or self._next()
        self._names[id] = name
        self._waiting.append(id)
        called = {"name": name, "arguments": _arguments(function.get("arguments"))}
        return {"id": id, "type": "function", "function": called}


def _text(said: Any) -> str | None:
    return said if isinstance(said, str) and said else None


def _arguments(said: Any) -> str:
    if isinstance(said, str):
        return said
    try:
        return json.dumps({} if said is None else said, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise NoCalls(f"the arguments of a call cannot be written as JSON: {error}") from None


def parsed(text: str) -> Any:
    """The value of a JSON text, None where it is none. Whole numbers of any size stay what they are."""
    try:
        orjson.loads(text)  # which takes neither NaN nor half of a surrogate pair
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def tools_in(said: Any) -> list[dict[str, Any]] | None:
    """The tools of a conversation, each `{type: function, function: {name, description, parameters}}`.

    They may be a list or its JSON, and each the function alone, as `functions` of OpenAI and `tools` of
    LLaMA-Factory have it. None where there are none. Raises NoCalls where it is something else.
    """
    if said is None or (isinstance(said, str) and said.strip() in ("", "null")):
        return None
    value = parsed(said) if isinstance(said, str) else said
    if not isinstance(value, list):
        raise NoCalls(f"tools are a list, or its JSON, and not {str(said)[:60]!r}")
    return [_tool(each) for each in value] or None


def _tool(said: Any) -> dict[str, Any]:
    function = said.get("function", said) if isinstance(said, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise NoCalls(f"a tool is `{{type: function, function: {{name: ...}}}}`, and not {str(said)[:60]!r}")
    if function is said:
        return {"type": "function", "function": dict(said)}
    return {"type": "function", **said}


def functions(tools: str | None) -> str | None:
    """The JSON of tools, each as its function alone, which is how LLaMA-Factory documents it."""
    if tools is None:
        return None
    try:
        found = tools_in(tools)
    except NoCalls:
        return tools
    return None if found is None else json.dumps([each["function"] for each in found], ensure_ascii=False)


def listed(tools: str | None) -> list[dict[str, Any]] | None:
    """Tools from their JSON, the parameters of each as a text, which is how axolotl takes unlike ones."""
    try:
        found = tools_in(tools)
    except NoCalls:
        return None
    return None if found is None else [_with_text(each) for each in found]


def _with_text(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(tool["function"])
    if not isinstance(function.get("parameters"), str | None):
        function["parameters"] = json.dumps(function["parameters"], ensure_ascii=False)
    return {**tool, "function": function}
