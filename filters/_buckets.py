"""Which earlier sets share a band with these? A hash table in arrays, asked and filled many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

CAPACITY = 64  # of a bucket: what hundreds have in common tells none of them apart
CHUNK = 1 << 14
NOT_HELD = 0xFFFFFFFF


class Buckets:
    """The numbers of the sets that have each key in each band, of those with the same the first CAPACITY."""

    def __init__(self, bands: int) -> None:
        import numpy as np

        self.count = 0
        self._bands = bands
        # A slot holds the number of its latest entry plus one, `_before` that of the entry before each.
        self._slots = np.zeros((bands, 1024), np.uint32)
        self._keys = np.empty((1024, bands), np.uint32)
        self._before = np.empty((1024, bands), np.uint32)

    def find(self, keys: Array) -> tuple[Array, Array, Array]:
        """Pairs (row of `keys`, number) that share a bucket, each once, and how many are in each bucket."""
        import numpy as np

        bands, wanted = self._bands, keys.ravel()
        held_keys, before = self._keys.ravel(), self._before.ravel()
        latest = self._slots.ravel()[self._slots_of(keys).ravel()].astype(np.int64)
        asked = np.flatnonzero(latest)
        entries = (latest[asked] - 1) * bands + asked % bands
        in_bucket = np.zeros(len(wanted), np.int64)
        found = [np.empty(0, np.int64)]
        while len(asked):
            same = held_keys[entries] == wanted[asked]
            hits = asked[same]
            in_bucket[hits] += 1
            found.append((hits // bands << 32) | entries[same] // bands)
            earlier = before[entries].astype(np.int64)
            more = np.flatnonzero(earlier)
            asked = asked[more]
            entries = (earlier[more] - 1) * bands + asked % bands
        pairs = np.unique(np.concatenate(found))
        return pairs >> 32, pairs & 0xFFFFFFFF, in_bucket.reshape(keys.shape)

    def add(self, keys: Array, open: Array) -> None:
        """Hold sets with these keys under the numbers that follow, each in the buckets open to it."""
        import numpy as np

        start, end = self.count, self.count + len(keys)
        while end > len(self._keys):
            self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
            self._before = np.concatenate([self._before, np.empty_like(self._before)])
        self._keys[start:end] = keys
        self._before[start:end] = np.where(open, 0, NOT_HELD)
        self.count = end
        if end > self._slots.shape[1]:
            self._slots = np.zeros((self._bands, 2 * self._slots.shape[1]), np.uint32)
            start = 0
        for first in range(start, end, CHUNK):
            self._link(first, min(first + CHUNK, end))

    def _link(self, start: int, end: int) -> None:
        import numpy as np

        slots, before = self._slots.ravel(), self._before.ravel()
        places = self._slots_of(self._keys[start:end]).ravel()
        numbers = np.repeat(np.arange(start + 1, end + 1, dtype=np.uint32), self._bands)
        entries = np.arange(start * self._bands, end * self._bands)
        waiting = np.flatnonzero(before[entries] != NOT_HELD)
        while len(waiting):  # of several that want one slot, one gets it in each round
            wanted = places[waiting]
            held = slots[wanted]
            slots[wanted] = numbers[waiting]
            got_it = slots[wanted] == numbers[waiting]
            before[entries[waiting[got_it]]] = held[got_it]
            waiting = waiting[~got_it]

    def _slots_of(self, keys: Array) -> Array:
        import numpy as np

        size = self._slots.shape[1]
        places: Array = (keys & np.uint32(size - 1)) + np.arange(self._bands) * size
        return places
