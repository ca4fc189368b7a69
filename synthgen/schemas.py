"""JSON schemas that somebody else wrote: whether values can be checked by one, and its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

REFERENCES = ("$ref", "$dynamicRef")
MOST_PARTS = 10_000
_DATA = ("const", "enum", "default", "examples")  # whose values are no schemas
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")  # each value is one
# What is looked at in the same place of a value as the schema that it stands in.
_SAME_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "$ref")


class NotASchema(ValueError):
    """A schema that nothing can be checked by. `at` leads from the schema to the place."""

    def __init__(self, message: str, at: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.at = tuple(at)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises NotASchema where it is none (Draft 2020-12), or has patterns that RE2 cannot read."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise NotASchema(f"not a JSON schema: {error.message}", list(error.absolute_path)) from None
    except RecursionError:
        raise NotASchema("nested too deeply") from None
    for part, at in subschemas(schema):
        _check_patterns(part, at)


def _check_patterns(part: Mapping[str, Any], at: Sequence[str | int]) -> None:
    from synthgen.schema_checks import pattern_of

    names = part.get("patternProperties") or {}
    if names and "unevaluatedProperties" in part:
        raise NotASchema("`unevaluatedProperties` is not to be had beside `patternProperties`", at)
    for source in [*names, *([part["pattern"]] if isinstance(part.get("pattern"), str) else [])]:
        try:
            pattern_of(source)
        except ValueError as error:
            raise NotASchema(f"{source[:80]!r} is not a regular expression of RE2: {error}", at) from None


def references(schema: Any) -> Iterator[str]:
    """What `$ref` and its like name, anywhere in a schema."""
    for part, _ in subschemas(schema):
        yield from (part[key] for key in REFERENCES if isinstance(part.get(key), str))


def check_references(schema: Mapping[str, Any]) -> None:
    """Raises NotASchema unless each reference leads to a part of the schema, and none goes in a circle.

    A schema may hold itself, as a tree does; it may not be itself.
    """
    for part, at in subschemas(schema):
        if "$ref" in part:
            found(schema, part["$ref"], at)
        if any(key in part for key in ("$dynamicRef", "$dynamicAnchor", "$anchor", "$id")):
            raise NotASchema("refers by more than `$ref: '#/...'`", at)
    known: dict[int, int] = {}
    try:
        for part, at in subschemas(schema):
            try:
                _weight(schema, part, set(), known)
            except NotASchema as error:
                raise NotASchema(str(error), at) from None
    except RecursionError:
        raise NotASchema("nested too deeply") from None


def found(schema: Mapping[str, Any], reference: Any, at: Sequence[str | int] = ()) -> Any:
    """The part that a reference leads to, such as `#/$defs/point`. Raises NotASchema."""
    if not (isinstance(reference, str) and (reference == "#" or reference.startswith("#/"))):
        raise NotASchema(f"{str(reference)[:60]!r} leads out of the schema, and nothing is fetched", at)
    here: Any = schema
    for escaped in reference.split("/")[1:]:
        name = escaped.replace("~1", "/").replace("~0", "~")
        here = here.get(name) if isinstance(here, Mapping) else None
    if not isinstance(here, Mapping | bool):
        raise NotASchema(f"{reference[:60]!r} is not in the schema", at)
    return here


def moved(schema: Any, to: str, named: bool = False) -> Any:
    """A schema as part of another, at `to`: its references lead to the same parts as before."""
    if isinstance(schema, list):
        return [moved(item, to) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if named:
        return {name: moved(value, to) for name, value in schema.items()}
    made = {key: value if key in _DATA else moved(value, to, key in _NAMED) for key, value in schema.items()}
    if isinstance(reference := schema.get("$ref"), str):
        made["$ref"] = to + reference.removeprefix("#")
    return made


def _weight(schema: Mapping[str, Any], part: Any, above: set[int], known: dict[int, int]) -> int:
    """How many parts one value is held against by this one. Raises NotASchema for too many or a circle."""
    if not isinstance(part, Mapping):
        return 1
    if id(part) in above:
        raise NotASchema("refers to itself in a circle")
    if id(part) not in known:
        above.add(id(part))
        weight = 1
        for key in _SAME_PLACE:
            inner = part.get(key)
            if key == "$ref" and inner is not None:
                inner = found(schema, inner)
            if key == "dependentSchemas" and isinstance(inner, Mapping):
                inner = list(inner.values())
            each = inner if isinstance(inner, list) else [inner]
            weight += sum(_weight(schema, item, above, known) for item in each if item is not None)
            if weight > MOST_PARTS:
                raise NotASchema(f"holds one value against more than {MOST_PARTS:,} parts")
        above.discard(id(part))
        known[id(part)] = weight
    return known[id(part)]


def subschemas(schema: Any) -> Iterator[tuple[Mapping[str, Any], tuple[str | int, ...]]]:
    """A schema and every schema in it, each with its place."""
    todo: list[tuple[Any, tuple[str | int, ...], bool]] = [(schema, (), False)]
    while todo:
        part, at, named = todo.pop()
        if isinstance(part, Mapping):
            if not named:
                yield part, at
            todo += [
                (value, (*at, key), key in _NAMED and not named)
                for key, value in part.items()
                if named or key not in _DATA
            ]
        elif isinstance(part, list):
            todo += [(value, (*at, number), False) for number, value in enumerate(part)]
