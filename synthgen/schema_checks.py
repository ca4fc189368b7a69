"""Values checked by JSON schemas, whoever wrote either: in a time that has an end.

Patterns are RE2's, which takes linear time, and not Python's. A schema may refer to itself where that leads
deeper into a value; how many schemas apply to one value is bounded, and how many references are followed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from jsonschema import ValidationError

MOST = 1000  # schemas that apply to one value
MOST_FOLLOWED = 10_000  # references, to check one value and all that it holds
DEEPEST = 100  # levels of an answer
LISTS, ALONE = ("allOf", "anyOf", "oneOf"), ("not", "if", "then", "else")
REFERENCES = ("$ref", "$dynamicRef")


Errors = Iterator["ValidationError"]


class TooMuch(ValueError):
    """A schema leads to more parts than a value could need."""

    def __init__(self) -> None:
        super().__init__("nests too deep for the schema")


@lru_cache(1000)
def pattern_of(source: str) -> Any:
    """A regular expression (RE2). Raises ValueError with what RE2 says of a wrong one."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(source, options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


def check_bounds(schema: Mapping[str, Any]) -> None:
    """Raises ValueError where a JSON schema could keep whoever checks an answer by it busy for ever.

    It is a schema already, and refers to nothing outside itself, as far as that can be seen.
    """
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    whole = DRAFT202012.create_resource(schema)
    registry: Any = Registry().with_resource(whole.id() or "", whole).crawl()
    known: dict[int, int] = {}
    todo = [(whole, registry.resolver_with_root(whole))]
    while todo:
        part, resolver = todo.pop()
        if isinstance(part.contents, Mapping):
            try:
                _applied(part.contents, resolver, known)
            except Unresolvable as error:
                raise ValueError(f"{str(error.ref)[:80]!r} is not in the schema") from None
        todo += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]


def _applied(part: Any, resolver: Any, known: dict[int, int]) -> int:
    """How many schemas apply to a value that this one is for, itself among them. 0 while it is counted."""
    if not isinstance(part, Mapping):
        return 1
    if id(part) in known:
        if known[id(part)] == 0:
            raise ValueError("it refers to itself without end")
        return known[id(part)]
    known[id(part)] = 0
    total = 1
    inner = [each for name in LISTS for each in part.get(name, ())]
    inner += [part[name] for name in ALONE if name in part]
    inner += list((part.get("dependentSchemas") or {}).values())
    for each in inner:
        total += _applied(each, resolver.in_subresource(_resource(each)), known)
    for name in REFERENCES:
        if name in part:
            found = resolver.lookup(part[name])
            total += _applied(found.contents, found.resolver, known)
    if total > MOST:
        raise ValueError(f"more than {MOST:,} of its parts apply to one value")
    known[id(part)] = total
    return total


def _resource(part: Any) -> Any:
    from referencing.jsonschema import DRAFT202012

    return DRAFT202012.create_resource(part)


def deeper_than(value: Any, most: int = DEEPEST) -> bool:
    """Whether a value of JSON nests more levels than this."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True


class SchemaValidator:
    """Checks values of JSON by a JSON schema (Draft 2020-12), in a time that has an end."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend
        from referencing import Registry

        self._left = threading.local()  # references that may be followed still
        known = Draft202012Validator.VALIDATORS
        own: Any = extend(
            Draft202012Validator,
            {
                **{name: self._counted(known[name]) for name in REFERENCES},
                "pattern": _pattern,
                "patternProperties": _pattern_properties,
                "additionalProperties": _additional_properties,
                "uniqueItems": _unique_items,
            },
        )
        self._validator = own(dict(schema), registry=Registry())  # the default one may fetch

    def iter_errors(self, value: Any) -> Iterator[ValidationError]:
        """What is wrong with a value, as jsonschema says it. Raises TooMuch."""
        self._left.references = MOST_FOLLOWED
        try:
            yield from self._validator.iter_errors(value)
        except RecursionError:
            raise TooMuch from None

    def _counted(self, follow: Any) -> Any:
        def following(validator: Any, reference: Any, value: Any, schema: Any) -> Errors:
            self._left.references -= 1
            if self._left.references < 0:
                raise TooMuch
            yield from follow(validator, reference, value, schema) or ()

        return following


def schema_validator(schema: Mapping[str, Any]) -> SchemaValidator:
    """Checks values of JSON by a JSON schema (Draft 2020-12): `iter_errors` gives what jsonschema's does.

    Patterns are RE2's, nothing is fetched, and the time that a value takes is bounded. Raises ValueError for
    a schema that leads in a circle, or applies too many of its parts to one value.
    """
    check_bounds(schema)
    return SchemaValidator(schema)


def _error(message: str) -> ValidationError:
    from jsonschema import ValidationError

    return ValidationError(message)


def _pattern(_: Any, source: str, value: Any, __: Any) -> Errors:
    if isinstance(value, str) and not pattern_of(source).search(value):
        yield _error(f"{value!r} does not match {source!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], value: Any, _: Any) -> Errors:
    if not isinstance(value, dict):
        return
    for source, schema in patterns.items():
        found = pattern_of(source)
        for name, inner in value.items():
            if found.search(name):
                yield from validator.descend(inner, schema, path=name, schema_path=source)


def _additional_properties(validator: Any, more: Any, value: Any, schema: Any) -> Errors:
    if not isinstance(value, dict):
        return
    if not schema.get("patternProperties"):
        from jsonschema import Draft202012Validator

        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, more, value, schema)
        return
    patterns = [pattern_of(source) for source in schema["patternProperties"]]
    known = schema.get("properties", {})
    names = [name for name in value if name not in known and not any(each.search(name) for each in patterns)]
    if isinstance(more, dict):
        for name in names:
            yield from validator.descend(value[name], more, path=name)
    elif not more and names:
        yield _error(f"{', '.join(map(repr, sorted(names)))} should not be there")


def _unique_items(_: Any, wanted: bool, value: Any, __: Any) -> Errors:
    if wanted and isinstance(value, list) and len({_same(item) for item in value}) < len(value):
        yield _error(f"{value!r} has non-unique elements")


def _same(value: Any) -> bytes:
    """Equal for what is equal in JSON: 1 and 1.0 are, 1 and true are not."""
    return orjson.dumps(_numbers(value), option=orjson.OPT_SORT_KEYS)


def _numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_numbers(each) for each in value]
    return {name: _numbers(each) for name, each in value.items()} if isinstance(value, dict) else value
