"""synthgen validate: check a recipe and show what it would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.cli.options import (
    OPEN,
    AllowOption,
    BaseUrlOption,
    EngineOption,
    JsonOption,
    ModelOption,
    RecipeArgument,
    TasksOption,
    bound,
    out,
    out_json,
    plain,
    results_only,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synthgen.loading import Loaded, LoadedStep

CHARACTERS_A_TOKEN = 4
TOKENS_A_MESSAGE = 5
FAN = ("n", "foreach", "as", "gather", "when", "extract", "retries", "reasoning", "conversation")


def validate(
    recipe: RecipeArgument,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    tasks: TasksOption = None,
    allow_path: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe and list what it would do; runs nothing."""
    from synthgen.loading import load

    with results_only():
        loaded = load(
            recipe, engine=engine, model=model, base_url=base_url, tasks=tasks, allow=tuple(allow_path or ())
        )
    plan = describe_plan(loaded)
    if as_json:
        out_json(plan)
    else:
        _show(loaded, plan)


def _models_that_are_not(loaded: Loaded) -> list[str]:
    from synthgen.errors import EngineUnreachable
    from synthgen.models import check_name

    found = []
    for name in loaded.asked:
        model = loaded.models[name]
        base = Path.cwd() if (Path.cwd() / model.id).exists() else loaded.project.root
        if model.engine != "openai" and not model.base_url:
            try:
                check_name(model.id, base)
            except EngineUnreachable as error:
                found.append(f"it could not run: {error}")
    return found


def describe_plan(loaded: Loaded) -> dict[str, Any]:
    """What the recipe would do: tasks, requests, tokens at most and about, first prompt, filters."""
    from synthgen.chain import describe
    from synthgen.trial import trial

    recipe = loaded.recipe
    tried = trial(loaded)
    tokens = {
        name: tried.characters[name] / CHARACTERS_A_TOKEN + tried.messages[name] * TOKENS_A_MESSAGE
        for name in tried.characters
    }
    notices = list(loaded.notices)
    if tried.failed:
        notices.append(f"{tried.failed} of the first tasks do not render; they would fail")
    notices += _models_that_are_not(loaded)
    most = loaded.most
    shown = recipe.target if recipe.target is not None else most
    asked = loaded.questions
    branches = loaded.fan if recipe.target is not None else 1  # a target counts branches
    of_voice = {
        name: (tokens[name] + _history(loaded, name), asked[name] * voice.sampling["max_tokens"])
        for name, voice in loaded.voices.items()
    }
    return {
        "recipe": recipe.name,
        "tasks": None if recipe.target is not None else most,
        "target": recipe.target,
        "attempts": most if recipe.target is not None else None,
        "requests": shown * sum(asked.values()) // branches,
        "input_tokens": round(sum(given for given, _ in of_voice.values()) * shown / branches),
        "output_tokens_at_most": shown * sum(most for _, most in of_voice.values()) // branches,
        "money_at_most": _money(loaded, of_voice, shown / branches),
        "seeds": {name: len(rows) for name, rows in loaded.plan.rows.items()}
        | {name: choices.size for name, choices in loaded.plan.choices.items()},
        "steps": [
            {
                "name": step.name,
                "prompt": step.prompt.name,
                "model": loaded.models[step.model].id,
                "sampling": dict(step.sampling),
                "structured": step.form.schema is not None,
                "reads": _reads(loaded, step),
                **_fan(step),
            }
            for step in loaded.steps
        ],
        "grow": {name: said.model_dump() for name, said in recipe.grow.items()},
        "round": loaded.grown.round if loaded.grown else loaded.balance.round if loaded.balance else None,
        "first_prompt": list(tried.first),
        "filters": [describe(link) for link in loaded.chain],
        "notices": notices,
    }


def _history(loaded: Loaded, name: str) -> float:
    """Tokens of what was said before, in all that one is asked, if each message is as long as it may be."""
    step = next(step for step in loaded.steps if name in step.voices)
    if step.talk is None:
        return 0
    a_turn: int = sum(voice.sampling["max_tokens"] for voice in step.voices.values())
    return loaded.questions[name] * a_turn * (step.talk.said.turns - 1) / 2


