"""The records kept so far, and the exact similarity of others to those that may resemble them.

A view is one of a record's one or two sets of runs. As a feature, a record is: the sizes of its views (two
integers, the second 0 where there is one view), their signatures, then the hashes of their runs, first the
upper 32 bits of all, then the lower 16.
"""

from __future__ import annotations

import struct
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from synthgen.filters._buckets import CAPACITY, Buckets
from synthgen.filters._shingles import HASH_BITS, PERMUTATIONS, band_keys

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Hashes = tuple[bytes | bytearray, bytes | bytearray]

HEAD, SIGNATURE, HIGH, LOW = 8, 4 * PERMUTATIONS, 4, 2  # bytes of a feature's parts
SKETCH = 64  # bytes of a signature that are kept
MANY = 32  # candidates beyond which only those with the most similar sketches are compared exactly
COMPARED = 128  # pairs compared at once
_SIZES = struct.Struct("<2I")


class Kept:
    """What is known of the records that were kept, in their order."""

    def __init__(self, rows: int, bands: int) -> None:
        self.rows, self.bands = rows, bands
        self.buckets = Buckets(bands)
        self.owners = array("I")
        self.first_views = array("I", [0])
        self._ids: list[str] = []
        self._files: dict[int, str] = {}
        self._exact: dict[int, int] = {}
        self._high, self._low, self._sketches = bytearray(), bytearray(), bytearray()
        self._ends = array("Q", [0])

    def exactly(self, digest: int) -> int | None:
        """The number of the record whose feature has that digest."""
        return self._exact.get(digest)

    def named(self, number: int) -> dict[str, str]:
        """What a detail says of the record of that number."""
        said = {"of": self._ids[number]}
        if number in self._files:
            said["in"] = self._files[number]
        return said

    def add(self, id: str, file: str | None, feature: bytes, digest: int) -> int:
        """Keep a record; gives its number. The buckets are to be told of its views, in the same order."""
        number = len(self._ids)
        self._ids.append(id)
        if file is not None:
            self._files[number] = file
        self._exact[digest] = number
        for view, (high, low) in enumerate(views_of(feature)):
            self._sketches += sketch_of(feature, view)
            self._high += high
            self._low += low
            self._ends.append(len(self._low) // LOW)
            self.owners.append(number)
        self.first_views.append(len(self.owners))
        return number

    def views(self, number: int) -> list[Hashes]:
        """The hashes of each view of the record of that number."""
        first = self.first_views[number]
        ends = self._ends[first : self.first_views[number + 1] + 1]
        return [
            (self._high[start * HIGH : end * HIGH], self._low[start * LOW : end * LOW])
            for start, end in pairwise(ends)
        ]

    def nearest(self, sketch: bytes, views: Array) -> Array:
        """Those whose signatures agree best: where hundreds share a preamble, all would take too long."""
        import numpy as np

        if len(views) <= MANY:
            return views
        sketches = np.frombuffer(self._sketches, np.uint8).reshape(-1, SKETCH)
        agree = (sketches[views] == np.frombuffer(sketch, np.uint8)).sum(axis=1)
        nearest: Array = views[np.lexsort((views, -agree))[:MANY]]
        return nearest


class Announced:
    """Features that are to be resolved next, with those among the kept and among each other that are near.

    The features are distinct, and none is that of a kept record. What is found does not depend on which are
    announced together: a record is compared with those kept before it that share a bucket, of which each
    holds the first that came, and if these are very many, with the nearest. Where a bucket may fill up on the
    way, `places` is empty: fewer are to be announced. One alone can always be.
    """

    def __init__(self, features: Mapping[bytes, int], kept: Kept) -> None:
        """`features` says the digest of each."""
        self.places = {feature: place for place, feature in enumerate(features)}
        self._features, self._digests = list(features), list(features.values())
        self._kept = kept
        self._numbers: dict[int, int] = {}
        self._to_enter: list[int] = []
        self._of_kept: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self._of_each_other: dict[int, list[tuple[float, int]]] = defaultdict(list)
        self._crowded: dict[int, list[tuple[int, Array, Array]]] = defaultdict(list)
        if features:
            self._look_up()

    def number_of(self, feature: bytes) -> int | None:
        """The number under which one of the announced was kept."""
        return self._numbers.get(self.places[feature])

    def compared(self, feature: bytes) -> Iterator[tuple[float, int]]:
        """Similarities to kept records, each with the record's number."""
        place = self.places[feature]
        yield from self._of_kept.get(place, ())
        for similarity, other in self._of_each_other.get(place, ()):
            if other in self._numbers:
                yield similarity, self._numbers[other]
        for row, views, rows in self._crowded.get(place, ()):
            yield from self._compared_now(feature, row, views, rows)

    def keep(self, id: str, file: str | None, feature: bytes) -> None:
        """Keep one of the announced."""
        place = self.places[feature]
        self._numbers[place] = self._kept.add(id, file, feature, self._digests[place])
        self._to_enter += range(self._starts[place], self._starts[place + 1])

    def enter(self) -> None:
        """Tell the buckets of those that were kept; nothing can be kept any more."""
        import numpy as np

        if self._to_enter:
            rows = np.array(self._to_enter)
            self._kept.buckets.add(self._keys[rows], self._open[rows])

    def _look_up(self) -> None:
        import numpy as np

        features, kept = self._features, self._kept
        heads = np.frombuffer(b"".join([feature[:HEAD] for feature in features]), "<u4").reshape(-1, 2)
        many = np.count_nonzero(heads, axis=1)
        signed = b"".join(
            [feature[HEAD : HEAD + SIGNATURE * n] for feature, n in zip(features, many.tolist(), strict=True)]
        )
        signatures = np.frombuffer(signed, "<u4").reshape(-1, PERMUTATIONS)
        self._starts: list[int] = [0, *np.cumsum(many).tolist()]
        self._places = np.repeat(np.arange(len(features)), many)
        self._keys = band_keys(signatures, kept.rows, kept.bands)
        asked, found, in_bucket = kept.buckets.find(self._keys)
        self._open = in_bucket < CAPACITY
        one, other, together = _sharing(self._keys, self._open)
        if len(features) > 1 and bool(((together > 1) & (in_bucket + together > CAPACITY)).any()):
            self.places = {}
            return
        near = np.bincount(np.concatenate([asked, one, other]), minlength=len(self._keys))
        self._compare(asked, found, one, other, near > MANY)

    def _compare(self, asked: Array, found: Array, one: Array, other: Array, crowded: Array) -> None:
        import numpy as np

        few = ~crowded[asked]
        owners = [self._kept.owners[view] for view in found[few].tolist()]
        known = list(dict.fromkeys(zip(self._places[asked[few]].tolist(), owners, strict=True)))
        compared = [(self._views(place), self._kept.views(number)) for place, number in known]
        for (place, number), similarity in zip(known, similarities(compared), strict=True):
            self._of_kept[place].append((similarity, number))
        wanted: set[tuple[int, int]] = set()
        for rows, peers in ((one, other), (other, one)):
            few = ~crowded[rows]
            places = self._places[rows[few]].tolist()
            wanted.update(zip(places, self._places[peers[few]].tolist(), strict=True))
        new = sorted({(min(pair), max(pair)) for pair in wanted})
        compared = [(self._views(place), self._views(peer)) for place, peer in new]
        for (place, peer), similarity in zip(new, similarities(compared), strict=True):
            if (place, peer) in wanted:
                self._of_each_other[place].append((similarity, peer))
            if (peer, place) in wanted:
                self._of_each_other[peer].append((similarity, place))
        for row in np.flatnonzero(crowded).tolist():
            peers = np.concatenate([other[one == row], one[other == row]])
            self._crowded[int(self._places[row])].append((row, found[asked == row], peers))

    def _compared_now(
        self, feature: bytes, row: int, views: Array, rows: Array
    ) -> Iterable[tuple[float, int]]:
        import numpy as np

        peers = [
            self._kept.first_views[self._numbers[place]] + peer - self._starts[place]
            for peer in rows.tolist()
            if (place := int(self._places[peer])) in self._numbers
        ]
        sketch = sketch_of(feature, row - self._starts[self._places[row]])
        near = self._kept.nearest(sketch, np.concatenate([views, np.array(peers, np.int64)])).tolist()
        numbers = list(dict.fromkeys([self._kept.owners[view] for view in near]))
        own = views_of(feature)
        compared = similarities([(own, self._kept.views(number)) for number in numbers])
        return zip(compared, numbers, strict=True)

    def _views(self, place: int) -> list[Hashes]:
        return views_of(self._features[place])


def views_of(feature: bytes) -> list[Hashes]:
    """The hashes of each of a record's views."""
    sizes = [size for size in _SIZES.unpack_from(feature) if size]
    high = HEAD + SIGNATURE * len(sizes)
    low = high + HIGH * sum(sizes)
    views: list[Hashes] = []
    for size in sizes:
        views.append((feature[high : high + HIGH * size], feature[low : low + LOW * size]))
        high, low = high + HIGH * size, low + LOW * size
    return views


def sketch_of(feature: bytes, view: int) -> bytes:
    """A byte of each of the first values of a view's signature."""
    start = HEAD + SIGNATURE * view
    return feature[start : start + 4 * SKETCH : 4]


def similarities(pairs: Sequence[tuple[Sequence[Hashes], Sequence[Hashes]]]) -> list[float]:
    """For each two records, the exact share (Jaccard) of hashes in common of those views that share most.

    Views with runs of different lengths have nothing in common.
    """
    flat = [(number, a, b) for number, (one, other) in enumerate(pairs) for a in one for b in other]
    found = [0.0] * len(pairs)
    for start in range(0, len(flat), COMPARED):
        part = flat[start : start + COMPARED]
        shares = _similarities([(a, b) for _, a, b in part])
        for (number, _, _), share in zip(part, shares, strict=True):
            found[number] = max(found[number], share)
    return found


def _similarities(pairs: Sequence[tuple[Hashes, Hashes]]) -> list[float]:
    import numpy as np

    high = np.frombuffer(b"".join([side[0] for pair in pairs for side in pair]), "<u4")
    low = np.frombuffer(b"".join([side[1] for pair in pairs for side in pair]), "<u2")
    sizes = np.array([len(one[1]) + len(other[1]) for one, other in pairs]) // LOW
    pair = np.repeat(np.arange(len(pairs), dtype=np.uint64), sizes)
    keyed = (pair << np.uint64(HASH_BITS)) | (high.astype(np.uint64) << np.uint64(8 * LOW)) | low
    keyed.sort()
    twice = keyed[1:][keyed[1:] == keyed[:-1]] >> np.uint64(HASH_BITS)
    shared = np.bincount(twice.astype(np.int64), minlength=len(pairs))
    found: list[float] = (shared / (sizes - shared)).tolist()
    return found


def _sharing(keys: Array, open: Array) -> tuple[Array, Array, Array]:
    """Pairs of rows, each once, that share a key in a band which is open, and how many have each such key."""
    import numpy as np

    rows, bands = np.nonzero(open)
    keyed = (bands.astype(np.uint64) << np.uint64(32)) | keys[rows, bands]
    order = np.argsort(keyed, kind="stable")
    ordered, rows = keyed[order], rows[order]
    found = [np.empty(0, np.int64)]
    for apart in range(1, len(ordered)):
        same = np.flatnonzero(ordered[apart:] == ordered[:-apart])
        if not len(same):
            break
        found.append((rows[same] << 32) | rows[same + apart])
    pairs = np.unique(np.concatenate(found))
    starts = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    sizes = np.diff(starts, append=len(ordered))
    together = np.zeros(keys.shape, np.int64)
    together[rows, bands[order]] = np.repeat(sizes, sizes)
    return pairs >> 32, pairs & 0xFFFFFFFF, together


def digest(feature: bytes) -> int:
    """64 bits, by which equal features are found."""
    import xxhash

    return xxhash.xxh3_64_intdigest(feature)
