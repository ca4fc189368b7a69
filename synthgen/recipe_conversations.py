"""What a recipe may say of the conversations of a step."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from synthgen.recipe_models import Sampling
from synthgen.recipe_parts import Json, Misplaced, Name, Part
from synthgen.recipe_prompts import PromptBody, prompt_kind

MOST_TURNS = 100  # of a conversation
CALLS = 4  # of tools, in a row


class Voice(Part):
    """Who else speaks in a conversation: asked as a step is. Without `model:` it is the step's."""

    prompt: Annotated[
        Annotated[str, Tag("name")] | Annotated[PromptBody, Tag("inline")], Discriminator(prompt_kind)
    ]
    model: Name | None = Field(None, description="One of `models:`.")
    sampling: Sampling = Sampling()

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"prompt": value} if isinstance(value, str) else value


class Given(Part):
    """What a tool's call results in, where no model simulates it."""

    value: str = Field(
        description="A Jinja expression over the fields, `call`, `tool`, `messages` and `turn`."
    )


def _results_kind(value: Any) -> str:
    given = isinstance(value, Given) or (isinstance(value, dict) and "value" in value)
    return "given" if given else "simulated"


def _tools_kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "expression"


class Conversation(Part):
    """A conversation of a simulated user with the model that the step asks."""

    user: Voice | None = Field(
        None, description="The prompt of the simulated user: it sees the fields, `messages` and `turn`."
    )
    opening: str | None = Field(None, description="A template that gives the user's first message.")
    turns: int = Field(ge=1, le=MOST_TURNS, description="Messages of the user at most.")
    until: str | None = Field(
        None,
        description="A Jinja expression over what the user `said`; where it is true the user has left, "
        "and that message is no part of the conversation.",
    )
    tools: (
        Annotated[
            Annotated[str, Tag("expression")] | Annotated[list[dict[str, Json]], Tag("list")],
            Discriminator(_tools_kind),
        ]
        | None
    ) = Field(None, description="The tools that may be called, or a Jinja expression that gives them.")
    results: (
        Annotated[
            Annotated[Given, Tag("given")] | Annotated[Voice, Tag("simulated")],
            Discriminator(_results_kind),
        ]
        | None
    ) = Field(
        None,
        description="The prompt that simulates what a call results in, or `{value: EXPRESSION}`; without it "
        "a call ends the conversation.",
    )
    calls: int | None = Field(None, ge=1, le=32, description="Of tools, in a row, at most (4).")

    @model_validator(mode="after")
    def _goes_together(self) -> Conversation:
        if self.user is None and self.opening is None:
            raise ValueError("a conversation needs `user:`, the prompt of who begins it, or `opening:`")
        if self.user is None and self.turns > 1:
            raise Misplaced("more than one turn needs `user:`, the prompt of who goes on", "turns")
        if self.user is None and self.until is not None:
            raise Misplaced("`until:` looks at what `user:` says, and there is none", "until")
        for key in ("results", "calls"):
            if getattr(self, key) is not None and self.tools is None:
                raise Misplaced(f"`{key}:` is for conversations with `tools:`", key)
        return self

    @property
    def voices(self) -> dict[str, Voice]:
        """Who is asked besides the step's own model, by the key of each."""
        asked = {"user": self.user, "results": self.results}
        return {key: voice for key, voice in asked.items() if isinstance(voice, Voice)}
