"""Datasets joined by weight, each row once, with the provenance that it had."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from synthgen import load, run
from synthgen.audit.verify import verify
from synthgen.errors import UsageError
from synthgen.mixing import given, make_project, named, notices
from synthgen.run_result import RunResult
from tests.support import docs, loaded, read_jsonl, recipe, run_it


def made(root: Path, name: str, count: int, *, start: int = 0, **parts: Any) -> Path:
    """A finished run of so many rows."""
    columns = {
        "messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}],
        "topic": "  {{ doc }}",
        "size": {"value": "doc | length", "type": "integer"},
        "more": {"value": "[doc, 1]"},
    }
    said = recipe(name=name, record=columns, **parts)
    result = run_it(loaded(root / name, said, rows=docs(count, start=start), name=name))
    assert result.kept == count
    return result.dir


def mixed(
    place: Path, *paths: Path, weights: Any = None, rows: Any = None, duplicate: Any = 0.95
) -> RunResult:
    found = [given(path, name) for path, name in named(paths)]
    return run(load(str(make_project(place, found, weights or {}, rows, duplicate))))


def rows_of(result: RunResult) -> list[dict[str, Any]]:
    return read_jsonl(result.dir / "dataset" / "train.jsonl")


def test_every_row_is_there_once_as_it_was(tmp_path: Path) -> None:
    first, second = made(tmp_path, "one", 30), made(tmp_path, "two", 30, start=20)
    result = mixed(tmp_path / "mix", first, second)
    before = [
        (name, {key: row[key] for key in ("messages", "topic", "size", "more")})
        for name, place in (("one", first), ("two", second))
        for row in read_jsonl(place / "dataset" / "train.jsonl")
    ]
    after = [
        (row["dataset"], {key: row[key] for key in ("messages", "topic", "size", "more")})
        for row in rows_of(result)
    ]
    assert all(each in before for each in after)
    assert result.filters["duplicate"]["dropped"] == 60 - len(after)
    questions = Counter(each["messages"][0]["content"] for _, each in after)
    assert result.kept == len(after)
    assert set(questions) == {f"document number {n}" for n in range(50)}


def test_the_provenance_of_each_row_goes_with_it(tmp_path: Path) -> None:
    places = {"one": made(tmp_path, "one", 12), "two": made(tmp_path, "two", 12, start=50)}
    result = mixed(tmp_path / "mix", *places.values(), duplicate=None)
    ledgers = {
        name: {
            line["id"]: line["statement"] for line in read_jsonl(place / "dataset/provenance/ledger.jsonl")
        }
        for name, place in places.items()
    }
    stated = read_jsonl(result.dir / "dataset/provenance/train.jsonl")
    assert len(stated) == 24
    for row, said in zip(rows_of(result), stated, strict=True):
        [source] = said["sources"]
        origin = source["origin"]
        assert origin["dataset"] == row["dataset"]
        statement = origin["statement"]
        digest = hashlib.sha256(orjson.dumps(statement)).hexdigest()
        assert digest == ledgers[row["dataset"]][statement["id"]]
        assert statement["requests"]
        assert (said["requests"], said["synthetic"]) == ([], True)
        assert statement["sources"][0]["path"] == "data/docs.jsonl"
    assert verify(result.dir).intact
    dataset = result.dir / "dataset"
    [shard] = (dataset / "provenance").glob("*.parquet")
    for row, said in zip(pq.read_table(shard).to_pylist(), stated, strict=True):
        assert orjson.loads(row["sources"][0]["origin"]) == said["sources"][0]["origin"]
    assert "- synthetic\n" in (dataset / "README.md").read_text()
    assert orjson.loads((dataset / "croissant.json").read_bytes())["keywords"] == ["synthetic", "synthgen"]


def test_weights_and_how_many(tmp_path: Path) -> None:
    first, second = made(tmp_path, "one", 60), made(tmp_path, "two", 40, start=100)
    by_weight = mixed(tmp_path / "a", first, second, weights={"one": 3.0}, duplicate=None)
    assert Counter(row["dataset"] for row in rows_of(by_weight)) == {"one": 60, "two": 20}
    by_size = mixed(tmp_path / "b", first, second, rows=50, duplicate=None)
    assert Counter(row["dataset"] for row in rows_of(by_size)) == {"one": 30, "two": 20}


def test_parquet_alone_says_the_same_as_lines_of_json(tmp_path: Path) -> None:
    first = made(tmp_path, "one", 9, output={"split": {"train": 0.6, "test": 0.4}})
    whole = mixed(tmp_path / "a" / "mix", first, duplicate=None)
    alone = tmp_path / "alone" / "one"
    shutil.copytree(first / "dataset", alone)
    for file in alone.glob("*.jsonl"):
        file.unlink()
    again = mixed(tmp_path / "b" / "mix", alone, duplicate=None)
    assert rows_of(again) == rows_of(whole)
    assert (tmp_path / "a/mix/data/rows.jsonl").read_bytes() == (
        tmp_path / "b/mix/data/rows.jsonl"
    ).read_bytes()


def test_preferences_stay_lists_of_messages(tmp_path: Path) -> None:
    columns = {
        "prompt": [{"user": "{{ doc }}"}],
        "chosen": [{"assistant": "{{ answer }}"}],
        "rejected": [{"assistant": "No."}],
    }
    first = run_it(loaded(tmp_path / "one", recipe(name="one", record=columns), name="one")).dir
    result = mixed(tmp_path / "mix", first, duplicate=None)
    before = read_jsonl(first / "dataset" / "train.jsonl")
    assert [{name: row[name] for name in columns} for row in rows_of(result)] == [
        {name: row[name] for name in columns} for row in before
    ]
    [shard] = (result.dir / "dataset" / "data").glob("*.parquet")
    table = pq.read_table(shard)
    assert table.schema.field("chosen").type == table.schema.field("prompt").type
    assert table["chosen"].to_pylist() == [row["chosen"] for row in before]


@pytest.mark.parametrize("names", [("prompt", "chosen", "rejected"), ("ask", "say")])
def test_texts_that_are_no_messages_are_not_taken_for_duplicates(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Neither for the dataset that they all are from, nor for what they all reject."""
    texts = {"rejected": "No."} | dict.fromkeys(("prompt", "ask", "chosen", "say"), "{{ doc }}")
    said = recipe(name="one", record={name: texts[name] for name in names})
    first = run_it(loaded(tmp_path / "one", said, rows=docs(12), name="one")).dir
    assert mixed(tmp_path / "mix", first, first).kept == 12


