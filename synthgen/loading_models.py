"""The models of a recipe, with what flags and the environment say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from synthgen.errors import UsageError
from synthgen.loading_checks import Checks, Loc
from synthgen.recipe_models import Engine, ModelRef
from synthgen.wording import told_once, words
from synthgen.yamlfile import did_you_mean


def load_models(
    checks: Checks, engine: str | None, model: str | None, base_url: str | None
) -> dict[str, ModelRef]:
    """The models by the names that steps and filters have for them."""
    models = dict(checks.recipe.models)
    if checks.recipe.model is not None:
        models[""] = checks.recipe.model
    if model is not None:
        models[""] = _overridden({"id": model})
    if "" in models and (engine or base_url):
        wanted = engine or "openai"
        if wanted not in get_args(Engine):
            raise UsageError(f"there is no engine {wanted!r}", hint=did_you_mean(wanted, get_args(Engine)))
        update: dict[str, Any] = {"engine": wanted}
        if wanted != models[""].engine:
            update["options"] = {}  # they are the other engine's
        if base_url:
            update["base_url"] = base_url
        models[""] = _overridden({**models[""].model_dump(), **update})
    for name, ref in models.items():
        loc = ("models", name) if name else ("model",)
        checks.canonical(checks.file, (*loc, "template_args"), ref.template_args)
        if checks.recipe.budget.money is not None and ref.prices is None:
            checks.wrong(
                ("budget", "money"),
                f"what {ref.id} costs is not known",
                "give its `prices: {input: ..., output: ...}` for a million tokens under `model:`",
            )
    if checks.recipe.steps and not models:
        checks.wrong((), "the recipe has steps but no `model:`", "for example `model: smollm2-135m`")
    return models


def check_model(checks: Checks, loc: Loc, model: str | None, models: Mapping[str, ModelRef]) -> None:
    """Whoever is asked at this place names a model that there is, or need not."""
    if model is not None and model not in models:
        hint = did_you_mean(model, filter(None, models))
        checks.wrong((*loc, "model"), f"there is no model {model!r}", hint)
    elif model is None and "" not in models and models:
        checks.wrong(loc, "the recipe has no `model:`, so this step must name one of `models:`")


def _overridden(said: Mapping[str, Any]) -> ModelRef:
    """A model with what flags or the environment say of it. Raises UsageError where that is wrong."""
    try:
        return ModelRef.model_validate(said)
    except ValidationError as error:
        first = told_once(error.errors(), said)[0]
        wrong = words(first) if first["type"] == "value_error" else f"{first['loc'][-1]} {words(first)}"
        raise UsageError(f"the model {said['id']!r} cannot be asked so: {wrong}") from None
