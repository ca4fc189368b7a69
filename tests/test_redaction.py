"""`action: redact`: what a filter takes out is in no output, and the other filters see what is left."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver
from synthgen import recurate as recuration
from synthgen.engines.base import Request
from synthgen.errors import RunError
from synthgen.recurate import recurate
from synthgen.workers import InProcess
from tests.support import FakeEngine, answers, loaded, problems, project, read_jsonl, recipe, run_it, tree

SECRET = "hunter2"
MASK = """
from synthgen import Measurement, filter

@filter(max=0, of="all")
class mask:
    \"\"\"How many secrets the text has.\"\"\"
    def __init__(self, broken: str = ""):
        self.broken = broken
    def measure(self, record):
        return record.text.count("hunter2")
    def redact(self, text):
        if self.broken:
            return {"number": 3, "nothing": text}.get(self.broken, text.replace("hunter2", chr(0xd800)))
        return text.replace("hunter2", "[SECRET]")
"""
ASK = """
from synthgen import Question, filter

@filter(kind="engine", min=0)
class ask:
    \"\"\"Asks with the text.\"\"\"
    def ask(self, record):
        return Question([{"role": "user", "content": "Grade: " + record.text}])
    def measure(self, record, answers):
        return len(answers)
"""
FILTERS = {"mask": MASK, "ask": ASK}
CHAIN = [
    {"characters": {"min": 1}},
    {"mask": {"action": "redact"}},
    {"words": {"max": 6}},
    {"duplicate": {"max": 0.9}},
    "ask",
]


@pytest.fixture(params=["in process", "in processes"], autouse=True)
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in process":
        for place in (driver, recuration):
            monkeypatch.setattr(place, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    else:
        monkeypatch.setattr("synthgen.workers.PROCESSES_ABOVE", 0)


def leaky(request: Request) -> str:
    text = str(request.messages[-1]["content"])
    number = int("".join(char for char in text if char.isdigit())[:3] or 0)
    if text.startswith("Grade"):
        return "fine"
    return f"The password is {SECRET}" if number % 2 else f"Number {number} has none at all"


def made(root: Path, **parts: Any) -> Any:
    said = recipe(**{"filters": CHAIN, **parts})
    engine = FakeEngine(leaky)
    result = run_it(loaded(root, said, rows=6, filters=FILTERS), engine, directory=root / "runs" / "a")
    return result, engine


def test_what_is_taken_out_is_in_no_output(tmp_path: Path) -> None:
    result, engine = made(tmp_path)
    assert result.filters["mask"] == {"dropped": 0, "flagged": 0, "redacted": 3}
    assert "The password is [SECRET]" in answers(result.dir)
    for name, data in tree(result.dir).items():
        if not name.startswith("run."):
            assert SECRET.encode() not in data, name
    # nor in what a later filter asks, nor in what it measures
    asked = [str(request.messages) for request in engine.asked]
    assert not any("Grade" in text and SECRET in text for text in asked)
    told = read_jsonl(result.dir / "dataset" / "provenance" / "train.jsonl")
    redacted = [row for row in told if row["measurements"]["mask"]["verdict"] == "redact"]
    assert [row["measurements"]["mask"]["value"] for row in redacted] == [1]
    assert redacted[0]["measurements"]["characters"]["value"] == len("The password is [SECRET]")


def test_the_others_compare_what_is_left(tmp_path: Path) -> None:
    """The three leaks are one text once the secret is out, and two of them are duplicates."""
    result, _ = made(tmp_path)
    dropped = read_jsonl(result.dir / "dropped.jsonl")
    assert [row["dropped_by"]["filter"] for row in dropped] == ["duplicate", "duplicate"]
    assert all(SECRET not in str(row) for row in dropped)


def test_the_journal_has_both(tmp_path: Path) -> None:
    result, _ = made(tmp_path)
    query = (
        "SELECT o.body, c.body FROM records r JOIN contents c ON c.sha256 = r.content "
        "JOIN contents o ON o.sha256 = r.original"
    )
    with sqlite3.connect(result.dir / "run.sqlite") as journal:
        pairs = journal.execute(query).fetchall()
    assert len(pairs) == 3
    assert all(
        SECRET.encode() in bytes(before) and SECRET.encode() not in bytes(after) for before, after in pairs
    )


def test_another_action_begins_with_what_there_was(tmp_path: Path) -> None:
    result, _ = made(tmp_path, filters=CHAIN[:-1])
    done = recurate(result.dir, ["mask.action=drop"])
    assert done.result.filters["mask"]["dropped"] == 3
    assert done.result.kept == 3
    flagged = recurate(result.dir, ["mask.action=flag", "duplicate.max=1"])
    assert sum(SECRET in text for text in answers(flagged.result.dir)) == 3
    same = recurate(result.dir, [])
    assert (same.result.dir / "dropped.jsonl").read_bytes() == (result.dir / "dropped.jsonl").read_bytes()
    for name in ("train.jsonl", "provenance/train.jsonl"):
        assert (same.result.dir / "dataset" / name).read_bytes() == (
            result.dir / "dataset" / name
        ).read_bytes()


def test_every_text_of_the_row_is_redacted(tmp_path: Path) -> None:
    record = {
        "messages": [
            {"system": f"Never say {SECRET}."},
            {"user": "{{ doc }}"},
            {"assistant": "{{ answer }}"},
        ],
        "note": f"it is {SECRET}: {{{{ answer }}}}",
    }
    result, _ = made(tmp_path, record=record, filters=[{"mask": {"action": "redact", "of": "answer"}}])
    rows = read_jsonl(result.dir / "dataset" / "train.jsonl")
    assert len(rows) == 6
    assert SECRET not in str(rows)
    assert rows[0]["note"].startswith("it is [SECRET]: ")
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant"]


@pytest.mark.parametrize("broken", ["number", "surrogate", "nothing"])
def test_a_redaction_that_fails_lets_nothing_through(tmp_path: Path, broken: str) -> None:
    use = {"mask": {"action": "redact", "broken": broken, "on_error": "fail"}}
    result, _ = made(tmp_path, filters=[use])
    assert result.failed == (6 if broken == "number" else 3)
    for name, data in tree(result.dir).items():
        if not name.startswith("run."):
            assert SECRET.encode() not in data, name


def test_only_a_filter_that_can_redact_may(tmp_path: Path) -> None:
    [found] = problems(project(tmp_path, recipe(filters=[{"words": {"min": 1, "action": "redact"}}])))
    assert "cannot redact" in found.message
    assert found.line is not None


def test_a_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    """Filters of the run are told of the redacted texts again."""
    whole, _ = made(tmp_path / "whole")

    class Gone(FakeEngine):
        async def complete(self, request: Request) -> Any:
            if len(self.answered) >= 7:
                raise RunError("gone")
            return await super().complete(request)

    given = loaded(tmp_path / "cut", recipe(filters=CHAIN), rows=6, filters=FILTERS)
    directory = tmp_path / "cut" / "runs" / "a"
    with pytest.raises(RunError):
        run_it(given, Gone(leaky, slots=1), directory=directory)
    done = run_it(given, FakeEngine(leaky), directory=directory)
    assert (done.dir / "dropped.jsonl").read_bytes() == (whole.dir / "dropped.jsonl").read_bytes()
