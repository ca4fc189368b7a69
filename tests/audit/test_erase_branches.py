"""`audit erase` and `audit trace` of tasks that branch, rows that come again, surplus, and mixes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthgen.audit.erase import erase
from synthgen.audit.place import place_of
from synthgen.audit.quarantine import quarantine
from synthgen.audit.trace import trace
from synthgen.audit.verify import verify
from synthgen.cli import app
from synthgen.engines.base import Request, RequestFailed
from synthgen.errors import UsageError
from synthgen.recurate import recurate
from tests.audit.test_verify import found
from tests.support import FakeEngine, answer_of, docs, loaded, read_jsonl, recipe, run_it, tree

SECRET = "Zyx-7734-Qwv"
ROWS = [*docs(6), {"text": f"what {SECRET} said"}, *docs(5, start=50)]
LINE = 7


def answer(request: Request) -> Any:
    said = request.messages[-1]["content"]
    if said.startswith("List"):
        return json.dumps([f"a of {said}", f"b of {said}", f"fail of {said}"])
    if said.startswith("Tell fail"):
        return RequestFailed(f"cannot say: {said}")
    return f"{answer_of(request)} and more words of {said}"


BRANCHING = recipe(
    steps=[
        {
            "points": {
                "prompt": {"user": "List {{ doc }}"},
                "output": {"type": "array", "items": {"type": "string"}},
            }
        },
        {"point": {"prompt": {"user": "Tell {{ item }}"}, "foreach": "points"}},
        {"answer": {"prompt": {"user": "Say {{ point }}"}, "n": 2}},
    ],
    filters=[{"words": {"min": 5}}, {"duplicate": {"of": "instruction", "max": 0.8}}],
)


def holding(place: Path, text: str) -> list[str]:
    return [name for name, data in tree(place).items() if text.encode() in data]


def all_of(place: Path, source: str) -> list[str]:
    traced = trace(place_of(place), source)
    return [id for ids in traced.ids.values() for id in ids]


def test_every_branch_goes_and_the_proofs_of_the_others_hold(tmp_path: Path) -> None:
    place = run_it(
        loaded(tmp_path, BRANCHING, rows=ROWS), FakeEngine(answer), directory=tmp_path / "runs" / "a"
    ).dir
    recurate(place, ["words.min=1"], project=tmp_path)
    quarantine(trace(place_of(place), "data/docs.jsonl:1"))
    out = all_of(place, f"data/docs.jsonl:{LINE}")
    assert len(out) == 5  # two branches of two, and one that failed
    runner, other = CliRunner(), all_of(place, "data/docs.jsonl:3")[0]
    for arguments in (
        ["show", str(place), other, "--proof", str(tmp_path / "proof.json")],
        ["show", str(place), out[0], "--proof", str(tmp_path / "erased.json")],
        ["checkpoint", str(place), "-o", str(tmp_path / "checkpoint.json")],
    ):
        assert runner.invoke(app, ["audit", *arguments]).exit_code == 0
    assert runner.invoke(app, ["report", str(place)]).exit_code == 0
    assert holding(place, SECRET)
    erase(place, out[:1])
    assert verify(place).intact, found(verify(place))
    erase(place, out)
    assert holding(place, SECRET) == []
    assert verify(place, checkpoint=tmp_path / "checkpoint.json").intact
    for name in ("proof", "erased"):  # what was proved stays proved
        assert (
            runner.invoke(app, ["audit", "verify", "--proof", str(tmp_path / f"{name}.json")]).exit_code == 0
        )


def test_what_is_left_over_of_a_target_goes_too(tmp_path: Path) -> None:
    """Rows come again, and answers beyond the cut are of no record: nobody could name them."""
    said = recipe(target=15, passes=4, filters=[{"words": {"min": 5}}])
    rows = [{"text": f"what {SECRET} said"}, *docs(5)]
    place = run_it(
        loaded(tmp_path, said, rows=rows), FakeEngine(answer, slots=32), directory=tmp_path / "run"
    ).dir
    with closing(sqlite3.connect(place / "run.sqlite")) as journal:
        asked = journal.execute(
            "SELECT count(*) FROM requests WHERE instr(body, ?)", (SECRET.encode(),)
        ).fetchone()[0]
    out = all_of(place, "data/docs.jsonl:1")
    assert asked > len(out)
    erase(place, out)
    assert holding(place, SECRET) == []
    assert verify(place).intact, found(verify(place))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A mix of a dataset that a model wrote and one of a person's rows."""
    for name, said in {"one": recipe(name="one"), "two": recipe(name="two")}.items():
        root = tmp_path / name
        rows = [
            *docs(4, start=len(name) * 10 + (name == "two") * 40),
            {"text": f"what {SECRET} said of {name}"},
        ]
        run_it(loaded(root, said, rows=rows), FakeEngine(answer), directory=root / "runs" / name)
    paths = [str(tmp_path / name / "runs" / name) for name in ("one", "two")]
    done = CliRunner().invoke(app, ["mix", *paths, "-o", str(tmp_path / "mixed")])
    assert done.exit_code == 0, done.output
    [path] = (tmp_path / "mixed").rglob("run.sqlite")
    return path.parent


def test_a_mix_is_traced_and_erased(mixed: Path, tmp_path: Path) -> None:
    assert verify(mixed).intact, found(verify(mixed))
    rows = read_jsonl(mixed / "dataset" / "train.jsonl")
    out = [row["id"] for row in rows if SECRET in json.dumps(row)]
    assert len(out) == 2
    of_one = all_of(mixed, "dataset:one")
    assert len(of_one) == 5
    for source, count in {
        "data/docs.jsonl": 10, "data/docs.jsonl:5": 2, "data/docs.jsonl:77": 0, "data/rows.jsonl": 10,
        "data/rows.jsonl:1": 1, "seed:data/docs.jsonl:1": 2, "elsewhere.jsonl": 0, "dataset:three": 0,
    }.items():  # fmt: skip
        if count:
            assert len(all_of(mixed, source)) == count, source
        else:
            with pytest.raises(UsageError, match="no record descends from"):
                all_of(mixed, source)
    quarantine(trace(place_of(mixed), "dataset:one"))
    left = read_jsonl(mixed / "versions" / "2" / "dataset" / "train.jsonl")
    assert {row["dataset"] for row in left} == {"two"}
    erase(mixed, out)
    assert holding(mixed, SECRET) == []
    assert verify(mixed).intact, found(verify(mixed))
