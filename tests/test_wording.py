"""What is wrong with a recipe is said in words of our own, whatever stands where."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from synthgen import load
from synthgen.project import Project
from synthgen.recipe import Recipe
from synthgen.recipe_filters import FilterUse
from synthgen.recipe_parts import WRITTEN
from synthgen.recipe_problems import recipe_problems
from synthgen.recipe_prompts import PromptBody
from synthgen.recipe_schema import json_schema
from synthgen.wording import told_once, words
from synthgen.yamlfile import YamlFile, parse_yaml
from tests.support import problems, project

WHOLE: dict[str, Any] = {
    "version": 1,
    "name": "a",
    "description": "x",
    "seed": 3,
    "model": {"engine": "openai", "id": "m", "prices": {"input": 1, "output": 2}, "options": {"a": 1}},
    "sampling": {"temperature": 0.5, "max_tokens": 9, "stop": ["a"], "logit_bias": {"1": 2}},
    "seeds": {
        "doc": {"path": "a.jsonl", "field": "text", "chunk": {"words": 9, "overlap": 1}, "limit": 3},
        "level": {"choice": {"easy": 1, "hard": 2}},
        "kind": {"choice": ["a", "b"]},
        "size": {"int": {"min": 1, "max": 2}},
        "part": {"float": {"mean": 1, "sd": 2}},
        "day": {"date": {"from": "2024-01-01", "to": "2024-02-01"}},
        "who": {"faker": ["name"]},
        "topic": {"taxonomy": {"a": ["b"]}},
        "text": {"text": "{{ level }}"},
        "case": {"by": "level", "cases": {"easy": {"int": {"min": 1, "max": 2}}}},
        "tone": ["plain"],
    },
    "steps": [
        {"qa": {"prompt": {"system": "a", "user": "b", "output": {"type": "string"}}, "n": 2, "when": "doc"}},
        {"more": {"prompt": {"messages": [{"user": "x"}]}, "extract": {"tag": ["q"]}, "retries": 1}},
        {"chat": {"prompt": "a", "conversation": {"user": {"prompt": "b"}, "turns": 2, "until": "said"}}},
    ],
    "record": {"messages": [{"user": "x"}, {"assistant": "y"}], "kind": {"value": "kind", "type": "text"}},
    "filters": ["refusal", {"words": {"of": "answer", "min": 1, "action": "flag"}}],
    "target": 5,
    "budget": {"attempts": 9, "seconds": 2.5},
    "balance": {"level": {"easy": 1}, "kind": "even"},
    "round": 4,
    "output": {"formats": ["jsonl"], "split": {"train": 0.5, "test": 0.5}},
}  # fmt: skip
# Words of pydantic's messages, and the names that it gives to members of unions.
FOREIGN = (
    "input should", "value should", "should have", "should match", "instance of", "valid dictionary", "parse",
    "valid integer", "dict[", "list[", "constrained", "function-", "validation", "unable to", "None",
)  # fmt: skip


def places(said: Any, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where something stands, everything below included."""
    parts = said.items() if isinstance(said, dict) else enumerate(said) if isinstance(said, list) else ()
    for key, value in parts:
        yield (*loc, key)
        yield from places(value, (*loc, key))


def put(said: Any, loc: tuple[str | int, ...], value: Any) -> Any:
    whole = copy.deepcopy(said)
    inner = whole
    for part in loc[:-1]:
        inner = inner[part]
    inner[loc[-1]] = value
    return whole


def told(said: Any) -> list[str]:
    try:
        Recipe.model_validate(said, context=WRITTEN)
    except ValidationError as error:
        return [
            problem.message for problem in recipe_problems(YamlFile(Path("a"), "", said, said), error, Recipe)
        ]
    return []


def test_the_recipe_is_right() -> None:
    assert told(WHOLE) == []


odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers() | st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=3), max_size=2),
)  # fmt: skip


