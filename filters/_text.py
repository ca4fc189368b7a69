"""What several filters do with text before they compare it."""

from __future__ import annotations

import re
import unicodedata

# Each sign of a script without spaces is a unit of its own, as a word is elsewhere: Thai, Lao, Tibetan,
# Burmese, Khmer, kana, bopomofo, Han.
UNSPACED = re.compile(
    "[\u0e01-\u0e4e\u0e81-\u0ece\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3\u2e80-\u2fdf\u3005-\u3007"
    "\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U0001b000-\U0003fffd]"
)
# Letters and digits, with the marks that Indic, Arabic, Hebrew and decomposed letters carry.
WORD = re.compile(
    r"(?:[^\W_\u0964\u0965]|[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff])+"
)
LONGEST = 256  # characters without a space that are normalised at once


def words(text: str) -> list[str]:
    """The words in lower case without punctuation; of a script without spaces, its characters."""
    if not text.isascii():
        text = UNSPACED.sub(r" \g<0> ", compatible(text))
    return WORD.findall(text.lower())


def compatible(text: str) -> str:
    """The text in NFKC, in a time that grows with its length.

    The time that `unicodedata` takes for a run of accents grows with the square of it.
    """
    if all(len(word) <= LONGEST for word in text.split()):
        return unicodedata.normalize("NFKC", text)
    pieces = re.findall(rf"\S{{1,{LONGEST}}}|\s+", text)
    return "".join(unicodedata.normalize("NFKC", piece) for piece in pieces)
