"""How far a long reading is, on standard error: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from synthgen.cli.options import plain, say

FIRST = 2.0  # seconds in which nothing is said: most are done by then
EVERY = 10.0  # seconds between lines, where nobody sees one change
LIVE = 0.1


class Counting:
    """Call it with what is counted, and how many there were so far."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._began = self._shown = time.monotonic()
        self._said = False

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._said:
            say("\r\x1b[2K")

    def __call__(self, what: str, count: int) -> None:
        """Show it, if it is time."""
        now = time.monotonic()
        if now - self._began < FIRST or now - self._shown < (LIVE if self._live else EVERY):
            return
        text = f"{plain(what, 80)}: {count:,} · {now - self._began:,.0f} s"
        say(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self._shown, self._said = now, True
