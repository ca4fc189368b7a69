import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen import load
from synthgen.errors import RecipeError
from synthgen.filters.valid_json import valid_json
from synthgen.measure import Measurement
from synthgen.record import Record

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
ORDER = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"price": {"type": "number", "minimum": 0}}},
        }
    },
    "required": ["items"],
}


def measured(text: str, **params: Any) -> Measurement:
    [result] = valid_json.make(params).measure([Record("r", {}, {}, text)])
    assert isinstance(result, Measurement), result
    return result


@given(VALUES, st.sampled_from([None, 1]))
def test_what_json_writes_is_json(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert measured(text) == Measurement(1.0)
    assert measured(f"\n{text}\n ") == Measurement(1.0)
    assert measured(f"{text},").value == 0
    assert measured(f"```json\n{text}\n```", fenced=True) == Measurement(1.0)


@given(
    st.text(alphabet=st.characters(), max_size=30)
    | st.text(alphabet='{}[]",:0123456789eE+-. \\untrfals\n', max_size=30)
)
def test_it_agrees_with_json_but_for_names_and_constants(text: str) -> None:
    def no_constant(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=no_constant)
    except (ValueError, RecursionError):
        assert measured(text).value == 0
    else:
        found = measured(text)
        assert found.value == 1 or (found.detail is not None and "twice" in found.detail["reason"])


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        ("", "the text is empty", 1, 1),
        (" \n", "the text is empty", 1, 1),
        ('{"a": 1,\n "b": 2 "c"}', "expecting ',' delimiter", 2, 9),
        ("{'a': 1}", "expecting property name enclosed in double quotes", 1, 2),
        ("[1,\n 2,\n x]", "expecting value", 3, 2),
        ('{"a": 1} and more', "there is more text after the JSON", 1, 10),
        ("Here it is: {}", "expecting value", 1, 1),
        ('{"a": "b\nc"}', "invalid control character at", 1, 9),
        ('// all\n{"a": 1}', "expecting value", 1, 1),
        ('{"a": 01}', "expecting ',' delimiter", 1, 8),
        ("```json\n{}\n```", "expecting value", 1, 1),
    ],
)
def test_what_is_wrong_and_where(text: str, reason: str, line: int, column: int) -> None:
    assert measured(text) == Measurement(0.0, {"reason": reason, "line": line, "column": column})


def test_constants_and_names_that_stand_twice() -> None:
    assert measured('{"a": [1, NaN]}') == Measurement(0.0, {"reason": "NaN is no JSON"})
    assert measured("-Infinity") == Measurement(0.0, {"reason": "-Infinity is no JSON"})
    twice = 'the name "it\'s" stands twice in one object'
    assert measured('[{"it\'s": 1, "b": 2, "it\'s": 1}]') == Measurement(0.0, {"reason": twice})
    assert measured('[{"a": 1}, {"a": 2}, "NaN"]') == Measurement(1.0)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [("[" * 100_000, 1, 101), ('{"a":\n' * 100_000, 101, 1), ("[" * 101 + "]" * 101, 1, 101)],
)
def test_deep_nesting_is_refused(text: str, line: int, column: int) -> None:
    assert measured(text) == Measurement(
        0.0, {"reason": "nests deeper than 100 levels", "line": line, "column": column}
    )


def test_brackets_side_by_side_or_in_strings_are_not_deep() -> None:
    assert measured("[" + "[],{}," * 50_000 + "[]]").value == 1
    assert measured('"' + '[\\"{' * 50_000 + '"').value == 1
    assert measured("[" * 100 + "]" * 100).value == 1


@pytest.mark.parametrize(
    "text", ["1" * 1_000_000, "-1" + "0" * 5000, "1e999", "-1e999", '"' + "a" * 1_000_000 + '"']
)
def test_numbers_and_strings_of_any_length(text: str) -> None:
    assert measured(text).value == 1
    assert measured(text, schema={"multipleOf": 0.5, "maximum": 10**400}).value == 1


def test_a_schema_is_fitted() -> None:
    assert measured('{"items": [{"price": 1.5}]}', schema=ORDER) == Measurement(1.0)
    assert measured('{"items": [{"price": 1}, {"price": -1}]}', schema=ORDER) == Measurement(
        0.0, {"reason": "-1 is less than the minimum of 0", "at": "$.items[1].price"}
    )
    assert measured("{}", schema=ORDER) == Measurement(
        0.0, {"reason": "'items' is a required property", "at": "$"}
    )
    long = measured(json.dumps("a" * 10_000), schema=ORDER)
    assert long.value == 0
    assert long.detail is not None
    assert len(long.detail["reason"]) < 250


def test_a_schema_that_refers_to_itself() -> None:
    tree = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    assert measured("[[], [[]]]", schema=tree).value == 1
    assert measured("[" * 100 + "]" * 100, schema=tree).value == 1
    assert measured("[[], [[1]]]", schema=tree).detail == {
        "reason": "1 is not of type 'array'",
        "at": "$[1][0][0]",
    }
    named = {
        "$id": "https://acme.test/s",
        "$defs": {"a": {"$id": "z", "type": "string"}},
        "items": {"$ref": "z"},
    }
    assert measured("[1]", schema=named).value == 0


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strung"}, r"not a JSON schema: \$\.type: 'strung' is not valid"),
        ({"properties": {"a": {"pattern": "("}}}, r"not a JSON schema: \$\.properties\.a\.pattern: "),
        ({"items": {"$ref": "#/$defs/none"}}, "'#/\\$defs/none' is not in the schema"),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "is not in the schema"),
    ],
)
def test_a_wrong_schema_is_told(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        valid_json(schema=schema)


def test_a_wrong_schema_is_an_error_of_the_recipe_at_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "r.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        "version: 1\nname: r\nseeds:\n  row: {values: [1]}\nrecord: {text: '{{ row }}'}\n"
        "filters:\n  - valid_json:\n      fenced: true\n      schema: {type: strung}\n"
    )
    with pytest.raises(RecipeError, match="'schema' of filter valid_json: not a JSON schema") as caught:
        load(recipe)
    assert caught.value.problems[0].line == 9


def test_a_fence_is_taken_off_when_asked_for() -> None:
    assert measured('\n```json\n{\n "a": 1\n}\n```\n', fenced=True) == Measurement(1.0)
    assert measured('\n```json\n{\n "a":\n}\n```\n', fenced=True) == Measurement(
        0.0, {"reason": "expecting value", "line": 5, "column": 1}
    )
    assert measured('{"a": 1}', fenced=True).value == 1
    assert measured("~~~\n[1]\n~~~", fenced=True).value == 1
    assert measured("```json\n[1]\n```\nThat is it.", fenced=True).value == 0
    assert measured("```json\n[1]\n```\n```json\n[2]\n```", fenced=True).value == 0


@pytest.mark.parametrize(
    "piece", ["`", "```json\n", '"', '\\"', '"\\', "[]", "{}", " ", "\n", "```json\n[1]\n```\n"]
)
def test_a_megabyte_of_the_worst_is_measured(piece: str) -> None:
    assert measured(piece * (1_000_000 // len(piece)), fenced=True).value == 0
