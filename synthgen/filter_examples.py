"""A filter's own examples, in its docstring, and the file that a new filter begins with.

Examples:
    "See http://a and http://b" -> 2
    "No links." -> pass
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.chain import ChainFilter
from synthgen.measure import EngineMeasure, FilterFailed, Measurement, RecordMeasure, as_measurement
from synthgen.record import PARTS, Record

EXAMPLE = re.compile(r"^\s*([\"'].*[\"'])\s*->\s*(\S.*?)\s*$")
VERDICTS = ("pass", "drop", "flag")
TOLERANCE = 1e-6

TEMPLATE = '''"""{title}"""

from synthgen import filter


@filter(max=0)
def {name}(record):
    """How many links the answer carries.

    Weak at: links that are written without http.

    Examples:
        "See http://a and http://b" -> 2
        "No links." -> 0
        "No links." -> pass
        "See http://a" -> drop
    """
    return record.text.count("http")
'''


@dataclass(frozen=True, slots=True)
class Example:
    """A text, and what the filter is to make of it: a number, None, or a verdict."""

    text: str
    expected: float | str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the filter made of an example. `error` is its exception, in a sentence."""

    example: Example
    value: float | None
    verdict: str
    right: bool
    error: str | None = None


def examples(help: str) -> list[Example]:
    """Those in a docstring, in order. Raises ValueError for one that is not `"text" -> value`."""
    found = []
    lines = inspect.cleandoc(help).splitlines()
    starts = [place for place, line in enumerate(lines) if line.strip() == "Examples:"]
    for line in lines[starts[0] + 1 :] if starts else []:
        if not line.strip():
            continue
        if not line.startswith(" "):
            break
        match = EXAMPLE.match(line)
        if match is None:
            raise ValueError(f'{line.strip()!r} is no example: write "text" -> value')
        found.append(Example(_text(match[1]), _expected(match[2])))
    return found


def _text(said: str) -> str:
    try:
        return str(ast.literal_eval(said))
    except (ValueError, SyntaxError):
        raise ValueError(f"{said} is no text in quotes") from None


def _expected(said: str) -> float | str | None:
    if said in VERDICTS:
        return said
    try:
        return None if said == "None" else float(said)
    except ValueError:
        raise ValueError(f"{said!r} is neither a number nor None, pass, drop or flag") from None


def try_examples(link: ChainFilter, given: Sequence[Example]) -> list[Outcome]:
    """Measure each example and judge it by the filter's bound. A filter of the run sees them in order."""
    made = link.make()
    assert not isinstance(made, EngineMeasure)
    outcomes = []
    for number, example in enumerate(given):
        record = _record(f"example-{number}", link.of, example.text)
        measured: Measurement | FilterFailed
        try:
            if isinstance(made, RecordMeasure):
                [measured] = made.measure([record])
            else:
                [feature] = made.features([record])
                measured = as_measurement(made.resolve(record.id, feature))
                if link.judge(measured.value) == "pass":
                    made.keep(record.id, feature)
        except (Exception, SystemExit) as error:  # any error of a user's code is the user's to read
            measured = FilterFailed(link.name, record.id, error)
        if isinstance(measured, FilterFailed):
            outcomes.append(Outcome(example, None, "fail", right=False, error=str(measured)))
            continue
        verdict = link.judge(measured.value)
        outcomes.append(Outcome(example, measured.value, verdict, _right(example, measured.value, verdict)))
    return outcomes


def _right(example: Example, value: float | None, verdict: str) -> bool:
    if isinstance(example.expected, str):
        return verdict == example.expected
    if example.expected is None or value is None:
        return example.expected is value
    return abs(value - example.expected) <= TOLERANCE * max(1.0, abs(value))


def _record(id: str, of: str, text: str) -> Record:
    row: dict[str, Any] = {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    }
    fields = {} if of in PARTS else {of: text}
    return Record(id, fields, row).pick(of)
