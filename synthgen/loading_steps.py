"""The steps of a recipe: their prompts, models and sampling found and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthgen.answers import form_of
from synthgen.engines.keys import at_openai
from synthgen.loaded import LoadedStep, LoadedVoice
from synthgen.loading_checks import Checks, Loc
from synthgen.loading_models import check_model
from synthgen.loading_talk import check_talk, voice_prompts
from synthgen.prompt import Prompt
from synthgen.recipe_models import ModelRef, Sampling
from synthgen.recipe_steps import Step
from synthgen.schema_checks import pattern_of
from synthgen.steps import Fan, fan_of
from synthgen.talk import talk_of


def load_steps(checks: Checks, models: Mapping[str, ModelRef], *, overridden: bool) -> list[LoadedStep]:
    """The steps of a recipe, in order. `overridden` says that flags or the environment chose its model."""
    steps = []
    known = set(checks.recipe.seeds)
    fans = load_fans(checks)
    for place, (name, step) in enumerate(checks.recipe.named_steps()):
        loc = ("steps", place, name)
        check_model(checks, loc, step.model, models)
        item = {step.item} if step.foreach is not None else set()
        prompts = voice_prompts(checks, loc, name, step, known | item)
        check_talk(checks, loc, step, known | item)
        prompt = prompts[name]
        _check_form(checks, loc, step, prompt)
        if prompt is not None:
            _check_turn(checks, loc, step, prompt, models.get(step.model or ""))
            sampling = _sampling(checks, loc, step.sampling)
            form = form_of(step, prompt.schema)
            model = step.model or ""
            others = _others(checks, loc, name, step, models, prompts)
            talk = None
            if step.conversation is not None:
                talk = talk_of(step, prompt, {key: voice.prompt for key, voice in others.items()})
            steps.append(LoadedStep(name, prompt, sampling, model, form, fans[place], talk, others))
            if (step.n or 1) > 1 and sampling.get("temperature") == 0:
                checks.notices.append(f"step {name}: at temperature 0 its {step.n} answers will be alike")
        known |= {*fans[place].names}
    if overridden and steps and all(step.model for step in steps):
        checks.wrong(
            ("steps",),
            "every step names one of `models:`, so --engine, --model and --base-url do nothing",
        )
    return steps


def load_fans(checks: Checks) -> list[Fan]:
    """How each step fans out."""
    known, fans = set(checks.recipe.seeds), []
    for place, (name, step) in enumerate(checks.recipe.named_steps()):
        fan = fan_of(name, step)
        for key, expression in (("when", fan.when), ("foreach", fan.foreach)):
            if expression is not None:
                where: Loc = (*checks.within, "steps", place, name, key)
                checks.expression(checks.file, where, expression, known)
        known |= {*fan.names}
        fans.append(fan)
    return fans


def _sampling(checks: Checks, loc: Loc, said: Sampling) -> dict[str, Any]:
    """The whole sampling of whoever is asked at this place."""
    sampling = said.over(checks.recipe.sampling).settings()
    own = (*loc, "sampling") if said.model_fields_set else ("sampling",)
    checks.canonical(checks.file, own, sampling)
    return sampling


def _others(
    checks: Checks,
    loc: Loc,
    name: str,
    step: Step,
    models: Mapping[str, ModelRef],
    prompts: Mapping[str, Prompt | None],
) -> dict[str, LoadedVoice]:
    """Who else speaks in a step's conversations, by their keys."""
    found = {}
    for key, voice in step.conversation.voices.items() if step.conversation is not None else ():
        at = (*loc, "conversation", key)
        if voice.model is not None:
            check_model(checks, at, voice.model, models)
        prompt = prompts[f"{name}/{key}"]
        if prompt is not None:
            model = voice.model or step.model or ""
            found[key] = LoadedVoice(prompt, _sampling(checks, at, voice.sampling), model)
    return found


def _check_form(checks: Checks, loc: Loc, step: Step, prompt: Prompt | None) -> None:
    checks.schema(checks.file, (*loc, "output"), step.output)
    if step.extract is None:
        return
    if prompt is not None and prompt.schema is not None:
        checks.wrong((*loc, "extract"), "the prompt has an `output:` schema, so there is nothing to take out")
    try:
        if step.extract.regex is not None:
            pattern_of(step.extract.regex)
    except ValueError as error:
        checks.wrong((*loc, "extract", "regex"), f"not a regular expression of RE2: {error}")


def _check_turn(checks: Checks, loc: Loc, step: Step, prompt: Prompt, model: ModelRef | None) -> None:
    """A model can write the user's turn only where its chat template can be had."""
    if prompt.writes == "assistant":
        return
    if step.output is not None:
        checks.wrong(
            (*loc, "output"), "a user's turn is free text: with `writes: user` there is no `output:`"
        )
    served = model is not None and (model.engine == "openai" or model.base_url is not None)
    if model is not None and served and (model.base_url is None or at_openai(model.base_url)):
        checks.wrong(
            (*loc, "prompt"),
            "OpenAI's service writes answers alone, and this prompt says `writes: user`",
            "use the engine vllm or llamacpp, or a server of vLLM or llama.cpp as `base_url:`",
        )
