"""How many branches came to which end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synthgen.spending import Spent

ERRORS_STORED = 10


def alike(error: str, id: str) -> str:
    """An error in the words that it has on every record, not on the one with this id alone."""
    return error.replace(f" on record {id}", "")


@dataclass(slots=True)
class Counts:
    """How many branches came to which end, and by which filter.

    `task` and `branch` are where the last of them is, and `rest` how many of its task's follow it.
    """

    kept: int = 0
    dropped: int = 0
    failed: int = 0
    requests: int = 0
    by_filter: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    spent: Spent = field(default_factory=Spent)
    task: int = -1
    branch: str = "0"
    rest: int = 0

    @property
    def judged(self) -> int:
        """Branches that have come to an end."""
        return self.kept + self.dropped + self.failed

    @property
    def tasks(self) -> int:
        """Tasks that have come to an end, or are about to."""
        return self.task + 1

    def planned(self, tasks: int) -> int:
        """How many branches so many tasks have; one that is not expanded yet counts as one."""
        return self.judged + self.rest + tasks - self.tasks

    def as_json(self) -> dict[str, Any]:
        """To be stored with the records that are counted, and gone on with by `of_json`."""
        return {
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "requests": self.requests,
            "filters": self.by_filter,
            "errors": self.errors.most_common(ERRORS_STORED),
            "spent": self.spent.as_json(),
            "place": [self.task, self.branch, self.rest],
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Counts:
        """What `as_json` gave, also an earlier one's, whose tasks had one branch each."""
        judged = said["kept"] + said["dropped"] + said["failed"]
        task, branch, rest = said.get("place", [judged - 1, "0", 0])
        return cls(
            task=task,
            branch=branch,
            rest=rest,
            kept=said["kept"],
            dropped=said["dropped"],
            failed=said["failed"],
            requests=said["requests"],
            by_filter=said["filters"],
            errors=Counter(dict(said["errors"])),
            spent=Spent(**said["spent"]),
        )
