"""Budgets: where each cuts, in task order or recorded, and what is said of it."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen import driver
from synthgen.audit.verify import verify
from synthgen.engines.base import Completion, Request, RequestFailed
from synthgen.recipe import Budget
from synthgen.recipe_models import Prices
from synthgen.run_result import Progress
from synthgen.spending import Spent
from synthgen.workers import InProcess
from synthgen.yamlfile import read_yaml
from tests.support import (
    FakeEngine,
    adds_up,
    answer_of,
    answers,
    loaded,
    problems,
    project,
    recipe,
    run_it,
    tree,
)

PRICED = {"id": "some-model", "prices": {"input": 0.1, "output": 0.4}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))
    monkeypatch.setattr(driver, "TICK", 0.001)


def tokens_of(request: Request) -> int:
    return 1 + int(request.key[:2], 16)


def counted(request: Request) -> Any:
    """Answers of many lengths, and failures, which cost nothing."""
    if request.key.startswith("5"):
        return RequestFailed("too long")
    return Completion(answer_of(request), "stop", 7, tokens_of(request))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 16), st.integers(0, 2**32))
def test_tokens_cut_in_task_order_whatever_order_answers_come_in(budget: int, slots: int, seed: int) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        said = recipe(budget={"output_tokens": budget})
        given_ = loaded(root, said, rows=40)
        one = run_it(given_, FakeEngine(counted, slots=1), directory=root / "one")
        other = FakeEngine(counted, slots=slots, shuffle=random.Random(seed))
        many = run_it(given_, other, directory=root / "many")
        assert tree(root / "one" / "dataset") == tree(root / "many" / "dataset")
        assert (one.planned, one.kept, one.failed) == (many.planned, many.kept, many.failed)
        assert adds_up(one)
        assert adds_up(many)
        spent = 0
        first = FakeEngine(counted, slots=1)
        run_it(loaded(root, recipe(), rows=40), first, directory=root / "whole")
        for place_, request in enumerate(first.asked, 1):
            spent += 0 if request.key.startswith("5") else tokens_of(request)
            if spent >= budget:
                assert (one.planned, one.ended_by, one.outcome) == (place_, "output_tokens", "short")
                break
        else:
            assert (one.planned, one.ended_by) == (40, "tasks")
        # what is in flight when the budget is spent, and little more
        assert len(other.asked) <= one.planned + max(16, slots + slots // 8)


def test_money_is_what_tokens_cost(tmp_path: Path) -> None:
    given_ = loaded(tmp_path, recipe(model=PRICED, budget={"money": 0.00002}), rows=40)
    result = run_it(given_, FakeEngine(lambda request: Completion(answer_of(request), "stop", 10, 5)))
    # 10 tokens in and 5 out are 0.000003 each
    assert (result.planned, result.ended_by) == (7, "money")
    assert result.money == pytest.approx(0.000021)
    assert run_it(given_).outcome == "nothing to do"


def test_money_adds_up_to_the_same_in_any_order() -> None:
    prices = Prices(input=0.1, output=0.7)
    made = [Completion("", "stop", n, 3 * n) for n in range(1, 200)]
    totals = set()
    for seed in range(5):
        random.Random(seed).shuffle(made)
        spent = Spent()
        for completion in made:
            spent.add(completion, prices)
        totals.add(spent.units)
    assert len(totals) == 1
    assert spent.money == pytest.approx(sum(range(1, 200)) * (0.1 + 3 * 0.7) / 1e6)
    assert spent.exhausts(Budget(money=spent.money / 2)) == "money"
    assert spent.exhausts(Budget(money=spent.money * 2)) is None


def test_money_needs_prices(tmp_path: Path) -> None:
    [problem] = problems(project(tmp_path, recipe(budget={"money": 1.0})))
    assert "costs is not known" in str(problem)
    assert "prices" in str(problem)


def test_a_target_ends_with_its_budget(tmp_path: Path) -> None:
    said = recipe(target=30, filters=[{"words": {"min": 6}}], budget={"output_tokens": 60})
    result = run_it(loaded(tmp_path, said, rows=100))
    assert (result.planned, result.ended_by, result.outcome) == (12, "output_tokens", "short")
    assert result.kept < 12


def test_seconds_cut_where_they_end_and_say_where(tmp_path: Path) -> None:
    def slowly(request: Request) -> Any:
        async def answer() -> Any:
            if len(engine.answered) >= 9:
                await asyncio.sleep(0.25)
            return answer_of(request)

        return answer()

    engine = FakeEngine(slowly, slots=1)
    given_ = loaded(tmp_path, recipe(budget={"seconds": 0.4}), rows=500)
    result = run_it(given_, engine)
    assert (result.ended_by, result.outcome, result.pending) == ("seconds", "short", 0)
    assert 9 <= result.planned < 500
    assert adds_up(result)
    assert len(answers(result.dir)) == result.planned
    locked = read_yaml(result.dir / "recipe.lock.yaml").data
    assert locked["cut"] == {"by": "seconds", "after": result.planned}
    assert verify(result.dir).intact
    again = FakeEngine()
    assert run_it(given_, again).outcome == "nothing to do"
    assert again.asked == []
    more = run_it(loaded(tmp_path, recipe(budget={"seconds": 500.0}), rows=500), again)
    assert (more.outcome, more.kept) == ("done", 500)
    assert len(again.asked) <= 500 - result.planned


def test_a_cut_stands_when_the_files_were_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by the clock, then a crash before the dataset is there: the same cut, and nothing is asked."""

    def cut(progress: Progress) -> None:
        if len(engine.answered) >= 20:
            slow.set()

    async def answer(request: Request) -> str:
        while slow.is_set():
            await asyncio.sleep(0.01)
            if engine.most > 10**6:
                break
        return answer_of(request)

    slow = threading.Event()
    engine = FakeEngine(answer, slots=1)
    given_ = loaded(tmp_path, recipe(budget={"seconds": 0.5}), rows=5000)
    monkeypatch.setattr(driver, "DRAIN_SECONDS", 0.05)
    with monkeypatch.context() as broken:
        broken.setattr(driver, "write_version", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_it(given_, engine, on_progress=cut)
    judged = len(engine.answered)
    rest = FakeEngine()
    result = run_it(given_, rest)
    assert rest.asked == []
    assert (result.ended_by, result.planned) == ("seconds", judged)
    assert len(answers(result.dir)) == judged
