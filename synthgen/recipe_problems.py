"""What is wrong with a recipe or a prompt, in the words of its language and not in those of pydantic."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError

from synthgen.errors import Problem
from synthgen.recipe import Budget, Output
from synthgen.recipe_conversations import Conversation, Given, Voice
from synthgen.recipe_models import ModelRef, Prices, Sampling
from synthgen.recipe_parts import NAME
from synthgen.recipe_prompts import PromptBody, SystemBody
from synthgen.recipe_record import MESSAGES, ValueField
from synthgen.recipe_rounds import Grow
from synthgen.recipe_steps import Extract, Step
from synthgen.seed_kinds import KEYS, KINDS, FileSeed
from synthgen.wording import MAPPING, real, told_once, words
from synthgen.yamlfile import YamlFile, did_you_mean

_PARTS_BY_KEY: Mapping[str, type[BaseModel]] = {
    "sampling": Sampling,
    "model": ModelRef,
    "budget": Budget,
    "prices": Prices,
    "output": Output,
    **KINDS,
    "inline": PromptBody,
    "extract": Extract,
    "a value": ValueField,
    "conversation": Conversation,
    "simulated": Voice,
    "user": Voice,
    "given": Given,
    "system alone": SystemBody,
}


def _known_keys(loc: Sequence[str | int], whole: type[BaseModel]) -> list[str]:
    """The keys that are allowed where an unknown one stood; `loc` is pydantic's."""
    parent = loc[:-1]
    if not parent:
        model = whole
    elif parent[0] == "models":
        model = ModelRef
    elif parent[0] == "steps" and len(parent) == 3:
        model = Step
    elif parent[0] == "grow" and len(parent) == 2:
        model = Grow
    else:
        model = _PARTS_BY_KEY.get(str(parent[-1]), whole)
    kinds = list(KEYS) if model is FileSeed else []
    return [field.alias or name for name, field in model.model_fields.items()] + kinds


def recipe_problems(file: YamlFile, error: ValidationError, whole: type[BaseModel]) -> list[Problem]:
    """What pydantic found, with its places in the file and the nearest names; `whole` is what the file is."""
    found = []
    for item in told_once(error.errors(), file.data):
        loc, hint = item["loc"], None
        there = real(file.data, loc)
        if item["type"] == "extra_forbidden":
            message = f"unknown key {loc[-1]!r}"
            hint = did_you_mean(str(loc[-1]), _known_keys(loc, whole))
            if loc[-1] == "seed" and "sampling" in loc:
                hint = "each request's seed derives from the recipe's `seed:`"
        elif item["type"] == "missing":
            message = f"{shown(there)} needs `{loc[-1]}:`"
        elif item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] == NAME.pattern:
            message = f"{item['input']!r} is not a name: 1 to 80 of A-Z a-z 0-9 . _ -"
        elif item["type"] == "value_error":
            message = words(item)
            loc = (*loc, *getattr(item["ctx"]["error"], "at", ()))
        elif not there:
            message = "the file is empty" if file.data is None else f"the file has to be {MAPPING}"
        else:
            message = f"{shown(there)} {words(item)}"
            if item["type"] == "literal_error":
                hint = _nearest(str(item["input"]), re.findall(r"'(.*?)'", item["ctx"]["expected"]))
        if hint is None and loc[:1] == ("record",) and len(loc) > 1:
            hint = _nearest(str(loc[1]), [*(name for name in MESSAGES if name != loc[1]), "from"])
        found.append(file.problem(loc, message, hint))
    return found


def _nearest(name: str, known: Sequence[str]) -> str | None:
    hint = did_you_mean(name, known)
    return hint if hint is not None and hint.startswith("did") else None


def shown(loc: Sequence[str | int]) -> str:
    """A place, as a message names it."""
    numbered = {1} if loc[:1] in (("steps",), ("filters",)) and len(loc) > 2 else set()  # a name is behind it
    parts = [str(part) for place, part in enumerate(loc) if place not in numbered]
    return "`" + ".".join(parts) + "`" if parts else "the file"
