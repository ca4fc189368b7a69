"""What tests share: projects written in a few lines, and an engine whose answers follow from the request."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from synthgen.api import load, run
from synthgen.engines.base import Completion, ModelIdentity, Request
from synthgen.errors import Problem, RecipeError, RunError
from synthgen.journal import Journal
from synthgen.loaded import Loaded
from synthgen.run_result import RunResult
from synthgen.stopping import Stop

Recipe = Mapping[str, Any] | str


def recipe(**parts: Any) -> dict[str, Any]:
    """A recipe that is right, with these parts in it: two steps' worth of nothing, one answer a row."""
    whole: dict[str, Any] = {
        "version": 1,
        "name": "a",
        "model": "some-model",
        "seeds": {"doc": {"path": "data/docs.jsonl", "field": "text"}},
        "steps": [{"answer": {"prompt": {"user": "Say something of {{ doc }}"}}}],
        "record": {"messages": [{"user": "{{ doc }}"}, {"assistant": "{{ answer }}"}]},
    }
    whole.update(parts)
    return {key: value for key, value in whole.items() if value is not None}


def docs(count: int, *, start: int = 0) -> list[dict[str, str]]:
    """Rows for data/docs.jsonl."""
    return [{"text": f"document number {number}"} for number in range(start, start + count)]


def jsonl(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())


def project(
    root: Path,
    said: Recipe | None = None,
    *,
    rows: int | Sequence[Any] = 5,
    name: str = "a",
    files: Mapping[str, str | bytes] | None = None,
    filters: Mapping[str, str] | None = None,
) -> Path:
    """Write a project: a recipe (a mapping, or YAML as it stands), data/docs.jsonl and any more files.

    Gives the recipe's path.
    """
    said = recipe() if said is None else said
    text = textwrap.dedent(said) if isinstance(said, str) else json.dumps(said, indent=1)
    path = root / "recipes" / f"{name}.yaml"
    write(root, {f"recipes/{name}.yaml": text})
    if rows:
        write(root, {"data/docs.jsonl": jsonl(docs(rows) if isinstance(rows, int) else rows)})
    write(root, files or {})
    write(root, {f"filters/{key}.py": textwrap.dedent(code) for key, code in (filters or {}).items()})
    return path


def loaded(root: Path, said: Recipe | None = None, **more: Any) -> Loaded:
    """Write a project and load its recipe."""
    return load(project(root, said, **more))


def problems(given: Path, **options: Any) -> list[Problem]:
    """What is wrong with a recipe."""
    try:
        load(given, **options)
    except RecipeError as error:
        return error.problems
    raise AssertionError("the recipe is not refused")


class FakeEngine:
    """Answers from the request alone. Keeps what it was asked, and how many requests it had at most.

    `answer` makes the answer (a text, a Completion or an error to raise). With `shuffle`, answers come in an
    order that this random generator picks among the requests that are waiting.
    """

    def __init__(
        self,
        answer: Callable[[Request], Any] | None = None,
        *,
        slots: int = 8,
        shuffle: random.Random | None = None,
        identity: ModelIdentity | None = None,
    ) -> None:
        self.identity = identity or ModelIdentity("fake", "fake-model")
        self.slots = slots
        self.asked: list[Request] = []
        self.answered: list[str] = []
        self.most = 0
        self.started = 0
        self.closed = 0
        self._answer = answer or answer_of
        self._shuffle = shuffle
        self._in_flight = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def keys(self) -> list[str]:
        return [request.key for request in self.asked]

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        self._in_flight += 1
        self.most = max(self.most, self._in_flight)
        try:
            if self._shuffle is not None:
                await self._turn()
            given = self._answer(request)
            if asyncio.iscoroutine(given):
                given = await given
            if isinstance(given, BaseException):
                raise given
            self.answered.append(request.key)
            return given if isinstance(given, Completion) else Completion(given, "stop", 10, 5)
        finally:
            self._in_flight -= 1

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            loop.call_soon(self._deal)
        await waiter

    def _deal(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter.done()]
        if self._waiting and self._shuffle is not None:
            place = self._shuffle.randrange(len(self._waiting))
            self._waiting.pop(place).set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._deal)


def answer_of(request: Request) -> str:
    """Three to ten words that follow from the request's key, the first of them telling answers apart."""
    digest = hashlib.sha256(request.key.encode()).hexdigest()
    return " ".join([f"answer-{digest[:10]}", *["word"] * (2 + int(digest[-2:], 16) % 8)])


def no_more_than(
    count: int, cancel: threading.Event, answer: Callable[[Request], Any] | None = None
) -> Callable[[Request], Any]:
    """So many answers; then it sets `cancel` and is silent: who gives a `Stop` need not wait for the rest."""
    left = [count]

    async def given(request: Request) -> Any:
        if left[0] == 0:
            if isinstance(cancel, Stop):
                cancel.at_once = True
            cancel.set()
            await asyncio.Event().wait()
        left[0] -= 1
        return (answer or answer_of)(request)

    return given


def full_at_the_last_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has no room for the last commit, and whoever waits for it is cancelled."""

    async def late(self: Journal) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            waiting = self._take()
            with monkeypatch.context() as disk, contextlib.suppress(RunError):
                disk.setattr(self, "_writing", no_room)
                self._commit(waiting)

    @contextlib.contextmanager
    def no_room() -> Iterator[None]:
        raise RunError("the disk is full")
        yield

    monkeypatch.setattr(Journal, "keep_flushing", late)


def run_it(given: Loaded | Path, engine: Any = None, **options: Any) -> RunResult:
    """Run with a fake engine, or with the one given."""
    return run(given, engine=engine or FakeEngine(), **options)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file beneath a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def answers(directory: Path, split: str = "train") -> list[str]:
    """The last message of each row of a split, in order."""
    return [row["messages"][-1]["content"] for row in read_jsonl(directory / "dataset" / f"{split}.jsonl")]


def adds_up(result: RunResult) -> bool:
    """The one sum that always holds."""
    return result.planned == result.kept + result.dropped + result.failed + result.pending
