"""The filters of one recipe, in order, each with its bound: measuring a batch, and judging a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from synthgen.digests import canonical, sha256
from synthgen.errors import RunError, SynthgenError
from synthgen.filter_files import FoundFilter
from synthgen.input_files import NamedFile
from synthgen.measure import Action, FilterDefinition, FilterFailed, Measurement, RecordMeasure, RunMeasure
from synthgen.recipe import FilterUse
from synthgen.record import Record

Verdict = Literal["pass", "flag", "drop", "fail"]


@dataclass(frozen=True)
class ChainFilter:
    """One filter of a recipe, with everything the recipe and the filter's own defaults say of it.

    `name` is its name in the recipe, which may differ from the definition's.
    """

    name: str
    origin: str
    definition: FilterDefinition
    params: Mapping[str, Any]
    of: str
    min: float | None
    max: float | None
    action: Action
    files: Mapping[str, Sequence[NamedFile]] = field(default_factory=dict)

    @classmethod
    def of_recipe(
        cls,
        found: FoundFilter,
        use: FilterUse,
        name: str | None = None,
        files: Mapping[str, Sequence[NamedFile]] | None = None,
    ) -> ChainFilter:
        """The filter as a recipe uses it. `max: null` in a recipe takes the filter's own bound away."""
        definition = found.definition
        return cls(
            name=name or definition.name,
            origin=found.origin,
            definition=definition,
            params=dict(use.params),
            of=use.of or definition.of,
            min=use.min if "min" in use.model_fields_set else definition.min,
            max=use.max if "max" in use.model_fields_set else definition.max,
            action=use.action or definition.action,
            files=files or {},
        )

    @property
    def runs(self) -> bool:
        """Whether it compares records with one another."""
        return self.definition.kind == "run"

    @cached_property
    def key(self) -> str:
        """Digest of what a measurement depends on besides the record: code, parameters, files and `of`."""
        depends: dict[str, Any] = {
            "code": self.definition.code_sha256(),
            "params": dict(self.params),
            "of": self.of,
        }
        if self.files:
            depends["files"] = {
                parameter: [[file.name, file.sha256] for file in files]
                for parameter, files in self.files.items()
            }
        if not self.runs:
            bounds = {"min": self.min, "max": self.max}
            depends |= {name: bounds[name] for name in self.definition.given if name in bounds}
        return sha256(canonical(depends))

    def make(self) -> RecordMeasure | RunMeasure:
        """The filter, ready to measure. Raises RunError where it cannot be made."""
        try:
            made = self.definition.make(self._params(), min=self.min, max=self.max, of=self.of)
        except SynthgenError:
            raise
        except (Exception, SystemExit) as error:  # any error of a user's code is the user's to read
            raise RunError(
                f"filter {self.name} cannot be made: {type(error).__name__}: {error}",
                hint="look at its parameters in the recipe",
            ) from error
        return replace(made, name=self.name) if isinstance(made, RecordMeasure) else made

    def _params(self) -> dict[str, Any]:
        """The parameters, with paths in place of the files that they name."""
        params = dict(self.params)
        for parameter, many in self.definition.file_parameters.items():
            if parameter in self.files:
                paths = [file.path for file in self.files[parameter]]
                params[parameter] = paths if many else paths[0]
        return params

    def judge(self, value: float | None) -> Verdict:
        """What a measurement means: bounds are inclusive, and None is what the filter says it is."""
        if value is None:
            return self._without_value()
        inside = (self.min is None or value >= self.min) and (self.max is None or value <= self.max)
        return "pass" if inside else self.action

    def _without_value(self) -> Verdict:
        if self.definition.null == "drop":
            return self.action
        return "fail" if self.definition.null == "fail" else "pass"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one batch gave: for each record, results and features, each by the filter's name."""

    results: list[dict[str, Measurement | str]]
    features: list[dict[str, bytes]]


class Measuring:
    """The chain at work in one process: loads each filter once and measures batches of record bodies."""

    def __init__(self, chain: Sequence[ChainFilter]) -> None:
        self._record = [(link, made) for link in chain if isinstance(made := self._made(link), RecordMeasure)]
        self._run = [(link, link.make()) for link in chain if link.runs]

    @staticmethod
    def _made(link: ChainFilter) -> RecordMeasure | None:
        made = None if link.runs else link.make()
        return made if isinstance(made, RecordMeasure) else None

    def measure(
        self, ids: Sequence[str], contents: Sequence[Any], known: Sequence[Sequence[str]]
    ) -> Measured:
        """Measure records, given by id and parsed contents; what is known already is passed over.

        A result that is a string is the error of a filter that failed on that record.
        """
        records = [
            Record(id, content["fields"], content["row"]) for id, content in zip(ids, contents, strict=True)
        ]
        results: list[dict[str, Measurement | str]] = [{} for _ in records]
        features: list[dict[str, bytes]] = [{} for _ in records]
        for link, filter in self._record:
            places = [place for place in range(len(records)) if link.name not in known[place]]
            picked, places = _picked(link, records, places, results)
            for place, value in zip(places, filter.measure(picked), strict=True):
                results[place][link.name] = str(value) if isinstance(value, FilterFailed) else value
        for link, compare in self._run:
            assert not isinstance(compare, RecordMeasure)
            picked, places = _picked(link, records, list(range(len(records))), results)
            for place, feature in zip(places, _features(link, compare, picked), strict=True):
                if isinstance(feature, FilterFailed):
                    results[place][link.name] = str(feature)
                else:
                    features[place][link.name] = feature
        return Measured(results, features)


def _as_many(features: list[bytes], count: int) -> list[bytes | FilterFailed]:
    if len(features) != count:
        raise ValueError(f"gave {len(features)} features for {count} records")
    return [*features]


def as_bytes(feature: Any) -> bytes:
    """A feature of a filter of the run. Raises TypeError on what is not bytes."""
    if not isinstance(feature, bytes | bytearray | memoryview):
        raise TypeError(f"features are bytes, not {type(feature).__name__}")
    return bytes(feature)


def _picked(
    link: ChainFilter,
    records: Sequence[Record],
    places: Sequence[int],
    results: list[dict[str, Measurement | str]],
) -> tuple[list[Record], list[int]]:
    picked, found = [], []
    for place in places:
        try:
            picked.append(records[place].pick(link.of))
            found.append(place)
        except KeyError as error:
            results[place][link.name] = f"filter {link.name}: {error.args[0]}"
    return picked, found


def _features(
    link: ChainFilter, compare: RunMeasure, records: Sequence[Record]
) -> list[bytes | FilterFailed]:
    try:
        return _as_many([as_bytes(feature) for feature in compare.features(records)], len(records))
    except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
        if len(records) == 1:
            return [FilterFailed(link.name, records[0].id, error)]
        return [feature for record in records for feature in _features(link, compare, [record])]
