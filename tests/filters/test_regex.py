import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen import load
from synthgen.errors import RecipeError
from synthgen.filters.regex import regex
from synthgen.measure import Measurement
from synthgen.record import Record


def measured(pattern: str, text: str, **params: Any) -> Measurement:
    [result] = regex.make({"pattern": pattern, **params}).measure([Record("r", {}, {}, text)])
    assert isinstance(result, Measurement), result
    return result


def test_matches_are_counted_and_the_first_are_quoted() -> None:
    text = "On 2023-12-08, not 2024-01-15, nor 2025-02-03, nor 2026-03-04."
    assert measured(r"\d{4}-\d\d-\d\d", text) == Measurement(
        4, {"first": ["2023-12-08", "2024-01-15", "2025-02-03"], "at": [3, 19, 35]}
    )
    assert measured(r"\d{5}", text) == Measurement(0.0)


def test_places_are_in_characters_and_quotes_are_cut() -> None:
    found = measured("[ab]+", "日本é" + "ab" * 500)
    assert found == Measurement(1, {"first": ["ab" * 100], "at": [3]})


def test_case() -> None:
    assert measured("straße|sorry", "Sorry, STRASSE, STRAßE").value == 0
    assert measured("straße|sorry", "Sorry, STRASSE, STRAßE", ignore_case=True).value == 2
    assert measured("(?i)sorry", "Sorry").value == 1


def test_letters_of_any_script() -> None:
    assert measured(r"\p{Han}", "我用 Python 写代码").value == 5
    assert measured(r"^\p{L}+$", "Änderung").value == 1


PATTERNS = [
    "",
    "a",
    "a*",
    "a+b?",
    "(a|ab)(c|bcd)",
    "[^a]",
    r"\d+",
    r"\bb\w*",
    "^a|b$",
    "(?m)^.*$",
    "(?s).{2}",
    "(a*)b",
]


@given(st.sampled_from(PATTERNS), st.text(alphabet="abcd 1\n\0é日🎉", max_size=30))
def test_it_counts_as_re_does(pattern: str, text: str) -> None:
    found = measured(pattern.replace("b$", r"b\z"), text)
    expected = list(re.finditer(pattern.replace("b$", r"b\Z"), text, re.ASCII))
    assert found.value == len(expected)
    if found.detail is not None:
        assert found.detail["first"] == [match[0] for match in expected[:3]]
        assert found.detail["at"] == [match.start() for match in expected[:3]]


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_is_measured(text: str) -> None:
    assert measured("(?s).", text).value == len(text)


def test_half_a_surrogate_pair_is_one_sign() -> None:
    assert measured("a.c", "a\ud800c") == Measurement(1, {"first": ["a\ufffdc"], "at": [0]})


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("(a+)+$", "a" * 1_000_000 + "b", 0),
        ("(x+x+)+y", "x" * 1_000_000, 0),
        ("(?s)a.*z|a", "a" * 200_000, 5000),
        (r"\w+", "word " * 200_000, 1000),
    ],
)
def test_no_text_takes_for_ever(pattern: str, text: str, expected: int) -> None:
    found = measured(pattern, text)
    assert found.value == expected
    assert found.detail is None or found.detail["at_least"]


def test_a_wrong_pattern_is_told_with_what_re2_says() -> None:
    with pytest.raises(ValueError, match=r"missing \): \(a"):
        regex(pattern="(a")
    with pytest.raises(ValueError, match=r"invalid perl operator: \(\?<"):
        regex(pattern="(?<=a)b")


def test_a_wrong_pattern_is_an_error_of_the_recipe_at_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "r.yaml"
    recipe.parent.mkdir()
    recipe.write_text(
        "version: 1\nname: r\nseeds:\n  row: {values: [1]}\nrecord: {text: '{{ row }}'}\n"
        "filters:\n  - regex:\n      max: 2\n      pattern: '*'\n"
    )
    with pytest.raises(RecipeError, match=r"no argument for repetition operator: \*") as caught:
        load(recipe)
    assert caught.value.problems[0].line == 9
