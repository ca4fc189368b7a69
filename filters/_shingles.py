"""Texts as sets of hashed runs of words, and the MinHash signatures of such sets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

PERMUTATIONS = 140
HASH_BITS = (
    48  # of a run: among 10 million texts of one run each, two are taken for the same once in six times
)
LOADED = 8  # bytes of a word that are hashed at once
LONG_WORD = 32  # bytes from which on a word is hashed by itself
LONG_PIECE = 1000  # normalising takes quadratic time in the number of combining marks in a row

# Each sign of a script without spaces is a unit of its own, as a word is elsewhere: Thai, Lao, Tibetan,
# Burmese, Khmer, kana, bopomofo, Han.
UNSPACED = re.compile(
    "([\u0e01-\u0e4e\u0e81-\u0ece\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u2e80-\u2fdf\u3005-\u3007"
    "\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U0001b000-\U0003fffd][\"')\\]}*_`.,;:!?]*)"
)
# What `str.lower` and `str.split` do to ASCII, so that most texts need neither.
FOLDED = bytes(ord(" ") if chr(code).isspace() else code for code in range(128)).lower() + bytes(
    range(128, 256)
)
# What stands at the edges of a word and is not of it; not `-5`, `$x`, `C++` or `50%`.
OPENING = "\"'([{*_`"
CLOSING = "\"')]}*_`.,;:!?"
# Other scripts' signs for the same.
SAME_SIGNS = [
    *((sign, "'") for sign in "\u2018\u2019\u201a\u2039\u203a"),
    *((sign, '"') for sign in "\u201c\u201d\u201e\u00ab\u00bb"),
    *((sign, ".") for sign in "\u3002\u06d4\u0964"),
    *((sign, ",") for sign in "\u3001\u060c"),
    *(("\u061f", "?"), ("\u061b", ";"), ("\u00bf", "("), ("\u00a1", "(")),
]
USUAL_EDGE = 4  # signs of it that are taken from all words at once


def units(text: str) -> list[str]:
    """The lower-cased words of a text, without punctuation at their edges.

    Of a script without spaces, its characters. What is nothing but punctuation is a word.
    """
    return [word.rstrip(CLOSING).lstrip(OPENING) or word for word in spaced(text).lower().split()]


def spaced(text: str) -> str:
    """The text in compatible characters, with spaces between all units."""
    if text.isascii():
        return text
    pieces = text.split()
    if max(map(len, pieces), default=0) > LONG_PIECE:
        pieces = [
            piece[start : start + LONG_PIECE]
            for piece in pieces
            for start in range(0, len(piece), LONG_PIECE)
        ]
        text = " ".join([unicodedata.normalize("NFKC", piece) for piece in pieces])
    else:
        text = unicodedata.normalize("NFKC", text)
    for sign, same in SAME_SIGNS:
        text = text.replace(sign, same)
    return " ".join(UNSPACED.split(text))


def word_hashes(texts: Sequence[str]) -> tuple[Array, Array]:
    """The hashes (64 bits) of all units of all texts, one text after the other, and how many each has."""
    import numpy as np
    import xxhash

    plain = [
        (text if text.isascii() else " ".join(spaced(text).lower().split())).encode(errors="surrogatepass")
        for text in texts
    ]
    joined = b" " + b" ".join(plain).translate(FOLDED) + b" " * LOADED
    codes = np.frombuffer(joined, np.uint8)
    space = codes == ord(" ")
    edges = np.flatnonzero(space[1:] != space[:-1]) + 1
    starts, lengths = _trimmed(codes, edges[::2], edges[1::2])
    # Eight bytes from every place on, as one integer.
    loaded = np.ndarray(len(joined) - LOADED + 1, "<u8", joined, strides=(1,))
    masks = np.array([(1 << 8 * size) - 1 for size in range(LOADED + 1)], np.uint64)
    hashes = _mix(
        (loaded[starts] & masks[np.minimum(lengths, LOADED)])
        + _salts(LONG_WORD)[np.minimum(lengths, LONG_WORD) - 1]
    )
    for offset in range(LOADED, LONG_WORD, LOADED):
        longer = np.flatnonzero(lengths > offset)
        more = loaded[starts[longer] + offset] & masks[np.minimum(lengths[longer] - offset, LOADED)]
        hashes[longer] = _mix(hashes[longer] * _salts(1) + more)
    for place in np.flatnonzero(lengths > LONG_WORD).tolist():
        word = joined[starts[place] : starts[place] + lengths[place]]
        hashes[place] = xxhash.xxh64_intdigest(word)
    ends = np.cumsum(np.array([len(text) + 1 for text in plain])) + 1
    return hashes, np.diff(np.searchsorted(starts, ends), prepend=0)


def _trimmed(codes: Array, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Where words begin without the punctuation at their edges, and how long they are."""
    import numpy as np

    first, last = starts.copy(), ends - 1
    for signs, place, step in ((CLOSING, last, -1), (OPENING, first, 1)):
        listed = _listed(signs)
        rows = np.flatnonzero(listed[codes[place]])
        for _ in range(USUAL_EDGE):
            place[rows] += step
            rows = rows[listed[codes[place[rows]]]]
        for row in rows.tolist():
            word = codes[first[row] : last[row] + 1].tobytes()
            left = word.rstrip(signs.encode()) if step < 0 else word.lstrip(signs.encode())
            place[row] += step * (len(word) - len(left))
    empty = np.flatnonzero(first > last)  # operators and the like are punctuation through and through
    first[empty], last[empty] = starts[empty], ends[empty] - 1
    return first, last + 1 - first


