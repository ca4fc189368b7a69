"""Is text of a benchmark in the record?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import lcm
from os.path import commonpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen import InputFile, Measurement, Record, filter, read_records
from synthgen.filters._text import words

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

FEWEST = 5  # words of a question: fewer are in texts that have never seen it
COMMON = 20  # items that have a run in common: with more it says nothing of any of them
SPAN = 200  # characters quoted
NEVER = 255  # in place of a number of times
# Of a row's fields, those that may be looked for though they are shorter than a run.
QUESTIONS = frozenset("user question query prompt instruction problem task goal".split())


Origin = tuple[str, str, str]  # file, item, field


@filter(max=0.5, of="all")
class contamination:
    """How much of one item of a benchmark the record holds, from 0 to 1: of all items, the most.

    Each field of a row of the files (each message of a conversation, but the system's) is an item of its own.
    Its share is that of its words that stand in the record too, in runs of `ngram` words and more, whatever
    their case and punctuation. A run that other items have as well ("Which of the following is true of")
    counts for as much less as there are of them, and one that more than 20 have for nothing. A question that
    is shorter than a run counts from five words on, where all of it is there; another field does not.

    The detail has the file, the item (its id, or the number of its line), its field and the longest text that
    both share.

    Parameters:
        against: the files, JSONL, JSON, CSV, TSV, Parquet or text: paths or patterns.
        ngram: how many words a run has. More find less by chance, fewer find more that was reworded.
        fields: which fields of a row are looked for, if not all; each may then be shorter than a run.

    Source: runs of 8 words and half of an item as in Tulu 3 (Lambert et al., 2024), which found them best of
    what is in use; GPT-3 (Brown et al., 2020) took any run of 13, for which set `ngram: 13, max: 0`.

    Weak at: items that were reworded or translated; answers of one word, which it never looks for; a passage
    out of a long document, which is a small share of it. The index takes some 16 bytes for each word of the
    files, in each process that measures.
    """

    def __init__(self, *, against: list[InputFile], ngram: int = 8, fields: list[str] | None = None) -> None:
        if ngram < 1:
            raise ValueError(f"ngram must be at least 1, not {ngram}")
        if not against:
            raise ValueError("`against` names no file")
        self._index = _Index(ngram, _items(against, ngram, fields))

    def measure(self, record: Record) -> Measurement:
        """The share, with the item that it is the share of."""
        said = words(record.text)
        found = self._index.best(said)
        if found is None:
            return Measurement(0.0)
        share, (file, item, field), where = found
        span = " ".join(said[where])[:SPAN].encode(errors="replace").decode()
        return Measurement(share, {"file": file, "item": item, "field": field, "span": span})


def _items(
    files: Sequence[Path], ngram: int, fields: Sequence[str] | None
) -> Iterator[tuple[Origin, list[str]]]:
    """The words of all that is looked for, and what it is. Raises ValueError for a file without any."""
    folder = commonpath([path.parent for path in files])
    for path in files:
        name, some = path.relative_to(folder).as_posix(), False
        for record in read_records(path):
            for field, text in _parts(record, fields):
                said = words(text)
                short = fields is not None or field in QUESTIONS
                if len(said) >= (min(ngram, FEWEST) if short else ngram):
                    yield (name, record.id, field), said
                    some = True
        if not some:
            wanted = f" in {' or '.join(fields)}" if fields else ""
            raise ValueError(f"{name} has no text{wanted} that is long enough to be looked for")


def _parts(record: Record, fields: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Name and text of what is looked for in a row."""
    if fields is not None:
        for field in fields:
            if field in record.row or field in record.fields:
                yield field, _text(record[field])
    elif record.messages:
        for message in record.messages:
            if message["role"] != "system":
                yield message["role"], _text(message["content"])
    else:
        for name, value in record.row.items():
            yield name, _text(value)


def _text(value: Any) -> str:
    """All strings in a value, a line each."""
    if isinstance(value, str):
        return value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return "\n".join(map(_text, inner))


class _Index:
    """The runs of words of all items, by their hashes. Runs are numbered through, item after item."""

    def __init__(self, ngram: int, items: Iterable[tuple[Origin, list[str]]]) -> None:
        """Items of the same words count as one, the first."""
        import numpy as np

        self._ngram = ngram
        self._origins: list[Origin] = []
        digest = cache(_digest)
        known: set[int] = set()
        widths: set[int] = set()
        runs: list[Array] = []
        for origin, said in items:
            whole = _digest(" ".join(said))
            if whole in known:
                continue
            known.add(whole)
            hashes = np.fromiter(map(digest, said), np.uint64, len(said))
            width = min(ngram, len(said))
            widths.add(width)
            runs.append(_runs(hashes, width))
            self._origins.append(origin)
        self._widths = sorted(widths)
        # The number of the first run of each item, and behind the last how many there are.
        self._starts = np.cumsum([0, *map(len, runs)])
        hashes = np.concatenate([np.empty(0, np.uint64), *runs])
        del runs
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        changes = np.flatnonzero(np.append(hashes[1:] != hashes[:-1], len(hashes) > 0)) + 1
        times = np.diff(changes, prepend=0)
        rare = np.repeat(times <= COMMON, times)
        # How often the run of that number occurs among all, 0 for too often.
        self._times = np.zeros(len(hashes), np.uint8)
        self._times[order] = np.repeat(np.where(times <= COMMON, times, 0), times)
        self._hashes = hashes[rare]
        # A bit for each hash, in so many that most others are known from these not to be there.
        bits = max(6, int(16 * len(self._hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._bits = np.zeros(2**bits // 8, np.uint8)
        at = self._hashes >> self._shift
        np.bitwise_or.at(self._bits, at >> np.uint64(3), _bit(at))
        self._numbers = order[rare].astype(np.uint32 if len(hashes) < 2**32 else np.uint64)

    def __len__(self) -> int:
        return len(self._origins)

    def best(self, said: list[str]) -> tuple[float, Origin, slice] | None:
        """The largest share of an item that is in these words, the item, and the longest part that is.

        Of several the first. None where nothing of any item is in them.
        """
        import numpy as np

        if not len(self._hashes):
            return None
        digests = {word: _digest(word) for word in set(said)}
        hashes = np.fromiter(map(digests.__getitem__, said), np.uint64, len(said))
        places, ends, numbers = self._found(hashes)
        if not len(numbers):
            return None
        items = np.searchsorted(self._starts, numbers, side="right") - 1
        candidates = np.unique(items)
        shares = self._shares(candidates, items, numbers)
        best = int(shares.argmax())
        own = items == candidates[best]
        return float(shares[best]), self._origins[candidates[best]], _longest(places[own], ends[own])

    def _found(self, hashes: Array) -> tuple[Array, Array, Array]:
        """Where in the words runs of items begin and end, and the numbers of those runs."""
        import numpy as np

        places, ends, numbers = ([np.empty(0, np.int64)] for _ in range(3))
        for width in self._widths:
            runs = _runs(hashes, width)
            at = runs >> self._shift
            there = np.flatnonzero(self._bits[at >> np.uint64(3)] & _bit(at))
            left = np.searchsorted(self._hashes, runs[there])
            same = self._hashes[np.minimum(left, len(self._hashes) - 1)] == runs[there]
            there, left = there[same], left[same]
            if not len(there):
                continue
            counts = self._times[self._numbers[left]].astype(np.int64)
            at = np.repeat(left - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            places.append(np.repeat(there, counts))
            ends.append(places[-1] + width)
            numbers.append(self._numbers[at].astype(np.int64))
        return np.concatenate(places), np.concatenate(ends), np.concatenate(numbers)

    def _shares(self, candidates: Array, items: Array, numbers: Array) -> Array:
        """Of each candidate's words, the share that the found runs cover."""
        import numpy as np

        starts = self._starts[candidates]
        lengths = self._starts[candidates + 1] - starts
        before = np.cumsum(lengths) - lengths
        offsets = np.repeat(starts - before, lengths)
        times = self._times[offsets + np.arange(len(offsets))]
        times[times == 0] = NEVER
        candidate = np.searchsorted(candidates, items)
        found = np.zeros(len(times), bool)
        found[numbers - starts[candidate] + before[candidate]] = True
        # A run begins at each word but the last ones.
        more = self._ngram - 1
        words_of_runs = np.arange(len(times)) + np.repeat(np.arange(len(candidates)) * more, lengths)
        least = np.full(len(times) + len(candidates) * more, NEVER, np.uint8)
        covered = np.zeros(len(least), bool)
        for offset in range(self._ngram):
            at = words_of_runs + offset
            least[at] = np.minimum(least[at], times)
            covered[at] |= found
        weights = _weights()[least]  # whole numbers, whose sums are exact in any order
        firsts = before + np.arange(len(candidates)) * more
        shares: Array = np.add.reduceat(weights * covered, firsts) / np.maximum(
            np.add.reduceat(weights, firsts), 1
        )
        return shares


def _longest(places: Array, ends: Array) -> slice:
    """The longest stretch of words in which a run begins at each word."""
    import numpy as np

    places, first = np.unique(places, return_index=True)
    breaks = np.flatnonzero(np.diff(places) > 1)
    begin, end = np.append(0, breaks + 1), np.append(breaks, len(places) - 1)
    best = int((places[end] - places[begin]).argmax())
    return slice(int(places[begin[best]]), int(ends[first[end[best]]]))


def _runs(hashes: Array, width: int) -> Array:
    """A hash of the words from each place on."""
    import numpy as np

    count = max(len(hashes) - width + 1, 0)
    runs = np.zeros(count, np.uint64)
    for offset in range(width):
        runs = (runs * np.uint64(0x9E3779B97F4A7C15)) + hashes[offset : offset + count]
    return runs


def _bit(at: Array) -> Array:
    import numpy as np

    bit: Array = np.uint8(1) << (at & np.uint64(7)).astype(np.uint8)
    return bit


def _digest(word: str) -> int:
    import xxhash

    return xxhash.xxh64_intdigest(word.encode(errors="surrogatepass"))


@cache
def _weights() -> Array:
    """What a word counts whose rarest run occurs so many times."""
    import numpy as np

    weights = np.zeros(NEVER + 1, np.int64)
    weights[1 : COMMON + 1] = lcm(*range(1, COMMON + 1)) // np.arange(1, COMMON + 1)
    return weights
