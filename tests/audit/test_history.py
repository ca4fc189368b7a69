"""`audit show`: everything that is known of one record, of a run and of a dataset alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen import driver
from synthgen.audit.explain import explain
from synthgen.audit.findings import CannotJudge
from synthgen.audit.history import history
from synthgen.audit.place import place_of
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.digests import sampling_seed
from synthgen.engines.base import ModelIdentity, Request, RequestFailed, RequestRetryable
from synthgen.errors import UsageError
from synthgen.provenance.merkle import leaf_hash
from synthgen.recurate import recurate
from synthgen.view import RunView
from tests.support import FakeEngine, loaded, no_more_than, read_jsonl, recipe, run_it

MASK = """
from synthgen import filter

@filter(max=0, of="all")
class mask:
    \"\"\"How many secrets the text has.\"\"\"
    def measure(self, record):
        return record.text.count("hunter2")
    def redact(self, text):
        return text.replace("hunter2", "[SECRET]")
"""
ASK = """
from synthgen import Question, filter

@filter(kind="engine", min=3)
class ask:
    \"\"\"Asks with the text.\"\"\"
    def ask(self, record):
        return Question([{"role": "user", "content": "Grade: " + record.text}])
    def measure(self, record, answers):
        return len(answers[0])
"""


def answer(request: Request) -> Any:
    text = str(request.messages[-1]["content"])
    if text.startswith("Grade"):
        return "good"
    if "number 1" in text:
        return "The password is hunter2, keep it to yourself"
    if "number 2" in text:
        return RequestFailed("the prompt is too long")
    if "number 3" in text:
        return ""
    if "number 5" in text or "number 6" in text:
        return "Twice the same words stand in here"
    return "A quite usual answer to it"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("history")
    said = recipe(
        seeds={"doc": {"path": "data/docs.jsonl", "field": "text", "licence": "CC0-1.0"}},
        filters=[{"mask": {"action": "redact"}}, {"words": {"min": 4}}, "duplicate", "ask"],
    )
    given = loaded(root, said, rows=7, filters={"mask": MASK, "ask": ASK})
    return run_it(given, FakeEngine(answer), directory=root / "run").dir


def of_task(directory: Path, task: int, **options: Any) -> dict[str, Any]:
    place = place_of(directory, **options)
    assert place.run is not None
    with RunView(place.run, place.version) as view:
        [id] = [record["id"] for record in view.records(None, None) if record["task"] == task]
    return history(place, id)


def test_a_kept_record_from_its_seed_to_the_ledger(run: Path) -> None:
    record = of_task(run, 0)
    [source] = record["sources"]
    assert (source["path"], source["row"], source["licence"]) == ("data/docs.jsonl", 1, "CC0-1.0")
    lock = place_of(run).lock()
    assert source["file_sha256"] == lock["seeds"]["doc"]["files"]["data/docs.jsonl"]
    [request] = record["requests"]
    assert request["step"] == "answer"
    assert request["prompt"] == lock["prompts"]["answer"]
    assert request["request"]["messages"] == [
        {"role": "user", "content": "Say something of document number 0"}
    ]
    assert request["seed"] == sampling_seed(bytes.fromhex(request["key"]))
    assert request["answer"]["text"] == "A quite usual answer to it"
    assert (request["answer"]["finish_reason"], request["answer"]["output_tokens"]) == ("stop", 5)
    assert record["transforms"] == []
    words, ask = record["measurements"]["words"], record["measurements"]["ask"]
    assert (words["value"], words["verdict"], words["min"], words["origin"]) == (6, "pass", 4, "shipped")
    assert len(words["code_sha256"]) == 64
    assert ask["model"]["id"] == "fake-model"
    assert ask["requests"][0]["request"]["messages"][0]["content"].startswith("Grade: A quite")
    assert ask["requests"][0]["answer"]["text"] == "good"
    assert record["decision"]["state"] == "kept"
    ledger = record["ledger"]
    lines = (run / "dataset" / "provenance" / "ledger.jsonl").read_text().splitlines()
    assert (ledger["index"], ledger["size"]) == (0, 7)
    assert ledger["entry"] == lines[0]
    assert ledger["leaf"] == leaf_hash(lines[0].encode()).hex()
    assert ledger["published"] is ledger["as_judged"] is True


def test_what_was_taken_out_before_and_after(run: Path) -> None:
    [transform] = of_task(run, 1)["transforms"]
    assert transform["filters"] == ["mask"]
    assert len(transform["code_sha256"]["mask"]) == 64
    changed = {change["field"]: change for change in transform["changes"]}
    assert changed["row.messages.1.content"] == {
        "field": "row.messages.1.content",
        "before": "The password is hunter2, keep it to yourself",
        "after": "The password is [SECRET], keep it to yourself",
    }
    assert set(changed) == {"fields.answer", "row.messages.1.content"}


def test_tries_that_failed_and_answers_that_could_not_be_used(run: Path) -> None:
    failed = of_task(run, 2)
    assert failed["decision"] == {"state": "failed", "by": None, "reason": "the prompt is too long"}
    assert failed["requests"][0]["failures"] == [{"error": "the prompt is too long", "outcome": "given up"}]
    empty = of_task(run, 3)
    assert [request["request"]["attempt"] for request in empty["requests"]] == [0, 1, 2]
    assert {request["step"] for request in empty["requests"]} == {"answer"}
    assert {each["outcome"] for request in empty["requests"] for each in request["failures"]} == {
        "the answer could not be used"
    }
    assert empty["row"] is None


def test_how_far_a_record_can_be_had_again(run: Path, tmp_path: Path) -> None:
    server = "nobody knows what a server of fake runs on"
    assert of_task(run, 0)["replay"] == {"class": "transcript", "why": [server]}
    assert of_task(run, 2)["replay"] == {"class": "none", "why": ["it has no contents"]}
    assert history(place_of(run / "dataset"), of_task(run, 0)["id"])["replay"]["class"] is None
    for name, details, expected in (
        ("alone", {"slots": 1}, ("bit", "")),
        ("among", {"slots": 8}, ("transcript", "slots: 8")),
        ("unknown", {}, ("transcript", "was not recorded")),
    ):
        identity = ModelIdentity("llamacpp", "m", weights="sha256:0", details=details)
        root = tmp_path / name
        place = run_it(loaded(root, rows=1), FakeEngine(identity=identity), directory=root / "run").dir
        told = of_task(place, 0)["replay"]
        assert (told["class"], expected[1] in " ".join(told["why"])) == (expected[0], True)
        shown = CliRunner().invoke(app, ["audit", "show", str(place), of_task(place, 0)["id"]]).stdout
        assert f"replay: {expected[0]}" in shown
    said = recipe(model=None, steps=None, seeds={"row": {"path": "data/docs.jsonl"}}, record={"from": "row"})
    rows = [{"prompt": "What?", "completion": "That."}]
    plain = run_it(loaded(tmp_path / "plain", said, rows=rows), directory=tmp_path / "plain" / "run").dir
    assert of_task(plain, 0)["replay"] == {"class": "transcript", "why": ["no model was asked"]}


CARD = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def test_every_attempt_is_there_with_its_error_whatever_came_of_the_record(tmp_path: Path) -> None:
    """A kept one that took four tries, one whose grading was given up, and one asked again by hand."""
    faults = {"number 0": ["busy", "busy again"], "Grade: card of 1": ["no room"]}
    stubborn = ["number 2"]

    def flaky(request: Request) -> Any:
        text = str(request.messages[-1]["content"])
        for part, errors in faults.items():
            if part in text and errors:
                return RequestRetryable(errors.pop(0), retry_after=0)
        if text.startswith("Grade"):
            return RequestFailed("cannot grade") if "card of 1" in text else "good"
        if any(part in text for part in stubborn):
            return "no JSON"
        asked.append(text)
        if "number 0" in text and len(asked) == 1:
            return "no JSON either"
        return json.dumps({"a": f"card of {text[-1]}"})

    asked: list[str] = []
    said = recipe(
        steps=[{"card": {"prompt": {"user": "Make {{ doc }}", "output": CARD}}}],
        record={"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ card.a }}"}]},
        filters=["ask"],
    )
    given = loaded(tmp_path, said, rows=3, filters={"ask": ASK})
    engine = FakeEngine(flaky, slots=1)
    place = run_it(given, engine, directory=tmp_path / "run").dir

    def told(requests: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        found = [each for request in requests for each in request["attempts"]]
        assert all(each["session"] and each["at"].startswith("20") for each in found)
        return [(each["outcome"], each["error"]) for each in found]

    unusable = ("the answer could not be used", "the answer is not JSON")
    kept = of_task(place, 0)
    assert kept["state"] == "kept"
    assert told(kept["requests"]) == [
        ("asked again", "busy"), ("asked again", "busy again"), ("answered", None), unusable,
        ("answered", None),
    ]  # fmt: skip
    graded = of_task(place, 1)
    assert graded["decision"]["reason"] == "filter ask: cannot grade"
    assert told(graded["requests"]) == [("answered", None)]
    assert told(graded["asked_besides"]) == [("asked again", "no room"), ("given up", "cannot grade")]
    shown = CliRunner().invoke(app, ["audit", "show", str(place), graded["id"]]).stdout
    assert "asked about it by filters that measured nothing of it" in shown
    assert "no room" in shown
    failed = of_task(place, 2)
    assert told(failed["requests"]) == [("answered", None), unusable] * 3
    stubborn.clear()
    run_it(given, engine, directory=place, retry_failed=True)
    again = of_task(place, 2)
    assert again["state"] == "kept"
    aside = [("answered, and set aside", None), ("asked again", "the answer is not JSON")]
    assert told(again["requests"]) == [*aside, ("answered", None)]
    assert verify(place).intact


def test_a_duplicate_names_the_record_that_stayed(run: Path) -> None:
    record = of_task(run, 6)
    assert record["decision"]["reason"] == "duplicate 1 is not at most 0.8"
    assert record["not_measured"] == ["ask"]
    said = explain(place_of(run), record["id"])["because"]
    assert said[0].startswith("duplicate 1 > max 0.8 (by 0.2): max 1 would have kept it")
    assert said[1:] == ["ask was not asked about it, and might drop it too"]
    [stayed] = record["duplicate_of"]
    assert stayed["id"] == of_task(run, 5)["id"]
    assert (stayed["similarity"], stayed["state"]) == (1, "kept")
    assert stayed["row"]["messages"][-1]["content"] == "Twice the same words stand in here"


def test_a_dataset_alone_says_what_it_has(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "dataset", tmp_path / "published")
    place = place_of(tmp_path / "published")
    whole, alone = of_task(run, 0), history(place, of_task(run, 0)["id"][:10])
    for name in ("id", "task", "state", "row", "sources", "content_sha256", "ledger", "decision"):
        assert alone[name] == whole[name], name
    for name, said in alone["measurements"].items():
        assert {**said, "requests": None} == {**whole["measurements"][name], "requests": None}
    assert [each["key"] for each in alone["requests"]] == [each["key"] for each in whole["requests"]]
    dropped = history(place, of_task(run, 6)["id"])
    assert (dropped["state"], dropped["row"], dropped["measurements"]) == ("dropped", None, {})
    assert dropped["ledger"]["index"] == 6
    (tmp_path / "published" / "train.jsonl").unlink()
    assert history(place, whole["id"])["row"] == whole["row"]  # from Parquet


def test_a_version_of_curate(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent, tmp_path / "project")
    place = tmp_path / "project" / "run"
    made = recurate(place, ["words.min=7"], project=tmp_path / "project").result.dir
    before, after = of_task(place, 0), of_task(made, 0)
    assert (before["state"], after["state"]) == ("kept", "dropped")
    assert of_task(place, 0, version=2) == after
    assert after["ledger"]["published"] is True
    assert after["ledger"]["root"] != before["ledger"]["root"]
    with pytest.raises(UsageError, match="has no version 9"):
        place_of(place, 9)


def test_a_record_that_was_changed_is_told(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as journal, journal:
        journal.execute("UPDATE records SET state = 'kept', dropped_by = NULL WHERE task = 6")
    assert of_task(tmp_path / "run", 6)["ledger"]["as_judged"] is False
    shutil.copytree(run / "dataset", tmp_path / "published")
    path = tmp_path / "published" / "train.jsonl"
    path.write_text(path.read_text().replace("usual", "curious"))
    first = read_jsonl(path)[0]["id"]
    assert history(place_of(tmp_path / "published"), first)["ledger"]["as_judged"] is False


def test_ids_that_no_record_has_or_many(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "dataset", tmp_path / "published")
    for directory in (run, tmp_path / "published"):
        with pytest.raises(UsageError, match="no record begins"):
            history(place_of(directory), "0" * 32)
        with pytest.raises(UsageError, match="more than one"):
            history(place_of(directory), "")
    with pytest.raises(CannotJudge, match="no run and no dataset"):
        place_of(tmp_path)


HOSTILE = [
    "UPDATE records SET verdicts = '[]'",
    "UPDATE records SET verdicts = 'nonsense'",
    "UPDATE records SET sources = '3'",
    "UPDATE records SET sources = '[[]]'",
    "UPDATE records SET verdicts = '{\"words\": {\"value\": \"x\", \"verdict\": 3, \"detail\": 4}}'",
    "UPDATE records SET requests = 'text'",
    "UPDATE records SET requests = zeroblob(31)",
    "UPDATE records SET leaf = 3",
    "UPDATE contents SET body = '3'",
    "UPDATE contents SET body = '{\"fields\": 1, \"row\": {\"messages\": [3]}}'",
    "UPDATE contents SET body = x'ff00'",
    "UPDATE versions SET chain = '{\"a\": 1}'",
    "UPDATE requests SET body = '[]'",
    "UPDATE completions SET output_tokens = 'many'",
    "UPDATE failures SET final = 9",
    "DROP TABLE contents",
]  # fmt: skip


@pytest.mark.parametrize("query", HOSTILE)
def test_a_journal_of_a_hostile_person_ends_in_a_sentence(run: Path, tmp_path: Path, query: str) -> None:
    """Or is shown as it is; never in a traceback."""
    shutil.copytree(run, tmp_path / "run")
    ids = [of_task(run, task)["id"] for task in range(7)]
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as journal, journal:
        journal.execute(query)
    for command in ("show", "explain"):
        for id in ids:
            done = CliRunner().invoke(app, ["audit", command, str(tmp_path / "run"), id])
            assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
            assert done.exit_code in (0, 2), done.output


def test_nothing_that_a_model_or_a_file_says_reaches_the_terminal(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with RunView(run) as view:
        chain = [
            {**link, "of": "\x1b[31m", "action": "\x1b[31m", "origin": "\x1b[31m"} for link in view.chain()
        ]
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as journal, journal:
        journal.execute("UPDATE versions SET chain = ?", (json.dumps(chain),))
        journal.execute("UPDATE completions SET text = char(27) || text, finish_reason = char(27)")
        journal.execute("UPDATE records SET error = char(27) || error WHERE error IS NOT NULL")
        journal.execute("UPDATE failures SET error = char(27) || error")
        journal.execute("UPDATE records SET sources = replace(sources, 'data/', '\\u001b')")
    for command in ("show", "explain"):
        for task in range(7):
            id = of_task(run, task)["id"]
            done = CliRunner().invoke(app, ["audit", command, str(tmp_path / "run"), id])
            assert done.exit_code == 0, done.output
            assert "\x1b" not in done.output


def test_a_run_that_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)
    cancel = threading.Event()
    engine = FakeEngine(no_more_than(3, cancel), slots=1)
    part = run_it(loaded(tmp_path), engine, directory=tmp_path / "run", cancel=cancel).dir
    record = of_task(part, 2)
    assert (record["ledger"]["index"], record["ledger"]["size"]) == (2, 3)
    assert (record["ledger"]["published"], record["ledger"]["as_judged"]) == (None, True)
    assert record["requests"][0]["answer"]["text"].startswith("answer-")
    assert CliRunner().invoke(app, ["audit", "show", str(part), record["id"]]).exit_code == 0


@pytest.mark.parametrize("name", ["manifest.json", "provenance/ledger.jsonl", "provenance/train.jsonl"])
@pytest.mark.parametrize("data", [b"", b"[]\n", b"{}\n", b"{" * 100_000, b"\xff\xfe", b'{"id": 3}\n' * 3])
def test_a_dataset_of_a_hostile_person_ends_in_a_sentence(
    run: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    shutil.copytree(run / "dataset", tmp_path / "published")
    (tmp_path / "published" / name).write_bytes(data)
    for command in ("show", "explain"):
        done = CliRunner().invoke(app, ["audit", command, str(tmp_path / "published"), of_task(run, 0)["id"]])
        assert done.exception is None or isinstance(done.exception, SystemExit | UsageError), done.exception
        assert done.exit_code != 0 or name == "provenance/train.jsonl"


def test_the_command(run: Path) -> None:
    runner = CliRunner()
    for task, words in {
        0: ["licence: CC0-1.0", "request 1 of step answer", "Grade: A quite usual", "model engine fake"],
        1: ["redaction by mask", "before: The password is hunter2", "after:  The password is [SECRET]"],
        3: ["asked again (2)", "failed try (the answer could not be used; session 1, "],
        6: ["like a record that stayed", "duplicate 1 is not at most 0.8", "ledger: entry 6 of 7"],
    }.items():
        id = of_task(run, task)["id"]
        shown = runner.invoke(app, ["audit", "show", str(run), id[:12]])
        assert shown.exit_code == 0, shown.output
        for word in words:
            assert word in shown.stdout, (word, shown.stdout)
        as_json = runner.invoke(app, ["audit", "show", str(run), id, "--json"])
        assert json.loads(as_json.stdout) == json.loads(json.dumps(of_task(run, task)))
