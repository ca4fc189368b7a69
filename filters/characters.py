"""How long a text is, in characters."""

from __future__ import annotations

from synthgen import Record, filter


@filter
def characters(record: Record) -> int:
    """How many characters the text has, spaces and line breaks among them.

    Parameters: none. The recipe gives `min` and `max`.

    Source: Unicode code points, as `len` counts them in Python.

    Weak at: emoji and accents that are put together from several code points, which count as several.
    """
    return len(record.text)
