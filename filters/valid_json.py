"""Is the text JSON, and has it the shape that it should have?"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from synthgen import Measurement, Record, filter, schema_validator
from synthgen.schema_checks import TooMuch

DEEPEST = 100  # RFC 8259 lets a reader set a limit; more would depend on how deep the caller is
DIGITS = 300  # as many as a double has room for
QUOTED = 200
BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)
FENCED = re.compile(
    r"\A\s*(`{3,}|~{3,})[ \t]*(?:json[a-z0-9]*)?[ \t]*\n(.*?)\n?[ \t]*\1[`~]*\s*\Z", re.DOTALL | re.I
)


class NotJson(ValueError):
    """What is wrong with a text that is no JSON; `line` and `column`, counted from 1, where that is known."""

    def __init__(self, reason: str, text: str = "", place: int | None = None) -> None:
        super().__init__(reason)
        self.line = self.column = None
        if place is not None:
            self.line = text.count("\n", 0, place) + 1
            self.column = place - text.rfind("\n", 0, place)


def parsed(text: str) -> Any:
    """The value that a JSON text stands for. Raises NotJson, which says what is wrong and where.

    Of a whole number the first 300 digits count, and 1e999 is the largest number that a double can be.
    """
    _check_depth(text)
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(_reason(error, text), text, error.pos if text.strip() else 0) from None


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for match in BRACKETS.finditer(text):
        sign = match[0]
        depth += (sign in "[{") - (sign in "]}")
        if depth > DEEPEST:
            raise NotJson(f"nests deeper than {DEEPEST} levels", text, match.start())


def _reason(error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return "the text is empty"
    if error.msg == "Extra data":
        return "there is more text after the JSON"
    return f"{error.msg[0].lower()}{error.msg[1:]}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        again = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise NotJson(f"the name {again[:QUOTED]!r} stands twice in one object")
    return made


def _constant(name: str) -> Any:
    raise NotJson(f"{name} is no JSON")


def _number(written: str) -> float:
    return max(-sys.float_info.max, min(float(written), sys.float_info.max))


DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_float=_number,
    parse_int=lambda written: int(written[:DIGITS]),
)


def checked(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself. Raises ValueError, saying where, if it is none or refers to what is not in it."""
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON schema: {_at(error)}: {error.message[:QUOTED]}") from None
    whole = DRAFT202012.create_resource(schema)
    registry: Any = Registry().with_resource(whole.id() or "", whole).crawl()
    todo = [(whole, registry.resolver_with_root(whole))]
    while todo:
        part, resolver = todo.pop()
        if isinstance(part.contents, Mapping):
            for word in ("$ref", "$dynamicRef"):
                try:
                    if word in part.contents:
                        resolver.lookup(part.contents[word])
                except Unresolvable:
                    raise ValueError(f"{part.contents[word]!r} is not in the schema") from None
        todo += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
    schema_validator(schema)
    return schema


def _at(error: Any) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)


@filter(min=1)
class valid_json:
    """1 where the text is JSON, and fits the schema if there is one, else 0.

    Strictly JSON: a name that stands twice in one object, NaN, comments and commas too many are errors, as is
    a word before or after. The detail says what is wrong and at which line and column or, with a schema, at
    which place of the value (`$.items[3].price`).

    Parameters:
        schema: a JSON schema (Draft 2020-12), which the text must fit; `$ref` leads into the schema itself,
            and patterns are RE2's.
        fenced: whether the JSON may stand in a code block (three backticks), with only space around that.

    Source: RFC 8259, with unique names as in RFC 7493; JSON Schema Draft 2020-12, through jsonschema.

    Weak at: JSON that nests more than 100 levels deep, which counts as none. `format` in a schema is not
    checked, as the standard has it.

    Examples:
        '{"a": [1, 2.5e3, null]}' -> 1
        '{"a": 1,}' -> 0
        '[NaN]' -> drop
        'Here it is: {}' -> 0
    """

    def __init__(
        self,
        *,
        schema: Annotated[dict[str, Any], AfterValidator(checked)] | None = None,
        fenced: bool = False,
    ) -> None:
        self.fenced = fenced
        self.validator = None if schema is None else schema_validator(checked(schema))

    def measure(self, record: Record) -> Measurement:
        """1 or 0, with what is wrong."""
        text, lines = record.text, 0
        if self.fenced and (block := FENCED.match(text)):
            text, lines = block[2], record.text.count("\n", 0, block.start(2))
        try:
            value = parsed(text)
        except NotJson as error:
            where = {} if error.line is None else {"line": lines + error.line, "column": error.column}
            return Measurement(0.0, {"reason": str(error), **where})
        if self.validator is not None:
            try:
                wrong = next(self.validator.iter_errors(value), None)
            except TooMuch as error:
                return Measurement(0.0, {"reason": str(error)})
            if wrong is not None:
                reason = wrong.message if len(wrong.message) <= QUOTED else f"{wrong.message[:QUOTED]}..."
                return Measurement(0.0, {"reason": reason, "at": _at(wrong)[:QUOTED]})
        return Measurement(1.0)
