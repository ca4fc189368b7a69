"""A publisher in bad faith, without a key: whatever he edits, he lets manifests, roots and counts fit again.

What no signature binds must at least agree with itself, in every file that people read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen.audit.croissant import croissant_of
from synthgen.audit.material import Material
from synthgen.audit.verify import verify
from synthgen.provenance.merkle import leaf_hash, root_of
from synthgen.recurate import recurate
from tests.audit.test_verify import AS_WRITTEN, found
from tests.support import loaded, recipe, run_it, tree

TABLE = "provenance/train-00000-of-00001.parquet"
ROWS = "data/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    said = recipe(filters=[{"words": {"min": 5}}], output={"split": {"train": 0.7, "test": 0.3}})
    return run_it(loaded(root, said, rows=40), directory=root / "run").dir


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_lines(path: Path, said: list[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in said))


def fitting(dataset: Path) -> None:
    """Everything in the manifest again as it is now: files, digests, rows, root, counts."""
    ledger = (dataset / "provenance" / "ledger.jsonl").read_bytes().splitlines()
    states = [json.loads(line)["state"] for line in ledger]
    path = dataset / "manifest.json"
    envelope = json.loads(path.read_bytes())
    said = json.loads(base64.b64decode(envelope["payload"]))
    said["subject"] = []
    for name, data in sorted(tree(dataset).items()):
        if name == "manifest.json":
            continue
        about: dict[str, Any] = {"bytes": len(data)}
        if name.endswith(".jsonl"):
            about["rows"] = data.count(b"\n")
        if name.endswith(".parquet"):
            about["rows"] = pq.read_metadata(dataset / name).num_rows
        digest = {"sha256": hashlib.sha256(data).hexdigest()}
        said["subject"].append({"name": name, "digest": digest, "annotations": about})
    said["predicate"]["ledger"] |= {
        "size": len(ledger),
        "root": root_of(map(leaf_hash, ledger)).hex(),
        **{state: states.count(state) for state in ("kept", "dropped", "failed")},
    }
    envelope["payload"] = base64.b64encode(orjson.dumps(said)).decode()
    path.write_bytes(orjson.dumps(envelope, option=AS_WRITTEN))


def restated(dataset: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Edit what is stated of train's rows, and let the ledger have that."""
    path = dataset / "provenance" / "train.jsonl"
    said = lines_of(path)
    edit(said)
    write_lines(path, said)
    now = {each["id"]: each for each in said}
    ledger = lines_of(dataset / "provenance" / "ledger.jsonl")
    for entry in ledger:
        if entry["id"] in now:
            entry["statement"] = hashlib.sha256(orjson.dumps(now[entry["id"]])).hexdigest()
    write_lines(dataset / "provenance" / "ledger.jsonl", ledger)


def edited(path: Path, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path, compression="zstd")


def test_files_that_fit_again_are_intact(place: Path) -> None:
    """So that whatever is found below is found for its own sake."""
    fitting(place / "dataset")
    assert verify(place / "dataset").intact


def licence(rows: list[dict[str, Any]]) -> None:
    rows[3]["sources"][0]["licence"] = "cc0-1.0"


def value(rows: list[dict[str, Any]]) -> None:
    rows[3]["measurements"][0]["value"] = 99.0


def bound(rows: list[dict[str, Any]]) -> None:
    rows[3]["measurements"][0]["min"] = 1.0


def synthetic(rows: list[dict[str, Any]]) -> None:
    rows[3]["synthetic"] = False


def salt(rows: list[dict[str, Any]]) -> None:
    rows[3]["salt"] = "0" * 32


def swapped(rows: list[dict[str, Any]]) -> None:
    rows[3], rows[4] = rows[4], rows[3]


def doubled(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[-1])


def less(rows: list[dict[str, Any]]) -> None:
    del rows[5]


@pytest.mark.parametrize(
    "edit", [licence, value, bound, synthetic, salt, swapped, doubled, less], ids=lambda each: each.__name__
)
def test_provenance_as_a_table_says_what_the_statements_say(place: Path, edit: Callable[..., None]) -> None:
    edited(place / "dataset" / TABLE, edit)
    fitting(place / "dataset")
    assert "provenance/train-*.parquet" in found(verify(place / "dataset"))


def test_a_table_of_provenance_with_another_column(place: Path) -> None:
    path = place / "dataset" / TABLE
    table = pq.read_table(path)
    pq.write_table(table.append_column("quality", pa.array([1.0] * table.num_rows)), path)
    fitting(place / "dataset")
    assert "provenance/train-*.parquet" in found(verify(place / "dataset"))


