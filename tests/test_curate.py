"""Curation: verdicts in order, counted by the first filter that drops, up to the cut and no further."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import driver, load
from synthgen.chain import ChainFilter
from synthgen.engines.base import Request
from synthgen.errors import SynthgenError
from synthgen.measure import FilterDefinition
from synthgen.workers import InProcess
from tests.support import FakeEngine, adds_up, answers, loaded, project, read_jsonl, recipe, run_it

# the answer to "document number N" has N words, so that bounds on words are bounds on N
COUNTED = FakeEngine
WORDS = {"words": {"min": 3}}

LENGTH = """\
    from synthgen import filter
    @filter(max=3)
    def length(record):
        \"\"\"How long it is.\"\"\"
        return len(record.text)
"""


def number(request: Request) -> int:
    return int(str(request.messages[0]["content"]).rsplit(maxsplit=1)[1])


def counted(request: Request) -> str:
    return " ".join(["word"] * number(request)) or "..."


def dropped(directory: Path) -> list[dict[str, Any]]:
    return read_jsonl(directory / "dropped.jsonl")


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


def link(**parts: Any) -> ChainFilter:
    definition = FilterDefinition(
        name="f", help="", target=lambda record: 1, kind="record", of="answer", min=None, max=None,
        action="drop", null=parts.pop("null", "keep"), batch=False,
    )  # fmt: skip
    whole = {"min": None, "max": None, "action": "drop", **parts}
    return ChainFilter("f", "project", definition, {}, "answer", **whole)


@given(st.floats(-9, 9), st.floats(-9, 9) | st.none(), st.floats(-9, 9) | st.none())
def test_bounds_are_inclusive(value: float, low: float | None, high: float | None) -> None:
    inside = (low is None or low <= value) and (high is None or value <= high)
    assert link(min=low, max=high).judge(value) == ("pass" if inside else "drop")
    assert link(min=low, max=high, action="flag").judge(value) == ("pass" if inside else "flag")
    for bound in (low, high):
        if bound is not None and (low is None or high is None or low <= high):
            assert link(min=low, max=high).judge(bound) == "pass"


def test_abstentions() -> None:
    assert link(min=1).judge(None) == "pass"
    assert link(min=1, null="drop").judge(None) == "drop"
    assert link(min=1, null="drop", action="flag").judge(None) == "flag"
    assert link(min=1, null="fail").judge(None) == "fail"


def test_the_first_filter_in_order_that_fails_counts(tmp_path: Path) -> None:
    said = recipe(filters=[{"characters": {"max": 30}}, {"words": {"min": 2, "max": 4}}, {"length": None}])
    result = run_it(loaded(tmp_path, said, rows=9, filters={"length": LENGTH}), FakeEngine(counted))
    # N words have 5N-1 characters: 0 is "..." (3 characters, no word), 7 and 8 are too long
    assert result.filters == {
        "characters": {"dropped": 2, "flagged": 0},
        "words": {"dropped": 2 + 2, "flagged": 0},
        "length": {"dropped": 3, "flagged": 0},
    }
    assert (result.planned, result.kept, result.dropped) == (9, 0, 9)
    by_doc = {row["messages"][0]["content"]: row for row in dropped(result.dir)}
    first = by_doc["document number 7"]
    assert first["dropped_by"] == {
        "filter": "characters",
        "value": 34,
        "min": None,
        "max": 30,
        "detail": None,
    }
    assert {name: said["verdict"] for name, said in first["measurements"].items()} == {
        "characters": "drop", "words": "drop", "length": "drop",
    }  # fmt: skip
    assert by_doc["document number 0"]["dropped_by"]["filter"] == "words"
    assert by_doc["document number 3"]["dropped_by"]["filter"] == "length"


def test_flags_count_and_keep(tmp_path: Path) -> None:
    said = recipe(filters=[{"words": {"min": 3, "action": "flag"}}, {"characters": {"min": 1}}])
    result = run_it(loaded(tmp_path, said, rows=6), FakeEngine(counted))
    assert (result.kept, result.dropped) == (6, 0)
    assert result.filters["words"] == {"dropped": 0, "flagged": 3}
    rows = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    assert [row["measurements"]["words"]["verdict"] for row in rows] == ["flag"] * 3 + ["pass"] * 3


@pytest.mark.parametrize(("null", "state"), [("keep", "kept"), ("drop", "dropped"), ("fail", "failed")])
def test_what_an_abstention_comes_to(tmp_path: Path, null: str, state: str) -> None:
    code = f"""\
        from synthgen import abstain, filter
        @filter(max=3, null={null!r})
        def odd(record):
            return abstain("even") if len(record.text.split()) % 2 == 0 else 1
    """
    given = loaded(tmp_path, recipe(filters=["odd"]), rows=4, filters={"odd": code})
    result = run_it(given, FakeEngine(counted))
    # "..." and one word are odd, two are even, three are odd
    assert {"kept": 3, "dropped": 0, "failed": 0, state: {"kept": 4}.get(state, 1)} == {
        "kept": result.kept, "dropped": result.dropped, "failed": result.failed,
    }  # fmt: skip
    if state == "dropped":
        assert {row["dropped_by"]["detail"]["reason"] for row in dropped(result.dir)} == {"even"}
        assert {row["dropped_by"]["value"] for row in dropped(result.dir)} == {None}
    if state == "failed":
        failed = read_jsonl(result.dir / "failed.jsonl")
        assert {row["error"] for row in failed} == {"filter odd could not measure: even"}


BROKEN = """\
    from synthgen import filter
    @filter(max=3, batch={batch})
    def broken(record):
        if {batch}:
            return [measure(one) for one in record]
        return measure(record)

    def measure(record):
        if len(record.text.split()) == 2:
            raise LookupError("nothing there")
        return 1
