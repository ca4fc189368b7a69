"""Texts that are nearly the same are in one split, whatever comes when."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import driver
from synthgen.audit.verify import verify
from synthgen.errors import RecipeError
from synthgen.filters.straddle import straddle
from synthgen.measure import Measurement
from synthgen.record import Record
from synthgen.recurate import recurate
from synthgen.run_result import RunResult
from synthgen.splits import Splits
from synthgen.workers import InProcess
from tests.support import adds_up, loaded, read_jsonl, recipe, run_it

SHARES = {"train": 0.5, "test": 0.5}


def sentence(first: int, last: int) -> str:
    """Of words that stand for numbers: with 10 to 19 words texts are compared as sets of words."""
    return " ".join(f"word{number}" for number in range(first, last + 1))


def likeness(one: str, other: str) -> float:
    a, b = set(one.split()), set(other.split())
    return len(a & b) / len(a | b)


# The second is like both others, which are not like each other.
LEFT, BRIDGE, RIGHT = sentence(1, 12), sentence(2, 13), sentence(4, 15)


def ids(split: str, count: int) -> list[str]:
    """Ids that by themselves go to a split."""
    by_id = Splits(SHARES)
    return [id for number in range(1000) if by_id.of(id := f"{number:032x}") == split][:count]


class Judged:
    """What curation does with some texts, in order."""

    def __init__(self, **params: Any) -> None:
        self.measure: Any = straddle.make({"shares": SHARES, **params}, max=1)
        self.split: dict[str, str] = {}
        self.said: dict[str, Measurement] = {}

    def take(self, records: Sequence[tuple[str, str]], batch: int = 4) -> None:
        features = self.measure.features([Record(id, {}, {}, text) for id, text in records])
        for place, ((id, _), feature) in enumerate(zip(records, features, strict=True)):
            if place % batch == 0:
                self.measure.ahead(features[place : place + batch])
            said = self.said[id] = self.measure.resolve(id, feature)
            if said.value is None or said.value <= 1:
                self.split[id] = (said.detail or {}).get("split") or Splits(SHARES).of(id)
                self.measure.keep(id, feature)


def test_the_three_texts_are_what_they_are_to_be() -> None:
    assert likeness(LEFT, BRIDGE) >= 0.7 <= likeness(BRIDGE, RIGHT)
    assert likeness(LEFT, RIGHT) < 0.7


def test_the_first_decides() -> None:
    [one], [other] = ids("train", 1), ids("test", 1)
    for first, second, split in ((one, other, "train"), (other, one, "test")):
        judged = Judged()
        judged.take([(first, LEFT), (second, BRIDGE)])
        assert judged.split == {first: split, second: split}
        assert judged.said[first] == Measurement(0)
        assert judged.said[second] == Measurement(1, {"split": split, "of": first})


def test_one_that_would_bridge_two_splits() -> None:
    [one, late], [other] = ids("train", 2), ids("test", 1)
    judged = Judged()
    judged.take([(one, LEFT), (other, RIGHT), (late, BRIDGE)])
    assert judged.split == {one: "train", other: "test"}
    assert judged.said[late] == Measurement(2, {"split": "train", "of": one, "splits": ["test", "train"]})


def test_the_same_text_goes_where_it_is() -> None:
    [one], [other] = ids("train", 1), ids("test", 1)
    judged = Judged()
    judged.take([(one, LEFT), (other, LEFT)])
    assert judged.split == {one: "train", other: "train"}


def test_records_without_text_are_not_all_alike() -> None:
    [one], [other] = ids("train", 1), ids("test", 1)
    judged = Judged()
    judged.take([(one, ""), (other, " ")])
    assert judged.split == {one: "train", other: "test"}
    assert judged.said[other].value is None


def test_similarity_is_a_parameter() -> None:
    [one], [other] = ids("train", 1), ids("test", 1)
    judged = Judged(similarity=0.9)
    judged.take([(one, LEFT), (other, BRIDGE)])
    assert judged.split == {one: "train", other: "test"}
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        straddle(similarity=0)


windows = st.lists(st.tuples(st.integers(0, 12), st.integers(10, 16)), min_size=2, max_size=25)


@settings(max_examples=60, deadline=None)
@given(windows, st.integers(1, 24), st.integers(1, 30))
def test_nothing_is_like_anything_of_another_split_and_nothing_moves(
    given: list[tuple[int, int]], at: int, batch: int
) -> None:
    records = [(f"{number:032x}", sentence(first, first + n)) for number, (first, n) in enumerate(given)]
    texts = dict(records)
    whole = Judged()
    whole.take(records, batch)
    assert whole.split.keys() == {id for id, said in whole.said.items() if (said.value or 0) <= 1}
    for one, other in combinations(whole.split, 2):
        if whole.split[one] != whole.split[other]:
            assert likeness(texts[one], texts[other]) < 0.7
    for said in whole.said.values():
        if said.value:
            assert (said.detail or {})["of"] in whole.split
    before = Judged()
    before.take(records[:at], batch)
    assert before.split == {id: split for id, split in whole.split.items() if id in before.said}
    resumed = Judged()
    kept = [(id, text) for id, text in records[:at] if id in before.split]
    features = resumed.measure.features([Record(id, {}, {}, text) for id, text in kept])
    for (id, _), feature in zip(kept, features, strict=True):  # what curation recalls, it does not resolve
        resumed.measure.keep(id, feature)
    resumed.take(records[at:], batch)
    assert {**before.split, **resumed.split} == whole.split
    assert {**before.said, **resumed.said} == whole.said


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


def curated(root: Path, texts: Sequence[str], **parts: Any) -> RunResult:
    rows = [{"prompt": f"number{place}", "completion": text} for place, text in enumerate(texts)]
    said = recipe(
        seeds={"row": {"path": "data/docs.jsonl"}},
        record={"from": "row"},
        steps=None,
        model=None,
        **{"output": {"split": SHARES}, **parts},
    )
    return run_it(loaded(root, said, rows=rows), directory=root / "run")


def texts_by_split(result: RunResult) -> dict[str, list[str]]:
    return {
        split: [
            row["messages"][-1]["content"] for row in read_jsonl(result.dir / "dataset" / f"{split}.jsonl")
        ]
        for split in SHARES
    }


# Families of ten texts: within one each is like those next to it, and some come before those between them.
FAMILIES = [
    sentence(100 * family + place, 100 * family + place + 15)
    for family in range(12)
    for place in (0, 4, 8, 2, 6, 1, 3, 5, 7, 9)
]


@pytest.mark.usefixtures("_in_process")
def test_a_dataset_with_splits(tmp_path: Path) -> None:
    result = curated(tmp_path, FAMILIES)
    assert adds_up(result)
    assert result.dropped == result.filters["straddle"]["dropped"] > 0
    found = texts_by_split(result)
    assert all(found.values())
    assert sum(map(len, found.values())) == result.kept
    for one in found["train"]:
        for other in found["test"]:
            assert likeness(f"{one} a", f"{other} b") < 0.7  # the questions differ
    moved = 0
    for split in SHARES:
        for line in read_jsonl(result.dir / "dataset" / "provenance" / f"{split}.jsonl"):
            said = line["measurements"]["straddle"]
            assert (said.get("detail") or {}).get("split", split) == split
            moved += Splits(SHARES).of(line["id"]) != split
    assert moved > 0
    for row in read_jsonl(result.dir / "dropped.jsonl"):
        assert row["dropped_by"]["filter"] == "straddle"
        assert row["dropped_by"]["detail"]["splits"] == ["test", "train"]
    assert "| straddle | both |  | 1 | drop |" in (result.dir / "dataset" / "README.md").read_text()
    assert verify(result.dir).intact


@pytest.mark.usefixtures("_in_process")
def test_rows_that_come_later_move_nothing(tmp_path: Path) -> None:
    small = texts_by_split(curated(tmp_path / "small", FAMILIES[:70]))
    large = texts_by_split(curated(tmp_path / "large", FAMILIES))
    for split in SHARES:
        assert large[split][: len(small[split])] == small[split]


@pytest.mark.usefixtures("_in_process")
def test_new_bounds_and_other_parts(tmp_path: Path) -> None:
    result = curated(tmp_path, FAMILIES)
    done = recurate(result.dir, ["straddle.max=null", "straddle.min=0"], project=tmp_path)
    assert done.result.dropped == 0
    stricter = recurate(result.dir, ["straddle.similarity=0.99"], project=tmp_path)
    assert stricter.result.dropped == 0
    by_id = Splits(SHARES)
    for split in SHARES:
        for row in read_jsonl(stricter.result.dir / "dataset" / f"{split}.jsonl"):
            assert by_id.of(row["id"]) == split
    named = curated(
        tmp_path / "named", FAMILIES, filters=[{"straddle": {"of": "instruction"}}, {"words": {"min": 1}}]
    )
    assert list(named.filters) == ["straddle", "words"]
    assert named.dropped == 0
    assert verify(done.result.dir).intact


@pytest.mark.usefixtures("_in_process")
def test_one_split_has_no_such_filter(tmp_path: Path) -> None:
    assert curated(tmp_path, FAMILIES[:3], output={"split": {"train": 1.0}}).filters == {}


def test_a_mistake_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="similarity must be above 0"):
        curated(tmp_path, FAMILIES[:3], filters=[{"straddle": {"similarity": 2.0}}])
