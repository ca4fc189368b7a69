"""A conversation: what is asked next, given the answers so far. Where those come from is not known here.

The same answers give the same conversation, so that a run goes on where it stopped, and an audit computes it
again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from synthgen.answers import Form
from synthgen.prompt import Expression, Prompt, PromptFailed, TextTemplate
from synthgen.recipe_conversations import CALLS, Conversation, Given
from synthgen.recipe_steps import RE_ASKS, Step
from synthgen.steps import NoQuestions
from synthgen.tools import NotTools, Tool, call_form, offer, tools_of

SCOPE = ("messages", "turn", "said", "tools", "call", "tool")  # names that a conversation adds to the fields
SEEN: Mapping[str, Sequence[str]] = {
    "tools": (),
    "opening": ("tools",),
    "user": ("messages", "turn", "tools"),
    "until": ("messages", "turn", "tools", "said"),
    "results": ("messages", "turn", "tools", "call", "tool"),
}  # by whom

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One request of a conversation: whom it asks (`user`, `results`, or "" for the step's own model)."""

    voice: str
    messages: Sequence[Mapping[str, str]]
    form: Form


Asking = Generator[Question, Any, list[dict[str, Any]]]


@dataclass(frozen=True)
class Talk:
    """How the conversations of a step go. `prompt` is the assistant's; `prompts` are the others'."""

    said: Conversation
    prompt: Prompt
    prompts: Mapping[str, Prompt]
    retries: int = RE_ASKS
    tells: bool = False
    expressions: Mapping[str, Expression] = field(default_factory=dict)
    opening: TextTemplate | None = None

    def names(self) -> set[str]:
        """Fields that it looks at."""
        of_prompts = {"opening": self.prompt, **self.prompts}  # which sees what an opening sees
        looking = [(key, template) for key, prompt in of_prompts.items() for _, template in prompt.turns]
        looking += [(key, expression.template) for key, expression in self.expressions.items()]
        looking += [("opening", self.opening)] if self.opening is not None else []
        return {name for key, template in looking for name in template.names() - {*SEEN[key]}}

    @property
    def questions(self) -> dict[str, int]:
        """How often each is asked where the user stays, with one call of a tool a turn if there are tools."""
        said, turns = self.said, self.said.turns
        goes_on = said.tools is not None and said.results is not None
        asked = {
            "": turns * (2 if goes_on else 1),
            "user": turns - (self.opening is not None),
            "results": turns,
        }
        return {key: times for key, times in asked.items() if not key or key in self.prompts}

    def beginnings(self, values: Values) -> dict[str, Sequence[Mapping[str, str]]]:
        """What each voice is shown before anything was said, but for `results`, which is never asked then.

        Raises NoQuestions or PromptFailed.
        """
        tools = self.tools(values)
        scope = {**values, "tools": [tool.said for tool in tools], "messages": [], "turn": 1}
        found: dict[str, Sequence[Mapping[str, str]]] = {"": _told(self.prompt.render(scope), tools)}
        if "user" in self.prompts:
            found["user"] = self.prompts["user"].render(scope)
        return found

    def tools(self, values: Values) -> list[Tool]:
        """The tools of one conversation. Raises NoQuestions where they are none."""
        given = self.said.tools
        if given is None:
            return []
        try:
            return tools_of(self._value("tools", values) if isinstance(given, str) else given)
        except NotTools as error:
            raise NoQuestions(f"`tools:` {error}") from None

    def asking(self, values: Values) -> Asking:
        """Gives one question after the other, is sent each answer, and returns the messages.

        Raises NoQuestions or PromptFailed where it cannot go on.
        """
        tools = self.tools(values)
        scope = {**values, "tools": [tool.said for tool in tools]}
        begun = self.prompt.render(scope)
        shown = _told(begun, tools)
        messages: list[dict[str, Any]] = []
        plain = Form(None, None, self.retries, self.tells)
        free = call_form(tools, self.retries) if tools else plain
        bound = call_form((), self.retries) if tools else plain
        called = 0
        for turn in range(1, self.said.turns + 1):
            scope |= {"messages": messages, "turn": turn}
            said = yield from self._user(scope, plain)
            if said is None:
                break
            messages.append({"role": "user", "content": said})
            shown.append({"role": "user", "content": said})
            for left in range(self.said.calls or CALLS, -1, -1):
                answer = yield Question("", [*shown], free if left else bound)
                spoken = answer if not tools else answer["answer"].get("say")
                shown.append({"role": "assistant", "content": answer if not tools else _json(answer)})
                if spoken is not None:
                    messages.append({"role": "assistant", "content": spoken.strip()})
                    break
                called += 1
                call = answer["answer"]["call"]
                messages.append(_call(called, call))
                if self.said.results is None:
                    return [*begun, *messages]
                tool = next(tool for tool in tools if tool.name == call["name"])
                seen = {**scope, "call": call, "tool": tool.said["function"]}
                result = yield from self._result(seen)
                text = result if isinstance(result, str) else _json(result)
                messages.append(_result(called, call, text))
                shown.append({"role": "user", "content": _json({"tool": call["name"], "result": result})})
        if not messages:
            raise NoQuestions("the user left before the conversation began")
        return [*begun, *messages]

    def _user(self, scope: Values, form: Form) -> Generator[Question, Any, str | None]:
        """What the user says next; None where that ends the conversation."""
        if self.opening is not None and scope["turn"] == 1:
            if not (said := self.opening.render(scope)):
                raise NoQuestions("`opening:` is an empty text")
            return said
        answer: str = yield Question("user", self.prompts["user"].render(scope), form)
        if "until" in self.expressions and self._value("until", {**scope, "said": answer}):
            return None
        return answer

    def _result(self, scope: Values) -> Generator[Question, Any, Any]:
        if isinstance(self.said.results, Given):
            return self._value("results", scope)
        prompt = self.prompts["results"]
        form = Form(prompt.schema, None, self.retries, self.tells)
        return (yield Question("results", prompt.render(scope), form))

    def _value(self, key: str, values: Values) -> Any:
        expression = self.expressions[key]
        try:
            return expression.value(values)
        except PromptFailed as failure:
            raise NoQuestions(f"`{key}: {expression.source}`: {failure}") from None


def talk_of(step: Step, prompt: Prompt, prompts: Mapping[str, Prompt]) -> Talk:
    """How the conversations of a step go that has `conversation:`, with the prompts that it names."""
    said = step.conversation
    assert said is not None
    return Talk(
        said,
        prompt,
        prompts,
        RE_ASKS if step.retries is None else step.retries,
        step.tells,
        expressions_of(said),
        TextTemplate(said.opening) if said.opening is not None else None,
    )


def expressions_of(said: Conversation) -> dict[str, Expression]:
    """The expressions of a conversation, by their keys."""
    sources = {
        "until": said.until,
        "tools": said.tools if isinstance(said.tools, str) else None,
        "results": said.results.value if isinstance(said.results, Given) else None,
    }
    return {key: Expression(source) for key, source in sources.items() if source is not None}


def _told(begun: Sequence[Mapping[str, str]], tools: Sequence[Tool]) -> list[dict[str, str]]:
    """The system message that the assistant is shown: its own, then what it may call."""
    told = [message["content"] for message in begun] + ([offer(tools)] if tools else [])
    return [{"role": "system", "content": "\n\n".join(told)}] if told else []


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _call(number: int, call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": _json(call["arguments"])}
    calls = [{"id": f"call_{number}", "type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _result(number: int, call: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": call["name"], "content": text}
