"""YAML with positions: what is refused, and where it says that it stood."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.errors import Problem, RecipeError
from synthgen.yamlfile import MAX_BYTES, did_you_mean, parse_plain, parse_yaml, read_yaml

HERE = Path("recipe.yaml")


def problem(text: str) -> Problem:
    with pytest.raises(RecipeError) as caught:
        parse_yaml(text, HERE)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_json_is_yaml_and_means_the_same(value: object) -> None:
    found = parse_yaml(json.dumps(value), HERE).data
    assert found == value
    assert type(found) is type(value)


def test_plain_values() -> None:
    data = parse_yaml("a: yes\nb: 012\nc: 2024-05-01\nd: ~\ne: true\nf: 1e3\n'1': x\n2: y\n", HERE).data
    assert data["a"] == "yes"
    assert data["c"] == "2024-05-01"
    assert data["d"] is None
    assert data["e"] is True
    assert data["f"] == 1000.0
    for value in data.values():
        assert type(value).__module__ == "builtins"


def test_block_scalars_and_merge_keys() -> None:
    data = parse_yaml("base: &b {x: 1}\nother:\n  <<: *b\n  y: |\n    one\n    two\n", HERE).data
    assert data["other"] == {"x": 1, "y": "one\ntwo\n"}


def test_positions_are_those_of_the_deepest_known_part() -> None:
    file = parse_yaml("a:\n  b:\n    - x: 1\n    - y: 2\n", HERE)
    assert file.position(["a", "b", 1, "y"]) == (4, 7)
    assert file.position(["a", "b", 0]) == (3, 7)
    assert file.position(["a", "tag of a union", "b"]) == (2, 3)
    assert file.position(["a", "nothing"]) == (1, 1)
    assert file.position([]) == (1, 1)
    assert str(file.problem(["a", "b"], "is wrong", "mend it")) == "recipe.yaml:2:3: is wrong\n  mend it"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2\nb: 3\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 'never closed\n\n", 1),
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a: *nothing\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: @x\n", 1),
    ],
)
def test_broken_yaml_names_its_line(text: str, line: int) -> None:
    found = problem(text)
    assert found.file == HERE
    assert "not valid YAML" in found.message
    assert found.line is not None
    assert line <= found.line <= line + 1 or text.startswith("a: 'never")
    assert found.column is not None


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [echo]\n",
        "a: !!python/name:os.system ''\n",
        "a: !!python/object/new:os.system {x: 1}\n",
        "a: !!python/tuple [1, 2]\n",
        "a: !secret x\n",
        "a: !include other.yaml\n",
        "a: !env {b: 1}\n",
        "a: !env [b]\n",
        "!thing\na: 1\n",
        "a: !!binary aGVsbG8=\n",
        "a: !!set {x, y}\n",
    ],
)
def test_tags_are_refused_and_nothing_is_made_of_them(text: str) -> None:
    found = problem(text)
    assert found.file == HERE
    assert "tag" in found.message or "no meaning" in found.message
    assert found.line == (1 if text.startswith("a") else found.line)


def test_an_alias_bomb_ends_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.monotonic()
    assert "too large" in problem("\n".join(lines)).message
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: &a [[*a], {b: [*a]}]\n"])
def test_an_alias_to_itself_ends(text: str) -> None:
    try:
        data = parse_yaml(text, HERE).data
    except RecipeError:
        return
    json.dumps(data)  # raises on a cycle


def test_harmless_tags_are_read() -> None:
    data = parse_yaml("a: !!str 5\nb: !!int '5'\nc: !!map {x: !!seq [1]}\nd: !!float 2\n", HERE).data
    assert data == {"a": "5", "b": 5, "c": {"x": [1]}, "d": 2.0}


def test_deep_nesting_is_refused() -> None:
    assert problem("[" * 5000 + "]" * 5000).message
    assert problem("{a: " * 5000 + "1" + "}" * 5000).message


def test_values_that_json_cannot_hold_are_refused() -> None:
    for text in ("a: .nan\n", "a: .inf\n", "a: -.inf\n", "a: 99999999999999999999999\n", 'a: "\\uD800"\n'):
        found = problem(f"x: 1\n{text}")
        assert found.line == 2, text


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"version: 1\nname: caf\xe9\n")
    with pytest.raises(RecipeError) as caught:
        read_yaml(file)
    (found,) = caught.value.problems
    assert (found.file, found.line, found.message) == (file, 2, "is not UTF-8")
    assert found.hint is not None
    assert "iconv" in found.hint


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "grounded.yaml").write_text("a: 1")
    with pytest.raises(RecipeError) as caught:
        read_yaml(tmp_path / "groundd.yaml")
    (found,) = caught.value.problems
    assert found.hint is not None
    assert "grounded.yaml" in found.hint
    with pytest.raises(RecipeError, match="does not exist either"):
        read_yaml(tmp_path / "nowhere" / "x.yaml")


def test_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(RecipeError, match="is the most"):
        read_yaml(tmp_path / "big.yaml")


def test_control_characters_are_refused() -> None:
    assert "not valid YAML" in problem("a: \x00\n").message


def test_did_you_mean() -> None:
    assert did_you_mean("promt", ["prompt", "model"]) == "did you mean 'prompt'?"
    assert did_you_mean("zzz", ["b", "a"]) == "there are: a, b"
    assert did_you_mean("zzz", []) is None


def test_what_is_only_read_is_parsed_once_and_errors_name_their_own_file() -> None:
    text = "a: {b: [1, 'x']}\n"
    assert parse_plain(text, Path("one")) == parse_yaml(text, Path("one")).data
    assert parse_plain(text, Path("one")) is parse_plain(text, Path("other"))
    for name in ("one", "other"):
        with pytest.raises(RecipeError) as wrong:
            parse_plain("a: 1\nb: [", Path(name))
        with pytest.raises(RecipeError) as fully:
            parse_yaml("a: 1\nb: [", Path(name))
        assert wrong.value.problems == fully.value.problems
        assert wrong.value.problems[0].file == Path(name)
