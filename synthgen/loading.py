"""A recipe with everything it names found, read and checked: what `validate` proves and `run` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from synthgen.balance import balance_of, never_there
from synthgen.errors import Problem, RecipeError
from synthgen.growth import grown_of
from synthgen.loaded import ATTEMPTS_PER_ROW, MOST_TASKS, Loaded
from synthgen.loading_checks import Checks
from synthgen.loading_filters import load_chain
from synthgen.loading_models import load_models
from synthgen.loading_record import load_shape
from synthgen.loading_seeds import load_seeds
from synthgen.loading_steps import load_steps
from synthgen.plan import Plan
from synthgen.project import find_recipe, project_of
from synthgen.prompt import Expression
from synthgen.recipe import Recipe
from synthgen.recipe_parts import WRITTEN
from synthgen.recipe_problems import recipe_problems
from synthgen.seed_kinds import CasesSeed
from synthgen.seeds import Rows
from synthgen.yamlfile import YamlFile, read_yaml


def load(
    given: str | Path,
    *,
    engine: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    tasks: int | None = None,
    allow: Sequence[Path] = (),
) -> Loaded:
    """Read and check a recipe. The keyword arguments override what it says.

    Raises RecipeError with every problem found, each with its file, line and column, and UsageError where
    there is no such recipe.
    """
    path = find_recipe(str(given))
    file = read_yaml(path)
    recipe = _parse(file)
    notices = []
    if tasks is not None:
        instead: dict[str, Any] = {
            "tasks": tasks,
            "target": None,
            "passes": None,
            "balance": {},
            "round": recipe.round if recipe.grow else None,
        }
        if recipe.balance:
            notices.append("so many tasks are taken as they come: `balance:` is for a `target:`")
        recipe = recipe.model_copy(update=instead)
    checks = Checks(recipe, file, project_of(path, allow))
    checks.notices += notices
    return _load(checks, engine, model, base_url)


def _parse(file: YamlFile) -> Recipe:
    if not isinstance(file.data, dict):
        raise RecipeError([Problem("a recipe is a mapping that begins with `version: 1`", file.path, 1)])
    try:
        return Recipe.model_validate(file.data, context=WRITTEN)
    except ValidationError as error:
        raise RecipeError(recipe_problems(file, error, Recipe)) from None


def _load(checks: Checks, engine: str | None, model: str | None, base_url: str | None) -> Loaded:
    recipe, overridden = checks.recipe, bool(engine or model or base_url)
    seeds = load_seeds(checks)
    models = load_models(checks, engine, model, base_url)
    steps = load_steps(checks, models, overridden=overridden)
    shape = load_shape(checks)
    chain = load_chain(checks, overridden=overridden)
    for name, said in recipe.grow.items():
        where = (*checks.within, "grow", name, "add")
        checks.expression(checks.file, where, Expression(said.add), {*recipe.fields})
    checks.give_up()
    _note_unused(checks)
    balance, wrong = balance_of(recipe, {name: seeds.listed.get(name) for name in recipe.seeds})
    for place, message, hint in wrong:
        checks.wrong(place, message, hint)
    checks.give_up()
    limit = _limit(recipe, seeds.rows)
    if limit is not None and limit > MOST_TASKS:
        key = "target" if recipe.target is not None else "tasks" if recipe.tasks else "seeds"
        checks.wrong((key,), f"that makes {limit:,} tasks, and {MOST_TASKS:,} is the most")
    plan = Plan(recipe.seed, seeds.rows, seeds.drawn, limit)
    for field in recipe.balance:
        name = field.partition(".")[0]
        cases = isinstance(recipe.seeds[name], CasesSeed)  # what they give is known at the run alone
        rows = seeds.files.get(name) or seeds.listed.get(name)
        if not cases and (never := never_there(field, plan, rows)) is not None:
            checks.wrong(("balance", field), *never)
    grown, wrong = grown_of(recipe, plan)
    for place, message, hint in wrong:
        checks.wrong(place, message, hint)
    checks.give_up()
    return Loaded(
        recipe,
        checks.file,
        checks.project,
        plan,
        steps,
        models,
        shape,
        chain,
        seeds.files,
        tuple(checks.notices),
        base_url,
        balance,
        seeds.drawn_from,
        grown,
    )


def _note_unused(checks: Checks) -> None:
    """What nothing looks at is worth a word."""
    checks.used |= {name.partition(".")[0] for name in checks.recipe.balance}
    steps = [name for name, _ in checks.recipe.named_steps()]
    thoughts = {step.reasoning for _, step in checks.recipe.named_steps()}
    for name in checks.recipe.fields if steps else ():
        if name not in checks.used:
            what = "step" if name in steps else "seed" if name in checks.recipe.seeds else "item"
            what = "reasoning" if name in thoughts else what
            checks.notices.append(f"{what} {name}: no prompt and no part of the record uses it")


def _limit(recipe: Recipe, rows: Mapping[str, Rows]) -> int | None:
    once = prod(map(len, rows.values()))
    grows = any(name in rows for name in recipe.grow)
    if recipe.target is None:
        if grows:
            return recipe.tasks
        return recipe.tasks if recipe.tasks is not None else once
    limit = recipe.budget.attempts or ATTEMPTS_PER_ROW * recipe.target
    if recipe.passes is not None and not grows:
        limit = min(limit, recipe.passes * once)
    return limit
