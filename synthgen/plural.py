"""Numbers of things, for people."""

from __future__ import annotations

_VERBS = {"": "", "is": "are", "was": "were", "has": "have"}


def many(number: int, thing: str, verb: str = "") -> str:
    """`1 row`, `2,000 rows`; `thing` in the singular. `verb` is one of the words is, was and has, or none."""
    if number == 1:
        return f"1 {thing} {verb}".rstrip()
    ending = "ies" if thing.endswith("ry") else f"{thing[-1]}s"
    return f"{number:,} {thing[:-1]}{ending} {_VERBS[verb]}".rstrip()
