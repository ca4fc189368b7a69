"""Examples in a filter's docstring, the file that a new filter begins with, and both through the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.chain import ChainFilter
from synthgen.filter_examples import Example, examples, try_examples
from synthgen.filter_files import find_filter
from synthgen.project import Project
from synthgen.recipe_filters import FilterUse
from tests.support import answers, loaded, recipe, run_it, write


def synthgen(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "synthgen", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_examples_are_read() -> None:
    help = """What it is.

    Examples:
        "one" -> 1
        'two, "quoted"' -> 2.5

        "none" -> None
        "out" -> drop

    Parameters: none; "this" -> 3 is no example.
    """
    assert examples(help) == [
        Example("one", 1.0), Example('two, "quoted"', 2.5), Example("none", None), Example("out", "drop"),
    ]  # fmt: skip
    assert examples("No examples.") == []


@pytest.mark.parametrize("line", ["one -> 1", '"one" 1', '"one" -> soon', '"one -> 1'])
def test_what_is_no_example(line: str) -> None:
    with pytest.raises(ValueError, match=r" "):
        examples(f"Help.\n\nExamples:\n    {line}\n")


def test_shipped_filters_can_be_tried() -> None:
    found = find_filter("words", Project(Path.cwd()))
    assert found is not None
    given = [
        Example("one two", 2.0),
        Example("one two", 3.0),
        Example("one", "drop"),
        Example("one two", "pass"),
    ]
    assert [each.right for each in try_examples(ChainFilter.of_recipe(found, FilterUse(min=2)), given)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_filter_of_the_run_sees_its_examples_in_order(tmp_path: Path) -> None:
    found = find_filter("duplicate", Project(tmp_path))
    assert found is not None
    text = "a sentence that is long enough to be compared with another one of its kind"
    given = [Example(text, "pass"), Example(text, 1.0), Example(text, "drop"), Example("something else", 0.0)]
    assert all(each.right for each in try_examples(ChainFilter.of_recipe(found, FilterUse()), given))


def test_a_new_filter_works_and_its_examples_are_its_test(tmp_path: Path) -> None:
    made = synthgen("filters", "new", "my_links", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    tried = synthgen("filters", "test", "my_links", cwd=tmp_path)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "4 of 4 examples are right" in tried.stdout
    file = tmp_path / "filters" / "my_links.py"
    file.write_text(file.read_text().replace('count("http")', 'count("https")'))
    broken = synthgen("filters", "test", "my_links", "--json", cwd=tmp_path)
    assert broken.returncode == 1
    assert [each["right"] for each in json.loads(broken.stdout)["examples"]] == [False, True, True, False]
    again = synthgen("filters", "new", "my_links", cwd=tmp_path)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    assert synthgen("filters", "new", "my-links", cwd=tmp_path).returncode == 2
    keyword = synthgen("filters", "new", "class", cwd=tmp_path)
    assert (keyword.returncode, "keyword of Python" in keyword.stderr) == (2, True)
    shipped = synthgen("filters", "new", "words", cwd=tmp_path)
    assert (shipped.returncode, "there is a filter 'words'" in shipped.stderr) == (2, True)
    assert [each.name for each in (tmp_path / "filters").glob("*.py")] == ["my_links.py"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--param", "max=abc"], "refusal.max has to be a number, not 'abc'"),
        (["--param", "max"], "'max' is no parameter with a value"),
        (["--param", "action=x"], "refusal.action has to be 'drop', 'flag' or 'redact', not 'x'"),
    ],
)
def test_wrong_parameters_are_told_in_a_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    ended = synthgen("filters", "test", "refusal", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_examples_and_a_run_there_is_nothing_to_test(tmp_path: Path) -> None:
    ended = synthgen("filters", "test", "words", cwd=tmp_path)
    assert ended.returncode == 2
    assert "words has no examples" in ended.stderr
    assert "--run DIR" in ended.stderr


def test_failures_on_the_records_of_a_run_are_counted(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, recipe(), rows=12))
    write(tmp_path, {"filters/odd.py": "from synthgen import filter\n\n@filter(max=5)\ndef odd(record):\n"
                     '    """Words."""\n    return 1 / 0\n'})  # fmt: skip
    tried = synthgen("filters", "test", "odd", "--run", str(result.dir), "--json", cwd=tmp_path)
    assert tried.returncode == 1
    said = json.loads(tried.stdout)["run"]
    assert (said["measured"], said["failed"]) == (0, 12)
    assert tried.stderr.count("ZeroDivisionError") == 5
    assert "odd failed on 12 records" in tried.stderr
    missing = synthgen(
        "filters", "test", "words", "--run", str(result.dir), "--param", "of=nofield", cwd=tmp_path
    )
    assert missing.returncode == 2
    assert "the run's records have no field 'nofield'" in missing.stderr


def test_a_filter_on_the_records_of_a_run(tmp_path: Path) -> None:
    result = run_it(loaded(tmp_path, recipe(), rows=12))
    write(tmp_path, {"filters/odd.py": "from synthgen import filter\n\n@filter(max=5)\ndef odd(record):\n"
                     '    """Words."""\n    return len(record.text.split())\n'})  # fmt: skip
    tried = synthgen(
        "filters", "test", "odd", "--run", str(result.dir), "--param", "max=7", "--json", cwd=tmp_path
    )
    assert tried.returncode == 0, tried.stderr
    said = json.loads(tried.stdout)["run"]
    lengths = [len(each.split()) for each in answers(result.dir)]
    assert (said["measured"], said["max"], said["failed"]) == (12, 7, 0)
    assert said["outside"] == sum(length > 7 for length in lengths)
    wrong = synthgen("filters", "test", "odd", "--param", "least=7", cwd=tmp_path)
    assert (wrong.returncode, "no parameter 'least'" in wrong.stderr) == (2, True)