@pytest.mark.parametrize(
    "name",
    ["data/extra-00000-of-00001.parquet", "data/train-more.parquet", "extra.jsonl", "data/x.csv",
     "provenance/extra-00000-of-00001.parquet", "notes.txt", "loader.py", "Train.jsonl", "train.jsonl\u200b"],
)  # fmt: skip
def test_a_file_that_no_split_has(place: Path, name: str) -> None:
    """Rows that no ledger knows, or a loading script, named in the manifest as if they belonged."""
    source = place / "dataset" / (ROWS if name.endswith(".parquet") else "train.jsonl")
    shutil.copy(source, place / "dataset" / name)
    fitting(place / "dataset")
    verdict = verify(place / "dataset")
    assert not verdict.intact
    assert name.split("-", maxsplit=1)[0].split("\u200b", maxsplit=1)[0] in found(verdict)


def test_a_record_that_is_there_twice(place: Path) -> None:
    dataset = place / "dataset"
    paths = [dataset / "train.jsonl", dataset / "provenance" / "train.jsonl"]
    id = lines_of(paths[0])[-1]["id"]
    for path in [*paths, dataset / "provenance" / "ledger.jsonl"]:
        said = lines_of(path)
        write_lines(path, said + [each for each in said if each["id"] == id])
    for name in (ROWS, TABLE):
        edited(dataset / name, doubled)
    fitting(dataset)
    assert "twice" in found(verify(dataset))


@pytest.mark.parametrize(
    ("column", "values"),
    [("score", pa.array([0.5, float("nan"), 1.5])), ("when", pa.array([0, 0, 0], pa.timestamp("s"))),
     ("score", pa.array([0.5, None, 1.5], pa.float32())),
     ("when", pa.array(["1970-01-01T00:00:00"] * 3, pa.large_string()))],
)  # fmt: skip
def test_parquet_that_reads_otherwise_than_as_json(tmp_path: Path, column: str, values: Any) -> None:
    """NaN in the place of no value, or a date in the place of a text, are the same as JSON alone."""
    said = {
        "version": 1, "name": "a", "seeds": {"row": {"path": "data/docs.jsonl"}},
        "record": {
            "text": "{{ row.text }}", "when": "{{ row.when }}",
            "score": {"value": "row.score", "type": "number"},
        },
    }  # fmt: skip
    rows = [{"text": f"document {n}", "when": "1970-01-01T00:00:00", "score": n} for n in (0.5, None, 1.5)]
    dataset = run_it(loaded(tmp_path, said, rows=rows), directory=tmp_path / "run").dir / "dataset"
    assert verify(dataset).intact
    table = pq.read_table(dataset / ROWS)
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, values), dataset / ROWS)
    fitting(dataset)
    assert "data/train-*.parquet" in found(verify(dataset))


def bounds_widened(said: list[dict[str, Any]]) -> None:
    for each in said:
        each["measurements"]["words"]["min"] = 1.0


def outside_its_bound(said: list[dict[str, Any]]) -> None:
    said[2]["measurements"]["words"]["value"] = 2.0


def dropped_and_kept(said: list[dict[str, Any]]) -> None:
    said[2]["dropped_by"] = "words"


def verdict_of_drop(said: list[dict[str, Any]]) -> None:
    said[2]["measurements"]["words"]["verdict"] = "drop"


def one_key_more(said: list[dict[str, Any]]) -> None:
    said[2]["endorsed"] = True


def unmeasured(said: list[dict[str, Any]]) -> None:
    del said[2]["measurements"]["words"]


def no_number(said: list[dict[str, Any]]) -> None:
    said[2]["measurements"]["words"]["value"] = "9"


def other_file(said: list[dict[str, Any]]) -> None:
    said[2]["sources"][0]["path"] = "data/licensed.jsonl"


def other_licence(said: list[dict[str, Any]]) -> None:
    said[2]["sources"][0]["licence"] = "cc0-1.0"


def reordered(said: list[dict[str, Any]]) -> None:
    said[2]["task"], said[3]["task"] = said[3]["task"], said[2]["task"]


@pytest.mark.parametrize(
    "edit",
    [bounds_widened, outside_its_bound, dropped_and_kept, verdict_of_drop, one_key_more, unmeasured,
     no_number, other_file, other_licence, reordered],
    ids=lambda each: each.__name__,
)  # fmt: skip
def test_statements_that_do_not_agree_with_themselves_or_the_lock(
    place: Path, edit: Callable[..., None]
) -> None:
    restated(place / "dataset", edit)
    (place / "dataset" / TABLE).unlink()
    fitting(place / "dataset")
    assert "provenance/train.jsonl" in found(verify(place / "dataset"))


