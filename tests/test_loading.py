"""Loading: what a recipe names is found, read and checked, and overrides take effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen import load
from synthgen.errors import RecipeError, UsageError
from tests.support import loaded, problems, project, recipe, write


def test_what_is_loaded(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        recipe(
            sampling={"temperature": 0.5},
            steps=[
                {"q": {"prompt": "ask", "sampling": {"max_tokens": 9}}},
                {"a": {"prompt": {"user": "{{ q }}", "output": {"type": "object"}}}},
            ],
            record={"messages": [{"user": "{{ q }}"}], "extra": "{{ a.x }}"},
            filters=["refusal", {"words": {"of": "q", "min": 2}}],
        ),
        files={"prompts/ask.yaml": "system: s\nuser: 'Of {{ doc }}'\n"},
    )
    assert found.planned == 5
    assert [step.name for step in found.steps] == ["q", "a"]
    assert found.steps[0].sampling == {"max_tokens": 9, "temperature": 0.5}
    assert found.steps[1].sampling["max_tokens"] == 512
    assert found.steps[1].prompt.schema == {"type": "object"}
    assert found.shape.columns == ["messages", "extra"]
    assert [(link.name, link.of, link.min, link.max) for link in found.chain] == [
        ("refusal", "answer", None, 0),
        ("words", "q", 2, None),
    ]
    assert found.runs == tmp_path / "runs"
    assert found.shape.make({"q": "why", "a": {"x": "so"}}) == {
        "messages": [{"role": "user", "content": "why"}],
        "extra": "so",
    }


def test_the_project_is_the_parent_of_recipes_else_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project(tmp_path)
    monkeypatch.chdir(path.parent)
    assert load("a.yaml").project.root == tmp_path
    loose = tmp_path / "loose.yaml"
    loose.write_text(path.read_text())
    with pytest.raises(RecipeError, match=r"there is no file data/docs\.jsonl"):
        load(loose)
    monkeypatch.chdir(tmp_path)
    assert load("loose.yaml").project.root == tmp_path
    assert load("a").recipe.name == "a"


def test_what_is_not_there_is_named_with_its_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(tmp_path, name="grounded")
    monkeypatch.chdir(tmp_path)
    for given in ("groundd", "recipes/groundd.yaml"):
        with pytest.raises(UsageError, match="there is no recipe") as caught:
            load(given)
        assert "grounded" in str(caught.value.hint)
        assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match="is a folder"):
        load(tmp_path / "recipes")


def test_a_projects_own_come_before_what_ships(tmp_path: Path) -> None:
    mine = "from synthgen import filter\n@filter(max=3)\ndef words(record):\n    return 1\n"
    found = loaded(tmp_path, recipe(filters=["words"]), filters={"words": mine})
    assert (found.chain[0].origin, found.chain[0].max) == ("project", 3)
    assert any("words" in notice and "shipped" in notice for notice in found.notices)


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("from synthgen import filter\ndef (", 2, "SyntaxError"),
        ("import no_such_module_of_anybody\n", 1, "ModuleNotFoundError"),
        ("x = 1\nraise ValueError('no')\n", 2, "ValueError: no"),
        (
            "from synthgen import filter\n@filter\ndef other(record):\n    return 1\n",
            None,
            "it defines: other",
        ),
        ("def mine(record):\n    return 1\n", None, "decorate one with @filter"),
    ],
)
def test_a_filter_that_does_not_load(tmp_path: Path, code: str, line: int | None, message: str) -> None:
    path = project(tmp_path, recipe(filters=[{"mine": {"max": 1}}]), filters={"mine": code})
    (found,) = problems(path)
    assert found.file == tmp_path / "filters" / "mine.py"
    assert found.line == line
    assert message in found.message


def test_parameters_of_a_filter_are_checked(tmp_path: Path) -> None:
    code = """\
        from synthgen import filter
        @filter(max=1)
        def mine(record, *, needed: int, is_: str = "x", ratio: float = 0.5):
            return needed
    """
    path = project(tmp_path, recipe(filters=[{"mine": {"rato": 1, "is": 5}}]), filters={"mine": code})
    found = {problem.message.partition(":")[0]: problem for problem in problems(path)}
    assert found["filter mine has no parameter 'rato'"].hint == "did you mean 'ratio'?"
    assert "filter mine needs 'needed'" in found
    assert "'is' of filter mine has to be a text, not 5" in found
    right = loaded(tmp_path, recipe(filters=[{"mine": {"needed": 3, "is": "y"}}]))
    assert right.chain[0].params == {"needed": 3, "is": "y"}


@pytest.mark.parametrize("name", ["__init__", "..", ".", "_private"])
def test_odd_names_of_filters_and_prompts_find_nothing(tmp_path: Path, name: str) -> None:
    said = recipe(filters=[{name: {"max": 1}}], steps=[{"answer": {"prompt": name}}])
    found = [problem.message for problem in problems(project(tmp_path, said))]
    assert f"there is no filter {name!r}" in found
    assert f"there is no prompt {name!r}" in found


def test_a_prompt_cannot_be_fetched_from_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere.yaml": "user: x\n"})
    for name in ("../elsewhere", str(tmp_path / "elsewhere")):
        found = problems(project(tmp_path, recipe(steps=[{"answer": {"prompt": name}}])))
        assert "there is no prompt" in found[0].message


def test_overrides(tmp_path: Path) -> None:
    path = project(tmp_path, recipe(target=3, passes=2, budget={"attempts": 7}))
    assert load(path).planned is None
    assert load(path).plan.limit == 7
    assert load(path, tasks=2).planned == 2
    assert load(path, model="other").models[""].id == "other"
    served = load(path, base_url="http://127.0.0.1:1/v1").models[""]
    assert (served.engine, served.base_url, served.id) == ("openai", "http://127.0.0.1:1/v1", "some-model")
    assert load(path, engine="vllm").models[""].engine == "vllm"


@pytest.mark.parametrize(
    "options",
    [{"model": ""}, {"engine": "vlm"}, {"engine": "llamacpp", "base_url": "http://127.0.0.1:1/v1"}],
)
def test_overrides_are_checked_like_the_recipe(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        load(project(tmp_path), **options)


@pytest.mark.parametrize(
    ("parts", "limit"),
    [
        ({}, 5),
        ({"tasks": 3}, 3),
        ({"tasks": 12}, 12),
        ({"target": 2}, 20),
        ({"target": 2, "passes": 3}, 15),
        ({"target": 2, "budget": {"attempts": 6}}, 6),
        ({"target": 2, "budget": {"attempts": 60}, "passes": 1}, 5),
        ({"seeds": {"doc": {"path": "data/docs.jsonl", "field": "text"}, "n": [1, 2, 3]}}, 15),
    ],
)
def test_how_many_tasks_there_are(tmp_path: Path, parts: dict[str, object], limit: int) -> None:
    found = loaded(tmp_path, recipe(**parts))
    assert found.plan.limit == limit
    assert len(list(found.plan.tasks())) == limit


def test_something_must_say_how_many(tmp_path: Path) -> None:
    (found,) = problems(project(tmp_path, recipe(seeds={"doc": {"choice": ["x", "y"]}})))
    assert "nothing says how many" in found.message
    (found,) = problems(project(tmp_path, recipe(seeds={"doc": {"path": "data/docs.jsonl", "sample": True}})))
    assert "nothing says how many" in found.message
    (found,) = problems(project(tmp_path, recipe(steps=[], seeds={}, record={"x": "y"})))
    assert "there is nothing to do" in found.message


def test_steps_need_models(tmp_path: Path) -> None:
    (found,) = problems(project(tmp_path, recipe(model=None)))
    assert "no `model:`" in found.message
    assert found.hint is not None
    (found,) = problems(project(tmp_path, recipe(model=None, models={"x": "m"})))
    assert "must name one of `models:`" in found.message
    step = {"answer": {"prompt": {"user": "x"}, "model": "x"}}
    assert loaded(tmp_path, recipe(model=None, models={"x": "m"}, steps=[step])).steps[0].model == "x"


def test_from_must_name_a_field(tmp_path: Path) -> None:
    (found,) = problems(project(tmp_path, recipe(record={"from": "dok"})))
    assert (found.message, found.hint) == ("there is no field 'dok'", "did you mean 'doc'?")


def test_bounds_can_be_taken_away(tmp_path: Path) -> None:
    (found,) = problems(project(tmp_path, recipe(filters=[{"refusal": {"max": None}}])))
    assert "has no bound" in found.message
    changed = loaded(tmp_path, recipe(filters=[{"refusal": {"max": None, "min": 1}}]))
    assert (changed.chain[0].min, changed.chain[0].max) == (1, None)
