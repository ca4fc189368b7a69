"""Numbers of things, for people."""

from __future__ import annotations

import pytest

from synthgen.plural import many


@pytest.mark.parametrize(
    ("number", "thing", "said"),
    [(0, "row", "0 rows"), (1, "row", "1 row"), (1234, "session", "1,234 sessions"), (2, "try", "2 tries"),
     (1, "try", "1 try"), (2, "entry", "2 entries")],
)  # fmt: skip
def test_one_is_one(number: int, thing: str, said: str) -> None:
    assert many(number, thing) == said


def test_the_verb_goes_with_it() -> None:
    assert (many(1, "row", "is"), many(2, "row", "is")) == ("1 row is", "2 rows are")