@pytest.mark.parametrize(
    ("old", "new", "alone"),
    [("min: 5", "min: 500", True), ("name: words", "name: toxicity", True), ("filters:", "more:", True),
     ("fake-model", "large-model", False), ("code_sha256: ", "code_sha256: 0", False),
     ("some-model", "large-model", True), ("train: 0.7", "trian: 0.7", True),
     ("data/docs.jsonl", "data/owned.jsonl", True)],
)  # fmt: skip
def test_a_lock_that_says_something_else(place: Path, old: str, new: str, alone: bool) -> None:
    """Of what no statement repeats, a dataset alone cannot know; the run's journal has the lock's digest."""
    path = place / "dataset" / "provenance" / "recipe.lock.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    shutil.copy(path, place / "recipe.lock.yaml")
    (place / "dataset" / "croissant.json").unlink()
    fitting(place / "dataset")
    assert "recipe.lock.yaml" in found(verify(place))
    assert verify(place / "dataset").intact is not alone


@pytest.mark.parametrize("change", ["licence", "digest", "rows", "split"])
def test_croissant_that_says_something_else(place: Path, change: str) -> None:
    path = place / "dataset" / "croissant.json"
    said = json.loads(path.read_bytes())
    if change == "licence":
        said["license"] = ["cc0-1.0"]
    elif change == "digest":
        said["distribution"][0]["sha256"] = "0" * 64
    elif change == "rows":
        said["description"] = said["description"].replace("rows", "good rows")
    else:
        said["recordSet"].pop()
    path.write_bytes(orjson.dumps(said, option=AS_WRITTEN))
    fitting(place / "dataset")
    assert "croissant.json" in found(verify(place / "dataset"))


def test_croissant_as_it_was_written_at_first(place: Path) -> None:
    dataset = place / "dataset"
    material = Material(dataset)
    first = croissant_of(material.manifest, material.lock, material.splits, synthetic=True, earlier=True)
    assert {item["@id"] for item in first["recordSet"]} == {"train", "test"}
    (dataset / "croissant.json").write_bytes(orjson.dumps(first, option=AS_WRITTEN))
    fitting(dataset)
    assert verify(dataset).intact
    first["recordSet"].pop()
    (dataset / "croissant.json").write_bytes(orjson.dumps(first, option=AS_WRITTEN))
    fitting(dataset)
    assert "croissant.json" in found(verify(dataset))


@pytest.mark.parametrize(
    ("old", "new"),
    [("data/train-*.parquet", "https://elsewhere.example/rows.parquet"), ("n<1K", "1M<n<10M"),
     ("- split: test", "- split: validation"), ("license: unknown", "license: cc0-1.0"),
     ("- synthetic\n", ""), ("  data_files:", "  data_dir: elsewhere\n  data_files:"), ("---", "***")],
)  # fmt: skip
def test_a_card_that_says_something_else(place: Path, old: str, new: str) -> None:
    path = place / "dataset" / "README.md"
    text = path.read_text()
    assert old in text, text
    path.write_text(text.replace(old, new))
    fitting(place / "dataset")
    assert "README.md" in found(verify(place))


@pytest.mark.parametrize("name", ["run.sqlite", "run.lock", "run.sqlite-wal", "versions/3/x", "dataset2"])
def test_a_version_holds_no_more_than_a_version(place: Path, name: str) -> None:
    version = recurate(place, ["words.min=4"], project=place).result.dir
    assert verify(place).versions == ["2"]
    assert verify(place).intact
    (version / name).parent.mkdir(parents=True, exist_ok=True)
    (version / name).write_bytes(b"x")
    assert f"versions/2/{name.split('/', maxsplit=1)[0]}" in found(verify(place))


def test_a_version_that_is_gone(place: Path) -> None:
    version = recurate(place, ["words.min=4"], project=place).result.dir
    shutil.rmtree(version)
    assert "versions/2: is missing" in found(verify(place))
    shutil.rmtree(version.parent)
    assert "versions/2: is missing" in found(verify(place))


def test_splits_of_which_one_begins_like_another(tmp_path: Path) -> None:
    said = recipe(output={"split": {"train": 0.5, "train-2": 0.5}})
    dataset = run_it(loaded(tmp_path, said, rows=40), directory=tmp_path / "run").dir / "dataset"
    verdict = verify(dataset)
    assert verdict.intact, found(verdict)
    card = (dataset / "README.md").read_text()
    [glob] = [line.split()[-1] for line in card.splitlines() if "path: data/train-?" in line]
    assert [path.name for path in dataset.glob(glob)] == ["train-00000-of-00001.parquet"]
