"""How far a run is, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; given to the caller's `on_progress` a few times a second."""

    stage: str
    planned: int | None
    target: int | None
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    in_flight: int = 0
    reused: int = 0
    output_tokens: int = 0
    by_filter: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to. `planned` = `kept` + `dropped` + `failed` + `pending`, always.

    `outcome` is `done`, `nothing to do`, `short` (a budget or the seeds ended before the target, or before
    the last task), `failures`, `too many failures` (it stopped at them, with tasks pending) or `interrupted`.
    `ended_by` is what it ended at: `target`, `tasks`, `attempts`, `output_tokens`, `money`, `seconds`, or
    None where it did not end. `written` is false where every task failed, and an earlier dataset was left
    as it is. `errors` are the commonest of the failed tasks, with how often each came; `given_up`
    says whether `--retry-failed` would ask requests again that the engine refused, or whose answers no step
    could use.
    """

    run: str
    dir: Path
    outcome: str
    planned: int
    kept: int
    dropped: int
    failed: int
    pending: int
    reused: int
    filters: Mapping[str, Mapping[str, int]]
    usage: Mapping[str, int]
    seconds: float
    target: int | None = None
    ended_by: str | None = None
    reused_from: Mapping[str, int] = field(default_factory=dict)
    money: float | None = None
    written: bool = True
    errors: Sequence[tuple[str, int]] = ()
    given_up: tuple[bool, bool] = (False, False)
    balance: Mapping[str, Any] = field(default_factory=dict)
    growth: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object that `run --json` prints."""
        return {
            "run": self.run,
            "dir": str(self.dir),
            "outcome": self.outcome,
            "ended_by": self.ended_by,
            "planned": self.planned,
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "pending": self.pending,
            "reused": self.reused,
            "reused_from": dict(self.reused_from),
            "filters": {name: dict(counts) for name, counts in self.filters.items()},
            "usage": dict(self.usage),
            "money": self.money,
            "seconds": round(self.seconds, 3),
            **({"balance": dict(self.balance)} if self.balance else {}),
            **({"growth": dict(self.growth)} if self.growth else {}),
        }
