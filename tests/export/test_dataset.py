"""The files of a run: the same rows in every format, digests that are right, and whole or not there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from synthgen import driver
from synthgen.audit.verify import verify
from synthgen.engines.base import Request, RequestFailed
from synthgen.export import rows as row_files
from synthgen.export import stated
from synthgen.provenance.schema import RecordStatement, Source
from synthgen.recipe import Recipe
from synthgen.run_result import RunResult
from synthgen.splits import Splits
from synthgen.workers import InProcess
from tests.support import FakeEngine, answer_of, docs, loaded, read_jsonl, recipe, run_it, tree


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


WHOLE = recipe(
    record={"messages": [{"system": "Be brief."}, {"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}],
            "topic": "{{ doc|upper }}"},
    filters=[{"words": {"min": 5}}, {"characters": {"max": 60}}],
    output={"split": {"train": 0.6, "test": 0.3, "extra": 0.1}},
    description="Rows about documents.",
)  # fmt: skip


def answer(request: Request) -> Any:
    return RequestFailed("too long") if "number 3" in str(request.messages) else answer_of(request)


def made(root: Path, said: Any = WHOLE, count: int = 30, **options: Any) -> RunResult:
    return run_it(loaded(root, said, rows=count), FakeEngine(answer), **options)


def parquet(directory: Path, split: str) -> list[dict[str, Any]]:
    shards = sorted((directory / "dataset" / "data").glob(f"{split}-*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def test_parquet_and_jsonl_hold_the_same_rows(tmp_path: Path) -> None:
    result = made(tmp_path)
    count = 0
    for split in ("train", "test", "extra"):
        rows = read_jsonl(result.dir / "dataset" / f"{split}.jsonl")
        assert parquet(result.dir, split) == rows
        assert [row["id"] for row in rows] == [
            row["id"] for row in read_jsonl(result.dir / "dataset" / "provenance" / f"{split}.jsonl")
        ]
        count += len(rows)
        for row in rows:
            assert list(row) == ["id", "messages", "topic"]
            assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
            assert row["topic"] == row["messages"][1]["content"].upper()
    assert count == result.kept > 0


def test_what_is_there(tmp_path: Path) -> None:
    result = made(tmp_path)
    data = result.dir / "dataset"
    files = (path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file())
    assert sorted(files) == sorted([
        "README.md", "croissant.json", "manifest.json", "train.jsonl", "test.jsonl", "extra.jsonl",
        *(f"{folder}/{split}-00000-of-00001.parquet" for split in ("train", "test", "extra")
          for folder in ("data", "provenance")),
        *(f"provenance/{name}.jsonl" for name in ("ledger", "train", "test", "extra")),
        "provenance/recipe.lock.yaml",
    ])  # fmt: skip
    top = {path.name for path in result.dir.iterdir()}
    assert top - {"run.sqlite-wal", "run.sqlite-shm"} == {
        "dataset", "dropped.jsonl", "failed.jsonl", "manifest.json", "recipe.lock.yaml", "run.sqlite",
        "run.lock", "sessions.jsonl", "answers.jsonl",
    }  # fmt: skip


def test_formats_can_be_chosen(tmp_path: Path) -> None:
    one = made(tmp_path, recipe(output={"formats": ["jsonl"]}))
    assert list((one.dir / "dataset").rglob("*.parquet")) == []
    two = made(tmp_path / "b", recipe(output={"formats": ["parquet"]}))
    assert not (two.dir / "dataset" / "train.jsonl").exists()
    assert len(parquet(two.dir, "train")) == two.kept
    assert "data/train-*.parquet" in (two.dir / "dataset" / "README.md").read_text()
    assert "path: train.jsonl" in (one.dir / "dataset" / "README.md").read_text()


def test_no_rows_are_files_without_rows(tmp_path: Path) -> None:
    result = made(tmp_path, recipe(filters=[{"words": {"min": 99}}]))
    assert result.kept == 0
    assert (result.dir / "dataset" / "train.jsonl").read_bytes() == b""
    (shard,) = (result.dir / "dataset" / "data").iterdir()
    table = pq.read_table(shard)
    assert (table.num_rows, table.column_names) == (0, ["id", "messages"])


def test_dropped_rows_say_why(tmp_path: Path) -> None:
    result = made(tmp_path)
    rows = read_jsonl(result.dir / "dropped.jsonl")
    assert len(rows) == result.dropped > 0
    for row in rows:
        assert list(row) == ["id", "messages", "topic", "dropped_by", "measurements"]
        by = row["dropped_by"]
        assert list(by) == ["filter", "value", "min", "max", "detail"]
        if by["filter"] == "words":
            assert (by["min"], by["max"]) == (5, None)
            assert by["value"] == len(row["messages"][-1]["content"].split()) < 5
        else:
            assert (by["min"], by["max"]) == (None, 60)
            assert by["value"] == len(row["messages"][-1]["content"]) > 60
            assert row["measurements"]["words"]["verdict"] == "pass"
        assert set(row["measurements"]) == {"words", "characters", "straddle"}
    ids = [row["id"] for row in rows]
    kept = [row["id"] for split in ("train", "test", "extra") for row in parquet(result.dir, split)]
    assert len({*ids, *kept}) == result.kept + result.dropped


def test_failed_rows_say_why(tmp_path: Path) -> None:
    result = made(tmp_path)
    rows = read_jsonl(result.dir / "failed.jsonl")
    assert [row["task"] for row in rows] == [3]
    assert list(rows[0]) == ["id", "task", "error", "attempts", "errors", "requests", "sources"]
    assert (rows[0]["attempts"], rows[0]["errors"]) == (1, ["too long"])
    assert rows[0]["error"] == "too long"
    assert rows[0]["sources"][0]["row"] == 4


def test_provenance_joins_by_id(tmp_path: Path) -> None:
    result = made(tmp_path, count=5)
    import sqlite3

    journal = sqlite3.connect(result.dir / "run.sqlite")
    keys = {key.hex() for (key,) in journal.execute("SELECT key FROM completions")}
    lines = {}
    for number, row in enumerate(docs(5), 1):
        lines[number] = row["text"]
    for split in ("train", "test", "extra"):
        content = {row["id"]: row for row in read_jsonl(result.dir / "dataset" / f"{split}.jsonl")}
        for row in read_jsonl(result.dir / "dataset" / "provenance" / f"{split}.jsonl"):
            assert set(row["requests"]) <= keys
            assert row["synthetic"] is True
            (source,) = row["sources"]
            assert source["path"] == "data/docs.jsonl"
            assert content[row["id"]]["messages"][1]["content"] == lines[source["row"]]
            body = journal.execute(
                "SELECT body FROM contents WHERE sha256 = ?", (bytes.fromhex(row["content_sha256"]),)
            ).fetchone()[0]
            assert hashlib.sha256(body).hexdigest() == row["content_sha256"]
            assert {"id": row["id"], **json.loads(body)["row"]} == content[row["id"]]


def test_provenance_as_columns_joins_by_id_too(tmp_path: Path) -> None:
    result = made(tmp_path)
    for split in ("train", "test", "extra"):
        said = read_jsonl(result.dir / "dataset" / "provenance" / f"{split}.jsonl")
        rows = pq.read_table(
            result.dir / "dataset" / "provenance" / f"{split}-00000-of-00001.parquet"
        ).to_pylist()
        assert len(said) == len(rows) > 0
        for line, row in zip(said, rows, strict=True):
            measurements = row.pop("measurements")
            assert [each["filter"] for each in measurements] == list(line["measurements"])
            for each in measurements:
                one = line["measurements"][each["filter"]]
                assert (each["value"], each["verdict"]) == (one["value"], one["verdict"])
                assert (each["min"], each["max"]) == (one.get("min"), one.get("max"))
            row["sources"] = [
                {name: value for name, value in source.items() if value is not None}
                for source in row["sources"]
            ]
            assert row == {name: value for name, value in line.items() if name != "measurements"}


def test_no_part_of_a_statement_is_missing_among_the_columns() -> None:
    """Arrow passes over keys that a schema does not have, without a word."""
    columns = stated.schema(grows=True)
    assert set(columns.names) == set(RecordStatement.model_fields)
    parts = columns.field("sources").type.value_type
    assert {parts.field(n).name for n in range(parts.num_fields)} == set(Source.model_fields)
    said = {
        "measurements": {},
        "sources": [{"seed": "row", "start": 3, "heading": ["A"], "origin": {"a": 1}}],
    }
    [source] = stated.as_row(said)["sources"]
    assert source == {"seed": "row", "start": 3, "heading": ["A"], "origin": '{"a":1}'}


def test_provenance_as_a_column_of_the_rows(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain")
    result = made(tmp_path / "column", {**WHOLE, "output": {**WHOLE["output"], "provenance": "column"}})
    same = ("provenance/ledger.jsonl", "provenance/train.jsonl", "provenance/train-00000-of-00001.parquet")
    for name in same:
        assert (result.dir / "dataset" / name).read_bytes() == (plain.dir / "dataset" / name).read_bytes()
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert parquet(result.dir, "train") == rows
    lines = (result.dir / "dataset" / "provenance" / "train.jsonl").read_text().splitlines()
    assert [row.pop("provenance") for row in rows] == lines
    assert rows == read_jsonl(plain.dir / "dataset" / "train.jsonl")
    assert verify(result.dir).intact
    for name, change in (("train.jsonl", "words"), ("data/train-00000-of-00001.parquet", "")):
        file = result.dir / "dataset" / name
        if change:
            text = file.read_text()
            file.write_text(text.replace(r"\"words\"", r"\"wards\"", 1))
            assert file.read_text() != text
        else:
            table = pq.read_table(file)
            pq.write_table(table.set_column(3, "provenance", [["{}"] * table.num_rows]), file)
        found = [finding.file for finding in verify(result.dir / "dataset").findings.shown]
        assert any(
            "its row is not the one" in finding.message for finding in verify(result.dir).findings.shown
        )
        assert name in found


def test_a_column_of_that_name_is_taken() -> None:
    said = recipe(record={"provenance": "{{ answer }}"}, output={"provenance": "column"})
    with pytest.raises(ValidationError, match="call your own something else"):
        Recipe.model_validate(said)


def test_rows_beyond_two_megabytes_are_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    said = recipe(seeds={"row": {"path": "data/docs.jsonl"}}, record={"from": "row"}, steps=None, model=None)
    long = [{"prompt": "Why?", "completion": text} for text in ("x" * 2_000_000, "short")]
    result = run_it(loaded(tmp_path, said, rows=long), directory=tmp_path / "run", on_notice=told.append)
    assert told == ["1 row is larger than 2 MB"]
    assert "- 1 row is larger than 2 MB." in (result.dir / "dataset" / "README.md").read_text()


def check_manifest(manifest: Path, folder: Path, leave_out: tuple[str, ...] = ()) -> None:
    envelope = json.loads(manifest.read_bytes())
    assert (envelope["payloadType"], envelope["signatures"]) == ("application/vnd.in-toto+json", [])
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    named = {item["name"]: item for item in statement["subject"]}
    there = {
        name: data for name, data in tree(folder).items()
        if name.split("/")[0] not in leave_out and folder / name != manifest
    }  # fmt: skip
    assert list(named) == sorted(there)
    for name, data in there.items():
        assert named[name]["digest"]["sha256"] == hashlib.sha256(data).hexdigest()
        assert named[name]["annotations"]["bytes"] == len(data)


def test_manifests_are_right(tmp_path: Path) -> None:
    result = made(tmp_path)
    check_manifest(result.dir / "dataset" / "manifest.json", result.dir / "dataset")
    check_manifest(
        result.dir / "manifest.json",
        result.dir,
        ("dataset", "run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "run.lock"),
    )


def test_nothing_of_this_machine_or_hour_is_published(tmp_path: Path) -> None:
    result = made(tmp_path)
    for name, data in tree(result.dir / "dataset").items():
        assert str(tmp_path).encode() not in data, name
        assert os.uname().nodename.encode() not in data or len(os.uname().nodename) < 4, name
        assert b"session" not in data, name
    lock = (result.dir / "recipe.lock.yaml").read_bytes()
    assert lock == (result.dir / "dataset" / "provenance" / "recipe.lock.yaml").read_bytes()


@given(st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=50, unique=True))
def test_a_rows_split_depends_on_its_id_alone(ids: list[str]) -> None:
    splits = Splits({"train": 0.9, "test": 0.1})
    assert {id: splits.of(id) for id in ids} == {id: splits.of(id) for id in reversed(ids)}


def test_splits_have_their_shares() -> None:
    splits = Splits({"train": 0.8, "test": 0.15, "extra": 0.05})
    found = [splits.of(f"{number:032x}") for number in range(4000)]
    for split, share in splits.shares.items():
        assert abs(found.count(split) - 4000 * share) < 4 * (4000 * share * (1 - share)) ** 0.5
    assert {Splits({"all": 1.0}).of(f"{number:032x}") for number in range(100)} == {"all"}


def test_a_row_stays_in_its_split_as_a_dataset_grows(tmp_path: Path) -> None:
    def where(result: RunResult) -> dict[str, str]:
        return {
            row["id"]: split
            for split in ("train", "test", "extra")
            for row in read_jsonl(result.dir / "dataset" / f"{split}.jsonl")
        }

    small, large = where(made(tmp_path, count=20)), where(made(tmp_path, count=40))
    assert len(large) > len(small)
    assert all(large[id] == split for id, split in small.items())


def test_shards_are_numbered_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "GROUP_ROWS", 4)
    monkeypatch.setattr(row_files, "SHARD_BYTES", 1200)  # of rows of some 180 bytes
    result = made(tmp_path, recipe(), count=30)
    shards = sorted(path.name for path in (result.dir / "dataset" / "data").iterdir())
    assert shards == [f"train-0000{number}-of-00004.parquet" for number in range(4)]
    assert parquet(result.dir, "train") == read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert len(parquet(result.dir, "train")) == 29


def test_rows_of_an_exact_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "GROUP_BYTES", 40)
    monkeypatch.setattr(row_files, "SHARD_BYTES", 40)
    writer = row_files.ParquetWriter(tmp_path, "train", row_files.arrow_schema({"x": "text"}))
    for number in range(8):
        writer.write({"id": str(number), "x": "y"}, b"ten bytes.")
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
