"""How a step comes to its questions: whether it is asked at all, how often, and about what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.answers import Thoughtful
from synthgen.prompt import Expression, Prompt, PromptFailed
from synthgen.recipe_conversations import Conversation, Voice
from synthgen.recipe_steps import MOST, Step

WIDTH = len(str(MOST - 1))
Values = Mapping[str, Any]
Rendered = list[dict[str, str]] | PromptFailed  # messages, or why there are none for an item


class NoQuestions(Exception):
    """A step has nothing to ask about, or more than it may."""


@dataclass(frozen=True)
class Fan:
    """What a step makes of the values before it.

    Without `gathers` each question of a step that fans out makes a branch of its own; with it, the step's
    field is the list of their answers.
    """

    name: str
    n: int | None = None
    foreach: Expression | None = None
    item: str = ""
    gathers: bool = False
    when: Expression | None = None
    conversation: Conversation | None = None
    reasoning: str | None = None

    @property
    def branches(self) -> bool:
        """Whether each of its questions makes a branch."""
        return not self.gathers and (self.foreach is not None or (self.n or 1) > 1)

    @property
    def names(self) -> list[str]:
        """The fields that it adds, in order."""
        names = [self.item, self.name] if self.foreach is not None and self.branches else [self.name]
        return [*names, self.reasoning] if self.reasoning else names

    def scopes(self, values: Values) -> list[dict[str, Any]] | None:
        """What each of its questions sees besides, in order; None where the step is skipped.

        Raises NoQuestions.
        """
        if self.when is not None and not _value(self.when, "when", values):
            return None
        if self.foreach is None:
            return [{}] * (self.n or 1)
        items, said = _value(self.foreach, "foreach", values), f"`foreach: {self.foreach.source}`"
        if not isinstance(items, list):
            raise NoQuestions(f"{said} is no list: {str(items)[:80]!r}")
        if len(items) > MOST:
            raise NoQuestions(f"{said} has {len(items):,} items, more than {MOST:,}")
        if not items and self.branches:
            raise NoQuestions(f"{said} is an empty list")
        return [{self.item: item} for item in items]

    def rendered(self, prompt: Prompt, values: Values, scopes: Sequence[Values]) -> list[Rendered]:
        """The messages of each question, in order. Raises PromptFailed where it fails for all of them."""
        if self.foreach is None:
            return [prompt.render(values)] * len(scopes)
        found: list[Rendered] = []
        for scope in scopes:
            try:
                found.append(prompt.render({**values, **scope}))
            except PromptFailed as failure:
                if not self.branches:
                    raise
                found.append(failure)
        return found

    def given(self, answer: Any) -> dict[str, Any]:
        """The fields that its answer fills, or the list of its answers."""
        if self.reasoning is None:
            return {self.name: answer}
        each: Sequence[Thoughtful] = answer if self.gathers else [answer]
        values, thoughts = [one.value for one in each], [one.thoughts for one in each]
        if not self.gathers:
            return {self.name: values[0], self.reasoning: thoughts[0]}
        return {self.name: values, self.reasoning: thoughts}

    def skipped(self) -> dict[str, None]:
        """The fields that it adds where it is skipped."""
        return dict.fromkeys(self.names)


def _value(expression: Expression, key: str, values: Values) -> Any:
    try:
        return expression.value(values)
    except PromptFailed as failure:
        raise NoQuestions(f"`{key}: {expression.source}`: {failure}") from None


def fan_of(name: str, step: Step) -> Fan:
    """How a step of a recipe fans out."""
    return Fan(
        name,
        step.n,
        Expression(step.foreach) if step.foreach is not None else None,
        step.item,
        step.gather,
        Expression(step.when) if step.when is not None else None,
        step.conversation,
        step.reasoning,
    )


def path_of(turns: Sequence[int]) -> str:
    """A branch's path: the number of its question at each step that fanned out. Sorts as the numbers do."""
    return ".".join(f"{turn:0{WIDTH}d}" for turn in turns) or "0"


def steps_asked(fans: Sequence[Fan], values: Values | None) -> Iterator[str]:
    """The step of each question behind a record with these fields, in order, as far as it can be told.

    In a conversation it is `STEP/user` for what the user says, and `STEP/results` for what a call results in.
    """
    for fan in fans:
        if values is None and (fan.when is not None or (fan.gathers and fan.foreach is not None)):
            return
        try:
            scopes = [{}] * (fan.n or 1) if values is None else fan.scopes(values)
        except NoQuestions:
            return
        count = len(scopes[:1] if scopes and fan.branches else scopes or ())
        if fan.conversation is None:
            yield from [fan.name] * count
        elif values is None:
            yield fan.name if fan.conversation.opening is not None else f"{fan.name}/user"
            return
        elif count:
            said = values[fan.name]
            for messages in said if fan.gathers else [said]:
                yield from _voices(fan.name, fan.conversation, messages)


def _voices(name: str, said: Conversation, messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Who was asked, in order, in a conversation that came to these messages."""
    turns = 0
    for message in messages:
        if message["role"] == "user":
            turns += 1
            if turns > 1 or said.opening is None:
                yield f"{name}/user"
        elif message["role"] == "assistant":
            yield name
        elif message["role"] == "tool" and isinstance(said.results, Voice):
            yield f"{name}/results"
    if turns < said.turns and messages and "tool_calls" not in messages[-1]:
        yield f"{name}/user"  # who has left
