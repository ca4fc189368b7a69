"""synthgen validate: check a recipe and show what it would do."""

from __future__ import annotations

import sys
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

    from synthgen.graph import Graph
    from synthgen.loaded import Loaded, LoadedStep

CHARACTERS_A_TOKEN = 4
TOKENS_A_MESSAGE = 5


def validate(
    recipe: RecipeArgument,
    engine: EngineOption = None,
    model: ModelOption = None,
    base_url: BaseUrlOption = None,
    tasks: TasksOption = None,
    allow_path: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe, draw it, and estimate what it would take; runs nothing."""
    from synthgen.graph import graph_of
    from synthgen.loading import load

    with results_only():
        loaded = load(
            recipe, engine=engine, model=model, base_url=base_url, tasks=tasks, allow=tuple(allow_path or ())
        )
    graph = graph_of(loaded)
    plan = describe_plan(loaded, graph)
    if as_json:
        out_json(plan)
    else:
        _show(loaded, graph, plan)


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


def _uncounted(loaded: Loaded) -> list[str]:
    gathered = {step.name for step in loaded.steps if step.fan.gathers}
    return [
        f"step {step.name}: how long `{step.fan.foreach.source}` is, nobody knows yet; the cost counts one"
        for step in loaded.steps
        if step.fan.foreach is not None and step.fan.foreach.source.strip() not in gathered
    ]


def describe_plan(loaded: Loaded, graph: Graph) -> dict[str, Any]:
    """What the recipe would do: its graph, tasks, requests, tokens, money and time, first prompt, filters."""
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
    notices += _uncounted(loaded)
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
        **_time(loaded, of_voice, shown / branches),
        "seeds": {name: len(rows) for name, rows in loaded.plan.rows.items()}
        | {name: choices.size for name, choices in loaded.plan.choices.items()},
        "steps": [
            {
                "name": step.name,
                "prompt": step.prompt.name,
                "model": loaded.models[step.model].id,
                "sampling": dict(step.sampling),
                "structured": step.form.schema is not None,
                "reads": _reads(graph, step.name),
                **_fan(step),
            }
            for step in loaded.steps
        ],
        "grow": {name: said.model_dump() for name, said in recipe.grow.items()},
        "round": loaded.grown.round if loaded.grown else loaded.balance.round if loaded.balance else None,
        "graph": graph.as_json(),
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


def _time(loaded: Loaded, of_voice: Mapping[str, tuple[float, int]], times: float) -> dict[str, Any]:
    """How long all requests of steps would take, or the models whose pace is not known."""
    from synthgen.estimate import Asked, time_of

    wanted: dict[str, Asked] = {}
    for name, voice in loaded.voices.items():
        before = wanted.get(voice.model, Asked(loaded.models[voice.model], 0, 0))
        wanted[voice.model] = Asked(
            before.model,
            before.requests + round(times * loaded.questions[name]),
            before.output_tokens + round(times * of_voice[name][1]),
        )
    found = time_of(list(wanted.values()), loaded.runs, loaded.recipe.name) if wanted else []
    if isinstance(found, list):
        return {"time": None, "time_unknown_for": found}
    return {"time": found.as_json(), "time_unknown_for": []}


def _reads(graph: Graph, step: str) -> list[str]:
    """The seeds and earlier steps that a step looks at, in the recipe's order."""
    return [field for edge in graph.into(f"step:{step}") for field in edge.fields]


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


def _marks(step: Mapping[str, Any]) -> str:
    """How often a step is asked, what comes of it, and when it is skipped."""
    gathered = "gathered" if step.get("gather") else "a branch each"
    marks = []
    if "foreach" in step:
        marks.append(f"for each {step['as']} of `{plain(step['foreach'], 200)}`, {gathered}")
    elif step.get("n", 1) > 1 or step.get("gather"):
        marks.append(f"asked {step.get('n', 1)} times, {gathered}")
    if "when" in step:
        marks.append(f"only when `{plain(step['when'], 200)}`")
    return " · ".join(marks)


def _pairs(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {plain(str(value), 200)}" for key, value in said.items())


def _said(loaded: Loaded, plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """What there is to say of each node of the graph."""
    said: dict[str, list[str]] = {}
    balanced = {field.partition(".")[0] for field in loaded.recipe.balance}
    for name, count in plan["seeds"].items():
        drawn = "to draw from" if name in loaded.plan.choices else "to go through"
        much = f"{count:,} {drawn}" if count is not None else "drawn for each task"
        balance = ", balanced" if name in balanced else ""
        grows = ", grows by what is kept" if name in plan["grow"] else ""
        said[f"seed:{name}"] = [f"seed, {much}{balance}{grows}"]
    for step in plan["steps"]:
        sampling = ", ".join(f"{key} {value}" for key, value in step["sampling"].items())
        form = ", structured" if step["structured"] else ""
        form += f", extract {plain(str(step['extract']), 200)}" if "extract" in step else ""
        form += f", retries {step['retries']}" if "retries" in step else ""
        form += f", reasoning in {step['reasoning']}" if "reasoning" in step else ""
        asked = f"prompt {step['prompt']}, {step['model']}, {sampling}{form}"
        reads = [f"← {', '.join(step['reads'])}"] if step["reads"] else []
        talk = [f"conversation: {_pairs(step['conversation'])}"] if "conversation" in step else []
        marks = _marks(step)
        said[f"step:{step['name']}"] = ["step" + (f" {marks}" if marks else ""), *reads, asked, *talk]
    said["record"] = [f"row: {', '.join(loaded.shape.columns)}"]
    for link in loaded.chain:
        action = "" if link.action == "drop" else f", {link.action}s"
        origin = "" if link.origin == "shipped" else f" ({link.origin})"
        asks = ", asks a model about each record that comes so far" if link.asks else ""
        limits = f"filter{origin}: {link.of} {bound(link.min, link.max)}{action}{asks}"
        said[f"filter:{link.name}"] = [limits]
    return said


def _show_time(loaded: Loaded, plan: Mapping[str, Any]) -> None:
    if plan["time"] is None:
        runs = shown_path(loaded.runs)
        missing = " and ".join(plain(model, 80) for model in plan["time_unknown_for"])
        out(f"time     unknown: no finished run in {runs}/ has asked {missing} here;")
        out("         a small one measures it:")
        out(f"         synthgen run {loaded.file.path} --tasks 20 -o {runs}/{loaded.recipe.name}-trial")
        return
    low, high = plan["time"]["seconds"]
    measured = plan["time"]["measured"]
    paces = [each["output_tokens_per_second"] for each in measured]
    runs = ", ".join(dict.fromkeys(each["run"] for each in measured))
    pace = f"{min(paces):,.0f}" + (f" to {max(paces):,.0f}" if min(paces) < max(paces) else "")
    out(f"time     {duration(low)} to {duration(high)}, without what filters take: the first if answers")
    out("         are as long as they were, the second if each is as long as it may be, at")
    out(f"         {pace} tokens/s as measured in {plain(runs, 200)}")


def duration(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3.5 h`, `9 days`."""
    for unit, name, most in ((1, "s", 120), (60, "min", 120), (3600, "h", 72)):
        if seconds < most * unit:
            number = seconds / unit
            return f"{number:.1f} {name}" if number < 9.95 and unit > 1 else f"{max(number, 1):.0f} {name}"
    return f"{seconds / 86400:,.0f} days"


def shown_path(path: Path) -> str:
    """A path as somebody here would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _show(loaded: Loaded, graph: Graph, plan: dict[str, Any]) -> None:
    from synthgen.cli.drawing import draw, readable

    out(f"{loaded.file.path} is valid")
    out("")
    for line in readable(draw(graph, _said(loaded, plan)), sys.stdout.encoding):
        out(plain(line))
    out("")
    _show_how_many(loaded, plan)
    if plan["steps"]:
        out(
            f"cost     about {plan['requests']:,} requests, {plan['input_tokens']:,} tokens in, "
            f"{plan['output_tokens_at_most']:,} out at most"
            + (" (if every attempt were kept)" if plan["target"] is not None else "")
        )
        if plan["money_at_most"] is not None:
            out(f"         {plan['money_at_most']:,.2f} at most, at the prices of the recipe")
        _show_time(loaded, plan)
        out("")
        out("the first prompt:")
        for message in plan["first_prompt"]:
            out(f"  [{message['role']}]")
            for line in plain(message.get("content", OPEN)).splitlines():
                out(f"    {line}")
    for notice in plan["notices"]:
        out(f"note: {plain(notice)}")
