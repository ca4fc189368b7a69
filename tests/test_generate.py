"""Generation: task order whatever comes first, bounded look-ahead, faults ridden out, and no answer lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.asking import Asker
from synthgen.engines.base import Completion, ModelIdentity, Request, RequestFailed, RequestRetryable
from synthgen.errors import EngineUnreachable
from synthgen.generate import LEAST_AHEAD, Branch, Generation
from synthgen.journal import Journal, open_journal
from synthgen.loaded import Loaded
from synthgen.recipe_steps import RE_ASKS
from synthgen.supervisor import Patience, Slots
from tests.support import FakeEngine, answer_of, loaded, recipe

TWO_STEPS = [
    {"question": {"prompt": {"user": "Ask about {{ doc }}"}}},
    {"answer": {"prompt": {"user": "Answer {{ question }}"}}},
]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STRUCTURED = [{"answer": {"prompt": {"user": "Count {{ doc }}", "output": SCHEMA}}}]


@contextmanager
def journal_in(folder: Path) -> Iterator[Journal]:
    journal = open_journal(folder, "a")
    try:
        journal.begin_session("run", {})
        yield journal
    finally:
        journal.close()


async def collect(generation: Generation, watch: Callable[[Branch], Any] | None = None) -> list[Branch]:
    found = []
    try:
        async with aclosing(generation.branches()) as branches:
            async for branch in branches:
                found.append(branch)
                if watch is not None:
                    watch(branch)
    finally:
        await generation.asker.close()
    return found


def branches(given: Loaded, engine: Any, journal: Journal, **options: Any) -> list[Branch]:
    return asyncio.run(collect(generating(given, engine, journal), **options))


def generating(given: Loaded, engine: Any, journal: Journal, **options: Any) -> Generation:
    engines = engine if isinstance(engine, dict) else {"": engine}
    own = {name: options.pop(name) for name in ("others", "patience", "note") if name in options}
    asker = Asker(engines, given.models, journal, seed=given.recipe.seed, **own)
    return Generation(given, asker, journal, **options)


def run(
    tmp_path: Path, engine: Any, said: Any = None, *, rows: int = 5, **options: Any
) -> tuple[list[Branch], Generation]:
    given = loaded(tmp_path, said, rows=rows)
    with journal_in(tmp_path / "run") as journal:
        generation = generating(given, engine, journal, **options)
        return asyncio.run(collect(generation)), generation


def value(branch: Branch) -> Any:
    assert branch.body is not None, branch.error
    return json.loads(branch.body)["fields"]["answer"]


def test_one_answer_a_task(tmp_path: Path) -> None:
    engine = FakeEngine()
    found, generation = run(tmp_path, engine)
    assert [branch.task for branch in found] == [0, 1, 2, 3, 4]
    assert {branch.path for branch in found} == {"0"}
    by_text = {request.messages[0]["content"]: request for request in engine.asked}
    for branch in found:
        request = by_text[f"Say something of document number {branch.task}"]
        assert [key.hex() for key in branch.requests] == [request.key]
        assert value(branch) == answer_of(request)
        assert request.sampling == {"max_tokens": 512}
        assert 0 <= request.seed < 2**31
    assert len({branch.id for branch in found}) == 5
    asker = generation.asker
    assert (asker.tally.asked, asker.tally.reused, asker.in_flight) == (
        5,
        0,
        0,
    )
    assert (asker.tally.input_tokens, asker.tally.output_tokens) == (50, 25)
    assert (engine.started, engine.closed) == (1, 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 20))
def test_order_is_kept_whatever_order_answers_come_in(seed: int, slots: int, rows: int) -> None:
    with TemporaryDirectory() as place:
        root = Path(place)
        engine = FakeEngine(slots=slots, shuffle=random.Random(seed))
        found, _ = run(root, engine, recipe(steps=TWO_STEPS), rows=rows)
        plain, _ = run(root / "plain", FakeEngine(slots=1), recipe(steps=TWO_STEPS), rows=rows)
        assert [branch.task for branch in found] == list(range(rows))
        assert found == plain
        assert engine.most <= slots
        assert len(set(engine.keys)) == len(engine.keys) == 2 * rows


def test_answers_do_come_out_of_order_in_that_test(tmp_path: Path) -> None:
    engine = FakeEngine(slots=8, shuffle=random.Random(1))
    run(tmp_path, engine, rows=20)
    assert engine.answered != engine.keys


def test_slots_are_filled_and_never_exceeded(tmp_path: Path) -> None:
    for slots in (1, 3, 8):
        engine = FakeEngine(slots=slots, shuffle=random.Random(1))
        run(tmp_path / str(slots), engine, rows=30)
        assert engine.most == slots


def test_slots_may_change_while_running() -> None:
    async def main() -> list[int]:
        engine = FakeEngine(slots=1)
        slots = Slots(engine)
        order: list[int] = []

        async def one(task: int) -> None:
            await slots.take(task)
            order.append(task)

        await slots.take(0)
        waiting = [asyncio.create_task(one(task)) for task in (5, 3, 4, 1, 2)]
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == []
        waiting[3].cancel()
        await asyncio.gather(waiting[3], return_exceptions=True)
        engine.slots = 3
        slots.give_back()
        for _ in range(3):
            await asyncio.sleep(0)
        assert slots.taken == 3
        first = list(order)
        for _ in range(5):
            slots.give_back()
            await asyncio.sleep(0)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == [2, 3, 4, 5]
        return first

    assert asyncio.run(main()) == [2, 3, 4]


def test_look_ahead_is_bounded_while_the_first_task_hangs(tmp_path: Path) -> None:
    given = loaded(tmp_path, rows=LEAST_AHEAD * 2)
    release: list[asyncio.Event] = []
    asked_at_release: list[int] = []

    async def answer(request: Request) -> str:
        if request.messages[0]["content"].endswith("number 0"):
            await release[0].wait()
        return answer_of(request)

    engine = FakeEngine(answer, slots=4)

    async def main(journal: Journal) -> list[Branch]:
        release.append(asyncio.Event())
        generation = generating(given, engine, journal)
        collecting = asyncio.create_task(collect(generation))
        before = -1
        while len(engine.asked) != before:
            before = len(engine.asked)
            for _ in range(50):
                await asyncio.sleep(0)
        asked_at_release.append(before)
        release[0].set()
        return await collecting

    with journal_in(tmp_path / "run") as journal:
        found = asyncio.run(main(journal))
    assert asked_at_release == [LEAST_AHEAD]
    assert [branch.task for branch in found] == list(range(LEAST_AHEAD * 2))


def test_look_ahead_can_be_narrowed(tmp_path: Path) -> None:
    given = loaded(tmp_path, rows=50)
    engine = FakeEngine(slots=16)
    ahead: list[int] = []
    with journal_in(tmp_path / "run") as journal:
        generation = generating(given, engine, journal)
        generation.go_up_to(3)

        def watch(branch: Branch) -> None:
            ahead.append(len(engine.asked) - branch.task)
            if branch.task == 2:
                asyncio.get_running_loop().call_later(0.01, generation.go_up_to, 20)
            elif branch.task > 2:
                generation.go_up_to(branch.task + 3)

        found = asyncio.run(collect(generation, watch))
    assert len(found) == 50
    assert ahead[:3] == [3, 2, 1]
    assert max(ahead) <= 20 - 3


def test_retryable_errors_are_ridden_out(tmp_path: Path) -> None:
    tries: dict[str, int] = {}

    def answer(request: Request) -> Any:
        tries[request.key] = tries.get(request.key, 0) + 1
        if tries[request.key] < 4:
            return RequestRetryable("busy", retry_after=0, overloaded=True)
        return answer_of(request)

    engine = FakeEngine(answer)
    found, generation = run(tmp_path, engine)
    assert [branch.error for branch in found] == [None] * 5
    assert set(tries.values()) == {4}
    assert generation.asker.tally.retries == 15
    assert generation.asker.tally.asked == 5
    assert len(set(engine.keys)) == 5


def test_an_engine_that_does_not_come_back_is_given_up(tmp_path: Path) -> None:
    engine = FakeEngine(lambda _: RequestRetryable("no route", retry_after=0))
    with pytest.raises(EngineUnreachable, match="no route") as caught:
        run(tmp_path, engine, patience=Patience(faults=0.0))
    assert caught.value.exit_code == 4
    assert engine.closed == 1


def test_an_engine_that_does_not_start(tmp_path: Path) -> None:
    class Broken(FakeEngine):
        async def start(self) -> None:
            raise EngineUnreachable("no such model")

    engine = Broken()
    with pytest.raises(EngineUnreachable, match="no such model"):
        run(tmp_path, engine)
    assert engine.asked == []
    assert engine.closed == 1


def test_a_permanent_failure_is_one_records_own(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        if "number 2" in request.messages[0]["content"]:
            return RequestFailed("the prompt is too long")
        return answer_of(request)

    found, _ = run(tmp_path, FakeEngine(answer))
    assert [branch.error for branch in found] == [None, None, "the prompt is too long", None, None]
    assert found[2].body is None
    assert len(found[2].requests) == 1
    again = FakeEngine()
    after, generation = run(tmp_path, again)
    assert after == found
    assert again.asked == []
    assert again.started == 0
    assert generation.asker.tally.reused == 4


def test_invalid_json_is_asked_again_as_another_request(tmp_path: Path) -> None:
    given_before: dict[str, int] = {}

    def answer(request: Request) -> Any:
        assert request.schema == SCHEMA
        text = request.messages[0]["content"]
        given_before[text] = given_before.get(text, 0) + 1
        bad = ["not json at all", '{"n": "one"}', '{"n": 3}']
        return bad[given_before[text] - 1]

    engine = FakeEngine(answer)
    found, _ = run(tmp_path, engine, recipe(steps=STRUCTURED))
    assert [value(branch) for branch in found] == [{"n": 3}] * 5
    for branch in found:
        assert len(set(branch.requests)) == len(branch.requests) == 3
    seeds = {request.seed for request in engine.asked}
    assert len(seeds) == len(engine.asked) == 15
    again = FakeEngine()
    assert run(tmp_path, again, recipe(steps=STRUCTURED))[0] == found
    assert again.asked == []


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("", "stop", "the answer is empty"),
        (" \n\t", "length", "the answer is empty"),
        ('{"n": 1', "length", "is not JSON .it was cut at max_tokens."),
        ('{"n": 1', "stop", "is not JSON, asked"),
        ('{"n": 1} and more', "stop", "is not JSON"),
        ("[]", "stop", "not valid under its schema"),
        ('{"m": 1}', "stop", "'n' is a required property"),
    ],
)
def test_an_answer_that_stays_useless_fails_its_record(
    tmp_path: Path, text: str, reason: str, said: str
) -> None:
    engine = FakeEngine(lambda _: Completion(text, reason, 1, 1))
    found, _ = run(tmp_path, engine, recipe(steps=STRUCTURED), rows=1)
    assert len(engine.asked) == RE_ASKS + 1
    with pytest.raises(ValueError, match=said):
        raise ValueError(found[0].error)
    assert "step answer" in str(found[0].error)
    assert found[0].body is None


def test_a_plain_answer_that_was_cut_is_kept_and_stripped(tmp_path: Path) -> None:
    engine = FakeEngine(lambda _: Completion("  half an answ\n", "length", 1, 1))
    found, _ = run(tmp_path, engine, rows=1)
    assert value(found[0]) == "half an answ"


def test_steps_follow_one_another(tmp_path: Path) -> None:
    engine = FakeEngine(shuffle=random.Random(3))
    found, _ = run(tmp_path, engine, recipe(steps=TWO_STEPS))
    by_key = {request.key: request for request in engine.asked}
    for branch in found:
        assert branch.body is not None
        fields = json.loads(branch.body)["fields"]
        first, second = (by_key[key.hex()] for key in branch.requests)
        assert fields["question"] == answer_of(first)
        assert second.messages == [{"role": "user", "content": f"Answer {fields['question']}"}]
        assert fields["answer"] == answer_of(second)


def test_models_by_name(tmp_path: Path) -> None:
    small = FakeEngine(slots=1, identity=ModelIdentity("fake", "small"))
    large = FakeEngine(slots=5, identity=ModelIdentity("fake", "large"))
    steps = [
        {"question": {"prompt": {"user": "Ask about {{ doc }}"}, "model": "small"}},
        {"answer": {"prompt": {"user": "Answer {{ question }}"}, "model": "large"}},
        {"check": {"prompt": {"user": "Answer {{ question }}"}, "model": "small"}},
    ]
    said = recipe(model=None, models={"small": "x", "large": "y"}, steps=steps)
    found, _ = run(tmp_path, {"small": small, "large": large}, said)
    assert [len(small.asked), len(large.asked)] == [10, 5]
    assert small.most == 1
    assert all(len(set(branch.requests)) == 3 for branch in found)
    assert (small.closed, large.closed) == (1, 1)


def test_equal_requests_of_one_branch_are_numbered(tmp_path: Path) -> None:
    steps = [
        {"one": {"prompt": {"user": "Say {{ doc }}"}}},
        {"answer": {"prompt": {"user": "Say {{ doc }}"}}},
    ]
    engine = FakeEngine()
    found, _ = run(tmp_path, engine, recipe(steps=steps))
    assert len(set(engine.keys)) == 10
    for branch in found:
        assert branch.body is not None
        fields = json.loads(branch.body)["fields"]
        assert fields["one"] != fields["answer"]


def test_equal_requests_of_two_tasks_are_one(tmp_path: Path) -> None:
    """Every answer here is another, so tasks agree only if each request is asked once."""
    count = iter(range(1000))
    engine = FakeEngine(lambda _: f"answer {next(count)}", shuffle=random.Random(1))
    said = recipe(
        seeds={"doc": ["x", "y"], "not_in_the_prompt": list(range(6))},
    )
    found, generation = run(tmp_path, engine, said)
    assert len(engine.asked) == 2
    assert (generation.asker.tally.asked, generation.asker.tally.reused) == (2, 10)
    assert len({value(branch) for branch in found}) == 2
    assert len({branch.id for branch in found}) == 12
    again, _ = run(tmp_path, FakeEngine(), said)
    assert again == found


def test_equal_requests_fail_together(tmp_path: Path) -> None:
    engine = FakeEngine(lambda _: RequestFailed("too long"), shuffle=random.Random(1))
    found, _ = run(tmp_path, engine, recipe(seeds={"doc": ["x"], "other": [1, 2, 3]}))
    assert [branch.error for branch in found] == ["too long"] * 3


def test_what_cannot_be_rendered_or_stored_fails_its_record(tmp_path: Path) -> None:
    steps = [{"answer": {"prompt": {"user": "{{ doc.title }}"}}}]
    given = loaded(
        tmp_path,
        recipe(seeds={"doc": {"path": "data/docs.jsonl"}}, steps=steps, record={"x": "{{ answer }}"}),
        rows=[{"title": "x"}, {"other": "y"}, {"title": "z"}],
    )
    with journal_in(tmp_path / "run") as journal:
        found = branches(given, FakeEngine(), journal)
    assert [branch.error is None for branch in found] == [True, False, True]
    assert str(found[1].error).startswith("step answer: a template")
    assert "title" in str(found[1].error)


def test_half_of_a_character_in_an_answer_is_replaced(tmp_path: Path) -> None:
    engine = FakeEngine(lambda _: "half of \ud83d a character")
    found, _ = run(tmp_path, engine, rows=1)
    assert value(found[0]) == "half of \N{REPLACEMENT CHARACTER} a character"
    again, _ = run(tmp_path, FakeEngine(), rows=1)
    assert again == found


def test_stopping_begins_nothing_new_and_closing_cancels_the_rest(tmp_path: Path) -> None:
    given = loaded(tmp_path, rows=100)
    cancelled: list[str] = []

    async def answer(request: Request) -> str:
        if request.messages[0]["content"].endswith(("number 5", "number 7")):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request.key)
                raise
        return answer_of(request)

    engine = FakeEngine(answer, slots=4)

    async def main(journal: Journal) -> list[Branch]:
        generation = generating(given, engine, journal)
        found = []
        async with aclosing(generation.branches()) as all_branches:
            async for branch in all_branches:
                found.append(branch)
                if branch.task == 2:
                    generation.stop()
                if branch.task == 4:
                    break
        assert generation.asker.in_flight == 0
        await generation.asker.close()
        return found

    with journal_in(tmp_path / "run") as journal:
        found = asyncio.run(main(journal))
    assert [branch.task for branch in found] == [0, 1, 2, 3, 4]
    assert len(cancelled) == 2
    assert len(engine.asked) <= 3 + LEAST_AHEAD
    again = FakeEngine()
    with journal_in(tmp_path / "run") as journal:
        rest = branches(given, again, journal)
    assert rest[:5] == found
    assert set(again.keys).isdisjoint(engine.answered)
    assert len(again.asked) + len(engine.answered) == 100
