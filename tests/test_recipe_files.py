"""Recipes by name, and copies of them with all that they read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.errors import UsageError
from synthgen.loading import load
from synthgen.project import Project
from synthgen.recipe_files import copy_recipe, found_recipe, recipes
from synthgen.trial import trial


def test_what_ships_is_listed_with_what_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = {each.name: each for each in recipes(Project(tmp_path))}
    assert {"quickstart", "classify", "curate-chat"} <= set(found)
    assert all(each.origin == "shipped" and each.description and each.header for each in found.values())


def test_a_recipe_of_the_project_is_listed_and_one_that_is_no_yaml_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "quickstart.yaml").write_text("# Mine.\n#  and more\ndescription: 'a\n\n  b'\n")
    (tmp_path / "recipes" / "broken.yaml").write_text("a: [")
    found = {each.name: each for each in recipes(Project(tmp_path))}
    mine = found["quickstart"]
    assert (mine.origin, mine.description, mine.header) == ("project", "a b", "Mine.\n and more")
    assert found["broken"].description.startswith("cannot be read: ")


@pytest.mark.parametrize("name", ["quickstart", "classify", "curate-chat"])
def test_a_copy_does_what_the_original_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = found_recipe(name).file
    places = copy_recipe(original, tmp_path)
    assert f"recipes/{name}.yaml" in places
    monkeypatch.chdir(tmp_path)
    copied = load(str(tmp_path / "recipes" / f"{name}.yaml"))
    assert copied.project.root == tmp_path.resolve()
    for loaded in (copied, load(str(original))):
        assert trial(loaded).first == trial(copied).first
        assert {seed: len(rows) for seed, rows in loaded.files.items()} == {
            seed: len(rows) for seed, rows in copied.files.items()
        }
    for step in copied.steps:
        assert step.prompt.file is None or step.prompt.file.parent == tmp_path.resolve() / "prompts"
    assert copy_recipe(original, tmp_path) == places


def test_nothing_of_the_users_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    mine = tmp_path / "prompts" / "grounded_answer.yaml"
    mine.write_text("user: mine\n")
    with pytest.raises(UsageError, match=r"grounded_answer\.yaml is there already, and is not the same"):
        copy_recipe(found_recipe("quickstart").file, tmp_path)
    assert mine.read_text() == "user: mine\n"
    assert list(tmp_path.rglob("*.yaml")) == [mine]


def test_the_commands(tmp_path: Path) -> None:
    def synthgen(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "synthgen", "recipes", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    listed = json.loads(synthgen("list", "--json").stdout)
    assert {"name": "quickstart", "origin": "shipped"}.items() <= next(
        each for each in listed if each["name"] == "quickstart"
    ).items()
    assert synthgen("list").stdout.splitlines()[0].split() == ["recipe", "from", "makes"]
    shown = json.loads(synthgen("show", "quickstart", "--json").stdout)
    assert synthgen("show", "quickstart").stdout == shown["text"]
    copied = json.loads(synthgen("copy", "quickstart", "here", "--json").stdout)
    assert copied["dir"] == "here"
    assert all((tmp_path / "here" / place).is_file() for place in copied["files"])
    wrong = synthgen("show", "quickstarr")
    assert wrong.returncode == 2
    assert "quickstart" in wrong.stderr
    assert "Traceback" not in wrong.stderr
