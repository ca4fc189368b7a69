"""What a recipe may say, and how each mistake is pointed at: file, line, column and what to write instead."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from synthgen.recipe import Recipe
from synthgen.recipe_filters import FilterUse
from synthgen.recipe_models import ModelRef, Sampling
from synthgen.recipe_prompts import PromptBody
from synthgen.recipe_schema import json_schema
from tests.support import problems, project, recipe

names = st.text("abcdefghijklmnopqrstuvwxyzABCZ0189._-", min_size=1, max_size=80).filter(
    lambda name: name not in (".", "..")
)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts
shares = st.floats(0.01, 100)


def optional(**parts: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=parts)


samplings = optional(
    temperature=st.floats(0, 10),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(-1, 1000),
    max_tokens=st.integers(1, 10**6),
    stop=texts | st.lists(texts, max_size=3),
    presence_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(st.integers(0, 10**5), st.floats(-100, 100), max_size=3),
)
models = st.text(min_size=1, max_size=10) | st.builds(
    lambda ref, more: {**ref, **more},
    st.fixed_dictionaries({"id": st.text(min_size=1, max_size=10)}),
    optional(
        engine=st.sampled_from(["vllm", "openai", "llamacpp"]),
        revision=texts,
        options=st.dictionaries(names, scalars, max_size=2),
    ),
)
seeds = (
    st.builds(lambda values: {"values": values}, st.lists(scalars, min_size=1, max_size=3))
    | st.lists(scalars, min_size=1, max_size=3)
    | st.builds(lambda values: {"choice": values}, st.lists(scalars, min_size=1, max_size=3))
    | st.builds(lambda values: {"choice": values}, st.dictionaries(names, shares, min_size=1, max_size=3))
    | st.builds(
        lambda path, more: {"path": path, **more},
        st.text(min_size=1, max_size=10),
        optional(field=texts, limit=st.integers(1, 9), sample=st.booleans()),
    )
)
uses = optional(
    of=names, min=st.floats(-9, 9), max=st.floats(-9, 9), action=st.sampled_from(["drop", "flag"])
)
fans = st.builds(
    lambda form, fan, more: {**form, **fan, **more},
    optional(output=st.just({"type": "object"}))
    | st.just({"extract": {"tag": "a"}})
    | st.just({"extract": {"regex": "a(.*)"}}),
    optional(n=st.integers(1, 20))
    | st.builds(
        lambda gather: {"foreach": "x", "as": "given its own below", "gather": gather}, st.booleans()
    ),
    optional(retries=st.integers(0, 20), when=texts),
)
voices = texts | st.fixed_dictionaries({"prompt": texts}, optional={"model": names, "sampling": samplings})
talks = st.builds(
    lambda prompt, must, more: {"prompt": prompt, "conversation": {**must, **more}},
    texts | st.fixed_dictionaries({"system": texts}),
    st.fixed_dictionaries({"user": voices, "turns": st.integers(1, 100)}),
    optional(opening=texts, until=texts)
    | st.fixed_dictionaries(
        {"tools": texts | st.just([{"type": "function"}])},
        optional={
            "results": voices | st.fixed_dictionaries({"value": texts}),
            "calls": st.integers(1, 32),
        },
    ),
)
recipes = st.builds(
    lambda must, seeds, steps, filters, end: {
        **must,
        "seeds": {f"s{place}": seed for place, seed in enumerate(seeds)},
        "steps": [
            {f"t{place}": {**step, **({"as": f"i{place}"} if "as" in step else {})}}
            for place, step in enumerate(steps)
        ],
        "filters": [use if isinstance(use, str) else {f"f{place}": use} for place, use in enumerate(filters)],
        **end,
    },
    st.fixed_dictionaries(
        {
            "version": st.just(1),
            "name": names,
            "record": st.fixed_dictionaries(
                {"messages": st.lists(st.fixed_dictionaries({"user": texts}), min_size=1, max_size=2)}
            ),
            "model": models,
            "seed": st.integers(0, 2**63 - 1),
            "sampling": samplings,
        }
    ),
    st.lists(seeds, max_size=3),
    st.lists(
        st.builds(
            lambda prompt, more: {"prompt": prompt, **more},
            texts | st.fixed_dictionaries({"user": texts}),
            optional(sampling=samplings) | fans,
        )
        | talks,
        max_size=3,
    ),
    st.lists(uses | st.none(), max_size=3),
    st.sampled_from(
        [{}, {"tasks": 3}, {"target": 2, "passes": 3, "budget": {"attempts": 9}}, {"description": "x"}]
    ),
)


@given(recipes)
def test_a_recipe_survives_being_written_out_and_read_again(said: dict[str, Any]) -> None:
    first = Recipe.model_validate(said)
    written = json.loads(json.dumps(first.model_dump(mode="json", by_alias=True)))
    assert Recipe.model_validate(written) == first
    short = first.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    assert Recipe.model_validate(json.loads(json.dumps(short))) == first


@given(recipes)
def test_what_the_models_take_the_schema_takes(said: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    Recipe.model_validate(said)
    Draft202012Validator(json_schema()).validate(json.loads(json.dumps(said)))


@given(recipes, st.data())
def test_an_unknown_key_anywhere_is_refused(said: dict[str, Any], data: st.DataObject) -> None:
    spots: list[Any] = [said]
    spots += [step[key] for step in said["steps"] for key in step]
    spots += [seed for seed in said["seeds"].values() if isinstance(seed, dict)]
    if isinstance(said["model"], dict):
        spots.append(said["model"])
    data.draw(st.sampled_from(spots))["surely_unknown"] = 1
    with pytest.raises(ValidationError, match="surely_unknown"):
        Recipe.model_validate(said)


def test_sampling_goes_over_its_base() -> None:
    base = Sampling(temperature=0.8, top_p=0.9, stop=["x"])
    assert Sampling(temperature=0.2).over(base).settings() == {
        "max_tokens": 512, "temperature": 0.2, "top_p": 0.9, "stop": ["x"],
    }  # fmt: skip
    assert Sampling(max_tokens=5).over(base).settings()["max_tokens"] == 5
    assert Sampling(temperature=0).over(base).settings()["temperature"] == 0


def test_turns_of_a_prompt() -> None:
    assert PromptBody(system="s", user="u").turns() == [("system", "s"), ("user", "u")]
    assert PromptBody(messages=[{"user": "a"}, {"assistant": "b"}]).turns() == [
        ("user", "a"),
        ("assistant", "b"),
    ]


def test_shorthands() -> None:
    assert ModelRef.model_validate("x") == ModelRef(id="x")
    whole = Recipe.model_validate(recipe(filters=["refusal", {"words": None}, {"characters": {"max": 3}}]))
    assert whole.filter_uses() == [
        ("refusal", FilterUse()),
        ("words", FilterUse()),
        ("characters", FilterUse(max=3)),
    ]


BASE = """\
version: 1
name: a
model: m
sampling: {temperature: 0.5}
seeds:
  doc: {path: data/docs.jsonl, field: text}
  kind: {choice: {x: 1, y: 2}}
  size: {values: [1, 2]}
