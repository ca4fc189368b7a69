"""Croissant as mlcroissant judges it and reads the rows by it, without a network."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from synthgen import driver
from synthgen.export import rows as row_files
from synthgen.export.croissant import CROISSANT
from synthgen.workers import InProcess
from tests.support import loaded, read_jsonl, recipe, run_it

LICENSED = {"doc": {"path": "data/docs.jsonl", "field": "text", "licence": "CC0-1.0"}}
SPLITS = {"train": 0.7, "test": 0.3}
BOTH, PARQUET, JSONL = ["parquet", "jsonl"], ["parquet"], ["jsonl"]
# What is recommended and nobody stated: nothing is made up.
UNSTATED = {"citeAs", "datePublished", "version"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


def dataset(root: Path, said: Mapping[str, Any], rows: int | Sequence[Any] = 12) -> Path:
    return run_it(loaded(root, said, rows=rows), directory=root / "run").dir / "dataset"


def opened(folder: Path, unstated: set[str] = UNSTATED) -> Any:
    """The dataset as mlcroissant has it, which finds nothing wrong with it."""
    import mlcroissant  # here, since the environment of the tests with vLLM does not have it

    found = mlcroissant.Dataset(folder / CROISSANT)
    issues = found.metadata.ctx.issues
    assert not issues.errors
    assert {text.split('"')[1].rpartition("/")[2] for text in issues.warnings} == unstated
    assert all("is recommended, but does not exist" in text for text in issues.warnings)
    return found


def plain(value: Any) -> Any:
    """What mlcroissant reads, with names for ids and texts for their bytes."""
    if isinstance(value, Mapping):
        return {name.rpartition("/")[2]: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def read(found: Any, name: str) -> list[dict[str, Any]]:
    return [plain(record) for record in found.records(name)]


def shards(folder: Path, split: str) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob(f"{split}-*")) for row in pq.read_table(file).to_pylist()]


def described(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows but for what Croissant does not tell of: that messages call tools."""

    def bare(value: Any) -> Any:
        listed = isinstance(value, list) and value and isinstance(value[0], dict)
        return [{name: each[name] for name in ("role", "content")} for each in value] if listed else value

    return [{name: bare(value) for name, value in row.items()} for row in rows]


