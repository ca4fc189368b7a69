"""What the card says of the rows that were kept, gathered in bounded memory while they are written."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synthgen.export.rows import LARGE_ROW

MOST = 65_536
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_CODE = re.compile(r"[a-z]{2,3}")


class Values:
    """Numbers in their order: all of them, or beyond MOST of them evenly every second, fourth and so on."""

    def __init__(self) -> None:
        self.count = 0
        self.stride = 1
        self._taken = array("d")

    def add(self, value: float) -> None:
        """One more."""
        if self.count % self.stride == 0:
            self._taken.append(value)
            if len(self._taken) >= MOST:
                self._taken = self._taken[::2]
                self.stride *= 2
        self.count += 1

    def quantiles(self) -> list[float]:
        """At QUANTILES, of those that were taken; empty where there are none."""
        ordered = sorted(self._taken)
        return [ordered[round(share * (len(ordered) - 1))] for share in QUANTILES if ordered]


@dataclass
class Measured:
    """Of kept rows: sizes, what each filter measured, and the languages that a `language` filter found.

    `language` is the name of that filter in the recipe, None where there is none.
    """

    language: str | None
    rows: Counter[str] = field(default_factory=Counter)
    large: int = 0
    values: dict[str, Values] = field(default_factory=dict)
    abstained: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    synthetic: bool = False

    def row(
        self, split: str, line: bytes, verdicts: Mapping[str, Mapping[str, Any]], *, synthetic: bool
    ) -> None:
        """One more row, as JSON, with what was measured of it, and whether a model wrote any of it."""
        self.rows[split] += 1
        self.synthetic |= synthetic
        self.large += len(line) > LARGE_ROW
        for name, verdict in verdicts.items():
            value = verdict["value"]
            if value is None:
                self.abstained[name] += 1
            else:
                self.values.setdefault(name, Values()).add(value)
            self.flagged[name] += verdict["verdict"] == "flag"
        found = (verdicts.get(self.language or "", {}).get("detail") or {}).get("found")
        if isinstance(found, str) and _CODE.fullmatch(found):
            self.languages[found] += 1
