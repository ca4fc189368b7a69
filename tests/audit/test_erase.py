"""`audit erase`: nothing of what was erased is in any file, and everything else is proved as it was."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen.audit.erase import erase
from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import place_of
from synthgen.audit.quarantine import quarantine
from synthgen.audit.replay import replay
from synthgen.audit.trace import trace
from synthgen.audit.verify import FolderVerdict, verify
from synthgen.cli import app
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import RunError, UsageError
from synthgen.provenance.keys import new_key
from synthgen.recurate import recurate
from tests.support import FakeEngine, answer_of, docs, loaded, read_jsonl, recipe, run_it, tree

SECRET = "Zyx-7734-Qwv"
ROWS = [*docs(20), {"text": f"what {SECRET} said"}, *docs(10, start=50), {"text": f"why {SECRET} failed"}]


def answer(request: Request) -> Any:
    said = request.messages[-1]["content"]
    if "failed" in said or said.endswith("57"):
        return RequestFailed(f"cannot say: {said}")
    return f"{answer_of(request)} and more words of {said}"


def make(root: Path, **parts: Any) -> Path:
    said = recipe(
        filters=[{"regex": {"pattern": "said", "max": 5}}, {"words": {"min": 14}}, {"duplicate": {}}],
        output={"split": {"train": 0.6, "test": 0.4}},
    )
    result = run_it(loaded(root, {**said, **parts}, rows=ROWS), FakeEngine(answer), directory=root / "run")
    assert min(result.kept, result.dropped, result.failed) > 0
    return result.dir


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return make(tmp_path)


def ids_of(place: Path, query: str = "original IS NULL") -> list[str]:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        found = journal.execute(f"SELECT DISTINCT id FROM records WHERE {query} ORDER BY task").fetchall()
    return [row[0] for row in found]


def with_secret(place: Path) -> list[str]:
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        tasks = [place for place, row in enumerate(ROWS) if SECRET in row["text"]]
        return [
            journal.execute("SELECT id FROM records WHERE task = ?", (task,)).fetchone()[0] for task in tasks
        ]


def holding(place: Path, text: str) -> list[str]:
    return [name for name, data in tree(place).items() if text.encode() in data]


def intact(place: Path) -> FolderVerdict:
    verdict = verify(place)
    assert verdict.intact, verdict.findings.shown
    return verdict


def test_nothing_of_it_is_in_any_file(finished: Path, tmp_path: Path) -> None:
    recurate(finished, ["words.min=1"], project=tmp_path)
    quarantine(trace(place_of(finished), "data/docs.jsonl:1"))
    before = {place: intact(place) for place in (finished, finished / "versions/2", finished / "versions/3")}
    assert {"run.sqlite", "versions/2/dropped.jsonl"} - set(holding(finished, SECRET)) != set()
    kept = {place: ids_in(place) for place in before}
    out = with_secret(finished)
    done = erase(finished, out)
    assert done.ids == out
    assert done.contents > 0
    assert done.answers == 1
    assert holding(finished, SECRET) == []
    for place, was in before.items():
        now = intact(place)
        assert (now.root, now.size, now.states) == (was.root, was.size, was.states)
        assert now.erased == set(out)
        assert ids_in(place) == [id for id in kept[place] if id not in out]


def ids_in(place: Path) -> list[str]:
    return [
        row["id"] for split in ("train", "test") for row in read_jsonl(place / "dataset" / f"{split}.jsonl")
    ]


def test_kept_dropped_and_failed_ones(finished: Path, tmp_path: Path) -> None:
    out = [ids_of(finished, f"state = '{state}'")[0] for state in ("kept", "dropped", "failed")]
    before = intact(finished)
    erase(finished, [out[0][:10], *out[1:]])
    now = intact(finished)
    assert (now.root, now.erased) == (before.root, set(out))
    dropped = [row["id"] for row in read_jsonl(finished / "dropped.jsonl")]
    assert out[1] not in dropped
    assert (finished / "failed.jsonl").is_file()
    shutil.copytree(finished / "dataset", tmp_path / "published")
    assert intact(tmp_path / "published").erased == set(out)
    more = erase(finished, ids_of(finished, "state = 'failed'"))
    assert not (finished / "failed.jsonl").exists()
    assert len(intact(finished).erased) == 2 + len(more.ids)


def test_what_others_use_stays(tmp_path: Path) -> None:
    """Two rows alike: one answer each, and one text in both."""
    given = loaded(tmp_path, recipe(), rows=[{"text": "the same"}, {"text": "the same"}, {"text": "another"}])
    result = run_it(given, FakeEngine(lambda _: "an answer to all"), directory=tmp_path / "run")
    first, second, _ = ids_of(result.dir)
    assert erase(result.dir, [first]).contents == 0
    assert holding(result.dir, "the same")
    assert replay(result.dir, [second]).transcripts["replayed"] == 1
    assert replay(result.dir, [first]).transcripts["not judged"] == 1
    assert erase(result.dir, [second]).contents == 1
    assert holding(result.dir, "the same") == []


def test_texts_that_were_redacted_go_too(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"Mail a{n}@mailhost.net of {n}"} for n in range(4)]
    said = recipe(
        model=None, steps=None, seeds={"row": {"path": "data/docs.jsonl"}}, record={"from": "row"},
        filters=[{"pii": {"action": "redact"}}],
    )  # fmt: skip
    result = run_it(loaded(tmp_path, said, rows=rows), directory=tmp_path / "run")
    assert holding(result.dir, "a2@mailhost") == ["run.sqlite"]
    erase(result.dir, [ids_of(result.dir, "task = 2")[0]])
    assert holding(result.dir, "a2@mailhost") == []
    assert holding(result.dir, "a1@mailhost") == ["run.sqlite"]
    intact(result.dir)


GRADE = """
from synthgen import Question, filter

