"""A stream of branches, measured: in batches, away from the event loop, and given on in order."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from synthgen.chain import ChainFilter
from synthgen.generate import Branch
from synthgen.measure import Measurement
from synthgen.workers import Measurer

BATCH = 256
WAITING = 4096

Stored = Mapping[str, Sequence[Any]]


@dataclass(slots=True)
class Item:
    """One branch with what was measured of it now, and what was stored of its contents before.

    `content` and `body` are what is judged. Where something was redacted, `original` is the digest of the
    branch's own body, and `known_of_original` what was stored of that. `asked` holds measurements that a
    model is being asked for.
    """

    branch: Branch
    content: bytes | None = None
    body: bytes | None = None
    original: bytes | None = None
    known: Stored | None = None
    known_of_original: Stored | None = None
    results: Mapping[str, Measurement | str] = field(default_factory=dict)
    features: Mapping[str, bytes] = field(default_factory=dict)
    asked: dict[str, asyncio.Task[Measurement | str]] = field(default_factory=dict)


class Memory(Protocol):
    """What measuring needs of a journal."""

    def stored_measurements(self, content: bytes) -> dict[str, list[Any]] | None:
        """What filters measured of these contents, by the filter's number."""


class Stream:
    """Measures what no model is needed for."""

    def __init__(
        self,
        chain: Sequence[ChainFilter],
        measurer: Measurer,
        memory: Memory,
        numbers: Mapping[str, str],
        announce: Callable[[Sequence[Mapping[str, bytes]]], None],
    ) -> None:
        """`numbers` are those under which each filter's measurements are stored.

        `announce` is told the features of each batch before the first of its items is given on.
        """
        self._announce = announce
        self._measurer = measurer
        self._memory = memory
        self._numbers = {link.name: numbers[link.name] for link in chain if not link.asks}
        self._stored = [link.name for link in chain if not link.asks and link.stored]
        self._features = [link.name for link in chain if link.runs and link.stored]
        # What compares records with one another, or takes something out, sees every record.
        self._all = any(link.runs or link.action == "redact" for link in chain)

    async def items(self, branches: AsyncIterator[Branch]) -> AsyncGenerator[Item, None]:
        """Every branch, measured, in order.

        Batches are measured side by side and away from the event loop, each as large as has gathered when
        there is room for it, so that neither speed nor the last few rows wait for a batch to fill.
        """
        waiting: deque[Branch] = deque()
        news, room = asyncio.Event(), asyncio.Event()
        ended = False

        async def gather() -> None:
            nonlocal ended
            try:
                async for branch in branches:
                    waiting.append(branch)
                    news.set()
                    if len(waiting) >= WAITING:
                        room.clear()
                        await room.wait()
            finally:
                ended = True
                news.set()

        gathering = asyncio.create_task(gather())
        measuring: deque[asyncio.Task[list[Item]]] = deque()
        with ThreadPoolExecutor(self._measurer.parallel, thread_name_prefix="measure") as threads:
            try:
                while True:
                    while waiting and len(measuring) <= self._measurer.parallel:
                        taken = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
                        room.set()
                        measuring.append(asyncio.create_task(self._measure(taken, threads)))
                    if not measuring:
                        if ended and not waiting:
                            break
                        news.clear()
                        if not waiting and not ended:
                            await news.wait()
                        continue
                    if not measuring[0].done() and not ended and len(measuring) <= self._measurer.parallel:
                        news.clear()
                        wake = asyncio.create_task(news.wait())
                        await asyncio.wait({measuring[0], wake}, return_when=asyncio.FIRST_COMPLETED)
                        wake.cancel()
                        continue
                    items = await measuring.popleft()
                    self._announce([item.features for item in items])
                    for item in items:
                        yield item
                await gathering
            finally:
                for task in (gathering, *measuring):
                    task.cancel()
                await asyncio.gather(gathering, *measuring, return_exceptions=True)

    async def _measure(self, branches: list[Branch], threads: ThreadPoolExecutor) -> list[Item]:
        items, whole, bodies = [], [], []
        for branch in branches:
            item = Item(branch)
            if branch.body is not None:
                item.body, item.content = branch.body, hashlib.sha256(branch.body).digest()
                item.known = self._memory.stored_measurements(item.content)
                whole.append(item)
                bodies.append(branch.body)
            items.append(item)
        known = [self._known(item.known) for item in whole]
        if not self._all and all(len(names) == len(self._numbers) for names in known):
            return items
        loop = asyncio.get_running_loop()
        ids = [item.branch.id for item in whole]
        measured = await loop.run_in_executor(threads, self._measurer.measure, ids, bodies, known)
        for place, item in enumerate(whole):
            item.results, item.features = measured.results[place], measured.features[place]
            if place in measured.redacted:
                self._redacted(item, measured.redacted[place])
            else:
                item.features = {**self._features_of(item.known), **item.features}
        return items

    def _known(self, stored: Stored | None) -> list[str]:
        return [name for name in self._stored if self._numbers[name] in stored] if stored else []

    def _features_of(self, stored: Stored | None) -> dict[str, bytes]:
        found = {}
        for name in self._features:
            if stored and self._numbers[name] in stored:
                found[name] = b64decode(stored[self._numbers[name]][1]["feature"])
        return found

    def _redacted(self, item: Item, body: bytes) -> None:
        item.original, item.known_of_original = item.content, item.known
        item.body, item.content = body, hashlib.sha256(body).digest()
        item.known = self._memory.stored_measurements(item.content)

    async def features(self, ids: Sequence[str], bodies: Sequence[bytes]) -> list[dict[str, bytes]]:
        """What filters of the run need of records that were judged before, by the filter's name."""
        stored = [self._memory.stored_measurements(hashlib.sha256(body).digest()) for body in bodies]
        of_records = [name for name in self._stored if name not in self._features]
        known = [[*of_records, *self._features_of(each)] for each in stored]
        measured = await asyncio.to_thread(self._measurer.measure, ids, bodies, known)
        return [
            {**self._features_of(each), **features}
            for each, features in zip(stored, measured.features, strict=True)
        ]
