"""What an audit finds: what was altered, added or is missing, each with its file, record and field."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

MOST = 100


class CannotJudge(Exception):
    """There is nothing here that could be verified; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was published."""

    message: str
    file: str | None = None
    record: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.file, self.record, self.field) if part)
        return f"{place}: {self.message}" if place else self.message

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"file": self.file, "record": self.record, "field": self.field, "message": self.message}


@dataclass(slots=True)
class Findings:
    """The first hundred of them, and how many there are."""

    count: int = 0
    shown: list[Finding] = field(default_factory=list)

    def add(
        self, message: str, file: str | None = None, record: str | None = None, field: str | None = None
    ) -> None:
        """One more."""
        self.count += 1
        if len(self.shown) < MOST:
            self.shown.append(Finding(message, file, record, field))

    def take(self, others: Findings, prefix: str) -> None:
        """Those of a folder, whose name stands before their files from here on."""
        self.count += others.count
        for each in others.shown[: MOST - len(self.shown)]:
            self.shown.append(replace(each, file=f"{prefix}{each.file or ''}"))

    def __bool__(self) -> bool:
        return self.count > 0
