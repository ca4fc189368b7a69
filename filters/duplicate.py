"""How much of a text was there before?"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from synthgen import Measurement, Record, filter

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# 140 splits into 20 bands of 7, which find 99.1 % of the pairs at 0.8, the usual bound.
PERMUTATIONS = 140
FOUND_AT_BOUND = 0.99
DIGEST_BYTES = 16
SIGNATURE_END = DIGEST_BYTES + 4 * PERMUTATIONS
GROUP = 128  # texts hashed at once: few enough that their arrays stay in the processor's cache
MANY = 64  # candidates beyond which only those with the most similar signatures are compared exactly

# Each sign of a script without spaces is a unit of its own, as a word is elsewhere: Thai, Lao, Tibetan,
# Burmese, Khmer, kana, bopomofo, Han.
UNSPACED = re.compile(
    "[\u0e01-\u0e4e\u0e81-\u0ece\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u2e80-\u2fdf\u3005-\u3007"
    "\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U0001b000-\U0003fffd]"
)


@filter(max=0.8, kind="run")
class duplicate:
    """How similar the text is to the most similar one that was kept before it, from 0 to 1.

    1 is the same text, but for case, spacing and compatible characters. Else it is the share of runs of five
    words that the two texts have in common (Jaccard), computed exactly for every pair that may be similar.
    The detail has the id of the other record. `of: instruction` compares questions, `of: all` conversations.

    Parameters:
        words: how many words a run has. Fewer suit short texts such as instructions: one changed word out of
            ten alters most runs of five. Texts of fewer words are one run. In scripts without spaces each
            character counts as a word.

    Source: MinHash with the permutations of datasketch; bands so chosen that a pair as similar as the bound
    is found with a probability of 99 %, a more similar one with more. The order of records decides, nothing
    else.

    Weak at: similarity below the bound, which is a lower estimate (0 where no candidate was found); bounds
    below 0.05; rewording, to which it is blind; a long text that contains a short one; conversations that
    share a long system message, with `of: all`, which makes all of them similar.
    """

    def __init__(self, *, words: int = 5, max: float | None = None) -> None:
        if words < 1:
            raise ValueError(f"words must be at least 1, not {words}")
        self.words = words
        self.rows, self.bands = rows_and_bands(0.8 if max is None else max)
        self._exact: dict[bytes, int] = {}
        self._buckets: dict[int, int | list[int]] = {}
        self._ids: list[str] = []
        self._shingles: list[bytes] = []
        self._sketches: Array | None = None
        self._last: tuple[bytes, list[int]] = (b"", [])

    def features(self, records: Sequence[Record]) -> list[bytes]:
        """Of each record: a digest of its normalised text, its signature, its shingles' hashes in order."""
        return [
            feature
            for start in range(0, len(records), GROUP)
            for feature in self._features([units(record.text) for record in records[start : start + GROUP]])
        ]

    def _features(self, texts: Sequence[list[str]]) -> list[bytes]:
        hashes = shingle_hashes(texts, self.words)
        return [
            hashlib.blake2b(" ".join(text).encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()
            + signature.astype("<u4").tobytes()
            + own.astype("<u4").tobytes()
            for text, own, signature in zip(texts, hashes, signatures(hashes), strict=True)
        ]

    def resolve(self, id: str, feature: bytes) -> Measurement:
        """The similarity to the most similar record kept so far; of several, the earliest."""
        same = self._exact.get(feature[:DIGEST_BYTES])
        if same is not None:
            return Measurement(1.0, {"of": self._ids[same]})
        candidates = self._candidates(feature)
        if not candidates:
            return Measurement(0.0)
        similarities = self._jaccard(feature, candidates)
        best = int(similarities.argmax())
        if not similarities[best]:
            return Measurement(0.0)
        return Measurement(float(similarities[best]), {"of": self._ids[candidates[best]]})

    def keep(self, id: str, feature: bytes) -> None:
        """From now on, others are compared with this record too."""
        number = len(self._ids)
        self._ids.append(id)
        self._exact.setdefault(feature[:DIGEST_BYTES], number)
        self._shingles.append(feature[SIGNATURE_END:])
        self._keep_sketch(number, feature)
        if len(feature) == SIGNATURE_END:
            return
        for key in self._keys(feature):
            held = self._buckets.setdefault(key, number)
            if isinstance(held, list):
                held.append(number)
            elif held != number:
                self._buckets[key] = [held, number]

    def _keys(self, feature: bytes) -> list[int]:
        import numpy as np

        if self._last[0] is feature:  # it is kept just after it was resolved
            return self._last[1]
        rows = (
            _signature_of(feature)[: self.bands * self.rows].reshape(self.bands, self.rows).astype(np.uint64)
        )
        keys = (rows * _multipliers(self.rows)).sum(axis=1) + _multipliers(self.bands)
        self._last = (feature, _mix(keys).tolist())
        return self._last[1]

    def _candidates(self, feature: bytes) -> list[int]:
        if len(feature) == SIGNATURE_END:
            return []
        found: set[int] = set()
        for key in self._keys(feature):
            held = self._buckets.get(key)
            if isinstance(held, int):
                found.add(held)
            elif held is not None:
                found.update(held)
        candidates = sorted(found)
        return candidates if len(candidates) <= MANY else self._nearest(feature, candidates)

    def _nearest(self, feature: bytes, candidates: list[int]) -> list[int]:
        """Those whose signatures agree best: where thousands share a preamble, all would take too long."""
        import numpy as np

        assert self._sketches is not None
        own = _signature_of(feature).astype(np.uint8)
        agree = (self._sketches[candidates] == own).sum(axis=1)
        best = np.argsort(-agree, kind="stable")[:MANY]
        return sorted(candidates[index] for index in best)

    def _keep_sketch(self, number: int, feature: bytes) -> None:
        import numpy as np

        if self._sketches is None:
            self._sketches = np.empty((1024, PERMUTATIONS), np.uint8)
        elif number == len(self._sketches):
            self._sketches = np.concatenate([self._sketches, np.empty_like(self._sketches)])
        self._sketches[number] = _signature_of(feature).astype(np.uint8)

    def _jaccard(self, feature: bytes, candidates: list[int]) -> Array:
        import numpy as np

        own = np.frombuffer(feature, "<u4", offset=SIGNATURE_END)
        sizes = np.array([len(self._shingles[number]) // 4 for number in candidates])
        others = np.frombuffer(b"".join([self._shingles[number] for number in candidates]), "<u4")
        places = np.minimum(np.searchsorted(own, others), len(own) - 1)
        shared = np.add.reduceat(own[places] == others, np.cumsum(sizes) - sizes, dtype=np.int64)
        similarities: Array = shared / (len(own) + sizes - shared)
        return similarities


def rows_and_bands(bound: float) -> tuple[int, int]:
    """The longest bands that still find a pair at the bound with FOUND_AT_BOUND, and how many there are."""
    for rows in range(PERMUTATIONS, 1, -1):
        bands = PERMUTATIONS // rows
        if 1 - (1 - min(max(bound, 0.0), 1.0) ** rows) ** bands >= FOUND_AT_BOUND:
            return rows, bands
    return 1, PERMUTATIONS


def units(text: str) -> list[str]:
    """The lower-cased words of a text; of a script without spaces, its characters."""
    if not text.isascii():
        text = UNSPACED.sub(r" \g<0> ", unicodedata.normalize("NFKC", text))
    return text.lower().split()


def shingle_hashes(texts: Sequence[list[str]], words: int) -> list[Array]:
    """The distinct hashes (32 bits) of the runs of that many units in each text, sorted."""
    import numpy as np
    import xxhash

    # An empty word fills texts up that are shorter than one run.
    padded = [text + [""] * (words - len(text)) if 0 < len(text) < words else text for text in texts]
    flat = [word for text in padded for word in text]
    of_word = {word: xxhash.xxh64_digest(word.encode(errors="surrogatepass")) for word in set(flat)}
    hashes = np.frombuffer(b"".join(map(of_word.__getitem__, flat)), ">u8").astype(np.uint64)
    counts = np.array([max(len(text) - words + 1, 0) for text in padded])
    lengths = np.array([len(text) for text in padded])
    texts_of_runs = np.repeat(np.arange(len(texts), dtype=np.uint64), counts)
    first = np.repeat(np.cumsum(lengths) - lengths - (np.cumsum(counts) - counts), counts)
    first = first + np.arange(len(first))
    runs = np.zeros(len(first), np.uint64)
    for offset, multiplier in enumerate(_multipliers(words)):
        runs += hashes[first + offset] * multiplier
    # Text and hash in one integer: one sort puts all texts in order at once.
    keyed = np.sort((_mix(runs) >> np.uint64(32)) | (texts_of_runs << np.uint64(32)))
    keyed = keyed[np.flatnonzero(np.diff(keyed, prepend=~keyed[:1]))]
    ends = np.searchsorted(keyed, np.arange(1, len(texts), dtype=np.uint64) << np.uint64(32))
    return np.split(keyed.astype(np.uint32), ends)


def signatures(hashes: Sequence[Array]) -> Array:
    """The MinHash of each set of hashes, a row each: what datasketch's MinHash holds after an update."""
    import numpy as np

    sizes = np.array([len(own) for own in hashes])
    found = np.full((PERMUTATIONS, len(hashes)), 0xFFFFFFFF, np.uint32)
    full = np.flatnonzero(sizes)
    starts = (np.cumsum(sizes) - sizes)[full]
    if len(full):
        mixed = np.concatenate(hashes)
        for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(multiplier)
        permuted = np.empty_like(mixed)
        for number, (factor, summand) in enumerate(_permutations()):
            np.multiply(mixed, factor, out=permuted)
            np.add(permuted, summand, out=permuted)
            found[number, full] = np.minimum.reduceat(permuted, starts)
    return found.T


@cache
def _permutations() -> list[tuple[Any, Any]]:
    from datasketch import MinHash

    factors, summands = MinHash(PERMUTATIONS, seed=1, scheme="affine32").permutations
    return list(zip(factors, summands, strict=True))


def _signature_of(feature: bytes) -> Array:
    import numpy as np

    return np.frombuffer(feature, "<u4", PERMUTATIONS, DIGEST_BYTES)


@cache
def _multipliers(n: int) -> Array:
    import numpy as np

    mixed = _mix(np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    odd: Array = mixed | np.uint64(1)
    return odd


def _mix(values: Array) -> Array:
    """Spread every bit over all others (the finalizer of MurmurHash3)."""
    import numpy as np

    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: Array = values ^ (values >> np.uint64(33))
    return mixed
