"""Whether what is stated of rows agrees with itself, and with the recipe's lock, though every digest fits.

Whoever has no key can let digests, counts and roots fit again; then what is left to find is contradictions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synthgen.provenance.lock import recipe_sha256
from synthgen.provenance.schema import RecordStatement
from synthgen.provenance.statement import is_synthetic

FIELDS = tuple(RecordStatement.model_fields)
AUDIT = "audit"  # the origin of a link that no filter measured, such as that of a quarantine
KEEPS_NOTHING = ("drop", "fail")
Problem = tuple[str, str | None]


class Agreement:
    """What a lock says of each statement of a kept row. Raises ValueError for a lock that says nothing.

    `splits` and `formats` are those of the dataset; `digest_fits`: its recipe's digest is its own.
    """

    def __init__(self, lock: Mapping[str, Any]) -> None:
        try:
            recipe = lock["recipe"]
            output = recipe.get("output", {})
            self.splits: list[str] = list(output.get("split", {"train": 1}))
            self.formats: list[str] = list(output.get("formats", ("parquet", "jsonl")))
            self.digest_fits: bool = lock["recipe_sha256"] == recipe_sha256(recipe)
            self._grown = frozenset(recipe.get("grow", ()))  # seeds to which kept records add rows
            self._links = {
                link["name"]: (link["min"], link["max"], link["action"])
                for link in lock["filters"]
                if link["origin"] != AUDIT
            }
            self._measured = list(self._links)
            said = recipe.get("seeds", {})
            self._files = {
                (seed, path): said[seed].get("licence") if isinstance(said.get(seed), dict) else None
                for seed, about in lock["seeds"].items()
                for path in about["files"]
            }
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"is not what synthgen wrote: {error!r}"[:200]) from None

    @property
    def grows(self) -> bool:
        """Whether a source may be a record."""
        return bool(self._grown)

    def problems(self, said: Mapping[str, Any]) -> Iterator[Problem]:
        """What is wrong with a statement, each with its field."""
        if tuple(said) != FIELDS:
            yield "has other fields than synthgen states", None
            return
        try:
            if said["dropped_by"] is not None:
                yield "is kept, and dropped by a filter", "dropped_by"
            measured = said["measurements"]
            if list(measured) != self._measured:
                yield "are not of the filters of recipe.lock.yaml", "measurements"
                return
            for name, each in measured.items():
                low, high, action = self._links[name]
                value, verdict = each["value"], each["verdict"]
                if each.get("min") != low or each.get("max") != high:
                    yield "has other bounds than recipe.lock.yaml", f"measurements.{name}"
                elif verdict in KEEPS_NOTHING:
                    yield "has a verdict that keeps nothing", f"measurements.{name}"
                elif value is not None:
                    inside = (low is None or value >= low) and (high is None or value <= high)
                    if verdict != ("pass" if inside else action):
                        yield "is not what its bounds make of the value", f"measurements.{name}"
            if not all(map(self._knows, said["sources"])):
                yield "are not of the files and licences of recipe.lock.yaml", "sources"
            if said["synthetic"] is not is_synthetic(said["requests"], said["sources"]):
                yield "is not what its requests and sources say", "synthetic"
        except (LookupError, TypeError, AttributeError):
            yield "is not what synthgen states", None

    def _knows(self, source: Mapping[str, Any]) -> bool:
        if "record" in source and source["seed"] in self._grown:
            return True
        place = source["seed"], source.get("path")
        return place in self._files and self._files[place] == source.get("licence")
