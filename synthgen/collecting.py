"""Garbage collection in processes of our own that make and drop millions of small objects."""

from __future__ import annotations

import gc


def collect_less() -> None:
    """Look for cycles every 50,000 new objects, not every 700, and never among those that are there now.

    Nearly nothing here is in a cycle. A quarter of a run's time on the CPU went into looking.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
