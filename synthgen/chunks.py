"""Chunks: a document cut into pieces of so many tokens, words or characters, each with where it stands."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.documents import Document
from synthgen.seed_kinds import Chunking

SENTENCE = re.compile(r"[.!?…。！？]['\")\]’”]*\s+|\n+")  # noqa: RUF001
WORD = re.compile(r"\S+")
SPACE = re.compile(r"\s+")
PIECE = 20_000  # characters that are tokenized at a time


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, without white space at its ends: `text[start:end]`."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Cutter:
    """Cuts documents. `starts` gives where each unit of a text begins, `count` how many a text has."""

    size: int
    overlap: int
    starts: Callable[[str], Sequence[int]]
    count: Callable[[str], int]

    def cut(self, document: Document) -> Iterator[Chunk]:
        """Chunks in order, none longer than `size`. Together they hold all of the text but white space.

        A chunk ends before a heading if there is one in its second half, else at the end of a paragraph, of a
        sentence, of a word. The next one begins `overlap` units before that end, after a heading at it.
        """
        text = document.text
        starts = self.starts(text)
        headings = [at for at, _, _ in document.headings]
        last = len(text.rstrip())
        start = _past_space(text, 0)
        while start < last:
            end, at_heading = self._end(text, starts, start, last, headings, document.blocks)
            yield Chunk(text[start:end], start, end)
            begin = _past_space(text, end)
            if begin >= last:
                return
            if not at_heading and self.overlap:
                back = starts[max(bisect_left(starts, end) - self.overlap, 0)]
                if back > start:
                    word = SPACE.search(text, max(back - 1, 0), end)
                    begin = word.end() if word and word.end() < end else back
            start = begin

    def _end(
        self,
        text: str,
        starts: Sequence[int],
        start: int,
        last: int,
        headings: Sequence[int],
        blocks: Sequence[int],
    ) -> tuple[int, bool]:
        first = bisect_right(starts, start) - 1
        size = self.size
        while True:
            limit = starts[first + size] if first + size < len(starts) else last
            limit = max(min(limit, last), start + 1)
            middle = starts[first + size // 2] if first + size // 2 < len(starts) else start
            end, at_heading = limit, False
            if limit < last:
                end, at_heading = _boundary(text, max(middle - 1, start), limit, headings, blocks)
            end = start + len(text[start:end].rstrip())
            # A token that is cut, or that loses the space before it, is written as others.
            over = self.count(text[start:end]) - self.size
            if over <= 0 or size == 1:
                return end, at_heading
            size = max(size - over, 1)


def _boundary(
    text: str, low: int, high: int, headings: Sequence[int], blocks: Sequence[int]
) -> tuple[int, bool]:
    """The best place to cut in (low, high], and whether a heading begins there."""
    for places in (headings, blocks):
        found = bisect_right(places, high) - 1
        if found >= 0 and places[found] > low:
            return places[found], places is headings
    for pattern in (SENTENCE, SPACE):
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends and ends[-1] > low:
            return ends[-1], False
    return high, False


def _past_space(text: str, at: int) -> int:
    found = WORD.search(text, at)
    return found.start() if found else len(text)


def cutter(spec: Chunking, tokenizer: Path | None) -> Cutter:
    """What cuts as a recipe says. Raises ValueError for a file that is no tokenizer."""
    if spec.characters is not None:
        return Cutter(spec.size, spec.overlap, lambda text: range(len(text)), len)
    if spec.words is not None:
        return Cutter(spec.size, spec.overlap, _words, lambda text: len(text.split()))
    from synthgen.tokenizing import tokenizer_of

    assert tokenizer is not None
    made = tokenizer_of(tokenizer)

    def starts(text: str) -> Sequence[int]:
        found = array("Q")
        for begin, piece in _pieces(text):
            encoded = made.encode(piece.encode(errors="replace").decode(), add_special_tokens=False)
            found.extend(begin + offset for offset, _ in encoded.offsets)
        return found or array("Q", [0])

    def count(text: str) -> int:
        return len(made.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)

    return Cutter(spec.size, spec.overlap, starts, count)


def _words(text: str) -> Sequence[int]:
    return array("Q", (match.start() for match in WORD.finditer(text)))


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """A text in pieces that end with a line, or a word, where that is possible."""
    at = 0
    while at < len(text):
        end = min(at + PIECE, len(text))
        if end < len(text):
            cut = text.rfind("\n", at, end) + 1 or text.rfind(" ", at, end)
            end = cut if cut > at else end
        yield at, text[at:end]
        at = end