@filter(kind="engine", min=1)
class grade:
    \"\"\"Asks with the text.\"\"\"
    def ask(self, record):
        return Question([{"role": "user", "content": "Grade: " + record.text}])
    def measure(self, record, answers):
        return len(answers[0])
"""


def test_what_filters_asked_of_it_goes_too(tmp_path: Path) -> None:
    """Also where the asking failed, so that nothing was measured."""

    def graded(request: Request) -> Any:
        said = request.messages[-1]["content"]
        if said.startswith("Grade"):
            return RequestFailed(f"cannot grade: {said}") if SECRET in said and "why" in said else "good"
        return answer_of(request) + f" of {said}"

    said = recipe(
        filters=["duplicate", "grade"], record={"messages": [{"user": "x"}, {"assistant": "{{ answer }}"}]}
    )
    rows = [{"text": f"why {SECRET}?"}, {"text": f"what {SECRET}?"}, {"text": "another"}]
    given = loaded(tmp_path, said, rows=rows, filters={"grade": GRADE})
    place = run_it(given, FakeEngine(graded), directory=tmp_path / "run").dir
    assert holding(place, SECRET)
    erase(place, ids_of(place)[:2])
    assert holding(place, SECRET) == []
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        assert journal.execute("SELECT count(*) FROM asked").fetchone() == (1,)
        assert journal.execute("SELECT count(*) FROM requests").fetchone() == (2,)
    intact(place)


def test_what_follows_goes_on_without_them(finished: Path, tmp_path: Path) -> None:
    out = ids_of(finished, "state = 'kept'")[:2]
    erase(finished, out)
    again = recurate(finished, ["words.min=1"], project=tmp_path)
    assert not set(out) & set(ids_in(again.result.dir))
    intact(again.result.dir)
    without = quarantine(trace(place_of(finished), "data/docs.jsonl"))
    assert (without.kept, intact(without.dir).erased) == (2, set(out))
    said = recipe(
        filters=[{"regex": {"pattern": "said", "max": 5}}, {"words": {"min": 14}}, {"duplicate": {}}],
        output={"split": {"train": 0.6, "test": 0.4}},
    )
    engine = FakeEngine(answer)
    result = run_it(loaded(tmp_path, said, rows=ROWS), engine, directory=finished)
    assert (result.outcome, engine.asked) == ("nothing to do", [])


def test_ended_before_the_files_were_written(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RunError("the disk is full")

    out = with_secret(finished)
    with monkeypatch.context() as patch:
        patch.setattr("synthgen.audit.erase.write_version", full)
        with pytest.raises(RunError):
            erase(finished, out)
    assert not verify(finished).intact
    erase(finished, out)
    assert holding(finished, SECRET) == []
    assert intact(finished).erased == set(out)


def test_a_journal_that_was_changed_is_left_alone(finished: Path) -> None:
    with closing(sqlite3.connect(finished / "run.sqlite")) as journal, journal:
        journal.execute("UPDATE records SET sources = '[]' WHERE task = 3")
    before = tree(finished / "dataset")
    with pytest.raises(RunError, match="not what was judged"):
        erase(finished, with_secret(finished))
    assert tree(finished / "dataset") == before
    assert "run.sqlite" in holding(finished, SECRET)


def test_a_tombstone_without_an_erasure_is_found(finished: Path) -> None:
    erase(finished, ids_of(finished)[:1])
    other = ids_of(finished, "state = 'kept' AND erased IS NULL")[0]
    path = finished / "dataset" / "provenance" / "erased.json"
    said = json.loads(path.read_text())
    for edited in ([*said["erased"], {"id": other}], [], [{"id": "0" * 32}], 3, ["x"], None):
        path.write_text(json.dumps({"erased": edited}))
        verdict = verify(finished)
        assert not verdict.intact
        assert any("erased" in str(finding) for finding in verdict.findings.shown)
    path.unlink()
    assert not verify(finished).intact


@pytest.mark.parametrize("ids", [["f" * 32], ["0"], [""], ["%"]])
def test_no_such_record(finished: Path, ids: list[str]) -> None:
    before = tree(finished)
    with pytest.raises(UsageError, match="no record begins"):
        erase(finished, ids)
    assert tree(finished)["run.sqlite"] == before["run.sqlite"]


def test_no_run(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotJudge):
        erase(tmp_path / "nowhere", ["0" * 32])
    with pytest.raises(CannotJudge):
        erase(finished / "dataset", ids_of(finished)[:1])


def test_an_earlier_journal_is_brought_up_to_date(finished: Path) -> None:
    with closing(sqlite3.connect(finished / "run.sqlite")) as journal, journal:
        journal.execute("ALTER TABLE records DROP COLUMN erased")
        journal.execute("DROP TABLE asked")
        for table in ("completions", "set_aside"):
            journal.execute(f"ALTER TABLE {table} DROP COLUMN reasoning")
        journal.execute("ALTER TABLE sessions DROP COLUMN reason")
        journal.execute("UPDATE meta SET value = '3' WHERE key = 'schema'")
    from synthgen.journal import open_journal

    open_journal(finished, "a").close()
    erase(finished, with_secret(finished))
    assert holding(finished, SECRET) == []
    intact(finished)


def test_signed_again_or_said_to_be_unsigned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHGEN_CONFIG", str(tmp_path / "config" / "config.toml"))
    keys = tmp_path / "config" / "keys"
    new_key(keys / "default")
    place = make(tmp_path)
    first, second, third = ids_of(place)[:3]
    assert erase(place, [first]).unsigned == []
    assert verify(place, keys / "default.pub").authentic is True
    (keys / "default.pem").rename(keys / "away.pem")
    assert erase(place, [second]).unsigned == [place]
    assert verify(place, keys / "default.pub").authentic is False
    assert erase(place, [third]).unsigned == []


def test_somebody_who_reads_is_waited_for(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their view of the journal still holds what was erased, so it is said that it is not gone."""
    out = with_secret(finished)
    monkeypatch.setattr("synthgen.journal.BUSY_SECONDS", 0.3)
    with closing(sqlite3.connect(finished / "run.sqlite")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        began = time.monotonic()
        with pytest.raises(RunError, match="somebody is reading"):
            erase(finished, out)
        assert time.monotonic() - began >= 0.3
        reader.execute("ROLLBACK")
    erase(finished, out)
    assert holding(finished, SECRET) == []


def test_every_other_command_goes_on(finished: Path, tmp_path: Path) -> None:
    out = [ids_of(finished, f"state = '{state}'")[0] for state in ("kept", "dropped", "failed")]
    erase(finished, out)
    runner, place = CliRunner(), str(finished)
    for id in out:
        for arguments in (["audit", "show"], ["audit", "explain"], ["show"]):
            done = runner.invoke(app, [*arguments, place, id])
            assert done.exit_code == 0, done.output
            assert "erased" in done.output or "explain" in arguments
        assert runner.invoke(app, ["audit", "show", str(finished / "dataset"), id]).exit_code == 0
        proof = str(tmp_path / "proof.json")
        assert runner.invoke(app, ["audit", "show", place, id, "--proof", proof]).exit_code == 0
        assert runner.invoke(app, ["audit", "verify", "--proof", proof]).exit_code == 0
    for arguments in (["audit", "diff", place, place], ["status", place], ["stats", place], ["show", place]):
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, done.output
    for form in ("prov", "croissant", "csv"):
        done = runner.invoke(app, ["audit", "export", place, form])
        assert done.exit_code == 0, done.output


def test_the_command(finished: Path) -> None:
    runner = CliRunner()
    out = with_secret(finished)
    done = runner.invoke(app, ["audit", "erase", str(finished), *out, "--yes", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ids"] == out
    assert "2 of them erased" in runner.invoke(app, ["audit", "verify", str(finished)]).stdout
    shown = runner.invoke(app, ["audit", "erase", str(finished), out[0]])
    assert "0 contents" in shown.stdout
    assert runner.invoke(app, ["audit", "erase", str(finished.parent), out[0]]).exit_code == 2
