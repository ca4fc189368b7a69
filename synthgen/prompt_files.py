"""Prompts read from their files, for filters that ask a model."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from synthgen.errors import Problem, RecipeError
from synthgen.project import shipped
from synthgen.prompt import Prompt, make_prompt
from synthgen.recipe_parts import WRITTEN
from synthgen.recipe_problems import recipe_problems
from synthgen.recipe_prompts import PromptBody
from synthgen.yamlfile import read_yaml


def read_prompt(path: Path) -> Prompt:
    """The prompt of a file, or of that name among those that ship: `render(values)` gives its messages.

    Raises RecipeError where there is none, or it is none.
    """
    named = shipped("prompts") / f"{path}.yaml"
    file = read_yaml(path if path.is_file() or not named.is_file() else named)
    try:
        body = PromptBody.model_validate(file.data, context=WRITTEN)
    except ValidationError as error:
        raise RecipeError(recipe_problems(file, error, PromptBody)) from None
    if body.writes is not None:
        said = "lets the model write the user's turn, and a filter asks for an answer"
        raise RecipeError([Problem(said, file.path)])
    return make_prompt(path.stem, body.turns(), body.output, file.text.encode(), file.path)
