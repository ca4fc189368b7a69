"""What pydantic found wrong with a value, in words of our own, and one sentence for each mistake.

Of a union pydantic tells what each member would have wanted; a person meant one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]

NO_VALUE = "has no value: give it one, or leave the key out"
_WHOLE, _NUMBER, _BOOL = "a whole number", "a number", "true or false"
MAPPING = "a mapping (`key: value`)"
_LIST, _DAY = "a list (`[a, b]`)", "a day, such as 2024-05-31"
_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    "int_parsing_size": "a whole number of fewer digits",
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _BOOL),
    **dict.fromkeys(("string_type", "string_unicode"), "a text"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"), MAPPING
    ),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "iterable_type"), _LIST),
    "none_required": "null",
    **dict.fromkeys(
        ("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"), _DAY
    ),
    "path_type": "a path",
}
# A mapping that may be written shorter, or looks like this.
_MAPPINGS: Mapping[str, str] = {
    "ModelRef": "the name of a model, or a mapping (`id: ...`)",
    "PromptBody": "the name of a prompt, or a mapping (`user: ...`)",
    "Voice": "the name of a prompt, or a mapping (`prompt: ...`)",
    "Grow": "an expression, or a mapping (`add: ...`)",
    "FileSeed": "a mapping, such as `{path: data/rows.jsonl}`, or a list",
    "ValueField": "a text, or a mapping (`value: ...`)",
    "FilterUse": "a mapping of its bound and parameters (`min: 1`)",
    "Step": "a mapping (`prompt: ...`)",
}
# What a pattern of the recipe's language asks for.
_PATTERNS: Mapping[str, str] = {
    r"^[A-Za-z][A-Za-z0-9_]{0,79}$": "a letter, then A-Z a-z 0-9 _, 80 at most",
    r"^[A-Za-z][A-Za-z0-9_-]{0,79}$": "a letter, then A-Z a-z 0-9 _ -, 80 at most",
}
_NAME = "1 to 80 of A-Z a-z 0-9 . _ -"


def real(data: Any, loc: Sequence[str | int]) -> Loc:
    """The part of pydantic's place that `data` has: without the names of union members."""
    found: list[str | int] = []
    for part in loc:
        listed = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if listed or (isinstance(data, Mapping) and part in data):
            data = data[part]
            found.append(part)
    return tuple(found)


def told_once(errors: Sequence[ErrorDetails], data: Any) -> list[ErrorDetails]:
    """Errors without those of union members that were not meant; where none was, what all want, in one.

    A member was meant where what is wrong lies within the value, or is no matter of its kind.
    """
    found = []
    for _, several in groupby(_with_unions(errors, data), key=lambda pair: pair[0]):
        group = [error for _, error in several]
        if len(group) > 1:
            at = min(len(real(data, error["loc"])) for error in group)
            meant = [
                error for error in group if len(real(data, error["loc"])) > at or error["type"] not in _KINDS
            ]
            group = meant or [_any_of(group)]
        found += group
    return found


def _with_unions(
    errors: Sequence[ErrorDetails], data: Any
) -> Iterator[tuple[tuple[str | int, ...] | int, ErrorDetails]]:
    """Each error with the union that it is of, if it is of one: the place before the member's name."""
    for number, error in enumerate(errors):
        union = next((error["loc"][:at] for at in _members(error["loc"], data)), None)
        yield (number if union is None else union), error


def _members(loc: Sequence[str | int], data: Any) -> Iterator[int]:
    """Where the names of members of unions without a discriminator stand: `str`, `list[any]` ..."""
    for at, part in enumerate(loc):
        if isinstance(part, str) and real(data, loc[: at + 1]) == real(data, loc[:at]):
            kind = part.partition("[")[0].removeprefix("constrained-").removeprefix("function-after")
            if kind in ("str", "int", "float", "bool", "list", "dict", "tuple", "set", "", "nullable"):
                yield at


def _any_of(group: Sequence[ErrorDetails]) -> ErrorDetails:
    wanted = list(dict.fromkeys(_KINDS[error["type"]] for error in group))
    said = " or ".join([", ".join(wanted[:-1]), wanted[-1]] if len(wanted) > 1 else wanted)
    return {**group[0], "type": "one_of_several", "msg": said}


def words(error: ErrorDetails) -> str:
    """What is wrong with the value, to stand behind its name: `has to be a number, not 'x'`."""
    kind, given, about = error["type"], error.get("input"), error.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(about["error"])
    if given is None and (kind in _KINDS or kind in ("one_of_several", "literal_error")):
        return NO_VALUE
    if kind in ("too_short", "string_too_short") and about["min_length"] == 1:
        return "is empty"
    return f"{_wanted(kind, about, error['msg'])}, not {short(given)}"


def _wanted(kind: str, about: Mapping[str, Any], otherwise: str) -> str:  # noqa: PLR0911
    if kind in _KINDS:
        return f"has to be {_MAPPINGS.get(about.get('class_name', ''), _KINDS[kind])}"
    if kind == "one_of_several":
        return f"has to be {otherwise}"
    if kind in ("literal_error", "enum"):
        return f"has to be {about['expected']}"
    for name, sign in (("ge", "or more"), ("le", "or less")):
        if name in about:
            return f"has to be {_bound(about[name])} {sign}"
    if "gt" in about:
        return f"has to be more than {_bound(about['gt'])}"
    if "lt" in about:
        return f"has to be less than {_bound(about['lt'])}"
    if kind in ("too_short", "string_too_short"):
        unit = "character" if kind.startswith("string") else "entry"
        return f"needs {about['min_length']} {unit} or more"
    if kind in ("too_long", "string_too_long"):
        unit = "characters" if kind.startswith("string") else "entries"
        return f"may have {about['max_length']:,} {unit} at most"
    if kind == "string_pattern_mismatch":
        return f"has to be {_PATTERNS.get(about['pattern'], _NAME)}"
    return f"{otherwise[0].lower()}{otherwise[1:]}"


def _bound(value: Any) -> str:
    return f"{int(value):,}" if isinstance(value, float) and value.is_integer() else f"{value:,}"


def short(value: Any) -> str:
    """A value, as a message shows it: 60 characters at most, true and null as YAML writes them."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    text = "null" if value is None else text
    return text if len(text) <= 60 else text[:57] + "..."
