"""`audit explain`: the bounds that it names change the decision, and nothing of the project is run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen.audit.explain import OF_THE_RUN, explain
from synthgen.audit.place import place_of
from synthgen.cli import app
from synthgen.engines.base import Request, RequestFailed
from synthgen.recurate import recurate
from synthgen.view import RunView
from tests.support import FakeEngine, answer_of, loaded, recipe, run_it

MINE = "from synthgen import filter\n@filter(min=0)\ndef mine(record):\n    return 1\n"
FILTERS = [
    {"pii": {"action": "redact"}},
    {"words": {"min": 6, "max": 9}},
    {"long": {"filter": "characters", "min": 40}},
    {"duplicate": {"max": 0.6}},
    {"refusal": {"action": "flag"}},
    "mine",
]


def answer(request: Request) -> Any:
    text = str(request.messages[-1]["content"])
    number = int(text.rpartition(" ")[2])
    if number == 0:
        return RequestFailed("too long")
    if number in (1, 2):
        return "The same nine words stand in here two times"
    if number == 3:
        return "Write to office@brassworks.museum for every one of the details"
    if number == 4:
        return "I'm sorry, but I cannot help you with this."
    return answer_of(request)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explain")
    given = loaded(root, recipe(filters=FILTERS), rows=30, filters={"mine": MINE})
    return run_it(given, FakeEngine(answer), directory=root / "run").dir


def records(run: Path) -> list[dict[str, Any]]:
    with RunView(run) as view:
        return list(view.records(None, None))


def of_task(run: Path, task: int) -> dict[str, Any]:
    return explain(place_of(run), records(run)[task]["id"])


def test_every_measurement_that_can_be_taken_again_agrees(run: Path) -> None:
    for record in records(run):
        for each in explain(place_of(run), record["id"])["filters"]:
            again = each["recomputed"]
            if each["filter"] == "mine":
                assert again == {"value": None, "agrees": None, "why": "your own filter"}
            elif each["filter"] == "duplicate" and again["agrees"] is None:
                assert each["value"] == 0
            else:
                assert again == {"value": each["value"], "agrees": True, "why": None}, (record, each)
    redacted = {each["filter"]: each for each in of_task(run, 3)["filters"]}
    assert (redacted["pii"]["verdict"], redacted["pii"]["value"]) == ("redact", 1)


def test_the_bounds_that_it_names_change_the_decision(run: Path, tmp_path: Path) -> None:
    """Together they keep what was dropped; a hair beyond each alone drops what was kept."""
    shutil.copytree(run.parent, tmp_path / "project")
    place = tmp_path / "project" / "run"
    seen = set()
    for record in records(place):
        said = explain(place_of(place), record["id"])
        if record["state"] == "dropped":
            seen.add((record["dropped_by"], len(said["change"])))
            sets = [
                f"{each['filter']}.{name}={value!r}"
                for each in said["change"]
                for name, value in each["bound"].items()
            ]
            done = recurate(place, sets, project=tmp_path / "project", dry_run=True)
            assert record["id"] in [id for id, _ in done.changes.enter], said
            if len(sets) > 1:
                one = recurate(place, sets[:1], project=tmp_path / "project", dry_run=True)
                assert record["id"] not in [id for id, _ in one.changes.enter]
    assert {by for by, _ in seen} >= {"words", "duplicate"}
    assert {count for _, count in seen} >= {1, 2}
    kept = next(record for record in records(place) if record["state"] == "kept")
    for each in explain(place_of(place), kept["id"])["change"]:
        [(name, value)] = each["bound"].items()
        if each["filter"] in ("words", "long"):
            beyond = value + 0.5 if name == "min" else value - 0.5
            other = "max=999" if name == "min" else "min=0"
            sets = [f"{each['filter']}.{name}={beyond}", f"{each['filter']}.{other}"]
            done = recurate(place, sets, project=tmp_path / "project", dry_run=True)
            assert (kept["id"], each["filter"]) in done.changes.leave


def test_in_words(run: Path) -> None:
    assert of_task(run, 0)["because"] == ["it failed: too long", "no bound changes that"]
    [sentence] = of_task(run, 2)["because"]
    assert sentence == f"duplicate 1 > max 0.6 (by 0.4): max 1 would have kept it, {OF_THE_RUN}"
    two = next(said for said in (of_task(run, task) for task in range(5, 30)) if len(said["change"]) == 2)
    words, long = (each for each in two["filters"] if each["filter"] in ("words", "long"))
    assert [words["min"] - words["value"], long["min"] - long["value"]] == [
        words["outside_by"],
        long["outside_by"],
    ]
    first, second = two["because"]
    assert first.startswith(f"words {words['value']:g} < min 6 (by {words['outside_by']:g}): min ")
    assert first.endswith("would have kept it, if nothing else:")
    assert second.startswith(
        f"long {long['value']:g} < min 40 (by {long['outside_by']:g}) would still drop it"
    )
    assert "refusal 1 > max 0 (by 1), which only flags it" in of_task(run, 4)["because"]
    assert "words 9 ≤ max 9: any max below 9 would drop it" in of_task(run, 4)["because"]


def altered(run: Path, place: Path, *queries: str) -> Path:
    shutil.copytree(run, place)
    with closing(sqlite3.connect(place / "run.sqlite")) as journal, journal:
        for query in queries:
            journal.execute(query)
    return place


def test_a_measurement_that_was_edited_does_not_agree(run: Path, tmp_path: Path) -> None:
    query = "UPDATE records SET verdicts = json_set(verdicts, '$.words.value', 8.0) WHERE task = 1"
    said = {each["filter"]: each for each in of_task(altered(run, tmp_path / "run", query), 1)["filters"]}
    assert said["words"]["recomputed"] == {"value": 9, "agrees": False, "why": None}
    assert said["long"]["recomputed"]["agrees"] is True


def test_contents_that_were_redacted_otherwise_do_not_agree(run: Path, tmp_path: Path) -> None:
    query = (
        "UPDATE contents SET body = cast(replace(body, 'details', 'letters') AS BLOB) "
        "WHERE sha256 IN (SELECT original FROM records)"
    )
    said = {each["filter"]: each for each in of_task(altered(run, tmp_path / "run", query), 3)["filters"]}
    assert said["pii"]["recomputed"]["agrees"] is False
    assert said["words"]["recomputed"]["agrees"] is True


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("code_sha256", "0" * 64, "the code of the filter is another today"),
        ("origin", "project", "your own filter"),
        ("origin", "some-package", "a filter of the package some-package"),
        ("filter", "../../mine", "no filter of that name ships today"),
        ("filter", "_near", "no filter of that name ships today"),
        ("filter", "no_such", "no filter of that name ships today"),
        (
            "params",
            {"no": 1},
            "its parameters are not ones that it takes: filter words has no parameter 'no'",
        ),
        ("params", {"model": "x"}, "it loads a model"),
        ("model", "default", "it asks a model"),
        ("files", {"against": [{"path": "x"}]}, "it reads other files"),
        ("of", "no_such_field", "no field 'no_such_field'"),
    ],
)
def test_what_is_not_recomputed(run: Path, tmp_path: Path, path: str, value: Any, why: str) -> None:
    with RunView(run) as view:
        chain = view.chain()
    chain[1][path] = value
    quoted = json.dumps(chain).replace("'", "''")
    place = altered(run, tmp_path / "run", f"UPDATE versions SET chain = '{quoted}'")
    again = {each["filter"]: each["recomputed"] for each in of_task(place, 1)["filters"]}["words"]
    assert again["agrees"] is None
    assert why in again["why"]


def test_nothing_of_the_project_is_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parent, tmp_path / "project")
    for name in ("mine", "words", "pii", "duplicate"):
        (tmp_path / "project" / "filters" / f"{name}.py").write_text("raise SystemExit('executed')")
    said = of_task(tmp_path / "project" / "run", 1)
    assert {each["recomputed"]["agrees"] for each in said["filters"]} >= {True}


def test_a_dataset_alone(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "dataset", tmp_path / "published")
    place = place_of(tmp_path / "published")
    kept = explain(place, records(run)[1]["id"])
    assert kept["because"] == of_task(run, 1)["because"]
    assert {each["recomputed"]["why"] for each in kept["filters"]} == {
        "the contents are in the journal, which is not here"
    }
    assert explain(place, records(run)[2]["id"])["because"] == [
        "which filter dropped it is said in the journal and in dropped.jsonl alone"
    ]


def test_the_command(run: Path) -> None:
    id = records(run)[2]["id"]
    shown = CliRunner().invoke(app, ["audit", "explain", str(run), id[:12]])
    assert shown.exit_code == 0, shown.output
    assert "duplicate 1 > max 0.6 (by 0.4): max 1 would have kept it" in shown.stdout
    assert "mine       1         not recomputed: your own filter" in shown.stdout
    assert "words      9         agrees" in shown.stdout
    as_json = CliRunner().invoke(app, ["audit", "explain", str(run), id, "--json"])
    assert json.loads(as_json.stdout) == of_task(run, 2)
