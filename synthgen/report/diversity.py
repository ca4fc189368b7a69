"""How varied texts are, in the measures that the literature uses."""

from __future__ import annotations

import gzip
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

WORD = re.compile(r"\w+|[^\w\s]")
ORDERS = 4
NO_MATCH = 0.1  # what a count of no matches is taken for (Chen and Cherry, 2014, smoothing 1)


@dataclass(frozen=True, slots=True)
class Named:
    """A measure: its name, where it is from, what it says, and which end is the varied one."""

    key: str
    name: str
    source: str
    says: str
    more: bool


MEASURES = (
    Named("distinct_1", "distinct-1", "Li et al., 2016", "different words, of all words", more=True),
    Named("distinct_2", "distinct-2", "Li et al., 2016", "different pairs of words, of all pairs", more=True),
    Named("self_bleu", "self-BLEU", "Zhu et al., 2018",
          "how much of a text is in the others, word for word", more=False),
    Named("compression", "compression ratio", "Shaib et al., 2024",
          "how much smaller gzip makes the texts together", more=False),
    Named("vendi", "Vendi score", "Friedman and Dieng, 2023",
          "how many texts of wholly different meaning would be as varied", more=True),
)  # fmt: skip


def lexical(texts: Sequence[str]) -> dict[str, float | None]:
    """What words and pairs of words, self-BLEU and gzip say; None where there is too little to say."""
    words = [WORD.findall(text.lower()) for text in texts]
    return {
        "distinct_1": _distinct(words, 1),
        "distinct_2": _distinct(words, 2),
        "self_bleu": self_bleu(words),
        "compression": _compression(texts),
    }


def vendi(vectors: Array) -> float | None:
    """exp of the entropy of the eigenvalues of the cosines' matrix over its size; from 1 to the number."""
    import numpy as np

    if not len(vectors):
        return None
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths == 0, 1, lengths)
    values = np.linalg.eigvalsh(unit.T @ unit / len(unit))  # the same, but for zeros, as of the larger matrix
    values = values[values > 1e-12]
    return float(np.exp(-np.sum(values * np.log(values))))


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """The mean BLEU-4 of each text against all the others, from 0 to 1; None of fewer than two texts.

    Of each run of words the largest count in any other text is what one of its own is matched against.
    """
    texts = [text for text in texts if text]
    if len(texts) < 2:
        return None
    grams = [[_grams(text, order) for order in range(1, ORDERS + 1)] for text in texts]
    most = [_two_largest(each[order] for each in grams) for order in range(ORDERS)]
    lengths = sorted(len(text) for text in texts)
    return sum(
        _bleu(number, len(text), grams[number], most, lengths) for number, text in enumerate(texts)
    ) / len(texts)


def _bleu(
    number: int,
    length: int,
    grams: Sequence[Counter[tuple[str, ...]]],
    most: Sequence[Mapping[tuple[str, ...], tuple[int, int, int]]],
    lengths: Sequence[int],
) -> float:
    total = 0.0
    for order, counts in enumerate(grams):
        matched = 0
        for gram, count in counts.items():
            first, who, second = most[order][gram]
            matched += min(count, second if who == number else first)
        total += math.log((matched or NO_MATCH) / max(sum(counts.values()), 1))
    nearest = _nearest_other(length, lengths)
    brief = min(0.0, 1 - nearest / length)
    return min(1.0, math.exp(total / ORDERS + brief))


def _nearest_other(length: int, lengths: Sequence[int]) -> int:
    """Of the sorted lengths without one of this length, the nearest; the shorter of two."""
    from bisect import bisect_left

    place = bisect_left(lengths, length)
    around = [lengths[n] for n in (place - 1, place + 1) if 0 <= n < len(lengths)]
    return min(around, key=lambda other: (abs(other - length), other))


def _two_largest(each: Any) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Of each run of words: the largest count in a text, which text has it, and the largest of the others."""
    found: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for number, counts in enumerate(each):
        for gram, count in counts.items():
            first, who, second = found.get(gram, (0, -1, 0))
            if count > first:
                found[gram] = (count, number, first)
            elif count > second:
                found[gram] = (first, who, count)
    return found


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _distinct(texts: Sequence[Sequence[str]], order: int) -> float | None:
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(_grams(text, order))
    total = sum(counts.values())
    return len(counts) / total if total else None


def _compression(texts: Sequence[str]) -> float | None:
    whole = "\n".join(texts).encode(errors="replace")
    return len(whole) / len(gzip.compress(whole, 6, mtime=0)) if whole else None
