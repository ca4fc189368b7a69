"""A record as filters see it, and the parts of it that `of:` can pick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARTS = ("answer", "instruction", "both", "all")


@dataclass(frozen=True, slots=True)
class Record:
    """One finished branch. `fields` holds seeds and steps by name, `row` what the dataset's row holds.

    `text` is what the filter's `of:` picked: the last answer unless the recipe says otherwise.
    """

    id: str
    fields: Mapping[str, Any]
    row: Mapping[str, Any]
    text: str = ""

    def __getitem__(self, name: str) -> Any:
        """The seed, step or row field of that name; KeyError, naming what there is, without one."""
        if name in self.row:
            return self.row[name]
        if name in self.fields:
            return self.fields[name]
        known = ", ".join(sorted({*self.row, *self.fields}))
        raise KeyError(f"no field {name!r} in this record; there are: {known}")

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The conversation, empty where the record has none: `messages`, or `prompt` with what it prefers."""
        messages = self.row.get("messages")
        if isinstance(messages, list):
            return messages
        answer = _said("assistant", self.row.get("chosen", self.row.get("completion")))
        return [*_said("user", self.row.get("prompt")), *answer] if answer else []

    @property
    def answer(self) -> str:
        """The last assistant message; without messages, the last text field of the row.

        One that has no text, and calls tools, is passed over; where there is no other, it is its calls.
        """
        called = ""
        for message in reversed(self.messages):
            if message.get("role") == "assistant":
                text = content_text(message)
                if text or not message.get("tool_calls"):
                    return text
                called = called or message_text(message)
        if self.messages:
            return called
        texts = [value for value in self.row.values() if isinstance(value, str)]
        return texts[-1] if texts else ""

    @property
    def instruction(self) -> str:
        """The last user message."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return content_text(message)
        return ""

    @property
    def both(self) -> str:
        """The last user message and the last answer."""
        return f"{self.instruction}\n\n{self.answer}".strip()

    @property
    def all(self) -> str:
        """Every message's text, with calls of tools, also what is rejected; without messages, every text."""
        if messages := self.messages:
            messages = [*messages, *_said("assistant", self.row.get("rejected"))]
            return "\n\n".join(message_text(message) for message in messages)
        return "\n\n".join(value for value in self.row.values() if isinstance(value, str))

    def pick(self, of: str) -> Record:
        """The same record with `text` set to what `of` names: a field of that name comes first."""
        return Record(self.id, self.fields, self.row, self.part(of))

    def part(self, of: str) -> str:
        """The text that `of` names. Raises KeyError where the record has no such field."""
        if of in self.row or of in self.fields:
            value = self[of]
            if isinstance(value, str):
                return value
            if of not in PARTS:
                return as_text(value)
        if of in PARTS:
            return str(getattr(self, of))
        return as_text(self[of])


def _said(role: str, value: Any) -> list[Mapping[str, Any]]:
    """Messages, or a text as one message of that role."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return value if isinstance(value, list) else []


def content_text(message: Mapping[str, Any]) -> str:
    """The text of one message, whose content is a string or a list of typed parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"]
            for part in content
            if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        )
    return ""


def message_text(message: Mapping[str, Any]) -> str:
    """The text of one message, and a line for each tool that it calls: `name(arguments)`."""
    text, calls = content_text(message), message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return text
    return "\n".join([*([text] if text else []), *map(_call_text, calls)])


def _call_text(call: Any) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return as_text(call)
    return f"{function.get('name')}({as_text(function.get('arguments'))})"


def as_text(value: Any) -> str:
    """A field of any type as text: strings as they are, the rest as JSON."""
    if isinstance(value, str):
        return value
    import orjson

    return orjson.dumps(value).decode()
