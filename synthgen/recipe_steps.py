"""What a recipe may say of its steps."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from synthgen.recipe_conversations import Conversation
from synthgen.recipe_models import Sampling
from synthgen.recipe_parts import Json, Misplaced, Name, Part
from synthgen.recipe_prompts import NO_MESSAGES, PromptBody, SystemBody, step_prompt_kind

RE_ASKS = 2
MOST = 1000  # branches or questions that one step makes of one branch
TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,79}$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}$")]


class Extract(Part):
    """What is taken out of an answer's text: what stands in tags, or what a regular expression finds."""

    tag: TagName | Annotated[list[TagName], Field(min_length=1)] | None = Field(
        None, description="`answer` for what stands between <answer> and </answer>; a list gives a mapping."
    )
    regex: str | None = Field(
        None, max_length=10_000, description="In RE2's syntax; named groups give a mapping."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Extract:
        if (self.tag is None) == (self.regex is None):
            raise ValueError("`extract:` has either `tag:` or `regex:`")
        return self


SYSTEM_ALONE = "the prompt of a conversation is `system:` alone; what the user says, `conversation:` has"


class Step(Part):
    """Questions to a model; the answer, or the list of them, becomes the field that the step is named for."""

    prompt: Annotated[
        Annotated[str, Tag("name")]
        | Annotated[PromptBody, Tag("inline")]
        | Annotated[SystemBody, Tag("system alone")],
        Discriminator(step_prompt_kind),
    ]
    conversation: Conversation | None = Field(
        None, description="The field is a conversation with this model: a list of messages."
    )
    model: Name | None = Field(None, description="One of `models:`.")
    sampling: Sampling = Sampling()
    output: dict[str, Json] | None = Field(
        None,
        description="The JSON schema that answers are decoded under, in place of the prompt's.",
    )
    extract: Extract | None = Field(None, description="What is taken out of an answer, for want of a schema.")
    reasoning: Identifier | None = Field(
        None, description="The name of a field for what the model thought before its answer, apart from it."
    )
    retries: int | None = Field(
        None, ge=0, le=20, description="How often an answer that cannot be used is asked for again (2)."
    )

    n: int | None = Field(
        None, ge=1, le=MOST, description="How many answers; each makes a branch of its own."
    )
    foreach: str | None = Field(
        None, description="A Jinja expression that gives a list; each of its items makes a branch of its own."
    )
    as_: Identifier | None = Field(
        None, alias="as", description="The name of an item of `foreach:` (`item`)."
    )
    gather: bool = Field(False, description="The field is the list of all answers, and no branch is made.")
    when: str | None = Field(
        None, description="A Jinja expression; where it is false the step is skipped, and its field is null."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Step:
        if isinstance(self.prompt, SystemBody) and self.conversation is None:
            raise Misplaced(NO_MESSAGES, "prompt")
        if self.conversation is not None:
            if isinstance(self.prompt, PromptBody):
                raise Misplaced(SYSTEM_ALONE, "prompt")
            for key in ("output", "extract"):
                if getattr(self, key) is not None:
                    raise Misplaced("what is said in a conversation is text, without a form", key)
            if self.reasoning is not None:
                raise Misplaced("a conversation keeps no reasoning apart", "reasoning")
        if self.extract is not None and self.output is not None:
            raise Misplaced("a step has either `output:` or `extract:`, not both", "extract")
        if self.n is not None and self.foreach is not None:
            raise Misplaced("a step has either `n:` or `foreach:`, not both", "n")
        if self.gather and self.n is None and self.foreach is None:
            raise Misplaced("`gather:` is for steps with `n:` or `foreach:`", "gather")
        if self.as_ is not None and self.foreach is None:
            raise Misplaced("`as:` names the items of `foreach:`, and there is none", "as")
        return self

    @property
    def others(self) -> dict[str, Name | None]:
        """The model of everyone else in its conversations, by their keys."""
        voices = self.conversation.voices if self.conversation is not None else {}
        return {key: voice.model or self.model for key, voice in voices.items()}

    @property
    def item(self) -> str:
        """The name of an item of `foreach:`."""
        return self.as_ or "item"

    @property
    def tells(self) -> bool:
        """Whether a model is told why its answer is asked for again."""
        return self.output is not None or self.extract is not None or self.retries is not None