def _money(loaded: Loaded, of_voice: Mapping[str, tuple[float, int]], times: float) -> float | None:
    """What the steps cost at their models' prices if every answer is as long as it may be."""
    total, priced = 0.0, False
    for name, voice in loaded.voices.items():
        prices = loaded.models[voice.model].prices
        if prices is not None:
            given, most = of_voice[name]
            total += times * (given * prices.input + most * prices.output) / 1e6
            priced = True
    return total if priced else None


def _reads(loaded: Loaded, step: LoadedStep) -> list[str]:
    """The seeds and earlier steps that a step looks at, in the recipe's order."""
    known = [*loaded.recipe.seeds, *(name for other in loaded.steps for name in other.fan.names)]
    return [name for name in dict.fromkeys(known) if name in step.reads]


def _fan(step: LoadedStep) -> dict[str, Any]:
    """How a step fans out, and when it is skipped, where it does."""
    fan = step.fan
    said = {
        "n": fan.n,
        "foreach": fan.foreach.source if fan.foreach else None,
        "as": fan.item if fan.foreach else None,
        "gather": fan.gathers or None,
        "when": fan.when.source if fan.when else None,
        "extract": step.form.extract.model_dump(exclude_none=True) if step.form.extract else None,
        "retries": step.form.retries if step.form.tells else None,
        "reasoning": fan.reasoning,
        "conversation": _conversation(step) or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _conversation(step: LoadedStep) -> dict[str, Any]:
    """How a step's conversations go, where it has them."""
    if step.talk is None:
        return {}
    said = step.talk.said
    tools = f"{len(said.tools)} of them" if isinstance(said.tools, list) else said.tools
    return {
        "turns": said.turns,
        **({"until": said.until} if said.until is not None else {}),
        **({"tools": tools} if tools is not None else {}),
        **{key: f"prompt {voice.prompt.name}" for key, voice in step.others.items()},
    }


def _show_how_many(loaded: Loaded, plan: dict[str, Any]) -> None:
    if plan["target"] is not None:
        out(f"target   {plan['target']:,} kept rows, from {plan['attempts']:,} attempts at most")
    else:
        most = " at most, if all were kept" if loaded.plan.limit is None else ""
        out(f"tasks    {plan['tasks']:,}{most}")
    if plan["grow"]:
        out(f"grow     {', '.join(plan['grow'])}: from what is kept, in rounds of {plan['round']:,} tasks")


def _show(loaded: Loaded, plan: dict[str, Any]) -> None:
    out(f"{loaded.file.path} is valid")
    out("")
    _show_how_many(loaded, plan)
    for name, count in plan["seeds"].items():
        drawn = "to draw from" if name in loaded.plan.choices else "to go through"
        out(f"seed     {name}: " + (f"{count:,} {drawn}" if count is not None else "drawn for each task"))
    for step in plan["steps"]:
        sampling = ", ".join(f"{key} {value}" for key, value in step["sampling"].items())
        structured = ", structured" if step["structured"] else ""
        reads = f"{', '.join(step['reads'])} → " if step["reads"] else ""
        asked = f"prompt {step['prompt']}, {step['model']}, {sampling}{structured}"
        out(f"step     {reads}{step['name']}: {asked}")
        if fan := {key: step[key] for key in FAN if key in step}:
            out("         " + ", ".join(f"{key} {plain(str(value), 200)}" for key, value in fan.items()))
    for link in plan["filters"]:
        action = "" if link["action"] == "drop" else f", {link['action']}s"
        origin = "" if link["origin"] == "shipped" else f" ({link['origin']})"
        out(f"filter   {link['name']}{origin}: {link['of']} {bound(link['min'], link['max'])}{action}")
    asking = [link.name for link in loaded.chain if link.asks]
    if asking:
        out(f"         each record that comes so far is asked about by {', '.join(asking)}")
    if plan["steps"]:
        out(
            f"cost     about {plan['requests']:,} requests, {plan['input_tokens']:,} tokens in, "
            f"{plan['output_tokens_at_most']:,} out at most"
            + (" (if every attempt were kept)" if plan["target"] is not None else "")
        )
        if plan["money_at_most"] is not None:
            out(f"         {plan['money_at_most']:,.2f} at most, at the prices of the recipe")
        out("")
        out("the first prompt:")
        for message in plan["first_prompt"]:
            out(f"  [{message['role']}]")
            for line in plain(message.get("content", OPEN)).splitlines():
                out(f"    {line}")
    for notice in plan["notices"]:
        out(f"note: {notice}")
