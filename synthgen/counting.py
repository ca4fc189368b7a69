"""How many branches came to which end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synthgen.spending import Spent

ERRORS_STORED = 10


@dataclass(slots=True)
class Counts:
    """How many branches came to which end, and by which filter."""

    kept: int = 0
    dropped: int = 0
    failed: int = 0
    requests: int = 0
    by_filter: dict[str, dict[str, int]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    spent: Spent = field(default_factory=Spent)

    @property
    def judged(self) -> int:
        """Branches that have come to an end."""
        return self.kept + self.dropped + self.failed

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
        }

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> Counts:
        """What `as_json` gave."""
        return cls(
            kept=said["kept"],
            dropped=said["dropped"],
            failed=said["failed"],
            requests=said["requests"],
            by_filter=said["filters"],
            errors=Counter(dict(said["errors"])),
            spent=Spent(**said["spent"]),
        )
