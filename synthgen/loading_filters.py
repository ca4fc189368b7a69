"""The filters of a recipe: found, with their parameters and the files that they name checked."""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.chain import ChainFilter
from synthgen.errors import RecipeError, RunError
from synthgen.filter_files import check_params, filter_names, find_filter
from synthgen.input_files import input_files
from synthgen.loading_checks import Checks
from synthgen.project import shipped
from synthgen.record import PARTS
from synthgen.yamlfile import did_you_mean


def load_chain(checks: Checks, *, overridden: bool = False) -> list[ChainFilter]:
    """The filters of a recipe, in order; what is wrong with them is told to `checks`.

    `overridden` says that flags or the environment chose its model.
    """
    own = [""] if checks.recipe.model or overridden else []
    models = sorted({*checks.recipe.models, *own})
    chain = []
    fields = {*checks.recipe.fields, *checks.recipe.record.fields}
    for place, (name, use) in enumerate(checks.recipe.filter_uses()):
        loc = ("filters", place, name)
        wanted = use.filter or name
        try:
            found = find_filter(wanted, checks.project)
        except RecipeError as error:
            checks.problems.extend(error.problems)
            continue
        if found is None:
            names = filter_names(checks.project)
            checks.wrong(
                (*loc, "filter") if use.filter else loc,
                f"there is no filter {wanted!r}",
                did_you_mean(wanted, names) or f"the recipe can use: {', '.join(names)}",
            )
            continue
        if found.origin == "project" and (shipped("filters") / f"{wanted}.py").is_file():
            checks.notices.append(f"filter {wanted}: the project's own takes the place of the shipped one")
        wrong = check_params(found.definition, use.params)
        checks.canonical(checks.file, (*checks.within, *loc), dict(use.params))
        files, unread = input_files(found.definition, use.params, checks.project)
        for key, message, hint in [*wrong, *unread]:
            checks.wrong((*loc, key), message, hint)
        link = ChainFilter.of_recipe(found, use, name, files)
        if not wrong and not unread and (link.params or link.files):
            _check_parameters(checks, loc, link)
        if link.action == "redact" and not found.definition.redacts:
            checks.wrong((*loc, "action"), f"filter {name} can take nothing out, so it cannot redact")
        if link.asks:
            _check_asking(checks, loc, link, models)
        _check_fields(checks, loc, link, fields)
        if link.min is None and link.max is None:
            checks.wrong(loc, f"filter {name} has no bound; give it `min:` or `max:`")
        elif link.min is not None and link.max is not None and link.min > link.max:
            checks.wrong(
                (*loc, "min"), f"min ({link.min:g}) is above max ({link.max:g}), so nothing could pass"
            )
        chain.append(link)
    return chain


def _check_fields(checks: Checks, loc: Sequence[str | int], link: ChainFilter, fields: set[str]) -> None:
    """What a filter looks at is there."""
    checks.used.add(link.of)
    if link.of not in PARTS and link.of not in fields:
        hint = did_you_mean(link.of, {*fields, *PARTS})
        checks.wrong((*loc, "of"), f"there is no field {link.of!r} to measure", hint)
    for key in link.definition.field_parameters:
        value = link.params.get(key)
        for name in value if isinstance(value, list) else [value]:
            checks.used |= {str(name), str(name).split(".")[0]}
            known = name in PARTS or name in fields or str(name).split(".")[0] in fields
            if isinstance(name, str) and not known:
                hint = did_you_mean(name, {*fields, *PARTS})
                checks.wrong((*loc, key), f"there is no field {name!r}", hint)


def _check_parameters(checks: Checks, loc: Sequence[str | int], link: ChainFilter) -> None:
    """What a filter itself says of its parameters."""
    try:
        link.make()
    except RunError as error:
        cause = error.__cause__ or error
        checks.wrong(loc, f"filter {link.name}: {cause}")
    except RecipeError as error:
        checks.problems.extend(error.problems)


def _check_asking(checks: Checks, loc: Sequence[str | int], link: ChainFilter, models: Sequence[str]) -> None:
    """A filter that asks a model names one of the recipe's, and prompts that can be read."""
    if link.model not in models:
        said = f"there is no model {link.model!r}" if link.model else "it asks a model, and there is none"
        hint = did_you_mean(link.model, [name for name in models if name]) if link.model else None
        checks.wrong((*loc, "model") if link.model else loc, said, hint or "give the recipe a `model:`")
    for parameter in link.definition.prompt_parameters:
        if parameter in link.files:
            checks.prompt((*loc, parameter), link.files[parameter][0].path.stem, None)
