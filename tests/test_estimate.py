"""How long a recipe would take: from what the project's runs measured, and unknown where nothing did."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from synthgen.engines.base import Completion, ModelIdentity
from synthgen.estimate import Asked, Time, time_of
from synthgen.recipe_models import ModelRef
from tests.support import FakeEngine, loaded, recipe, run_it

MODEL = ModelRef(id="some-model")


def measured(
    root: Path, name: str = "a", *, seconds: float = 1.0, at_once: int = 1, model: str = "some-model"
) -> None:
    """A finished run of ten answers of twenty tokens, each of which took so long, so many at a time."""
    engine = FakeEngine(
        lambda _: Completion("words of an answer", "stop", 7, 20),
        identity=ModelIdentity("llamacpp", model, weights=f"sha256:{model}"),
    )
    run_it(loaded(root, recipe(name=name, model=model), rows=10, name=name), engine)
    with sqlite3.connect(root / "runs" / name / "run.sqlite") as journal:
        keys = [key for (key,) in journal.execute("SELECT key FROM requests ORDER BY rowid")]
        for number, key in enumerate(keys):
            start = 1e9 + number // at_once * seconds
            journal.execute("UPDATE requests SET issued = ? WHERE key = ?", (start, key))
            journal.execute("UPDATE completions SET arrived = ? WHERE key = ?", (start + seconds, key))


def of(root: Path, *asked: Asked, name: str = "a") -> Any:
    return time_of(list(asked), root / "runs", name)


def test_nothing_is_known_before_a_run(tmp_path: Path) -> None:
    assert of(tmp_path, Asked(MODEL, 100, 9000)) == ["some-model"]


def test_time_follows_from_what_was_measured(tmp_path: Path) -> None:
    measured(tmp_path)
    found = of(tmp_path, Asked(MODEL, 100, 9000))
    assert isinstance(found, Time)
    [rate] = found.rates
    assert (rate.run, rate.answers, rate.output_tokens, rate.seconds) == ("a", 10, 200, pytest.approx(10))
    assert found.low == pytest.approx(100)  # a hundred answers of twenty tokens at twenty a second
    assert found.high == pytest.approx(450)  # nine thousand tokens at twenty a second
    assert found.as_json()["measured"] == [
        {"run": "a", "answers": 10, "output_tokens_per_second": 20, "output_tokens_per_answer": 20}
    ]


def test_what_was_asked_at_the_same_time_counts_once(tmp_path: Path) -> None:
    measured(tmp_path, at_once=5)
    found = of(tmp_path, Asked(MODEL, 100, 9000))
    assert (found.low, found.high) == (pytest.approx(20), pytest.approx(90))


def test_answers_cannot_be_longer_than_they_may_be(tmp_path: Path) -> None:
    measured(tmp_path)
    found = of(tmp_path, Asked(MODEL, 100, 500))
    assert (found.low, found.high) == (pytest.approx(25), pytest.approx(25))


def test_the_recipes_own_runs_count_before_others(tmp_path: Path) -> None:
    measured(tmp_path, "slow", seconds=4)
    measured(tmp_path, "quick")
    asked = Asked(MODEL, 10, 400)
    assert (of(tmp_path, asked, name="quick").low, of(tmp_path, asked, name="slow").low) == (
        pytest.approx(10), pytest.approx(40),
    )  # fmt: skip
    other = of(tmp_path, asked, name="other")
    assert (other.low, other.high) == (pytest.approx(10), pytest.approx(80))
    assert {rate.run for rate in other.rates} == {"slow", "quick"}


def test_several_models_are_at_work_together_or_one_after_the_other(tmp_path: Path) -> None:
    measured(tmp_path, "one")
    measured(tmp_path, "two", seconds=2, model="other-model")
    both = [Asked(MODEL, 10, 200), Asked(ModelRef(id="other-model"), 10, 200)]
    found = of(tmp_path, *both)
    assert (found.low, found.high) == (pytest.approx(20), pytest.approx(30))
    assert of(tmp_path, *both, Asked(ModelRef(id="third"), 1, 1)) == ["third"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sessions SET environment = json_set(environment, '$.cpus', 4096)",
        "UPDATE sessions SET environment = '{}'",
        "DELETE FROM completions WHERE rowid > 7",
        "UPDATE completions SET source = 'elsewhere'",
    ],
)
def test_another_machine_and_too_little_measure_nothing(tmp_path: Path, change: str) -> None:
    measured(tmp_path)
    with sqlite3.connect(tmp_path / "runs" / "a" / "run.sqlite") as journal:
        journal.execute(change)
    assert of(tmp_path, Asked(MODEL, 10, 200)) == ["some-model"]


def test_a_journal_that_cannot_be_read_measures_nothing(tmp_path: Path) -> None:
    measured(tmp_path)
    (tmp_path / "runs" / "a" / "run.sqlite").write_bytes(b"not a database" * 99)
    assert of(tmp_path, Asked(MODEL, 10, 200)) == ["some-model"]
    (tmp_path / "runs" / "a" / "recipe.lock.yaml").write_text("- 1")
    assert of(tmp_path, Asked(MODEL, 10, 200)) == ["some-model"]
