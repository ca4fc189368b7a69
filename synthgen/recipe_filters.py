"""What a recipe may say of its filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

from synthgen.recipe_parts import Json, Name, refuse_unsaid

STRADDLE = "straddle"  # the filter that keeps what is alike in one split
Bound = Annotated[float, Field(allow_inf_nan=False, strict=True)]
OnError = Literal["fail", "stop"]


class FilterUse(BaseModel):
    """One filter in a recipe: its bound, what it looks at, what it does, and its own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    filter: Name | None = Field(None, description="The filter's own name, where it is used under another.")
    of: str | None = None
    min: Bound | None = None
    max: Bound | None = None
    action: Literal["drop", "flag", "redact"] | None = None
    on_error: OnError | None = Field(
        None,
        description="What an error of the filter's code does: `fail` sets the record aside and goes on, "
        "`stop` ends the run at the first; without it the run ends where they come in a row.",
    )
    __pydantic_extra__: dict[str, Json]

    @field_validator("filter", "of", "action", "on_error", mode="before")
    @classmethod
    def _said(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_unsaid(cls, value, info)

    @property
    def params(self) -> dict[str, Json]:
        """What is left for the filter itself."""
        return self.__pydantic_extra__ or {}


def _filter_kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "mapping"


def empty_use(value: Any) -> Any:
    """A filter with nothing said of it is one."""
    return {} if value is None else value


FilterEntry = Annotated[
    Annotated[Name, Tag("name")] | Annotated[dict[Name, FilterUse], Tag("mapping")],
    Discriminator(_filter_kind),
]


def with_shares(use: FilterUse, shares: Mapping[str, float]) -> FilterUse:
    """`straddle` with the shares of the recipe's splits, where it has none of its own."""
    said = use.model_dump(exclude_unset=True)
    return FilterUse.model_validate({"shares": dict(shares), **said})
