"""The same few out of many, whatever order they come in: by the digest of their ids."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

import xxhash

T = TypeVar("T")
SEED = 7


class Sample(Generic[T]):
    """The `size` items with the least keys. Of items with equal keys the one that came first stays."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[tuple[float, int], int, T]] = []
        self.seen = 0

    def offer(self, id: str, item: T, distance: float = 0.0) -> None:
        """One item; near ones go before far ones, and among equals the draw of their ids decides."""
        self.seen += 1
        key = (-distance, -draw(id))
        entry = (key, -self.seen, item)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif self._size and key > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def items(self) -> list[T]:
        """What was chosen, the first choice first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def draw(id: str) -> int:
    """A number that stands for chance, the same for an id whenever it is asked for."""
    return int(xxhash.xxh64_intdigest(id.encode(), SEED))
