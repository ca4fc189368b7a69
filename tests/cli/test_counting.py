from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from synthgen.audit import progress
from synthgen.cli import app, counting
from tests.support import loaded, recipe, run_it


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished")
    return run_it(loaded(root, recipe(filters=[{"words": {"min": 5}}]), rows=20), directory=root / "run").dir


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            "verify {}",
            ["dataset/provenance/ledger.jsonl: 10 ·", "records in the journal: 10 ·", "answers in"],
        ),
        ("verify {}/dataset", ["provenance/ledger.jsonl: 10 ·"]),
        ("diff {} {}", ["records of A: 10 ·", "records of B: 10 ·"]),
        ("trace {} words", ["records: 10 ·"]),
        ("export {} csv", ["records: 10 ·"]),
        ("export {} prov", ["records: 10 ·"]),
    ],
)
def test_long_readings_say_how_far_they_are(
    finished: Path, monkeypatch: pytest.MonkeyPatch, command: str, told: list[str]
) -> None:
    monkeypatch.setattr(progress, "EVERY", 5)
    arguments = ["audit", *command.format(finished, finished).split()]
    quick = CliRunner().invoke(app, arguments)
    assert (quick.exit_code, quick.stderr) == (0, "")
    monkeypatch.setattr(counting, "FIRST", 0.0)
    monkeypatch.setattr(counting, "EVERY", 0.0)
    slow = CliRunner().invoke(app, arguments)
    assert slow.stdout == quick.stdout
    for each in told:
        assert each in slow.stderr
