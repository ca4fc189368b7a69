"""What a prompt may say, in a file of its own or written into a recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from synthgen.recipe_parts import Json, Misplaced, Part, one_key_each

NO_MESSAGES = "a prompt has either `user:` (with `system:` if wanted) or `messages:`"
Role = Literal["system", "user", "assistant"]
MessageTemplate = dict[Role, str]


class PromptBody(Part):
    """A prompt: one template a message, whose turn is next, and the JSON schema of the answer, if any."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("user", "messages", "writes")]}
    )

    description: str | None = None
    system: str | None = None
    user: str | None = None
    messages: list[MessageTemplate] | None = Field(None, min_length=1)
    writes: Literal["user"] | None = Field(
        None, description="The model writes the user's next turn, not an answer (Magpie)."
    )
    output: dict[str, Json] | None = None

    @model_validator(mode="after")
    def _has_messages(self) -> PromptBody:
        if self.writes is None and (self.user is None) == (self.messages is None):
            raise ValueError(NO_MESSAGES)
        if self.messages is not None and self.system is not None:
            raise ValueError("put the system message into `messages:`, as its first")
        return self

    @model_validator(mode="after")
    def _leaves_the_turn_open(self) -> PromptBody:
        if self.writes is None:
            return self
        if self.user is not None or (self.messages and "user" in self.messages[-1]):
            raise ValueError(
                "`writes: user` leaves the user's turn to the model: before it there is a system message, or "
                "`messages:` that end with the assistant's"
            )
        if self.output is not None:
            raise Misplaced("a user's turn is free text: with `writes: user` there is no `output:`", "output")
        return self

    @field_validator("messages")
    @classmethod
    def _one_role_each(cls, value: list[MessageTemplate] | None) -> list[MessageTemplate] | None:
        one_key_each(value, "message")
        return value

    def turns(self) -> list[tuple[Role, str]]:
        """Role and template of each message, in order."""
        if self.messages is not None:
            return [next(iter(message.items())) for message in self.messages]
        turns: list[tuple[Role, str | None]] = [("system", self.system), ("user", self.user)]
        return [(role, template) for role, template in turns if template is not None]


class SystemBody(Part):
    """The prompt of a conversation: its system message; an empty one is left out."""

    description: str | None = None
    system: str

    def turns(self) -> list[tuple[Role, str]]:
        """Role and template of its one message."""
        return [("system", self.system)]


def prompt_kind(value: Any) -> str:
    """Whether a prompt is named or written in place."""
    return "name" if isinstance(value, str) else "inline"


def step_prompt_kind(value: Any) -> str:
    """The same of a step's, which has a third form, for conversations."""
    alone = isinstance(value, dict) and "system" in value and {*value} <= {*SystemBody.model_fields}
    return "system alone" if alone or isinstance(value, SystemBody) else prompt_kind(value)