def call(name: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": name, "arguments": '{"zone": "é"}'}}


CALLING = [
    {
        "messages": [
            {"role": "user", "content": "When?"},
            {"role": "assistant", "content": "", "tool_calls": [call("now"), call("then")]},
            {"role": "tool", "content": "3", "tool_call_id": "now", "name": "now"},
            {"role": "assistant", "content": "At 3.\n\u2028 \U0001f600"},
        ],
        "tools": [{"name": "now", "parameters": {"type": "object"}}],
    },
    {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        "tools": None,
    },
]
TYPED = {
    "messages": [{"system": "Be brief."}, {"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}],
    "share": {"value": "(doc | length) * 0.5", "type": "number"},
    "length": {"value": "doc | length", "type": "integer"},
    "even": {"value": "(doc | length) % 2 == 0", "type": "boolean"},
    "note": "of {{ doc }}",
}
PREFERENCE = {
    "prompt": [{"user": "{{ doc }}"}],
    "chosen": [{"assistant": "{{ answer }}"}],
    "rejected": [{"assistant": "not {{ answer }}"}],
}
PAIRS = {
    "prompt": "{{ doc }}",
    "completion": "{{ answer }}",
    "about": {"value": "{'of': doc}", "type": "json"},
}
KINDS: dict[str, Any] = {
    "typed": (recipe(record=TYPED, filters=[{"words": {"max": 99}}]), 30),
    "preference": (recipe(record=PREFERENCE, filters=[{"words": {"min": 6}}]), 30),
    "pairs": (recipe(record=PAIRS), 12),
    "calls": (
        recipe(
            model=None,
            steps=None,
            seeds={"doc": {"path": "data/docs.jsonl"}},
            record={"from": "doc", "tools": {"value": "doc.tools", "type": "tools"}},
        ),
        CALLING * 6,
    ),
}


@pytest.mark.parametrize("formats", [BOTH, PARQUET, JSONL])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_by_it_is_what_is_there(tmp_path: Path, kind: str, formats: list[str]) -> None:
    said, rows = KINDS[kind]
    seeds = {"doc": {**said["seeds"]["doc"], "licence": "CC0-1.0"}}
    made = dataset(tmp_path, {**said, "seeds": seeds, "output": {"split": SPLITS, "formats": formats}}, rows)
    found = opened(made)
    stated = [f"provenance/{split}" for split in sorted(SPLITS) if "parquet" in formats]
    assert [each.uuid for each in found.metadata.record_sets] == [*sorted(SPLITS), *stated]
    for split in SPLITS:
        of_file = (
            shards(made / "data", split) if "parquet" in formats else read_jsonl(made / f"{split}.jsonl")
        )
        assert of_file
        if "parquet" not in formats:
            for row in of_file:  # of values that may be any JSON Croissant has no type
                row.pop("tools", None)
                row.pop("about", None)
        assert read(found, split) == described(of_file)
    for name in stated:
        rows_of = shards(made / "provenance", name.removeprefix("provenance/"))
        assert read(found, name) == rows_of
        assert [row["id"] for row in rows_of] == [
            row["id"] for row in read(found, name.removeprefix("provenance/"))
        ]


def test_several_shards_are_one_record_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "GROUP_ROWS", 4)
    monkeypatch.setattr(row_files, "SHARD_BYTES", 400)
    # the files of one split fit the other's name: "a" and "a-b"
    made = dataset(tmp_path, recipe(seeds=LICENSED, output={"split": {"a": 0.5, "a-b": 0.5}}), 40)
    assert len(list((made / "data").iterdir())) > 4
    found = opened(made)
    for split in ("a", "a-b"):
        rows = shards(made / "data", f"{split}-?????-of")
        assert len(rows) > 8
        assert read(found, split) == rows
        assert read(found, f"provenance/{split}") == shards(made / "provenance", f"{split}-?????-of")


def test_sources_of_every_kind_are_read(tmp_path: Path) -> None:
    text = "".join(f"# Part {number}\n\nWords of part {number}, and some more.\n\n" for number in range(6))
    said = recipe(
        seeds={"part": {"path": "data/book.md", "chunk": {"words": 8}, "licence": "CC-BY-4.0"}},
        steps=[{"answer": {"prompt": {"user": "{{ part.text }}"}}}],
        record={"messages": [{"user": "{{ part.text }}"}, {"assistant": "{{ answer }}"}]},
        output={"provenance": "column"},
    )
    path = loaded(tmp_path, said, files={"data/book.md": text})
    made = run_it(path, directory=tmp_path / "run").dir / "dataset"
    found = opened(made)
    rows = read(found, "provenance/train")
    assert rows == shards(made / "provenance", "train")
    assert {source["heading"][0] for row in rows for source in row["sources"]} >= {"Part 0", "Part 5"}
    column = [orjson.loads(row["provenance"]) for row in read(found, "train")]
    assert [each["id"] for each in column] == [row["id"] for row in rows]


def test_records_as_sources_are_read(tmp_path: Path) -> None:
    said = recipe(
        seeds={"row": {"path": "data/docs.jsonl", "licence": "CC0-1.0"}},
        steps=[{"answer": {"prompt": {"user": "{{ row.text }}"}}}],
        record={"messages": [{"user": "{{ row.text }}"}, {"assistant": "{{ answer }}"}]},
        grow={"row": {"add": "{'text': answer}", "depth": 2}},
        round=4,
    )
    made = dataset(tmp_path, said, 4)
    rows = read(opened(made), "provenance/train")
    assert rows == shards(made / "provenance", "train")
    assert {row["sources"][0]["record"] for row in rows} > {None}


@pytest.mark.parametrize("formats", [PARQUET, JSONL])
def test_a_dataset_without_rows_is_valid(tmp_path: Path, formats: list[str]) -> None:
    made = dataset(tmp_path, recipe(filters=[{"words": {"min": 99}}], output={"formats": formats}), 3)
    found = opened(made, UNSTATED | {"license"})
    for each in found.metadata.record_sets:
        assert read(found, each.uuid) == []
