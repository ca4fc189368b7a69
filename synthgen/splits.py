"""Which split of a dataset a row is in."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Splits:
    """A function of a row's id alone, so that it stays where it is as a dataset grows."""

    shares: Mapping[str, float]

    def of(self, id: str) -> str:
        """The split's name."""
        names = list(self.shares)
        edges = list(accumulate(self.shares.values()))
        place = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64
        return names[min(bisect_right(edges, place), len(names) - 1)]
