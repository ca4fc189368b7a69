"""What a recipe may say of a row of its dataset."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from synthgen.recipe_parts import NAME, Misplaced, Name, Part, one_key_each, refuse_unsaid
from synthgen.recipe_prompts import MessageTemplate

RESERVED = ("id", "dropped_by", "measurements")
MESSAGES = ("messages", "prompt", "completion", "chosen", "rejected")  # columns that may be lists of them
TOOLS = "tools"  # the field of a row beside which its messages may call tools
Kind = Literal["json", "text", "boolean", "integer", "number", "messages", "tools"]


class ValueField(Part):
    """A field of the row that is no text: what a Jinja expression gives, as it is."""

    value: str
    type: Kind = Field("json", description="In Parquet; `json` and `tools` are kept there as text.")


def _field_kind(value: Any) -> str:
    return "a text" if isinstance(value, str) else "messages" if isinstance(value, list) else "a value"


RowField = Annotated[
    Annotated[str, Tag("a text")]
    | Annotated[list[MessageTemplate], Field(min_length=1), Tag("messages")]
    | Annotated[ValueField, Tag("a value")],
    Discriminator(_field_kind),
]


class RecordShape(BaseModel):
    """What a row of the dataset holds: `messages`, or another field's conversation, and any more fields."""

    model_config = ConfigDict(extra="allow", frozen=True)

    from_: Name | None = Field(None, alias="from")
    messages: list[MessageTemplate] | None = None
    __pydantic_extra__: dict[str, RowField]

    @field_validator("from_", "messages", mode="before")
    @classmethod
    def _said(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_unsaid(cls, value, info)

    @field_validator("messages")
    @classmethod
    def _one_role_each(cls, value: list[MessageTemplate] | None) -> list[MessageTemplate] | None:
        one_key_each(value, "message")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> RecordShape:
        if self.from_ is not None and self.messages is not None:
            raise Misplaced("a record has either `from:` or `messages:`, not both", "from")
        if self.from_ is None and not self.messages and not self.fields:
            raise ValueError("a record needs `messages:`, `from:` or a field of its own")
        for name in self.fields:
            if name in RESERVED:
                raise Misplaced(f"`{name}` is given by synthgen; call the field something else", name)
            if not NAME.match(name):
                raise Misplaced(f"{name!r} is not a name: 1 to 80 of A-Z a-z 0-9 . _ -", name)
            said = self.fields[name]
            if isinstance(said, list) or (isinstance(said, ValueField) and said.type == "messages"):
                if name not in MESSAGES:
                    known = ", ".join(MESSAGES)
                    raise Misplaced(f"`{name}` is no text; a list of messages is called {known}", name)
                one_key_each(said if isinstance(said, list) else None, "message", name)
        return self

    @property
    def columns(self) -> list[str]:
        """The row's fields beside its id, in order."""
        return list(self.kinds)

    @property
    def calls(self) -> bool:
        """Whether messages that a field gives as they are may call tools: the row says which there are."""
        return TOOLS in self.fields

    @property
    def kinds(self) -> dict[str, str]:
        """The row's fields beside its id, in order, each with what its column holds: `tools` are JSON."""
        given = "tool messages" if self.calls else "messages"
        kinds = {"messages": given, "tools": "json"}
        first = {"messages": given if self.from_ is not None else "messages"}
        return (first if self.from_ is not None or self.messages else {}) | {
            name: "text"
            if isinstance(said, str)
            else "messages"
            if isinstance(said, list)
            else kinds.get(said.type, said.type)
            for name, said in self.fields.items()
        }

    @property
    def fields(self) -> dict[str, RowField]:
        """The fields beside the messages."""
        return self.__pydantic_extra__ or {}
