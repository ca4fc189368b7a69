"""How values are spread, counted as they stream by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

DISTINCT = 4096  # values that are held as they are; beyond that they are rounded
BINS = 36
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
LARGEST, LEAST = 1e300, 1e-300
TAIL = 0.005  # of the values at each end, which may lie beyond the axis
REACH = 1.5  # a bound within so many widths of the values is on the axis


class Spread:
    """Values with how many of each are outside their bound.

    Of more than 4096 distinct values only the first three digits are held, or two where that is still too
    many, so that memory does not grow with the number of values.
    """

    def __init__(self) -> None:
        self._counts: dict[float, list[int]] = {}
        self._digits: int | None = None
        self._least, self._most = math.inf, -math.inf
        self.number = 0

    def add(self, value: float, *, outside: bool = False) -> None:
        """One value. What is larger than 1e300 is taken for that."""
        value = min(max(float(value), -LARGEST), LARGEST)
        self._least, self._most = min(self._least, value), max(self._most, value)
        self.number += 1
        self._count(value if self._digits is None else _rounded(value, self._digits), outside, 1)
        if len(self._counts) > DISTINCT and self._digits != 2:
            self._digits = 3 if self._digits is None else 2
            before, self._counts = self._counts, {}
            for old, pair in before.items():
                for out, count in enumerate(pair):
                    self._count(_rounded(old, self._digits), bool(out), count)

    def _count(self, value: float, outside: bool, count: int) -> None:
        pair = self._counts.get(value)
        if pair is None:
            pair = self._counts[value] = [0, 0]
        pair[outside] += count

    @property
    def distinct(self) -> int:
        """How many values there are that differ in the digits that are held."""
        return len(self._counts)

    def quantiles(self) -> dict[str, float]:
        """The values that so many of all are not above; empty where there are none."""
        if not self.number:
            return {}
        ordered = sorted((value, sum(pair)) for value, pair in self._counts.items())
        found = {f"{share:g}": _at(ordered, round(share * (self.number - 1))) for share in QUANTILES}
        return found | {"0": self._least, "1": self._most}

    def histogram(self, bounds: Sequence[float] = ()) -> dict[str, Any]:
        """Bins of equal width, each with how many values are within their bound and outside of it.

        The axis holds all but half a percent at either end, and each of `bounds` that is near. What is
        beyond it is counted in `below` and `above`.
        """
        if not self.number:
            return {"bins": [], "below": 0, "above": 0}
        ordered = sorted((value, sum(pair)) for value, pair in self._counts.items())
        low = _at(ordered, int(TAIL * (self.number - 1)))
        high = _at(ordered, math.ceil((1 - TAIL) * (self.number - 1)))
        width = (high - low) or max(abs(high), 1.0) / 10
        for bound in bounds:
            if low - REACH * width <= bound <= high + REACH * width:
                low, high = min(low, bound), max(high, bound)
        edges = _edges(low, high, whole=all(value.is_integer() for value in self._counts))
        bins = [[0, 0] for _ in edges[1:]]
        below = above = 0
        for value, pair in self._counts.items():
            if value < edges[0]:
                below += sum(pair)
            elif value > edges[-1]:
                above += sum(pair)
            else:
                place = min(int((value - edges[0]) / (edges[-1] - edges[0]) * len(bins)), len(bins) - 1)
                bins[place][0] += pair[0]
                bins[place][1] += pair[1]
        return {
            "bins": [
                {"from": start, "to": end, "inside": inside, "outside": outside}
                for (start, end), (inside, outside) in zip(pairwise(edges), bins, strict=True)
            ],
            "below": below,
            "above": above,
        }


def _edges(low: float, high: float, *, whole: bool) -> list[float]:
    """Edges of bins from `low` to `high`; of whole numbers each bin holds equally many of them."""
    if whole:
        step = max(1, math.ceil((high - low + 1) / BINS))
        count = max(1, math.ceil((high - low + 1) / step))
        return [low - 0.5 + number * step for number in range(count + 1)]
    if low == high:
        half = 0.5 * abs(low) if abs(low) > LEAST else 0.5
        low, high = low - half, high + half
    return [low + (high - low) * number / BINS for number in range(BINS + 1)]


def _at(ordered: Sequence[tuple[float, int]], place: int) -> float:
    for value, count in ordered:
        if place < count:
            return value
        place -= count
    return ordered[-1][0]


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")
