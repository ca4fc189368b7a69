"""JSON schemas that somebody else wrote: whether values can be checked by one, and its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synthgen.schema_checks import REFERENCES, check_bounds, pattern_of

_DATA = ("const", "enum", "default", "examples")  # whose values are no schemas
_NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")  # each value is one


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
    try:
        check_bounds(schema)
    except RecursionError:
        raise NotASchema("nested too deeply") from None
    except ValueError as error:
        raise NotASchema(str(error)) from None


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
