"""How a dataset divides by the fields that have few values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VALUES = 40  # different ones at most
LETTERS = 60
FIELDS = 200
DEPTH = 2  # of mappings within mappings
SHOWN = 12


class Shares:
    """Counts of each value of each field, of all records and of those that are kept."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[int]] | None] = {}
        self._records = 0

    def add(self, fields: Mapping[str, Any], row: Mapping[str, Any], *, kept: bool) -> None:
        """One record."""
        self._records += 1
        for name, value in _values({**fields, **row}):
            if name not in self._counts and len(self._counts) >= FIELDS:
                continue
            counts = self._counts.setdefault(name, {})
            if counts is None:
                continue
            if len(value) > LETTERS or (value not in counts and len(counts) >= VALUES):
                self._counts[name] = None
                continue
            pair = counts.setdefault(value, [0, 0])
            pair[0] += 1
            pair[1] += kept

    def as_json(self, wished: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
        """Fields whose values come several times, with their largest shares and those that were wished."""
        found: list[dict[str, Any]] = []
        seen: list[dict[str, list[int]]] = []
        for name, counted in self._counts.items():
            counts = counted
            if not counts or 2 * len(counts) > self._records or counts in seen:
                continue
            if len(counts) < 2 and name not in wished:
                continue
            seen.append(counts)
            counts = {value: [0, 0] for value in wished.get(name, ())} | counts
            ordered = sorted(counts.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
            rest = ordered[SHOWN:]
            found.append(
                {
                    "field": name,
                    "values": [
                        {
                            "value": value,
                            "all": pair[0],
                            "kept": pair[1],
                            "wished": wished.get(name, {}).get(value),
                        }
                        for value, pair in ordered[:SHOWN]
                    ],
                    "others": {
                        "values": len(rest),
                        "all": sum(pair[0] for _, pair in rest),
                        "kept": sum(pair[1] for _, pair in rest),
                    },
                }
            )
        return found


def category(fields: Mapping[str, Any], row: Mapping[str, Any], name: str) -> str | None:
    """A record's value of a field that `Shares` named."""
    return next((value for key, value in _values({**fields, **row}) if key == name), None)


def wished(recipe: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The shares that a recipe balances its kept rows by, or draws its seeds with, by field and value."""
    found: dict[str, dict[str, float]] = {}
    for name, seed in (recipe.get("seeds") or {}).items():
        choice = seed.get("choice") if isinstance(seed, Mapping) else None
        if isinstance(choice, Mapping):
            total = sum(choice.values())
            found[name] = {_text(value): weight / total for value, weight in choice.items() if total}
        elif isinstance(choice, list) and choice:
            for value in choice:
                shares = found.setdefault(name, {})
                shares[_text(value)] = shares.get(_text(value), 0.0) + 1 / len(choice)
    for field, shares in (recipe.get("balance") or {}).items():
        if shares == "even":
            found[field] = dict.fromkeys(found.get(field, {}), 1 / max(len(found.get(field, {})), 1))
        elif isinstance(shares, Mapping):
            whole = float(sum(shares.values()))
            found[field] = {_text(value): share / whole for value, share in shares.items() if whole}
    return found


def _values(fields: Mapping[str, Any], above: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, str | bool | int):
            yield above + name, _text(value)
        elif isinstance(value, Mapping) and depth < DEPTH:
            yield from _values(value, f"{above}{name}.", depth + 1)


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
