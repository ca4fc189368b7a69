"""`audit diff`: inputs that differ, and each record that entered, left or changed, with its cause."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from synthgen import driver
from synthgen.audit.diff import diff
from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import place_of
from synthgen.cli import app
from synthgen.engines.base import ModelIdentity, Request, RequestFailed
from synthgen.recurate import recurate
from tests.support import FakeEngine, answer_of, docs, loaded, no_more_than, read_jsonl, recipe, run_it

FILTERED = recipe(filters=[{"words": {"min": 6}}])


def made(root: Path, said: Any = FILTERED, answer: Any = None, *, name: str = "m", **parts: Any) -> Path:
    engine = FakeEngine(answer, identity=ModelIdentity("fake", name))
    return run_it(loaded(root, said, **parts), engine, directory=root / "run").dir


def compared(a: Path, b: Path, limit: int = 1000) -> dict[str, Any]:
    return diff(place_of(a), place_of(b), limit)


def inputs(said: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {each["input"]: (each["a"], each["b"]) for each in said["inputs"]}


def causes(part: dict[str, Any]) -> dict[str, str]:
    return {record["id"]: record["cause"] for record in part["records"]}


def kept(directory: Path) -> set[str]:
    return {row["id"] for row in read_jsonl(directory / "dataset" / "train.jsonl")}


def test_a_run_and_itself(tmp_path: Path) -> None:
    run = made(tmp_path, rows=20)
    said = compared(run, run)
    assert (said["inputs"], said["entered"]["count"], said["left"]["count"], said["changed"]["count"]) == (
        [], 0, 0, 0,
    )  # fmt: skip
    assert said["kept_in_both"] == said["a"]["kept"] == len(kept(run)) > 0


def test_a_bound_that_was_moved(tmp_path: Path) -> None:
    run = made(tmp_path, rows=30)
    version = recurate(run, ["words.min=4", "words.max=8"], project=tmp_path).result.dir
    said = compared(run, version)
    assert inputs(said) == {"filters.words.min": (6, 4), "filters.words.max": (None, 8)}
    entered, left = causes(said["entered"]), causes(said["left"])
    assert set(entered) == kept(version) - kept(run)
    assert set(left) == kept(run) - kept(version)
    assert entered
    assert left
    assert set(entered.values()) <= {"dropped in A by words 4", "dropped in A by words 5"}
    assert set(left.values()) <= {"dropped in B by words 9", "dropped in B by words 10"}
    assert said["left"]["states"] == {"dropped": len(left)}
    back = compared(version, run)
    assert set(causes(back["entered"])) == set(left)
    assert set(causes(back["left"])) == set(entered)


def test_another_model_prompt_and_seed_file(tmp_path: Path) -> None:
    one = made(tmp_path / "one", rows=8)
    steps = [
        {"answer": {"prompt": {"user": "Tell something of {{ doc }}"}, "sampling": {"temperature": 0.5}}}
    ]
    other = made(
        tmp_path / "other",
        recipe(steps=steps, filters=[{"words": {"min": 2}}, "refusal"]),
        rows=docs(8, start=4),
        name="n",
    )
    said = compared(one, other)
    found = inputs(said)
    assert found["models.default.id"] == ("m", "n")
    assert {"prompts.answer.sha256", "seeds.doc.files.data/docs.jsonl"} <= found.keys()
    assert found["recipe.steps.0.answer.prompt.user"] == (
        "Say something of {{ doc }}",
        "Tell something of {{ doc }}",
    )
    assert found["sampling.answer.temperature"][1] == 0.5
    assert found["filters.order"] == (["words"], ["words", "refusal"])
    assert found["filters.refusal.origin"] == (None, "shipped")
    assert not any(name.startswith("recipe.filters") for name in found)
    both = kept(one) & kept(other)
    assert set(causes(said["changed"])) == both
    assert set(causes(said["changed"]).values()) == {
        "it was asked otherwise: another prompt, model, sampling or answer before"
    }
    assert "not planned in A" in causes(said["entered"]).values()
    assert set(causes(said["left"]).values()) == {"not planned in B"}


def test_the_same_requests_with_other_answers(tmp_path: Path) -> None:
    one = made(tmp_path / "one", rows=5)
    other = made(
        tmp_path / "other", answer=lambda request: answer_of(request) + " and more words yet", rows=5
    )
    said = compared(one, other)
    assert said["inputs"] == []
    assert set(causes(said["changed"])) == kept(one)
    assert all(cause.startswith("the same requests") for cause in causes(said["changed"]).values())


def test_what_failed_on_the_other_side(tmp_path: Path) -> None:
    def broken(request: Request) -> Any:
        return RequestFailed("too long") if "number 2" in str(request.messages) else answer_of(request)

    whole = recipe(filters=[{"words": {"min": 1}}])
    said = compared(made(tmp_path / "a", whole), made(tmp_path / "b", whole, broken))
    assert list(causes(said["left"]).values()) == ["failed in B: too long"]
    assert said["left"]["states"] == {"failed": 1}


def test_beyond_the_cut_and_not_planned(tmp_path: Path) -> None:
    """The same plan: certain. Another: it may be either. Fewer tasks: not planned."""
    whole = made(tmp_path / "whole", recipe(filters=[{"words": {"min": 1}}]), rows=20)
    short = made(tmp_path / "short", recipe(filters=[{"words": {"min": 1}}], target=5, passes=1), rows=20)
    said = compared(whole, short)
    assert said["left"]["count"] == 15
    assert set(causes(said["left"]).values()) == {"beyond the cut of B, or not planned there"}
    longer = made(tmp_path / "longer", recipe(filters=[{"words": {"min": 1}}], target=9, passes=1), rows=20)
    assert set(causes(compared(longer, short)["left"]).values()) == {"beyond the cut of B"}
    few = made(tmp_path / "few", recipe(filters=[{"words": {"min": 1}}], tasks=5), rows=20)
    assert set(causes(compared(whole, few)["left"]).values()) == {"not planned in B"}


def test_a_run_that_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(tmp_path / "whole", rows=12)
    cancel = threading.Event()
    given = loaded(tmp_path / "part", FILTERED, rows=12)
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.0)
    engine = FakeEngine(no_more_than(5, cancel), slots=1, identity=ModelIdentity("fake", "m"))
    part = run_it(given, engine, directory=tmp_path / "part" / "run", cancel=cancel).dir
    said = compared(whole, part)
    assert set(causes(said["left"]).values()) == {"not judged yet in B"}
    assert said["left"]["count"] == said["a"]["kept"] - said["b"]["kept"]
    assert said["inputs"] is None


def test_datasets_alone_give_the_same_sets(tmp_path: Path) -> None:
    run = made(tmp_path, rows=30)
    version = recurate(run, ["words.min=4", "words.max=8"], project=tmp_path).result.dir
    shutil.copytree(run / "dataset", tmp_path / "one")
    shutil.copytree(version / "dataset", tmp_path / "two")
    whole, alone = compared(run, version), compared(tmp_path / "one", tmp_path / "two")
    for part in ("entered", "left", "changed"):
        assert causes(whole[part]).keys() == causes(alone[part]).keys()
    assert alone["inputs"] == whole["inputs"]
    assert set(causes(alone["left"]).values()) == {"dropped in B: why is not said in a dataset alone"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("diff")
    made(root, rows=40)
    return root


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(low=st.integers(3, 10), high=st.integers(3, 10), limit=st.integers(1, 12))
def test_it_is_what_curate_says_of_new_bounds(run: Path, low: int, high: int, limit: int) -> None:
    low, high = min(low, high), max(low, high)
    done = recurate(run / "run", [f"words.min={low}", f"words.max={high}"], project=run)
    said = diff(place_of(run / "run"), place_of(done.result.dir), limit)
    for part, changes in (("entered", done.changes.enter), ("left", done.changes.leave)):
        assert said[part]["count"] == len(changes)
        assert list(causes(said[part])) == sorted(id for id, _ in changes)[:limit]
    assert said["kept_in_both"] == said["a"]["kept"] - said["left"]["count"]
    assert said["b"]["kept"] == said["kept_in_both"] + said["entered"]["count"]


HOSTILE = [
    "UPDATE records SET verdicts = '{}'",
    "UPDATE records SET id = 3",
    "UPDATE records SET task = -1 WHERE task = 1",
    "UPDATE records SET requests = 'x'",
    "UPDATE records SET content = 3.5",
    "DROP TABLE records",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_a_journal_of_a_hostile_person_ends_in_a_sentence(run: Path, tmp_path: Path, query: str) -> None:
    shutil.copytree(run / "run", tmp_path / "run")
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as journal, journal:
        journal.execute(query)
    done = CliRunner().invoke(app, ["audit", "diff", str(run / "run"), str(tmp_path / "run")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 2)


@pytest.mark.parametrize("name", ["ledger.jsonl", "train.jsonl", "recipe.lock.yaml"])
@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]\n", b"{}\n", b"{" * 100_000, b"\xff\xfe", b'{"id": {}, "task": 1e30}\n', b"filters: [3]\n",
        b'{"id": 1, "state": "kept", "task": 18446744073709551615, "requests": [], "content_sha256": ""}\n',
        b"seeds: 3\nrecipe: 4\nfilters: {a: 1}\n", b"&a [*a]\n",
    ],
)  # fmt: skip
def test_a_dataset_of_a_hostile_person_ends_in_a_sentence(
    run: Path, tmp_path: Path, name: str, data: bytes
) -> None:
    shutil.copytree(run / "run" / "dataset", tmp_path / "published")
    (tmp_path / "published" / "provenance" / name).write_bytes(data)
    done = CliRunner().invoke(app, ["audit", "diff", str(run / "run"), str(tmp_path / "published")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 2)


def test_the_command(run: Path, tmp_path: Path) -> None:
    version = recurate(run / "run", ["words.min=9"], project=run).result.dir
    runner = CliRunner()
    shown = runner.invoke(app, ["audit", "diff", str(run / "run"), str(version), "-n", "2"])
    assert shown.exit_code == 0, shown.output
    assert "filters.words.min: 6.0 → 9.0" in shown.stdout
    assert "dropped in B by words" in shown.stdout
    assert "more" in shown.stdout
    as_json = runner.invoke(app, ["audit", "diff", str(run / "run"), str(version), "--json"])
    assert json.loads(as_json.stdout) == compared(run / "run", version, 20)
    refused = runner.invoke(app, ["audit", "diff", str(run / "run"), str(tmp_path)])
    assert refused.exit_code == 2
    with pytest.raises(CannotJudge):
        compared(tmp_path, run / "run")
