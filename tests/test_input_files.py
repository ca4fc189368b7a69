"""Filters that read files of the project, and filters that are used under another name."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen import load, read_records
from synthgen.errors import RecipeError
from synthgen.recurate import recurate
from synthgen.yamlfile import read_yaml
from tests.support import jsonl, loaded, problems, project, read_jsonl, recipe, run_it

KNOWN = """
from synthgen import InputFile, Measurement, filter, read_records

@filter(max=0)
class known:
    \"\"\"How many of the files' texts are in the text.\"\"\"
    def __init__(self, *, files: list[InputFile], one: InputFile | None = None):
        self.texts = [record["text"] for file in files for record in read_records(file)]
        self.names = [file.name for file in files]
        self.one = one.read_text() if one else ""
    def measure(self, record):
        found = sum(text in record.text for text in self.texts)
        return Measurement(found, {"of": self.names, "one": self.one})
"""


def use(**parts: Any) -> dict[str, Any]:
    return recipe(filters=[{"known": {"of": "instruction", **parts}}])


FILES = {"data/a.jsonl": jsonl([{"text": "number 1"}]), "data/b.jsonl": jsonl([{"text": "number 3"}])}


def test_a_filter_is_given_the_files_that_the_recipe_names(tmp_path: Path) -> None:
    said = use(files="data/[ab].jsonl", one="data/a.jsonl")
    result = run_it(loaded(tmp_path, said, files=FILES, filters={"known": KNOWN}))
    assert (result.kept, result.dropped) == (3, 2)
    detail = read_jsonl(result.dir / "dropped.jsonl")[0]["dropped_by"]["detail"]
    assert detail == {"of": ["a.jsonl", "b.jsonl"], "one": FILES["data/a.jsonl"]}


def test_they_are_in_the_lock_and_in_what_a_measurement_depends_on(tmp_path: Path) -> None:
    given = loaded(tmp_path, use(files=["data/a.jsonl"]), files=FILES, filters={"known": KNOWN})
    first = run_it(given)
    [said] = read_yaml(first.dir / "recipe.lock.yaml").data["filters"]
    assert said["files"]["files"][0]["path"] == "data/a.jsonl"
    assert len(said["files"]["files"][0]["sha256"]) == 64
    before = given.chain[0].key
    (tmp_path / "data" / "a.jsonl").write_text(jsonl([{"text": "number 2"}, {"text": "number 4"}]))
    assert load(given.file.path).chain[0].key != before
    done = recurate(first.dir, [])
    assert (done.result.kept, done.result.dropped) == (3, 2)


@pytest.mark.parametrize(
    ("parts", "said", "hint"),
    [
        ({"files": "data/c.jsonl"}, "there is no file data/c.jsonl", "data/b.jsonl"),
        ({"files": ["../x"]}, "../x leads out of the project", "--allow-path"),
        ({"files": "data/a.jsonl", "one": "data/*.jsonl"}, "names 3 files, and one takes one", None),
        ({"files": 3}, "'files' of filter known", None),
        ({}, "filter known needs 'files'", None),
    ],
)
def test_files_that_cannot_be_named(tmp_path: Path, parts: Any, said: str, hint: str | None) -> None:
    found = problems(project(tmp_path, use(**parts), files=FILES, filters={"known": KNOWN}))
    assert len(found) == 1
    assert said in found[0].message
    assert found[0].line is not None
    assert hint is None or hint in (found[0].hint or "")


def test_one_filter_twice_under_two_names(tmp_path: Path) -> None:
    twice = [{"words": {"min": 2}}, {"question": {"filter": "words", "of": "instruction", "max": 2}}]
    result = run_it(loaded(tmp_path, recipe(filters=twice), rows=4))
    assert result.filters == {
        "words": {"dropped": 0, "flagged": 0},
        "question": {"dropped": 4, "flagged": 0},
    }
    row = read_jsonl(result.dir / "dropped.jsonl")[0]
    assert row["dropped_by"]["filter"] == "question"
    assert row["measurements"]["question"]["value"] == 3
    assert row["measurements"]["words"]["value"] > 2
    filters = read_yaml(result.dir / "recipe.lock.yaml").data["filters"]
    assert [(each["name"], each.get("filter")) for each in filters] == [
        ("words", None),
        ("question", "words"),
    ]
    done = recurate(result.dir, ["question.max=3"])
    assert done.result.kept == 4


def test_there_is_no_filter_of_that_name(tmp_path: Path) -> None:
    path = project(tmp_path, recipe(filters=[{"question": {"filter": "wrods", "min": 1}}]))
    [found] = problems(path)
    assert found.message == "there is no filter 'wrods'"
    assert found.hint is not None
    assert "words" in found.hint


def test_both_is_the_question_and_the_answer(tmp_path: Path) -> None:
    said = recipe(filters=[{"characters": {"of": "both", "min": 0}}])
    result = run_it(loaded(tmp_path, said, rows=1))
    [row] = read_jsonl(result.dir / "dataset" / "train.jsonl")
    [told] = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    texts = [message["content"] for message in row["messages"]]
    assert told["measurements"]["characters"]["value"] == len("\n\n".join(texts))


CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
        {"instruction": "Why?", "input": "", "output": "Because."},
        {"prompt": "Why?", "completion": "Because."},
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_records_of_datasets_in_the_usual_layouts(tmp_path: Path, row: dict[str, Any], suffix: str) -> None:
    path = tmp_path / f"them.{suffix}"
    rows = [row, {"id": "last", **row}]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([{"id": None, **each} for each in rows]), path)
    else:
        path.write_text(jsonl(rows) if suffix == "jsonl" else json.dumps(rows))
    found = list(read_records(path))
    assert [record.id for record in found] == ["1", "last"]
    assert [(record.instruction, record.answer) for record in found] == [("Why?", "Because.")] * 2


def test_records_of_files_without_conversations(tmp_path: Path) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([["id", "question", "gold"], ["q1", "What?", "That."]])
    (tmp_path / "bench.csv").write_text(table.getvalue())
    (tmp_path / "doc.txt").write_text("Once.")
    [item] = read_records(tmp_path / "bench.csv")
    assert (item.id, item["question"], item["gold"], item.messages) == ("q1", "What?", "That.", [])
    [text] = read_records(tmp_path / "doc.txt")
    assert text["text"] == "Once."


def test_a_bad_row_of_such_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(RecipeError, match=r"bad\.jsonl") as caught:
        list(read_records(tmp_path / "bad.jsonl"))
    assert caught.value.problems[0].line == 2
