"""Tasks in rounds: what one takes follows from the verdicts on those before it, however the run went."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from synthgen.plan import Task


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one branch of a task: the id and the contents of its record, and whether it is kept."""

    task: int
    id: str
    kept: bool
    body: bytes | None


class Rounds(ABC):
    """Tasks, numbered from 0, of which a round is known once all of the one before it are judged.

    A subclass calls `go_on` for the first round when it is ready.
    """

    def __init__(self) -> None:
        self._first = 0
        self._round: list[Task] = []

    @abstractmethod
    def _fill(self, first: int) -> list[Task]:
        """The tasks of the next round, the first of which has this number; none where there are no more."""

    @abstractmethod
    def tell(self, fate: Fate) -> None:
        """What became of a branch of a task of this round."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What came of it so far, as the run's summary has it: under one name."""

    @property
    def open(self) -> int:
        """The number of the first task that no round has yet."""
        return self._first + len(self._round)

    @property
    def limit(self) -> int | None:
        """How many tasks there are in all; None until that is known."""
        return self.open if not self._round else None

    def tasks(self, start: int) -> Iterator[Task]:
        """The tasks from number `start` on. Not to be asked for one that is not open yet, unless all are."""
        number = start
        while number < self.open:
            yield self._round[number - self._first]
            number += 1

    def go_on(self) -> None:
        """All of this round has been told: begin the next."""
        first = self.open
        self._round = self._fill(first)
        self._first = first

    def recall(self, told: Iterable[Fate]) -> None:
        """Go through the rounds again, with the fate of each branch that was judged, in order."""
        for fate in told:
            while fate.task >= self.open:
                self.go_on()
            self.tell(fate)

    def _task(self, number: int) -> Task:
        return self._round[number - self._first]
