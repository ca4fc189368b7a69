"""What a recipe may say of its rounds: of balance and of growth."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from synthgen.recipe_parts import Part


def _text_keys(value: Any) -> Any:
    """The values of a field as text, as they are compared: YAML may read them as numbers, true or false."""
    if not isinstance(value, dict):
        return value
    return {key if isinstance(key, str) else json.dumps(key): share for key, share in value.items()}


Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Shares = Annotated[dict[str, Share], Field(min_length=1), BeforeValidator(_text_keys)]


def _shares_kind(value: Any) -> str:
    return "even" if isinstance(value, str) else "shares"


Wished = Annotated[
    Annotated[Literal["even"], Tag("even")] | Annotated[Shares, Tag("shares")], Discriminator(_shares_kind)
]


class Grow(Part):
    """How kept records become rows of a seed, for the rounds after their own."""

    add: str = Field(
        description="A Jinja expression over a kept record's fields: the row that it adds; null adds none."
    )
    depth: int | None = Field(
        None, ge=1, le=1000, description="Generations of records at most; the last one's add nothing."
    )
    most: int | None = Field(
        None, ge=0, description="Of a seed with `n:`: at most so many of a task's rows are added ones."
    )


def expand_grow(value: Any) -> Any:
    """`add:` alone may be written in place of the mapping."""
    return {"add": value} if isinstance(value, str) else value