def test_names_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x", tmp_path / "b" / "x" / "dataset", tmp_path / "c" / "x"]
    assert [name for _, name in named(paths)] == ["x", "x-2", "x-3"]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    first = made(tmp_path, "one", 3)
    with pytest.raises(UsageError, match="holds no finished dataset"):
        given(tmp_path, "nothing")
    other = run_it(
        loaded(
            tmp_path / "t", recipe(name="t", record={"topic": {"value": "1", "type": "integer"}}), name="t"
        )
    ).dir
    with pytest.raises(UsageError, match="`topic` is text in one and integer in t"):
        mixed(tmp_path / "mix", first, other)
    assert not (tmp_path / "mix").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UsageError, match="there already and not empty"):
        mixed(tmp_path / "full", first)
    lines = first / "dataset" / "provenance" / "train.jsonl"
    lines.write_text("".join(reversed(lines.read_text().splitlines(keepends=True))))
    with pytest.raises(UsageError, match="the rows of train differ"):
        mixed(tmp_path / "mix", first)
    assert not any((tmp_path / "mix").iterdir())


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from synthgen.cli import main

    first, second = made(tmp_path, "one", 20), made(tmp_path, "two", 20, start=100)

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["synthgen", "mix", *arguments])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    out = tmp_path / "out"
    given_ = (str(first), str(second), "-o", str(out), "--weight", "two=4", "--keep-duplicates", "--json")
    assert command(*given_) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kept"] == 25
    assert said["balance"]["row.dataset"]["two"]["kept"] == 20
    assert (out / "recipes" / "mix.yaml").is_file()
    assert command(str(first), "-o", str(tmp_path / "x"), "--weight", "tow=1") == 2
    assert command(str(first), "-o", str(tmp_path / "x"), "--weight", "one=0") == 2
    assert "Traceback" not in capsys.readouterr().err
    rows = first / "dataset" / "train.jsonl"
    rows.write_text(rows.read_text().replace("document", "monument", 1))
    assert command(str(first), "-o", str(tmp_path / "x")) == 1
    assert "is not what was published: train.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_licence_that_is_unknown_stays_unknown(tmp_path: Path) -> None:
    stated = {"doc": {"path": "data/docs.jsonl", "field": "text", "licence": "Apache-2.0"}}
    other = {"doc": {"path": "data/docs.jsonl", "field": "text", "licence": "MIT"}}
    one, two = made(tmp_path, "one", 5, seeds=stated), made(tmp_path, "two", 5, start=50, seeds=other)
    bare = made(tmp_path, "bare", 5, start=100, seeds={"doc": {"path": "data/docs.jsonl", "field": "text"}})

    def front(result: RunResult) -> str:
        return (result.dir / "dataset" / "README.md").read_text().split("---\n")[1]

    both = mixed(tmp_path / "both", one, two)
    assert 'license_name: "Apache-2.0 AND MIT"' in front(both)
    again = mixed(tmp_path / "again", both.dir, one)
    assert 'license_name: "Apache-2.0 AND MIT"' in front(again)
    for place, paths in (("with", (one, bare)), ("through", (mixed(tmp_path / "part", one, bare).dir, two))):
        assert "license: unknown" in front(mixed(tmp_path / place, *paths))


def test_what_of_the_datasets_is_not_in_the_mix_is_said(tmp_path: Path) -> None:
    one = made(tmp_path, "one", 12, output={"split": {"train": 0.5, "test": 0.5}})
    plain = recipe(name="two", record={"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}]})
    two = run_it(loaded(tmp_path / "two", plain, rows=5, name="two")).dir
    columns, splits, licence = notices([given(path, name) for path, name in named([one, two])])
    assert columns.startswith("`topic`, `size`, `more` of one are left behind")
    assert "splits" in splits
    assert licence == "the licence of the mix is unknown, as that of one, two is"
    assert [name for _, name in named([tmp_path / "a/versions/2", tmp_path / "a/versions/2/dataset"])] == [
        "a-v2",
        "a-v2-2",
    ]


def test_datasets_without_rows_leave_nothing_behind(tmp_path: Path) -> None:
    empty = run_it(
        loaded(tmp_path / "one", recipe(name="one", filters=[{"words": {"min": 999}}]), name="one")
    )
    place = tmp_path / "mix"
    for _ in range(2):
        with pytest.raises(UsageError, match="have no rows"):
            make_project(place, [given(empty.dir, "one")], {}, None, None)
