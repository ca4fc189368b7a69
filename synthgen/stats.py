"""How measurements are distributed, where bounds cut, and how right they are where somebody has labelled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from synthgen.errors import Problem, RecipeError

BINS = 20
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass
class Measured:
    """One filter's measurements of a version's records."""

    name: str
    of: str
    min: float | None
    max: float | None
    action: str
    values: list[float] = field(default_factory=list)
    abstained: int = 0
    outside: int = 0

    def count(self, value: float | None, verdict: str) -> None:
        """One measurement."""
        if value is None:
            self.abstained += 1
        else:
            self.values.append(value)
        self.outside += verdict in ("drop", "flag")

    def as_json(self) -> dict[str, Any]:
        """Counts, quantiles and a histogram whose bins cover all values evenly."""
        ordered = sorted(self.values)
        return {
            "filter": self.name,
            "of": self.of,
            "min": self.min,
            "max": self.max,
            "action": self.action,
            "measured": len(ordered),
            "abstained": self.abstained,
            "outside": self.outside,
            "quantiles": {
                f"{share:g}": ordered[round(share * (len(ordered) - 1))] for share in QUANTILES if ordered
            },
            "histogram": _histogram(ordered),
        }


@dataclass
class Rightness:
    """How what is dropped agrees with labels that say what is bad."""

    bad_dropped: int = 0
    good_dropped: int = 0
    bad_kept: int = 0
    good_kept: int = 0

    def count(self, *, bad: bool, dropped: bool) -> None:
        """One labelled record."""
        name = f"{'bad' if bad else 'good'}_{'dropped' if dropped else 'kept'}"
        setattr(self, name, getattr(self, name) + 1)

    def as_json(self) -> dict[str, Any]:
        """Precision: how much of what is dropped is bad; recall: how much of what is bad is dropped."""
        dropped, bad = self.bad_dropped + self.good_dropped, self.bad_dropped + self.bad_kept
        return {
            "bad_dropped": self.bad_dropped,
            "good_dropped": self.good_dropped,
            "bad_kept": self.bad_kept,
            "good_kept": self.good_kept,
            "precision": self.bad_dropped / dropped if dropped else None,
            "recall": self.bad_dropped / bad if bad else None,
        }


def distributions(
    chain: Sequence[Mapping[str, Any]], verdicts: Iterable[Mapping[str, Mapping[str, Any]]]
) -> list[Measured]:
    """What each filter of `chain` measured, given the verdicts of each record."""
    found = {
        link["name"]: Measured(link["name"], link["of"], link["min"], link["max"], link["action"])
        for link in chain
    }
    for record in verdicts:
        for name, verdict in record.items():
            found[name].count(verdict["value"], verdict["verdict"])
    return list(found.values())


def rightness(
    labels: Mapping[str, bool], records: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, Rightness]:
    """Of each filter's bound by itself, and of the whole chain under `(all)`; `labels` says who is bad."""
    found = {name: Rightness() for name in (*names, "(all)")}
    for record in records:
        bad = labels.get(record["id"])
        if bad is None or record["state"] == "failed":
            continue
        for name in names:
            verdict = record["measurements"].get(name)
            outside = verdict is not None and verdict["verdict"] in ("drop", "flag")
            found[name].count(bad=bad, dropped=outside)
        found["(all)"].count(bad=bad, dropped=record["state"] == "dropped")
    return found


def read_labels(file: Path) -> dict[str, bool]:
    """Whether each id is bad, from lines such as `{"id": "...", "label": "bad"}`, or `"good"`.

    Raises RecipeError, with the line, for one that says something else.
    """
    labels: dict[str, bool] = {}
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise RecipeError([Problem(f"cannot be read: {error.strerror}", file)]) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise RecipeError([Problem(f"is not JSON ({error})", file, number)]) from None
        if not isinstance(said, dict) or "id" not in said or said.get("label") not in ("good", "bad"):
            raise RecipeError([Problem('a label is {"id": ..., "label": "good" or "bad"}', file, number)])
        id, bad = str(said["id"]), said["label"] == "bad"
        if labels.setdefault(id, bad) != bad:
            raise RecipeError([Problem(f"{id} is labelled both good and bad", file, number)])
    if not labels:
        raise RecipeError([Problem("holds no labels", file)])
    return labels


def _histogram(ordered: Sequence[float]) -> list[dict[str, float]]:
    if not ordered:
        return []
    low, high = ordered[0], ordered[-1]
    width = (high - low) / BINS
    if width == 0:
        return [{"from": low, "to": high, "count": len(ordered)}]
    counts = [0] * BINS
    for value in ordered:
        counts[min(int((value - low) / width), BINS - 1)] += 1
    return [
        {"from": low + place * width, "to": low + (place + 1) * width, "count": count}
        for place, count in enumerate(counts)
    ]
