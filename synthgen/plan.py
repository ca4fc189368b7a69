"""The plan: a recipe's ordered stream of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from synthgen.samplers import Sampler, SeedFailed
from synthgen.seeds import Draw, Rows, SeedRow


@dataclass(frozen=True, slots=True)
class Task:
    """One place in the order: its seed values and its index.

    `digest` stands for the values of the seeds that are gone through (not the drawn ones), `repeat` is
    how many earlier tasks had the same. `fault` says why a value could not be drawn: such a task fails.
    """

    index: int
    values: Mapping[str, Any]
    digest: bytes
    repeat: int
    sources: Sequence[Mapping[str, Any]]
    fault: str | None = None


@dataclass(frozen=True)
class Plan:
    """Every task of a recipe. `limit` is how many there are at most; None where only a target ends it."""

    seed: int
    rows: Mapping[str, Rows]
    choices: Mapping[str, Sampler]
    limit: int | None

    @property
    def once(self) -> int:
        """How many tasks there are before any seed is used again."""
        return prod(len(rows) for rows in self.rows.values())

    def tasks(self, start: int = 0) -> Iterator[Task]:
        """The tasks in order from number `start`, the first seed slowest; the same on every call.

        Takes no more memory for more tasks: how often a combination came before follows from how often each
        of its rows did.
        """
        return (self.task(*place) for place in self.places(start))

    def places(self, start: int = 0) -> Iterator[Place]:
        """Of each task from number `start`, what it goes through, before anything is drawn for it."""
        all_rows = list(self.rows.values())
        once = self.once
        repeats = [rows.repeats for rows in all_rows]
        index = start
        while self.limit is None or index < self.limit:
            passed, skip = divmod(index, once)
            for combination in _product(all_rows, repeats, skip):
                if index == self.limit:
                    return
                repeat, alike = 0, 1
                for _, earlier, times in combination:
                    repeat, alike = repeat * times + earlier, alike * times
                yield index, [row for row, _, _ in combination], passed * alike + repeat
                index += 1

    def digest(self, rows: Sequence[SeedRow]) -> bytes:
        """What stands for these rows, one for each seed that is gone through."""
        material = b"".join(
            name.encode() + b"\0" + row.digest for name, row in zip(self.rows, rows, strict=True)
        )
        return hashlib.sha256(material).digest()[:16]

    def task(self, index: int, rows: Sequence[SeedRow], repeat: int) -> Task:
        """The task that goes through these rows, with what is drawn for it."""
        digest = self.digest(rows)
        values = {name: row.value for name, row in zip(self.rows, rows, strict=True)}
        sources = [
            {"seed": name, **row.source}
            for name, row in zip(self.rows, rows, strict=True)
            if row.source is not None
        ]
        fault = None
        for name, choices in self.choices.items():
            try:
                row = choices.pick(Draw(self.seed, name, digest, repeat, values, rows))
            except SeedFailed as error:
                fault = str(error)
                break
            values[name] = row.value
            sources += [
                {"seed": name, **each.source} for each in row.parts or (row,) if each.source is not None
            ]
        return Task(index, values, digest, repeat, sources, fault)


# A task's number, the row of each seed that it goes through, and how many earlier tasks had equal ones.
Place = tuple[int, Sequence[SeedRow], int]
Counted = tuple[SeedRow, int, int]  # a row, how many equal ones come before it, how many there are in all


def _product(
    all_rows: Sequence[Rows], repeats: Sequence[Mapping[bytes, int]], skip: int
) -> Iterator[tuple[Counted, ...]]:
    """The cross product without holding any file: the inner ones are read again for each outer row.

    Leaves out the first `skip`, which are fewer than there are.
    """
    if not all_rows:
        yield ()
        return
    inner = prod(len(rows) for rows in all_rows[1:])
    outer, skip = divmod(skip, inner)
    for place, row in enumerate(_counted(all_rows[0], repeats[0])):
        if place >= outer:
            for rest in _product(all_rows[1:], repeats[1:], skip if place == outer else 0):
                yield (row, *rest)


def _counted(rows: Rows, repeats: Mapping[bytes, int]) -> Iterator[Counted]:
    seen: dict[bytes, int] = {}
    for row in rows:
        times = repeats.get(row.digest, 1) if repeats else 1
        if times == 1:
            yield row, 0, 1
            continue
        earlier = seen.get(row.digest, 0)
        seen[row.digest] = earlier + 1
        yield row, earlier, times
