"""What the parts of a recipe are made of: their base, and names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationInfo, field_validator

from synthgen.wording import NO_VALUE, short

NAME = re.compile(r"^[A-Za-z0-9._-]{1,80}$")
Name = Annotated[str, StringConstraints(pattern=NAME.pattern)]
Json = Any
WRITTEN: Mapping[str, bool] = {"written": True}  # the context in which what a person wrote is validated


def refuse_unsaid(part: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
    """The value of a key, where somebody wrote it. Raises ValueError for null, and true in place of a number.

    A key without a value is a mistake, and pydantic would take it for one that was left out.
    """
    if info.context != WRITTEN:
        return value
    field = part.model_fields[str(info.field_name)]
    key = field.alias or info.field_name
    if value is None:
        raise ValueError(f"`{key}:` {NO_VALUE}")
    if isinstance(value, bool):
        kinds = {field.annotation, *get_args(field.annotation)}
        if kinds & {int, float} and bool not in kinds:
            raise ValueError(f"`{key}:` has to be a number, not {short(value)}")
    return value


class Part(BaseModel):
    """A part of a recipe: unknown keys are errors, and so are keys without a value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _said(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_unsaid(cls, value, info)


class Misplaced(ValueError):
    """A mistake in how parts go together. `at` leads from the part that was checked to the wrong one."""

    def __init__(self, message: str, *at: str | int) -> None:
        super().__init__(message)
        self.at = at


def one_key_each(value: Any, what: str, *at: str) -> None:
    """Raises Misplaced where an item of a list is a mapping of more than one key, or of none."""
    for place, item in enumerate(value or []):
        if isinstance(item, dict) and len(item) != 1:
            keys = ", ".join(map(str, item)) or "none"
            raise Misplaced(f"each {what} has one key, but this one has: {keys}", *at, place)