@given(st.sampled_from(list(places(WHOLE))), odd)
def test_whatever_stands_wherever_is_answered_in_words_of_our_own(
    loc: tuple[str | int, ...], value: Any
) -> None:
    for message in told(put(WHOLE, loc, value)):
        said = message.partition(", not ")[0]  # behind it is what was given
        assert not [word for word in FOREIGN if word in said], message


@pytest.mark.parametrize(
    "loc",
    [
        loc
        for loc in places(WHOLE)
        if not {"options", "output", "taxonomy"} & {*loc[1:-1]}  # JSON of another's, in which null is a value
        and loc[-2:] not in ((1, "words"), ("words", "min"))
        and loc not in (("seeds", "kind", "choice", 0), ("seeds", "kind", "choice", 1), ("seeds", "tone", 0))
    ],
    ids=lambda loc: ".".join(map(str, loc)),
)
def test_a_key_without_a_value_is_a_mistake(loc: tuple[str | int, ...]) -> None:
    found = told(put(WHOLE, loc, None))
    assert any("has no value: give it one, or leave the key out" in message for message in found), found


def test_a_key_that_is_left_empty_is_told_with_its_line(tmp_path: Path) -> None:
    text = (
        "version: 1\nname: a\nmodel: m\nseeds:\n  doc: {path: data/docs.jsonl, field: text}\nsteps:\n"
        "  - answer:\n      n:\n      prompt: {user: x}\nrecord: {messages: [{user: x}]}\nfilters:\ntarget:\n"
        "budget: {attempts: 9}\n"
    )
    found = problems(project(tmp_path, text))
    assert sorted((problem.line, problem.message.partition(":")[0]) for problem in found) == [
        (8, "`n"), (11, "`filters"), (12, "`target"),
    ]  # fmt: skip


def test_a_prompt_file_with_an_empty_key_or_nothing(tmp_path: Path) -> None:
    for text, line, message in (
        ("user: x\noutput:\n", 2, "`output:` has no value"),
        ("user: x\nsystem:\n", 2, "`system:` has no value"),
        ("# nothing\n", 1, "the file is empty"),
        ("messages: []\n", 1, "`messages` is empty"),
    ):
        (found,) = problems(
            project(tmp_path, files={"prompts/p.yaml": text}, said={
                "version": 1, "name": "a", "model": "m", "seeds": {"doc": {"path": "data/docs.jsonl"}},
                "steps": [{"answer": {"prompt": "p"}}], "record": {"messages": [{"user": "{{ answer }}"}]},
            })
        )  # fmt: skip
        assert (found.line, found.message[: len(message)]) == (line, message)


def test_what_null_means_something_for_is_taken(tmp_path: Path) -> None:
    text = (
        "version: 1\nname: a\nseeds:\n  row: {path: data/docs.jsonl}\n  topic: {taxonomy: {a: , b: {c: }}}\n"
        "  kind: [null, x]\nrecord:\n  messages: [{user: x}, {assistant: '{{ row.text }}'}]\n"
        "filters:\n  - refusal:\n  - words: {min: 1, max: null}\n  - quality: {min: null, max: 1}\n"
    )
    loaded = load(project(tmp_path, text))
    assert [(link.name, link.min, link.max) for link in loaded.chain][1:] == [
        ("words", 1, None), ("quality", None, 1),
    ]  # fmt: skip


def test_what_synthgen_wrote_may_hold_null() -> None:
    assert Recipe.model_validate({**WHOLE, "description": None}).description is None


def test_the_schema_for_editors_takes_no_null_either() -> None:
    schema = json_schema()
    assert {"type": "null"} not in schema["properties"]["target"].get("anyOf", [])
    step = schema["$defs"]["Step"]["properties"]
    assert step["n"]["type"] == "integer"
    assert {"type": "null"} in schema["$defs"]["FilterUseMapping"]["properties"]["max"]["anyOf"]