"""


@pytest.mark.parametrize("batch", [False, True])
def test_an_exception_fails_its_record_alone(tmp_path: Path, batch: bool) -> None:
    given = loaded(tmp_path, recipe(filters=["broken"]), filters={"broken": BROKEN.format(batch=batch)})
    result = run_it(given, FakeEngine(counted))
    assert (result.outcome, result.kept, result.dropped, result.failed) == ("failures", 4, 0, 1)
    (failed,) = read_jsonl(result.dir / "failed.jsonl")
    assert failed["task"] == 2
    assert failed["error"] == (
        f"filter broken failed on record {failed['id']}: LookupError: nothing there (line 10 of broken.py)"
    )


RUN_KIND = """\
    import json
    from synthgen import Measurement, filter

    @filter(kind="run", max=0)
    class seen:
        \"\"\"How many kept ones had the same number of words, halved.\"\"\"

        def __init__(self):
            self.kept = []

        def features(self, records):
            return [str(len(record.text.split()) // 2).encode() for record in records]

        def resolve(self, id, feature):
            return Measurement(float(self.kept.count(feature)), {{"kept": len(self.kept)}})

        def keep(self, id, feature):
            self.kept.append(feature)
"""


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_filters_of_the_run_see_kept_records_in_task_order(seed: int) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
        said = recipe(filters=["seen", {"words": {"max": 8}}])
        given_ = loaded(
            Path(place), said, rows=12, filters={"seen": RUN_KIND.replace("{{", "{").replace("}}", "}")}
        )
        result = run_it(given_, FakeEngine(counted, shuffle=random.Random(seed)))
        # 0..8 have at most eight words; of each pair 0-1, 2-3 .. the first is kept; 9..11 never are
        assert [len(text.replace("...", "").split()) for text in answers(result.dir)] == [0, 2, 4, 6, 8]
        values = {row["messages"][0]["content"]: row for row in dropped(result.dir)}
        assert values["document number 5"]["dropped_by"] == {
            "filter": "seen", "value": 1, "min": None, "max": 0, "detail": {"kept": 3},
        }  # fmt: skip
        assert values["document number 10"]["dropped_by"]["filter"] == "words"
        assert values["document number 11"]["dropped_by"]["filter"] == "words"
        assert values["document number 11"]["measurements"]["seen"]["value"] == 0


@pytest.mark.parametrize("place", ["features", "resolve", "keep", "number of features"])
def test_a_filter_of_the_run_that_raises_fails_its_record_alone(tmp_path: Path, place: str) -> None:
    code = f"""\
        from synthgen import Measurement, filter

        @filter(kind="run", max=0)
        class broken:
            def features(self, records):
                if {place!r} == "number of features":
                    return [b"x"] * (len(records) + 1)
                return [self.check("features", record.text.encode()) for record in records]

            def resolve(self, id, feature):
                return Measurement(float(len(self.check("resolve", feature)) < 0))

            def keep(self, id, feature):
                self.check("keep", feature)

            def check(self, place, feature):
                if place == {place!r} and len(feature.split()) == 2:
                    raise LookupError("nothing there")
                return feature
    """
    given = loaded(tmp_path, recipe(filters=["broken"]), filters={"broken": code})
    result = run_it(given, FakeEngine(counted))
    assert result.outcome == "failures"
    failed = read_jsonl(result.dir / "failed.jsonl")
    expected = 5 if place == "number of features" else 1
    assert (result.failed, result.kept) == (expected, 5 - expected)
    for row in failed:
        assert f"filter broken failed on record {row['id']}" in row["error"]
    assert adds_up(result)


AHEAD = """\
    from synthgen import Measurement, filter

    @filter(kind="run", max=8)
    class announced:
        def __init__(self, *, wrong: bool = False):
            self.said, self.wrong = [], wrong

        def features(self, records):
            return [record.text.encode() for record in records]

        def ahead(self, features):
            if self.wrong and features:
                raise LookupError("nothing there")
            self.said += features

        def resolve(self, id, feature):
            return Measurement(self.said.index(feature))

        def keep(self, id, feature):
            self.said.index(feature)
"""


def test_a_filter_of_the_run_is_shown_what_comes_next(tmp_path: Path) -> None:
    given = loaded(tmp_path, recipe(filters=["announced"]), rows=12, filters={"announced": AHEAD})
    result = run_it(given, FakeEngine(counted))
    assert (result.kept, result.dropped, result.failed) == (9, 3, 0)


def test_one_that_cannot_look_ahead_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    said = recipe(filters=[{"announced": {"wrong": True}}])
    with pytest.raises(SynthgenError, match="filter announced failed: LookupError: nothing there"):
        run_it(loaded(tmp_path, said, filters={"announced": AHEAD}), FakeEngine(counted))


def test_a_filter_that_cannot_be_made_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    code = """\
        from synthgen import filter

        @filter(max=1)
        class picky:
            def __init__(self, *, level: int = 1):
                if level > 3:
                    raise ValueError("level is at most 3")

            def measure(self, record):
                return 0
    """
    path = project(tmp_path, recipe(filters=[{"picky": {"level": 5}}]), filters={"picky": code})
    with pytest.raises(SynthgenError, match="level is at most 3"):
        run_it(load(path))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("'text'", "a filter returns a number"),
        ("float('nan')", "must be finite"),
        ("float('inf')", "must be finite"),
        ("Measurement(float('nan'))", "must be finite"),
        ("Measurement('text')", "a number"),
        ("Measurement(1, {'x': 2**80})", "detail"),
    ],
)
def test_what_is_no_measurement_fails_the_record(tmp_path: Path, value: str, said: str) -> None:
    code = f"""\
        from synthgen import Measurement, filter
        @filter(max=3)
        def odd(record):
            return {value}
    """
    result = run_it(loaded(tmp_path, recipe(filters=["odd"]), rows=1, filters={"odd": code}))
    assert result.failed == 1
    (row,) = read_jsonl(result.dir / "failed.jsonl")
    assert said in row["error"]


def test_measurements_of_every_kind_of_number_and_detail(tmp_path: Path) -> None:
    code = """\
        import numpy as np
        from synthgen import Measurement, filter
        @filter(max=3)
        def odd(record):
            number = int(record["doc"].split()[-1])
            return [True, np.float32(0.5), np.int64(2), Measurement(np.float32(1.5), {
                "set": {"b", "a"}, "tuple": (1, 2), "numpy": np.float64(2.5), "path": __file__, 3: "key",
                "array": np.arange(3),
            }), Measurement(3)][number]
    """
    result = run_it(loaded(tmp_path, recipe(filters=["odd"]), filters={"odd": code}), FakeEngine(counted))
    assert result.kept == 5
    rows = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    assert [row["measurements"]["odd"]["value"] for row in rows] == [1, 0.5, 2, 1.5, 3]
    detail = rows[3]["measurements"]["odd"]["detail"]
    assert (detail["set"], detail["tuple"], detail["numpy"], detail["3"], detail["array"]) == (
        ["a", "b"], [1, 2], 2.5, "key", [0, 1, 2],
    )  # fmt: skip


@pytest.mark.parametrize("slots", [1, 64])
def test_the_cut_is_exact_and_surplus_is_in_no_output(tmp_path: Path, slots: int) -> None:
    said = recipe(filters=[{"words": {"min": 5}}], target=4)
    engine = FakeEngine(counted, slots=slots, shuffle=random.Random(2))
    given = loaded(tmp_path, said, rows=30)
    result = run_it(given, engine)
    assert (result.outcome, result.planned, result.kept, result.dropped, result.pending) == (
        "done",
        9,
        4,
        5,
        0,
    )
    assert [len(text.split()) for text in answers(result.dir)] == [5, 6, 7, 8]
    assert [len(row["messages"][1]["content"].replace("...", "").split()) for row in dropped(result.dir)] == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip
    ledger = sqlite3.connect(result.dir / "run.sqlite").execute("SELECT max(task), count(*) FROM records")
    assert ledger.fetchone() == (8, 9)
    stored = {
        key.hex()
        for (key,) in sqlite3.connect(result.dir / "run.sqlite").execute("SELECT key FROM completions")
    }
    assert stored == set(engine.answered)


def test_a_target_that_is_missed(tmp_path: Path) -> None:
    said = recipe(filters=[{"words": {"min": 3}}], target=4, passes=1)
    result = run_it(loaded(tmp_path, said, rows=5), FakeEngine(counted))
    assert (result.outcome, result.planned, result.kept, result.dropped) == ("short", 5, 2, 3)
    assert adds_up(result)
    said = recipe(filters=[{"words": {"min": 90}}], target=2, budget={"attempts": 7})
    result = run_it(loaded(tmp_path / "b", said, rows=5), FakeEngine(counted))
    assert (result.outcome, result.planned, result.kept, result.dropped) == ("short", 7, 0, 7)


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().split()) if (folder / "calls").exists() else 0


COUNTING = """\
    from pathlib import Path
    from synthgen import filter
    @filter(max=3)
    def counting(record, *, times: int = 1):
        with open({place!r}, "a") as file:
            file.write("x\\n")
        return len(record.text.split()) * times
"""


def test_a_moved_bound_measures_nothing_and_asks_nothing(tmp_path: Path) -> None:
    code = {"counting": COUNTING.format(place=str(tmp_path / "calls"))}
    first = run_it(loaded(tmp_path, recipe(filters=["counting"]), rows=6, filters=code), FakeEngine(counted))
    assert (first.kept, calls(tmp_path)) == (4, 6)
    engine = FakeEngine(counted)
    second = run_it(loaded(tmp_path, recipe(filters=[{"counting": {"max": 1}}]), rows=6), engine)
    assert (second.kept, second.dropped, second.reused, engine.asked) == (2, 4, 6, [])
    assert calls(tmp_path) == 6
    flagged = run_it(
        loaded(tmp_path, recipe(filters=[{"counting": {"max": 1, "action": "flag"}}]), rows=6), engine
    )
    assert (flagged.kept, flagged.filters["counting"]["flagged"], calls(tmp_path)) == (6, 4, 6)
    doubled = run_it(loaded(tmp_path, recipe(filters=[{"counting": {"times": 2}}]), rows=6), engine)
    assert (doubled.kept, calls(tmp_path)) == (2, 12)
    back = run_it(loaded(tmp_path, recipe(filters=["counting"]), rows=6), engine)
    assert (back.kept, calls(tmp_path), engine.asked) == (4, 12, [])


def test_changed_code_measures_again(tmp_path: Path) -> None:
    code = COUNTING.format(place=str(tmp_path / "calls"))
    run_it(loaded(tmp_path, recipe(filters=["counting"]), filters={"counting": code}), FakeEngine(counted))
    changed = code.replace("* times", "* times + 1")
    result = run_it(
        loaded(tmp_path, recipe(filters=["counting"]), filters={"counting": changed}), FakeEngine(counted)
    )
    assert (result.kept, calls(tmp_path)) == (3, 10)


def test_filters_measure_what_of_says(tmp_path: Path) -> None:
    code = """\
        import json
        from synthgen import filter
        @filter(min=1)
        def shown(record):
            with open("PLACE", "a") as file:
                seen = [record.text, record["doc"], record.answer, record.instruction]
                file.write(json.dumps(seen) + "\\n")
            return 1
    """.replace("PLACE", str(tmp_path / "seen"))
    said = recipe(filters=[{"shown": {"of": "doc"}}])
    run_it(loaded(tmp_path, said, rows=1, filters={"shown": code}), FakeEngine(lambda _: "So."))
    doc = "document number 0"
    assert json.loads((tmp_path / "seen").read_text()) == [doc, doc, "So.", doc]


def test_every_record_is_measured_also_those_dropped_before(tmp_path: Path) -> None:
    said = recipe(filters=[{"words": {"min": 3}}, {"length": {"max": 9999}}])
    result = run_it(loaded(tmp_path, said, rows=6, filters={"length": LENGTH}), FakeEngine(counted))
    for row in dropped(result.dir):
        assert row["measurements"]["length"]["verdict"] == "pass"
