"""What the parts of a recipe are made of: their base, and names."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

NAME = re.compile(r"^[A-Za-z0-9._-]{1,80}$")
Name = Annotated[str, StringConstraints(pattern=NAME.pattern)]
Json = Any


class Part(BaseModel):
    """A part of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
