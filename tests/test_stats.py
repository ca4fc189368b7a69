"""How measurements are distributed, where bounds cut, and how right they are by labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthgen import driver
from synthgen.errors import RecipeError
from synthgen.stats import Rightness, distributions, read_labels, rightness
from synthgen.view import RunView
from synthgen.workers import InProcess
from tests.support import FakeEngine, jsonl, loaded, recipe, run_it

LENGTHS = [1, 2, 2, 3, 5, 8, 13, 21]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run whose answers have so many words each, and of which one abstains."""
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    odd = """
    from synthgen import abstain, filter

    @filter(max=10, action="flag")
    def odd(record):
        words = len(record.text.split())
        return abstain("even") if words % 2 == 0 else words
    """
    given = loaded(
        tmp_path, recipe(filters=[{"words": {"min": 3}}, "odd"]), rows=len(LENGTHS), filters={"odd": odd}
    )
    lengths = iter(LENGTHS)
    return run_it(given, FakeEngine(lambda _: " ".join(["word"] * next(lengths)), slots=1)).dir


def test_distributions(directory: Path) -> None:
    with RunView(directory) as view:
        words, odd = (each.as_json() for each in distributions(view.chain(), view.verdicts()))
    assert (words["filter"], words["min"], words["max"], words["of"]) == ("words", 3, None, "answer")
    assert (words["measured"], words["abstained"], words["outside"]) == (8, 0, 3)
    assert words["quantiles"] == {
        "0": 1, "0.05": 1, "0.25": 2, "0.5": 5, "0.75": 8, "0.95": 21, "1": 21,
    }  # fmt: skip
    assert sum(each["count"] for each in words["histogram"]) == 8
    assert [each["count"] for each in words["histogram"] if each["count"]] == [1, 2, 1, 1, 1, 1, 1]
    assert words["histogram"][-1]["to"] == pytest.approx(21)
    assert (odd["measured"], odd["abstained"], odd["outside"], odd["action"]) == (5, 3, 2, "flag")


def test_labels(directory: Path, tmp_path: Path) -> None:
    with RunView(directory) as view:
        ids = [record["id"] for record in view.records(None, None)]
        file = tmp_path / "labels.jsonl"
        # of those of 1, 2 and 2 words, which are dropped, the last is good; of the others, the longest is bad
        bad = [True, True, False, False, False, False, False, True]
        rows = [{"id": id, "label": "bad" if wrong else "good"} for id, wrong in zip(ids, bad, strict=True)]
        file.write_text(jsonl([*rows, {"id": "elsewhere", "label": "bad"}]))
        found = rightness(read_labels(file), view.records(None, None), ["words", "odd"])
    assert found["words"] == Rightness(bad_dropped=2, good_dropped=1, bad_kept=1, good_kept=4)
    assert found["words"].as_json()["precision"] == pytest.approx(2 / 3)
    assert found["words"].as_json()["recall"] == pytest.approx(2 / 3)
    assert found["odd"] == Rightness(bad_dropped=1, good_dropped=1, bad_kept=2, good_kept=4)
    assert found["(all)"] == found["words"]  # a flag drops nothing


@pytest.mark.parametrize("line", ['{"id": "a"}', '{"id": "a", "label": "fine"}', "[]", "no"])
def test_what_is_no_label(line: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({"id": "x", "label": "good"}) + f"\n\n{line}\n")
    with pytest.raises(RecipeError, match=r"labels\.jsonl:3: "):
        read_labels(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no labels"),
        ('{"id": "a", "label": "good"}\n{"id": "a", "label": "bad"}\n', "labelled both good and bad"),
    ],
)
def test_labels_that_say_nothing_or_too_much(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(text)
    with pytest.raises(RecipeError, match=said):
        read_labels(file)
    file.write_bytes(b"\xef\xbb\xbf" + b'{"id": "a", "label": "good"}\n' * 2)
    assert read_labels(file) == {"a": False}