steps:
  - question:
      prompt:
        user: Ask about {{ doc }}
  - answer: {prompt: {user: "{{ question }}"}, sampling: {top_p: 0.5}}
record:
  messages:
    - user: "{{ question }}"
    - assistant: "{{ answer }}"
filters:
  - refusal
  - words: {of: answer, min: 1, max: 9}
output: {formats: [jsonl], split: {train: 0.5, test: 0.5}}
"""

# what is replaced, by what, where the mistake stands (line, column), parts of the message and of the hint
MISTAKES = [
    ("seeds:", "seds:", (5, 1), "unknown key 'seds'", "'seeds'"),
    ("{temperature: 0.5}", "{temprature: 0.5}", (4, 12), "unknown key 'temprature'", "'temperature'"),
    ("{temperature: 0.5}", "{temperature: hot}", (4, 12), "not 'hot'", None),
    ("{temperature: 0.5}", "{seed: 3}", (4, 12), "unknown key 'seed'", "recipe's `seed:`"),
    ("field: text}", "feld: text}", (6, 32), "unknown key 'feld'", "'field'"),
    ("field: text}", "field: txt}", None, "has no field 'txt'", "'text'"),
    ("data/docs.jsonl", "data/doc.jsonl", (6, 9), "there is no file data/doc.jsonl", "data/docs.jsonl"),
    ("{choice: {x: 1, y: 2}}", "{choice: {x: 1, y: -2}}", (7, 25), "more than 0", None),
    ("{choice: {x: 1, y: 2}}", "{choice: {}}", (7, 10), "is empty", None),
    ("{choice: {x: 1", "{choices: {x: 1", (7, 10), "unknown key 'choices'", "'choice'"),
    ("{values: [1, 2]}", "{values: [1, 2], weights: [1]}", (8, 26), "unknown key 'weights'", "values"),
    ("prompt:\n        user", "promt:\n        user", (11, 7), "unknown key 'promt'", "'prompt'"),
    ("user: Ask", "usr: Ask", (12, 9), "unknown key 'usr'", "'user'"),
    ("{{ doc }}", "{{ dok }}", (12, 9), "'dok', which is not defined", "'doc'"),
    ("Ask about {{ doc }}", "Ask about {{ answer }}", (12, 9), "'answer', which is not defined", "doc"),
    ("Ask about {{ doc }}", "|\n          Ask\n          {{ dok }}", (14, 9), "'dok', which is not", "'doc'"),
    ("Ask about {{ doc }}", "|\n          Ask\n          {% if %}", (14, 9), "not a valid template", None),
    ("top_p: 0.5", "topp: 0.5", (13, 59), "unknown key 'topp'", "'top_p'"),
    ("top_p: 0.5", "top_p: 1.5", (13, 59), "has to be 1 or less, not 1.5", None),
    ('{prompt: {user: "{{ question }}"}', "{prompt: no_such_prompt", (13, 14), "no prompt 'no_such", None),
    ("  messages:\n", "  mesages:\n", (15, 3), "mesages", "'messages'"),
    ("    - assistant:", "    - asistant:", (17, 7), "'assistant'", "'assistant'"),
    ("{{ answer }}", "{{ anser }}", (17, 7), "'anser', which is not defined", "'answer'"),
    ("- refusal", "- refusl", (19, 5), "no filter 'refusl'", "'refusal'"),
    ("of: answer", "of: anser", (20, 13), "no field 'anser' to measure", "'answer'"),
    ("min: 1, max: 9", "mn: 1, max: 9", (20, 25), "no parameter 'mn'", "'min'"),
    ("min: 1, max: 9", "min: 10, max: 9", (20, 25), "min (10) is above max (9)", None),
    ("min: 1, max: 9", "min: few", (20, 25), "not 'few'", None),
    (", min: 1, max: 9", "", (20, 5), "has no bound", None),
    ("of: answer, min: 1", "action: dropp, min: 1", (20, 13), "or 'redact', not 'dropp'", "'drop'"),
    ("[jsonl]", "[jsnl]", (21, 20), "'parquet' or 'jsonl'", "'jsonl'"),
    ("train: 0.5, test", "train: 0.6, test", (21, 28), "add up to 1, not to 1.1", None),
    ("formats:", "format:", (21, 10), "unknown key 'format'", "'formats'"),
    ("version: 1\n", "", (1, 1), "needs `version:`", None),
    ("version: 1\n", "version: 2\n", (1, 1), "has to be 1, not 2", None),
    ("name: a\n", "name: a b\n", (2, 1), "'a b' is not a name", None),
    ("name: a\n", f"name: {'x' * 81}\n", (2, 1), "is not a name", None),
    ("  kind:", "  ki nd:", (7, 3), "'ki nd' is not a name", None),
    ("  - question:\n", "  - que stion:\n", (10, 5), "is not a name", None),
    ("- refusal", "- re fusal", (19, 5), "'re fusal' is not a name", None),
    ("model: m\n", "model: {id: m, engin: vllm}\n", (3, 16), "unknown key 'engin'", "'engine'"),
    ("model: m\n", "model: {id: m, engine: vlm}\n", (3, 16), "'vllm', 'openai' or", "'vllm'"),
    ("model: m\n", "model: {engine: vllm}\n", (3, 1), "needs `id:`", None),
    ("model: m\n", "models: {big: m, small: {idd: n}}\n", (3, 26), "unknown key 'idd'", "'id'"),
    ("model: m\n", "target: 5\ntasks: 3\nmodel: m\n", (4, 1), "give one of them", None),
    ("model: m\n", "passes: 3\nmodel: m\n", (3, 1), "there is none", None),
    ("model: m\n", "budget: {attempts: 3}\nmodel: m\n", (3, 1), "there is none", None),
    ("model: m\n", "target: 5\nbudget: {atempts: 3}\nmodel: m\n", (4, 10), "key 'atempts'", "attempts"),
    ("model: m\n", "target: 0\nmodel: m\n", (3, 1), "1 or more, not 0", None),
    ("model: m\n", "seed: -1\nmodel: m\n", (3, 1), "0 or more, not -1", None),
    ("- answer: {prompt", "- doc: {prompt", (13, 5), "'doc' is given twice", None),
    ("- refusal", "- words: {min: 1}", (20, 5), "two filters are called words", None),
    ("- refusal\n", "- {refusal: , characters: {max: 3}}\n", (19, 5), "each entry of the list has one", None),
    ('- user: "{{ question }}"', '- {user: "x", system: "y"}', (16, 7), "has one key", None),
    ("  messages:\n", "  id: x\n  messages:\n", (15, 3), "`id` is given by synthgen", None),
    ("  messages:\n", "  dropped_by: x\n  messages:\n", (15, 3), "`dropped_by`", None),
    ("  messages:\n", "  bad name: x\n  messages:\n", (15, 3), "'bad name' is not a name", None),
    ("  messages:\n", "  from: doc\n  messages:\n", (15, 3), "not both", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "place", "message", "hint"), MISTAKES, ids=lambda value: str(value)[:30]
)
def test_every_mistake_has_its_place_and_its_remedy(
    tmp_path: Path, old: str, new: str, place: tuple[int, int] | None, message: str, hint: str | None
) -> None:
    assert old in BASE
    path = project(tmp_path, BASE.replace(old, new, 1))
    found = [problem for problem in problems(path) if message in problem.message]
    assert found, problems(path)
    (first, *_) = found
    if place is None:
        assert first.file == tmp_path / "data" / "docs.jsonl"
        assert first.line == 1
    else:
        assert first.file == path
        assert (first.line, first.column) == place
    if hint is not None:
        assert first.hint is not None
        assert hint in first.hint


def test_the_recipe_that_the_mistakes_are_made_in_is_right(tmp_path: Path) -> None:
    from synthgen import load

    assert load(project(tmp_path, BASE)).recipe.name == "a"


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = (
        BASE.replace("{{ doc }}", "{{ dok }}")
        .replace("- refusal", "- refusl")
        .replace("0.5, test", "0.5, tst")
    )
    found = problems(project(tmp_path, text.replace("docs.jsonl", "dcs.jsonl")))
    assert len(found) == 3
    assert [problem.line for problem in sorted(found, key=lambda problem: problem.line or 0)] == [6, 12, 19]


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "42"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (found, *_) = problems(project(tmp_path, text))
    assert "a recipe is a mapping" in found.message
    assert found.line == 1


def test_a_record_needs_something(tmp_path: Path) -> None:
    found = problems(project(tmp_path, recipe(record={})))
    assert "a record needs" in found[0].message


def test_prompt_files_have_places_of_their_own(tmp_path: Path) -> None:
    prompt = textwrap.dedent("""\
        description: x
        system: You ask.
        user: |
          {{ doc }}

          One {{ levl }} question.
        """)
    path = project(
        tmp_path,
        recipe(
            steps=[{"answer": {"prompt": "ask"}}],
            seeds={"doc": {"path": "data/docs.jsonl", "field": "text"}, "level": ["easy"]},
        ),
        files={"prompts/ask.yaml": prompt},
    )
    (found,) = problems(path)
    assert (found.file, found.line) == (tmp_path / "prompts" / "ask.yaml", 6)
    assert found.hint == "did you mean 'level'?"


@pytest.mark.parametrize(
    ("prompt", "line", "message", "hint"),
    [
        ("user: x\nsistem: y\n", 2, "unknown key 'sistem'", "'system'"),
        ("system: x\n", 1, "either `user:`", None),
        ("user: x\nmessages: [{user: y}]\n", 1, "either `user:`", None),
        ("system: s\nmessages: [{user: y}]\n", 1, "put the system message", None),
        ("user: x\noutput: {type: objekt}\n", 2, "not a JSON schema", None),
        ("messages:\n- user: '{{ doc'\n", 2, "not a valid template", None),
        ("- x\n", 1, "has to be a mapping", None),
        ("user: 'x\n", 1, "not valid YAML", None),
        ("user: \xe9\n".encode("latin1"), 1, "is not UTF-8", None),
    ],
)
def test_a_broken_prompt_file(
    tmp_path: Path, prompt: str | bytes, line: int, message: str, hint: str | None
) -> None:
    path = project(
        tmp_path, recipe(steps=[{"answer": {"prompt": "ask"}}]), files={"prompts/ask.yaml": prompt}
    )
    (found,) = problems(path)
    assert found.file == tmp_path / "prompts" / "ask.yaml"
    assert found.line in (line, line + 1) if "YAML" in message else found.line == line
    assert message in found.message
    assert hint is None or (found.hint is not None and hint in found.hint)


def test_a_misspelt_prompt_and_model(tmp_path: Path) -> None:
    said = recipe(
        model=None,
        models={"large": "m", "small": "n"},
        steps=[{"answer": {"prompt": "grounded_anser", "model": "smal"}}],
    )
    path = project(tmp_path, said, files={"prompts/grounded_answer.yaml": "user: x\n"})
    by_message = {problem.message: problem for problem in problems(path)}
    assert by_message["there is no model 'smal'"].hint == "did you mean 'small'?"
    assert by_message["there is no prompt 'grounded_anser'"].hint == "did you mean 'grounded_answer'?"
    lines = path.read_text().splitlines()
    for problem in by_message.values():
        assert problem.line is not None
        assert "prompt" in lines[problem.line - 1] or "model" in lines[problem.line - 1]


def test_numbers_that_a_key_cannot_hold_are_refused(tmp_path: Path) -> None:
    for said in (
        recipe(sampling={"top_k": 2**60}),
        recipe(model={"id": "m", "template_args": {"x": 2**60}}),
        recipe(filters=[{"words": {"min": 1}}], steps=[
            {"answer": {"prompt": {"user": "x", "output": {"type": "integer", "maximum": 2**60}}}}
        ]),
    ):  # fmt: skip
        found = problems(project(tmp_path, said))
        assert any("cannot" in problem.message for problem in found)
        assert all(problem.line is not None and problem.line > 1 for problem in found)
