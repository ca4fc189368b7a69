"""The plan: a recipe's ordered stream of tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from synthgen.seeds import Drawn, Rows, SeedRow


@dataclass(frozen=True, slots=True)
class Task:
    """One place in the order: its seed values and its index.

    `digest` stands for the values of the seeds that are gone through (not the drawn ones), `repeat` is
    how many earlier tasks had the same.
    """

    index: int
    values: Mapping[str, Any]
    digest: bytes
    repeat: int
    sources: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """Every task of a recipe. `limit` is how many there are at most; None where only a target ends it."""

    seed: int
    rows: Mapping[str, Rows]
    choices: Mapping[str, Drawn]
    limit: int | None

    @property
    def once(self) -> int:
        """How many tasks there are before any seed is used again."""
        return prod(len(rows) for rows in self.rows.values())

    def tasks(self) -> Iterator[Task]:
        """The tasks in order, the first seed slowest; the same on every call."""
        seen: dict[bytes, int] = {}
        names = list(self.rows)
        index = 0
        while self.limit is None or index < self.limit:
            for combination in _product(list(self.rows.values())):
                if index == self.limit:
                    return
                digest = _joined(names, combination)
                if names:
                    repeat = seen.get(digest, 0)
                    seen[digest] = repeat + 1
                else:
                    repeat = index
                yield self._task(index, names, combination, digest, repeat)
                index += 1

    def _task(
        self, index: int, names: list[str], rows: Sequence[SeedRow], digest: bytes, repeat: int
    ) -> Task:
        values = {name: row.value for name, row in zip(names, rows, strict=True)}
        sources = [
            {"seed": name, **row.source}
            for name, row in zip(names, rows, strict=True)
            if row.source is not None
        ]
        for name, choices in self.choices.items():
            row = choices.pick(self.seed, name, digest, repeat)
            values[name] = row.value
            if row.source is not None:
                sources.append({"seed": name, **row.source})
        return Task(index, values, digest, repeat, sources)


def _product(all_rows: Sequence[Rows]) -> Iterator[tuple[SeedRow, ...]]:
    """The cross product without holding any file: the inner ones are read again for each outer row."""
    if not all_rows:
        yield ()
        return
    for row in all_rows[0]:
        for rest in _product(all_rows[1:]):
            yield (row, *rest)


def _joined(names: Sequence[str], rows: Sequence[SeedRow]) -> bytes:
    material = b"".join(name.encode() + b"\0" + row.digest for name, row in zip(names, rows, strict=True))
    return hashlib.sha256(material).digest()[:16]