@pytest.mark.parametrize(
    ("loc", "value", "message"),
    [
        (("seed",), True, "`seed:` has to be a number, not true"),
        (("seed",), "abc", "`seed` has to be a whole number, not 'abc'"),
        (("seed",), 1.5, "`seed` has to be a whole number, not 1.5"),
        (("model",), 5, "`model` has to be the name of a model, or a mapping (`id: ...`), not 5"),
        (("sampling", "temperature"), 99, "`sampling.temperature` has to be 10 or less, not 99"),
        (("sampling", "stop"), 5, "`sampling.stop` has to be a text or a list (`[a, b]`), not 5"),
        (("sampling", "stop"), ["a", 5], "`sampling.stop.1` has to be a text, not 5"),
        (("seeds", "level", "choice", "easy"), "a", "`seeds.level.choice.easy` has to be a number, not 'a'"),
        (("seeds", "level", "choice"), {}, "`seeds.level.choice` is empty"),
        (("seeds", "who", "faker"), [], "`seeds.who.faker` is empty"),
        (("seeds", "topic", "taxonomy"), 5,
         "`seeds.topic.taxonomy` has to be a text, a mapping (`key: value`) or a list (`[a, b]`), not 5"),
        (("seeds", "day", "date", "from"), "x",
         "`seeds.day.date.from` has to be a day, such as 2024-05-31, not 'x'"),
        (("steps", 0, "qa", "n"), 5000, "`steps.qa.n` has to be 1,000 or less, not 5000"),
        (("steps", 1, "more", "extract", "tag"), ["1"],
         "`steps.more.extract.tag.0` has to be a letter, then A-Z a-z 0-9 _ -, 80 at most, not '1'"),
        (("filters",), "words", "`filters` has to be a list (`[a, b]`), not 'words'"),
        (("output", "formats"), ["csv"], "`output.formats.0` has to be 'parquet' or 'jsonl', not 'csv'"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_was_meant(loc: tuple[str | int, ...], value: Any, message: str) -> None:
    assert told(put(WHOLE, loc, value)) == [message]


def test_a_word_with_a_colon_lacks_a_space(tmp_path: Path) -> None:
    text = "version: 1\nname: a\nseeds: {doc: {path:}}\nrecord: {messages: [{user: x}]}\n"
    found = {problem.message: problem.hint for problem in problems(project(tmp_path, text))}
    assert found["unknown key 'path:'"] == "a space and a value belong behind the colon: `path: ...`"


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("a: {{ x }}\n", 1, "is no key", None),
        ("a: {{ x }} y\n", 1, "not valid YAML", "stands in quotes"),
        ("a:\n\t- b\n", 2, "not valid YAML", "indented by spaces alone"),
        ("a:\n  - b\n - c\n", 3, "not valid YAML", "is indented as those"),
        ("a: b: c\n", 1, "not valid YAML", "a colon not in quotes"),
        ("a: 1\nb: 2024-13-01\n", 2, "month must be in 1..12", None),
        ("a: 1\nb: x\0y\n", 2, "the character U+0000 may not stand in it", None),
    ],
)
def test_yaml_that_is_none_has_its_line_and_a_remedy(
    tmp_path: Path, text: str, line: int, message: str, hint: str | None
) -> None:
    from synthgen.errors import RecipeError

    with pytest.raises(RecipeError) as raised:
        parse_yaml(text, tmp_path / "a.yaml")
    (problem,) = raised.value.problems
    assert problem.line == line
    assert message in problem.message
    assert hint is None or hint in (problem.hint or "")


def test_parameters_of_filters_are_told_in_the_same_words(tmp_path: Path) -> None:
    from synthgen.filter_files import check_params, find_filter

    found = find_filter("language", Project(tmp_path))
    assert found is not None
    ((_, message, _),) = check_params(found.definition, {"is": 5})
    assert message == "'is' of filter language has to be a text or a list (`[a, b]`), not 5"
    with pytest.raises(ValidationError) as raised:
        FilterUse.model_validate({"min": "x"})
    assert [words(each) for each in told_once(raised.value.errors(), {"min": "x"})] == [
        "has to be a number, not 'x'"
    ]
    with pytest.raises(ValidationError):
        PromptBody.model_validate({"user": None}, context=WRITTEN)
