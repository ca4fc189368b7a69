"""What commands change of a recipe's filters, such as `toxicity.max=0.3`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from synthgen.errors import UsageError
from synthgen.recipe import Recipe
from synthgen.recipe_filters import FilterUse
from synthgen.wording import told_once, words
from synthgen.yamlfile import did_you_mean


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with these changes of its filters. Raises UsageError, and ValidationError where..."""
    uses = {name: use.model_dump(exclude_unset=True) for name, use in recipe.filter_uses()}
    for change in changes:
        path, equals, text = change.partition("=")
        name, dot, key = path.strip().rpartition(".")
        if not (equals and dot and name and key):
            raise UsageError(f"{change!r} is no change of a filter", hint="for example toxicity.max=0.3")
        if name not in uses:
            raise UsageError(f"the run has no filter {name!r}", hint=did_you_mean(name, list(uses)))
        uses[name][key] = value_of(text.strip())
    filters = []
    for name, use in uses.items():
        filters.append({name: filter_use(name, use)})
    return recipe.model_copy(update={"filters": filters})


def filter_use(name: str, said: Mapping[str, Any]) -> FilterUse:
    """A filter's bounds and parameters, as a command has them. Raises UsageError."""
    try:
        return FilterUse.model_validate(said)
    except ValidationError as error:
        first = told_once(error.errors(), said)[0]
        raise UsageError(f"{'.'.join([name, *map(str, first['loc'])])} {words(first)}") from None


def value_of(text: str) -> Any:
    """A value of a change, as a recipe has it: a number, a list or a mapping where it is one, else text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    if text[:1] not in ("[", "{"):
        return text
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text