@cache
def _listed(characters: str) -> Array:
    import numpy as np

    listed: Array = np.zeros(256, bool)
    listed[list(characters.encode())] = True
    return listed


def run_hashes(hashes: Array, counts: Array, texts: Array, lengths: Array) -> tuple[Array, Array]:
    """For each view, the distinct hashes (48 bits) of the runs of so many units in a text, sorted.

    `texts` and `lengths` say, view by view, which text it is of and how long its runs are. A text that is
    shorter than one run is filled up with nothings. Gives all views' hashes in a row, and how many each has.
    """
    import numpy as np

    longest = int(lengths.max())
    gaps = np.arange(len(counts)) * longest
    flat = np.zeros(len(hashes) + len(counts) * longest + longest, np.uint64)
    flat[np.arange(len(hashes)) + np.repeat(gaps, counts)] = hashes
    runs_of = np.maximum(counts[texts] - lengths + 1, 1)
    before = np.cumsum(runs_of) - runs_of
    first = (np.cumsum(counts) - counts + gaps)[texts] - before
    place = np.repeat(first, runs_of) + np.arange(int(runs_of.sum()))
    view = np.repeat(np.arange(len(texts), dtype=np.uint64), runs_of)
    used = len(flat) - longest
    runs = np.empty(len(place), np.uint64)
    summed = np.zeros(used, np.uint64)
    for offset, multiplier in enumerate(_salts(longest)):
        summed += flat[offset : offset + used] * multiplier
        ends_here = lengths == offset + 1
        if ends_here.all():
            runs = summed[place] + multiplier
        elif ends_here.any():
            chosen = np.flatnonzero(np.repeat(ends_here, runs_of))
            runs[chosen] = summed[place[chosen]] + multiplier
    # View and hash in one integer: one sort puts all views in order at once.
    bits = np.uint64(HASH_BITS)
    keyed = np.sort((_mix(runs) >> np.uint64(64 - HASH_BITS)) | (view << bits))
    keyed = keyed[np.flatnonzero(np.diff(keyed, prepend=~keyed[:1]))]
    starts = np.searchsorted(keyed, np.arange(len(texts) + 1, dtype=np.uint64) << bits)
    return keyed & np.uint64((1 << HASH_BITS) - 1), np.diff(starts)


def signatures(hashes: Array, sizes: Array) -> Array:
    """The MinHash of each set of 32-bit hashes, a row each: what datasketch's holds. No set is empty."""
    import numpy as np

    mixed = hashes
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(multiplier)
    starts = np.cumsum(sizes) - sizes
    found = np.empty((PERMUTATIONS, len(sizes)), np.uint32)
    permuted = np.empty_like(mixed)
    for number, (factor, summand) in enumerate(_permutations()):
        np.multiply(mixed, factor, out=permuted)
        np.add(permuted, summand, out=permuted)
        np.minimum.reduceat(permuted, starts, out=found[number])
    return np.ascontiguousarray(found.T)


def band_keys(signatures: Array, rows: int, bands: int) -> Array:
    """A hash (32 bits) of each band of each signature."""
    import numpy as np

    cut = signatures[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    return (_mix((cut * _salts(rows)).sum(axis=2)) >> np.uint64(32)).astype(np.uint32)


@cache
def _permutations() -> list[tuple[Any, Any]]:
    from datasketch import MinHash

    factors, summands = MinHash(num_perm=PERMUTATIONS, seed=1).permutations
    return list(zip(factors, summands, strict=True))


@cache
def _salts(n: int) -> Array:
    """Odd numbers with nothing in common."""
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
