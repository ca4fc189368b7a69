"""How far a long reading is, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Tell = Callable[[str, int], None]  # what is read, and how many of it were so far
EVERY = 4096

T = TypeVar("T")


def counted(items: Iterable[T], what: str, tell: Tell | None) -> Iterator[T]:
    """The same items; `tell` hears how many went by, now and then."""
    if tell is None:
        yield from items
        return
    for number, item in enumerate(items):
        if not number % EVERY:
            tell(what, number)
        yield item
