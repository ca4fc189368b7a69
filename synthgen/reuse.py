"""Answers of other runs: a request whose key is equal need not be asked again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.engines.base import Completion
from synthgen.errors import UsageError
from synthgen.journal_reading import open_for_reading


@dataclass(frozen=True, slots=True)
class _Other:
    name: str
    connection: sqlite3.Connection


class Others:
    """The journals of other runs, opened for reading. `used` counts what was taken from each."""

    def __init__(self, others: Sequence[_Other], *, usable_only: bool) -> None:
        self.used: Counter[str] = Counter()
        self._others = others
        self._query = _ANSWER + (_USABLE if usable_only else "")

    def answer(self, key: bytes) -> tuple[Completion, str] | None:
        """The first answer that one of them has to this very request, and the run that it is from."""
        for other in self._others:
            row = other.connection.execute(self._query, (key,)).fetchone()
            if row is not None:
                self.used[other.name] += 1
                return Completion(*row), other.name
        return None

    def close(self) -> None:
        """Let go of them."""
        for other in self._others:
            other.connection.close()


_ANSWER = (
    "SELECT text, finish_reason, input_tokens, output_tokens, reasoning FROM completions AS c WHERE key = ?"
)
_USABLE = " AND NOT EXISTS (SELECT 1 FROM failures AS f WHERE f.key = c.key AND f.final = 2)"


def open_others(places: Sequence[Path], own: Path, *, usable_only: bool = False) -> Others:
    """The runs at these places: each a run directory, or a folder of them. The run `own` is none of them.

    With `usable_only`, answers that a step could not use are left where they are.

    Raises UsageError where there is no run, or one that cannot be read.
    """
    found: dict[Path, _Other] = {}
    try:
        for place in places:
            for directory in _runs(place):
                full = directory.resolve()
                if full != own.resolve() and full not in found:
                    found[full] = _Other(directory.name, open_for_reading(directory))
    except BaseException:
        Others(list(found.values()), usable_only=usable_only).close()
        raise
    return Others(list(found.values()), usable_only=usable_only)


def _runs(place: Path) -> list[Path]:
    if (place / "run.sqlite").is_file():
        return [place]
    directories = sorted(journal.parent for journal in place.glob("*/run.sqlite"))
    if not directories:
        raise UsageError(
            f"{place} holds no run to reuse",
            hint="--reuse takes a run directory (with a run.sqlite in it), or a folder of them",
        )
    return directories
