"""What a step with `conversation:` names, found and checked."""

from __future__ import annotations

from synthgen.loading_checks import Checks, Loc
from synthgen.prompt import Prompt, TextTemplate
from synthgen.recipe_prompts import PromptBody, SystemBody
from synthgen.recipe_steps import Step
from synthgen.talk import SCOPE, SEEN, expressions_of
from synthgen.tools import NotTools, tools_of


def voice_prompts(
    checks: Checks, loc: Loc, name: str, step: Step, known: set[str]
) -> dict[str, Prompt | None]:
    """The prompts of everyone whom a step asks: its own by its name, those of a conversation by `NAME/user`.

    None stands for one that cannot be read.
    """
    said = step.conversation
    if said is None:
        return {name: checks.prompt((*loc, "prompt"), step.prompt, known)}
    own = known | ({"tools"} if said.tools is not None else set())
    found = {name: checks.prompt((*loc, "prompt"), step.prompt, own, SystemBody)}
    for key, voice in said.voices.items():
        where = (*loc, "conversation", key, "prompt")
        found[f"{name}/{key}"] = prompt = checks.prompt(where, voice.prompt, known | {*SEEN[key]}, PromptBody)
        if key == "user" and prompt is not None and prompt.schema is not None:
            checks.wrong(where, "what the user says is text: its prompt has no `output:`")
        if prompt is not None and prompt.writes != "assistant":
            checks.wrong(where, "in a conversation everyone is asked for an answer: no `writes: user` here")
    return found


def check_talk(checks: Checks, loc: Loc, step: Step, known: set[str]) -> None:
    """The expressions, the opening and the tools of a step's conversations, where it has any."""
    said = step.conversation
    if said is None:
        return
    at = (*loc, "conversation")
    for name in sorted(known & {*SCOPE} - {"tools"}):
        checks.wrong(at, f"a conversation has a `{name}` of its own; call the field something else")
    if isinstance(said.tools, list):
        try:
            tools_of(said.tools)
        except NotTools as error:
            checks.wrong((*at, "tools", *error.at), str(error) if error.at else f"`tools:` {error}")
    for key, expression in expressions_of(said).items():
        where: Loc = (*at, "results", "value") if key == "results" else (*at, key)
        checks.expression(checks.file, where, expression, known | {*SEEN[key]})
    if said.opening is not None:
        where = (*at, "opening")
        checks.template(checks.file, where, TextTemplate(said.opening), known | {*SEEN["opening"]})
