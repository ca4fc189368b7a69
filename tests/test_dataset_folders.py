"""Folders that hold datasets: as hubs lay them out, as `datasets` saves them, and as synthgen writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen.dataset_folders import data_files
from tests.support import FakeEngine, answers, jsonl, loaded, problems, project, recipe, run_it, write

CHATS = [
    {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
    for n in range(4)
]


def names(folder: Path, split: str | None = None) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in data_files(folder, split)]


def curating(root: Path, **seed: Any) -> Path:
    said = recipe(
        model=None, steps=None, seeds={"row": {"path": "data/set", **seed}}, record={"from": "row"},
        filters=[{"words": {"min": 0}}],
    )  # fmt: skip
    return project(root, said, rows=0)


def parquet(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def arrow(path: Path, rows: list[Any], *, indexed: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    opened = pa.ipc.new_file if indexed else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def test_a_dataset_of_a_hub(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set"
    parquet(folder / "data" / "train-00000-of-00002.parquet", CHATS[:1])
    parquet(folder / "data" / "train-00001-of-00002.parquet", CHATS[1:2])
    parquet(folder / "data" / "test-00000-of-00001.parquet", CHATS[2:])
    write(folder, {"README.md": "# Chats", ".gitattributes": "x", "dataset_infos.json": "{}"})
    assert names(folder, "test") == ["data/test-00000-of-00001.parquet"]
    whole = run_it(curating(tmp_path))
    assert sorted(answers(whole.dir)) == ["a0", "a1", "a2", "a3"]
    assert len(names(folder, "train")) == 2


@pytest.mark.parametrize("indexed", [False, True])
def test_a_dataset_that_was_saved_to_disk(tmp_path: Path, indexed: bool) -> None:
    folder = tmp_path / "data" / "set"
    for split, rows in (("train", CHATS[:3]), ("test", CHATS[3:])):
        arrow(folder / split / "data-00000-of-00001.arrow", rows, indexed=indexed)
        write(folder / split, {"state.json": "{}", "dataset_info.json": "{}"})
    write(folder, {"dataset_dict.json": json.dumps({"splits": ["train", "test"]})})
    result = run_it(curating(tmp_path, split="train"))
    assert answers(result.dir) == ["a0", "a1", "a2"]


def test_what_the_card_configures(tmp_path: Path) -> None:
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'chat/*.jsonl'}\n"
        "  - {split: test, path: [held/a.jsonl, ../../secret.jsonl, /etc/passwd]}\n---\n# Chats\n"
    )
    write(
        tmp_path,
        {
            "README.md": card,
            "chat/b.jsonl": "{}",
            "chat/a.jsonl": "{}",
            "held/a.jsonl": "{}",
            "other.jsonl": "{}",
        },
    )
    assert names(tmp_path) == ["chat/a.jsonl", "chat/b.jsonl", "held/a.jsonl"]
    assert names(tmp_path, "test") == ["held/a.jsonl"]
    assert names(tmp_path, "dev") == []


@pytest.mark.parametrize(
    "head",
    ["---\nconfigs: 3\n---\n", "---\nconfigs: [3]\n---\n", "---\n: [\n---\n", "---\n- x\n---\n", "---\n"],
)
def test_a_card_that_configures_nothing(tmp_path: Path, head: str) -> None:
    write(tmp_path, {"README.md": head, "train.jsonl": "{}"})
    assert names(tmp_path) == ["train.jsonl"]


def test_a_dataset_that_synthgen_wrote(tmp_path: Path) -> None:
    """Its rows, once, and not those of its provenance."""
    first = run_it(
        loaded(tmp_path / "first", recipe(output={"split": {"train": 0.5, "test": 0.5}}), rows=8),
        FakeEngine(),
    )
    folder = tmp_path / "data" / "set"
    folder.parent.mkdir()
    (first.dir / "dataset").rename(folder)
    assert {path.suffix for path in data_files(folder)} == {".parquet"}
    again = run_it(curating(tmp_path))
    assert again.kept == 8


def test_notes_without_rows_are_texts(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "A", "b.txt": "B", ".hidden": "C", "sub/c.md": "D"})
    assert names(tmp_path) == ["a.md", "b.txt"]


def test_one_format_is_taken_where_there_are_several(tmp_path: Path) -> None:
    write(tmp_path, {"train.jsonl": "{}", "train.csv": "a\n1\n", "test.jsonl": "{}", "trained.jsonl": "{}"})
    assert names(tmp_path, "train") == ["train.jsonl"]
    assert names(tmp_path) == ["test.jsonl", "train.jsonl", "trained.jsonl"]


def test_a_link_in_a_folder_may_not_lead_out(tmp_path: Path) -> None:
    write(tmp_path, {"outside.jsonl": jsonl(CHATS)})
    root = tmp_path / "project"
    path = curating(root)
    (root / "data" / "set").mkdir(parents=True)
    (root / "data" / "set" / "train.jsonl").symlink_to(tmp_path / "outside.jsonl")
    [found] = problems(path)
    assert "leads out of the project" in found.message
    write(root, {"data/blobs/abc": jsonl(CHATS)})
    (root / "data" / "set" / "train.jsonl").unlink()
    (root / "data" / "set" / "train.jsonl").symlink_to(root / "data" / "blobs" / "abc")
    assert run_it(path).kept == 4


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"data/set/train.jsonl": jsonl(CHATS)})
    [found] = problems(curating(tmp_path, split="test"))
    assert "there is no file data/set of the split test" in found.message


def test_what_is_no_arrow(tmp_path: Path) -> None:
    write(tmp_path, {"data/set/train.arrow": "no"})
    [found] = problems(curating(tmp_path))
    assert "is not Arrow" in found.message
