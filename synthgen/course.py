"""How far a run is on its course: how many branches there are, how far to look ahead, and what ended it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from synthgen.balance import Schedule
from synthgen.curate import Curation
from synthgen.growth import Growth
from synthgen.journal_entries import RecordEntry
from synthgen.loaded import Loaded
from synthgen.rounds import Fate, Rounds

FIRST_FEW = 8


class Course:
    """The course of one version, by what has been judged of it.

    `judged` are the records that an earlier session stored of it, in order: a recipe that balances or grows
    goes on from there.
    """

    def __init__(
        self, loaded: Loaded, curation: Curation, judged: Iterable[tuple[RecordEntry, bytes | None]]
    ) -> None:
        self._loaded = loaded
        self._curation = curation
        self.rounds = _rounds(loaded)
        if self.rounds is not None:
            self.rounds.recall(_fate(entry, body) for entry, body in judged)
            self._next_round()

    @property
    def all_judged(self) -> bool:
        """Whether nothing is left to judge."""
        return self._curation.ended or self._all_tasks()

    def tell(self, entry: RecordEntry, body: bytes | None) -> None:
        """A branch has been judged: begin the next round where it was the last of one."""
        if self.rounds is not None:
            self.rounds.tell(_fate(entry, body))
            if not self._curation.ended:
                self._next_round()

    def look_ahead(self) -> int:
        """The number of tasks to begin: no further ahead of a target than the yield so far says it needs."""
        recipe, counts, fan = self._loaded.recipe, self._curation.counts, self._loaded.fan
        shares = []  # in branches
        if recipe.target is not None:
            # As if the first few had been kept: what a few say is no reason to ask for many.
            yield_so_far = max((counts.kept + FIRST_FEW) / (counts.judged + FIRST_FEW), 0.02)
            shares.append((recipe.target - counts.kept) / yield_so_far)
        spent = counts.spent.share(recipe.budget)
        if spent > 0:
            shares.append(counts.judged / spent - counts.judged)
        up_to = sys.maxsize
        if shares:
            of_a_task = (counts.judged + FIRST_FEW * fan) / (counts.tasks + FIRST_FEW)
            up_to = counts.tasks + int(max(0, min(shares)) / of_a_task * 1.2) + 1
        if self.rounds is not None and self.rounds.limit is None:
            up_to = min(up_to, self.rounds.open)
        return up_to

    def planned(self) -> int | None:
        """How many branches there are as far as is known; None where nothing limits them."""
        limit = self._loaded.plan.limit
        if limit is None and self.rounds is not None:
            limit = self.rounds.open
        if limit is None:
            return None
        return min(self._curation.counts.planned(limit), self._loaded.attempts or sys.maxsize)

    def ended_by(self, cut: Mapping[str, Any] | None) -> str | None:
        """What it ended at, as `RunResult` has it; `cut` is where a budget in seconds ended it."""
        curation = self._curation
        if curation.reached:
            return "target"
        if cut is not None:
            return str(cut["by"])
        if curation.spent_out is not None:
            return curation.spent_out
        if curation.tried_out:
            return "attempts"
        if self._all_tasks():
            return "tasks" if self._loaded.recipe.target is None else "attempts"
        return None

    def _all_tasks(self) -> bool:
        order, counts = self.rounds or self._loaded.plan, self._curation.counts
        return counts.tasks == order.limit and counts.rest == 0

    def _next_round(self) -> None:
        """Begin a round where the one before it has been judged."""
        counts = self._curation.counts
        if self.rounds is not None and counts.rest == 0 and counts.tasks == self.rounds.open:
            self.rounds.go_on()


def _rounds(loaded: Loaded) -> Rounds | None:
    """The tasks of a recipe that balances or grows."""
    if loaded.balance is not None:
        return Schedule(loaded.plan, loaded.balance)
    if loaded.grown is not None:
        return Growth(loaded.plan, loaded.grown)
    return None


def _fate(entry: RecordEntry, body: bytes | None) -> Fate:
    return Fate(entry.task, entry.id, entry.state == "kept", body)
