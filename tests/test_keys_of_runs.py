"""What a run asks anew after each thing that may change, and what it asks nothing anew for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthgen import driver
from synthgen.engines.base import Completion, ModelIdentity, Request
from synthgen.workers import InProcess
from tests.support import FakeEngine, docs, loaded, recipe, run_it

IDENTITY = ModelIdentity("fake", "m", revision="r1", chat_template="t1")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STEPS = [
    {"question": {"prompt": {"system": "You ask.", "user": "Ask about {{ doc }}"}}},
    {"answer": {"prompt": {"user": "Count {{ question }}", "output": SCHEMA}, "sampling": {"top_p": 0.9}}},
]
ROWS = 4
BOTH, SECOND = 2 * ROWS, ROWS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "open_measurer", lambda chain, _project, _records: InProcess(chain))


def answer(request: Request) -> Any:
    """The first step's answers do not follow from the key, so that only what is changed changes."""
    if request.schema is None:
        return Completion(f"What of {request.messages[-1]['content']}?", "stop", 1, 1)
    return Completion('{"n": 1}', "stop", 1, 1)


def base() -> dict[str, Any]:
    return {
        "said": recipe(
            steps=copy.deepcopy(STEPS),
            sampling={"temperature": 0.8},
            record={"messages": [{"user": "{{ question }}"}, {"assistant": "{{ answer.n }}"}]},
        ),
        "rows": docs(ROWS),
        "identity": IDENTITY,
    }


def step(given: dict[str, Any], place: int) -> Any:
    return next(iter(given["said"]["steps"][place].values()))


def set_identity(**parts: Any) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        given["identity"] = ModelIdentity(
            **{"engine": "fake", "id": "m", "revision": "r1", "chat_template": "t1", **parts}
        )

    return change


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "model": (set_identity(id="other"), BOTH),
    "revision": (set_identity(revision="r2"), BOTH),
    "weights": (set_identity(weights="sha256:00"), BOTH),
    "engine": (set_identity(engine="other"), BOTH),
    "chat template": (set_identity(chat_template="t2"), BOTH),
    "template arguments": (
        lambda given: given["said"].update(model={"id": "m", "template_args": {"enable_thinking": False}}),
        BOTH,
    ),
    "system prompt": (lambda given: step(given, 0)["prompt"].update(system="You ask well."), ROWS),
    "prompt": (lambda given: step(given, 0)["prompt"].update(user="Ask of {{ doc }}"), BOTH),
    "second prompt": (lambda given: step(given, 1)["prompt"].update(user="Sum {{ question }}"), SECOND),
    "sampling": (lambda given: given["said"].update(sampling={"temperature": 0.7}), BOTH),
    "a step's sampling": (lambda given: step(given, 1).update(sampling={"top_p": 0.8}), SECOND),
    "schema": (
        lambda given: step(given, 1)["prompt"].update(output={**SCHEMA, "additionalProperties": False}),
        SECOND,
    ),
    "the recipe's seed": (lambda given: given["said"].update(seed=5), BOTH),
    "one row of the seeds": (lambda given: given["rows"][2].update(text="another document"), 2),
    "a row more": (lambda given: given["rows"].insert(1, {"text": "a new document"}), 2),
    "a row less": (lambda given: given["rows"].pop(0), 0),
    "rows in another order": (lambda given: given["rows"].reverse(), 0),
    "filters": (lambda given: given["said"].update(filters=["refusal", {"words": {"min": 1}}]), 0),
    "outputs": (lambda given: given["said"].update(output={"formats": ["jsonl"]}), 0),
    "a target": (lambda given: given["said"].update(target=3), 0),
    "a description": (lambda given: given["said"].update(description="other words"), 0),
    "the record": (lambda given: given["said"].update(record={"n": "{{ answer.n }}"}), 0),
    "the engine's version": (set_identity(details={"version": "2"}), 0),
    "a folder of another name": (lambda given: given.update(directory="elsewhere"), 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_exactly_the_requests_concerned_are_asked_again(name: str, tmp_path: Path) -> None:
    """The second step is asked again where its question changed, which here follows from the first prompt."""
    given = base()
    first = FakeEngine(answer, identity=given["identity"])
    run_it(loaded(tmp_path, given["said"], rows=given["rows"]), first, directory=tmp_path / "run")
    assert len(first.asked) == BOTH
    change, asked = CHANGES[name]
    change(given)
    place = tmp_path / given.get("directory", "run")
    again = FakeEngine(answer, identity=given["identity"])
    run_it(
        loaded(tmp_path, given["said"], rows=given["rows"]), again, directory=place, reuse=[tmp_path / "run"]
    )
    assert len(again.asked) == asked
    assert {*first.keys}.isdisjoint(again.keys)
