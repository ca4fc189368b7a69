"""What differs between two texts, word by word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

PIECE = re.compile(r"\s+|\w+|[^\w\s]")
MOST = 600  # pieces of each text that are compared; the time grows with the square of it


def differences(one: str, other: str) -> tuple[list[list[str]], list[list[str]]]:
    """Each text as pieces, `["same", TEXT]` or `["other", TEXT]`; what follows a long text's beginning is
    `["rest", TEXT]`, and was not compared.
    """
    a, b = PIECE.findall(one), PIECE.findall(other)
    rest_a, rest_b = "".join(a[MOST:]), "".join(b[MOST:])
    a, b = a[:MOST], b[:MOST]
    left: list[list[str]] = []
    right: list[list[str]] = []
    for kind, a1, a2, b1, b2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        name = "same" if kind == "equal" else "other"
        for side, words in ((left, a[a1:a2]), (right, b[b1:b2])):
            if words:
                side.append([name, "".join(words)])
    left.extend([["rest", rest_a]] if rest_a else [])
    right.extend([["rest", rest_b]] if rest_b else [])
    return left, right
