"""`audit trace`: what descends from a source, and the version without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen.audit.place import place_of
from synthgen.audit.quarantine import quarantine
from synthgen.audit.trace import Traced, trace
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.engines.base import ModelIdentity, Request, RequestFailed
from synthgen.errors import UsageError
from synthgen.recurate import recurate
from tests.support import FakeEngine, answer_of, docs, jsonl, loaded, read_jsonl, recipe, run_it

WEIGHTS = "sha256:" + "ab" * 32
SAID = recipe(
    models={"other": "other-model"},
    seeds={"doc": {"path": "data/*.jsonl", "field": "text"}},
    steps=[
        {"answer": {"prompt": {"user": "Say something of {{ doc }}"}}},
        {"more": {"prompt": "tell", "model": "other"}},
    ],
    filters=[{"words": {"min": 6}}, {"duplicate": {"of": "instruction"}}],
)
FILES = {"prompts/tell.yaml": "user: Tell more of {{ answer }}\n", "data/z.jsonl": jsonl(docs(5, start=100))}


def answer(request: Request) -> Any:
    """Some fail at the first step."""
    said = request.messages[-1]["content"]
    return RequestFailed("no") if said.endswith("3") and said.startswith("Say") else answer_of(request)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    given = loaded(tmp_path, SAID, rows=30, files=FILES)
    engines = {
        "": FakeEngine(answer, identity=ModelIdentity("fake", "first", weights=WEIGHTS)),
        "other": FakeEngine(answer, identity=ModelIdentity("fake", "second")),
    }
    result = run_it(given, engines, directory=tmp_path / "run")
    assert min(result.kept, result.dropped, result.failed) > 1
    return result.dir


def of(place: Path, source: str) -> Traced:
    return trace(place_of(place), source)


def count(traced: Traced) -> int:
    return sum(map(len, traced.ids.values()))


def test_a_seed(finished: Path) -> None:
    import sqlite3

    assert count(of(finished, "data/docs.jsonl")) == 30
    assert count(of(finished, "data/z.jsonl")) == 5
    one = of(finished, "data/z.jsonl:2")
    assert count(one) == 1
    id = next(id for ids in one.ids.values() for id in ids)
    with sqlite3.connect(finished / "run.sqlite") as journal:
        (sources,) = journal.execute("SELECT sources FROM records WHERE id = ?", (id,)).fetchone()
    (source,) = json.loads(sources)
    assert (source["path"], source["row"]) == ("data/z.jsonl", 2)
    assert of(finished, source["sha256"]).ids == one.ids
    assert of(finished, f"seed:{source['sha256']}").ids == one.ids
    digest = place_of(finished).lock()["seeds"]["doc"]["files"]["data/z.jsonl"]
    assert count(of(finished, digest)) == 5


def test_a_step_that_was_not_reached_is_no_descent(finished: Path) -> None:
    lock = place_of(finished).lock()
    everything, failed = 35, len(of(finished, "model:first").ids["failed"])
    assert failed == 4
    assert count(of(finished, "inline")) == count(of(finished, WEIGHTS)) == everything
    assert of(finished, WEIGHTS.removeprefix("sha256:")).ids == of(finished, "first").ids
    for source in ("tell", lock["prompts"]["more"]["sha256"], "second", "other"):
        found = of(finished, source)
        assert (count(found), found.ids["failed"]) == (everything - failed, []), source


def test_a_filter(finished: Path) -> None:
    assert count(of(finished, "words")) == 31
    assert of(finished, "filter:words").kind == "filter"


@pytest.mark.parametrize("source", ["nothing", "data/docs.jsonl:x", "prompt:words", "0" * 32, ""])
def test_what_is_no_source(finished: Path, source: str) -> None:
    with pytest.raises(UsageError):
        of(finished, source)


def test_a_name_of_two_things(tmp_path: Path) -> None:
    said = recipe(steps=[{"answer": {"prompt": "words"}}], filters=[{"words": {"min": 1}}])
    given = loaded(tmp_path, said, files={"prompts/words.yaml": "user: '{{ doc }}'\n"})
    result = run_it(given, directory=tmp_path / "run")
    with pytest.raises(UsageError, match="a prompt and a filter"):
        of(result.dir, "words")
    assert count(of(result.dir, "prompt:words")) == 5


def test_quarantine(finished: Path) -> None:
    before = {path: path.read_bytes() for path in (finished / "dataset").rglob("*") if path.is_file()}
    traced = of(finished, "data/z.jsonl")
    done = quarantine(traced)
    assert done.removed == len(traced.ids["kept"]) > 0
    rows = [row["id"] for row in read_jsonl(done.dir / "dataset" / "train.jsonl")]
    kept = [row["id"] for row in read_jsonl(finished / "dataset" / "train.jsonl")]
    assert rows == [id for id in kept if id not in traced.ids["kept"]]
    dropped = {row["id"]: row for row in read_jsonl(done.dir / "dropped.jsonl")}
    for id in traced.ids["kept"]:
        assert dropped[id]["dropped_by"]["filter"] == "quarantine"
        assert dropped[id]["dropped_by"]["detail"] == {"source": "data/z.jsonl", "kind": "seed"}
    for place in (done.dir, finished):
        verdict = verify(place)
        assert verdict.intact, verdict.findings.shown
        assert verdict.journal
    assert before == {path: path.read_bytes() for path in before}
    assert of(done.dir, "data/z.jsonl").ids["kept"] == []
    assert of(done.dir, "quarantine").ids["dropped"]
    assert "quarantine" in (done.dir / "dataset" / "README.md").read_text()


def test_one_after_the_other(finished: Path) -> None:
    first = quarantine(of(finished, "data/z.jsonl:1"))
    source = next(
        f"data/docs.jsonl:{n}" for n in range(1, 30) if of(first.dir, f"data/docs.jsonl:{n}").ids["kept"]
    )
    second = quarantine(of(first.dir, source))
    assert second.kept == first.kept - 1
    assert verify(second.dir).intact
    with pytest.raises(UsageError, match="nothing that was kept"):
        quarantine(of(second.dir, source))


def test_no_code_of_the_project_is_run(tmp_path: Path) -> None:
    code = "from synthgen import filter\n@filter(min=0)\ndef mine(record):\n    return 1\n"
    given = loaded(tmp_path, recipe(filters=["mine"]), filters={"mine": code})
    result = run_it(given, directory=tmp_path / "runs" / "a")
    (tmp_path / "filters" / "mine.py").write_text("raise SystemExit('executed')")
    (tmp_path / "data" / "docs.jsonl").unlink()
    assert verify(quarantine(of(result.dir, "data/docs.jsonl:1")).dir).intact


def test_curate_begins_from_the_run(finished: Path) -> None:
    done = quarantine(of(finished, "data/z.jsonl"))
    again = recurate(finished, ["words.min=6"], project=finished.parent)
    assert again.result.kept == done.kept + done.removed


def test_the_command(finished: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["audit", "trace", str(finished), "data/z.jsonl"])
    assert (shown.exit_code, "kept" in shown.stdout) == (0, True), shown.output
    done = runner.invoke(app, ["audit", "trace", str(finished), "data/z.jsonl", "--quarantine", "--json"])
    said = json.loads(done.stdout)
    assert said["quarantine"]["removed"] == len(said["kept"])
    dataset = runner.invoke(app, ["audit", "trace", str(finished / "dataset"), "data/z.jsonl"])
    assert dataset.exit_code == 2
