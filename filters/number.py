"""The number that a field holds."""

from __future__ import annotations

import math

from synthgen import Measurement, Record, abstain, filter


@filter(null="drop")
def number(record: Record) -> Measurement:
    """The number that a field holds, such as the gap between the scores of two answers.

    Parameters: none. The recipe says `of:` which field, and gives `min` and `max`. A field that is no number
    is not measured, and its record dropped.

    Source: the field itself, read as JSON or Python has numbers; `true` is 1 and `false` 0.

    Weak at: numbers in words, with units or with commas, which are none.
    """
    text = record.text.strip()
    if text in ("true", "false"):
        return Measurement(float(text == "true"))
    try:
        value = float(text)
    except ValueError:
        return abstain("the field is no number")
    return Measurement(value) if math.isfinite(value) else abstain("the field is no finite number")
