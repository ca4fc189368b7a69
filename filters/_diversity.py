"""How varied the words of a text are."""

from __future__ import annotations

from synthgen.filters._text import words

WINDOW = 50  # words; so many are needed, and so many are looked at together


def diversity(prose: str) -> float:
    """The share of words that are new among the last 50, over all stretches of 50 words.

    This is the moving-average type-token ratio (Covington and McFall, 2010), which does not fall with the
    length of a text as the plain ratio does. 1 for fewer than 50 words.
    """
    said = words(prose)
    windows = len(said) - WINDOW + 1
    if windows < 1:
        return 1.0
    last: dict[str, int] = {}
    new = 0
    for place, word in enumerate(said):
        # It is new in each window that begins after its last occurrence and not after itself.
        first = max(last.get(word, -1) + 1, place - WINDOW + 1)
        new += max(0, min(place, windows - 1) - first + 1)
        last[word] = place
    return new / (windows * WINDOW)
