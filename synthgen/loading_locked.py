"""What a finished run's recipe.lock.yaml says: of curation, and of generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from synthgen.chain import ChainFilter
from synthgen.errors import Problem, RecipeError
from synthgen.filter_changes import changed
from synthgen.loading_checks import Checks
from synthgen.loading_filters import load_chain
from synthgen.loading_models import load_models
from synthgen.loading_record import load_shape
from synthgen.loading_steps import load_fans
from synthgen.loading_talk import voice_prompts
from synthgen.project import Project
from synthgen.prompt import Prompt
from synthgen.recipe import Recipe
from synthgen.recipe_models import ModelRef
from synthgen.row import RowShape
from synthgen.steps import Fan, fan_of
from synthgen.yamlfile import YamlFile


@dataclass(frozen=True)
class LoadedCuration:
    """What a finished run's recipe says of curation, with the filters that it names."""

    recipe: Recipe
    project: Project
    chain: Sequence[ChainFilter]
    models: Mapping[str, ModelRef]
    columns: Sequence[str]
    notices: Sequence[str]

    @property
    def asked(self) -> list[str]:
        """Names of the models that filters ask."""
        return sorted({link.model for link in self.chain if link.asks})


def load_curation(
    locked: YamlFile,
    changes: Sequence[str],
    project: Project,
    *,
    engine: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
) -> LoadedCuration:
    """The curation of a recipe.lock.yaml, with changes such as `toxicity.max=0.3`.

    The keyword arguments say how its model is asked. Raises RecipeError or UsageError.
    """
    said = locked.data
    try:
        recipe = changed(Recipe.model_validate(said["recipe"]), changes)
    except (ValidationError, TypeError, KeyError) as error:
        raise RecipeError([Problem(f"is not what synthgen wrote: {error}", locked.path)]) from None
    checks = Checks(recipe, locked, project, ("recipe",))
    chain, shape = load_chain(checks), load_shape(checks)
    models = load_models(checks, engine, model, base_url)
    checks.give_up()
    before = {each["name"]: each["code_sha256"] for each in said["filters"]}
    key = "balance" if recipe.balance else "grow"
    frozen = f"the bounds of the run chose its seeds, for `{key}:`; curating takes the records that there are"
    notices = [frozen] if (recipe.balance or recipe.grow) and changes else []
    notices += [
        f"filter {link.name} is not what it was when the run was made: it measures again"
        for link in chain
        if link.definition.code_sha256() != before.get(link.name)
    ]
    return LoadedCuration(recipe, project, chain, models, shape.columns, [*checks.notices, *notices])


@dataclass(frozen=True)
class Recorded:
    """What a finished run's recipe says of generation: for audits, which load no filter.

    Of each step's name, `prompts` has its prompt as it is now, or why it cannot be read; `fans` how it is
    asked. Those of a conversation's others are under the names that `steps_asked` gives.
    """

    recipe: Recipe
    shape: RowShape
    prompts: Mapping[str, Prompt | str]
    fans: Sequence[Fan]


def load_recorded(locked: YamlFile, project: Project) -> Recorded:
    """The generation of a recipe.lock.yaml. Executes nothing. Raises RecipeError."""
    try:
        recipe = Recipe.model_validate(locked.data["recipe"])
    except (ValidationError, TypeError, KeyError) as error:
        raise RecipeError([Problem(f"is not what synthgen wrote: {error}", locked.path)]) from None
    prompts: dict[str, Prompt | str] = {}
    known = set(recipe.seeds)
    for place, (name, step) in enumerate(recipe.named_steps()):
        checks = Checks(recipe, locked, project, ("recipe",))
        loc = ("recipe", "steps", place, name)
        item = {step.item} if step.foreach is not None else set()
        found = voice_prompts(checks, loc, name, step, known | item)
        wrong = checks.problems[0].message if checks.problems else None
        for key, prompt in found.items():
            prompts[key] = prompt if prompt is not None and wrong is None else wrong or "cannot be read"
        known |= {*fan_of(name, step).names}
    checks = Checks(recipe, locked, project, ("recipe",))
    fans, shape = load_fans(checks), load_shape(checks)
    checks.give_up()
    return Recorded(recipe, shape, prompts, fans)
