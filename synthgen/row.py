"""How a finished branch becomes a row of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.calls import NoCalls, tools_in
from synthgen.conversation import conversation
from synthgen.prompt import Expression, PromptFailed, TextTemplate
from synthgen.recipe_record import Kind, RecordShape

_TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float),
}  # fmt: skip
MOST_OF_AN_INTEGER = 2**63


@dataclass(frozen=True)
class Messages:
    """A column that is a list of messages, each from a template of its own."""

    turns: Sequence[tuple[str, TextTemplate]]

    def make(self, values: Mapping[str, Any]) -> list[dict[str, str]]:
        """The messages. Raises PromptFailed."""
        return [{"role": role, "content": template.render(values)} for role, template in self.turns]


@dataclass(frozen=True)
class Text:
    """A column of text."""

    template: TextTemplate

    def make(self, values: Mapping[str, Any]) -> str:
        """The text. Raises PromptFailed."""
        return self.template.render(values)


@dataclass(frozen=True)
class Value:
    """A column that holds what an expression gives, as it is. With `calls` messages may call tools."""

    expression: Expression
    kind: Kind
    calls: bool = False

    def make(self, values: Mapping[str, Any]) -> Any:
        """The value. Raises PromptFailed or NoConversation where it is not of the column's type."""
        value = self.expression.value(values)
        if value is None or self.kind == "json":
            return value
        if self.kind == "messages":
            return conversation(value, calls=self.calls)
        if self.kind == "tools":
            try:
                return tools_in(value)
            except NoCalls as error:
                raise PromptFailed(f"`{self.expression.source}`: {error}") from None
        wrong = not isinstance(value, _TYPES[self.kind]) or (
            isinstance(value, bool) and self.kind != "boolean"
        )
        if wrong or (self.kind == "integer" and not -MOST_OF_AN_INTEGER <= value < MOST_OF_AN_INTEGER):
            raise PromptFailed(f"`{self.expression.source}` is no {self.kind}: {str(value)[:80]!r}")
        return float(value) if self.kind == "number" else value


Column = Messages | Text | Value


@dataclass(frozen=True)
class RowShape:
    """What a row holds: the conversation of a field, or columns. With `calls` that may call tools."""

    source: str | None
    made: Mapping[str, Column]
    calls: bool = False

    @property
    def columns(self) -> list[str]:
        """The row's fields beside its id, in order."""
        return [*(["messages"] if self.source is not None else []), *self.made]

    def make(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The row's fields. Raises PromptFailed or NoConversation."""
        row: dict[str, Any] = {}
        if self.source is not None:
            row["messages"] = conversation(values[self.source], calls=self.calls)
        for name, column in self.made.items():
            row[name] = column.make(values)
        return row


def row_shape(record: RecordShape) -> RowShape:
    """The shape that a recipe gives its rows."""
    made: dict[str, Column] = {}
    for name, said in {**({"messages": record.messages} if record.messages else {}), **record.fields}.items():
        if isinstance(said, str):
            made[name] = Text(TextTemplate(said))
        elif isinstance(said, list):
            turns = [next(iter(message.items())) for message in said]
            made[name] = Messages([(role, TextTemplate(text)) for role, text in turns])
        else:
            made[name] = Value(Expression(said.value), said.type, record.calls)
    return RowShape(record.from_, made, record.calls)
