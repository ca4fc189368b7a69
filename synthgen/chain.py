"""The filters of one recipe, in order, each with its bound: measuring a batch, and judging a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit, urlunsplit

import orjson

from synthgen.digests import canonical, file_digest, folder_digest, sha256
from synthgen.errors import RunError, SynthgenError
from synthgen.filter_files import FoundFilter
from synthgen.input_files import NamedFile
from synthgen.measure import (
    Action,
    EngineMeasure,
    FilterDefinition,
    FilterFailed,
    Measurement,
    RecordMeasure,
    RunMeasure,
)
from synthgen.recipe_filters import FilterUse, OnError
from synthgen.record import Record

Verdict = Literal["pass", "flag", "redact", "drop", "fail", "unmeasured"]


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
    model: str = ""
    on_error: OnError | None = None

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
        params = dict(use.params)
        model = params.pop("model", "") if definition.kind == "engine" else ""
        return cls(
            name=name or definition.name,
            origin=found.origin,
            definition=definition,
            params=params,
            of=use.of or definition.of,
            min=use.min if "min" in use.model_fields_set else definition.min,
            max=use.max if "max" in use.model_fields_set else definition.max,
            action=use.action or definition.action,
            files=files or {},
            model=str(model),
            on_error=use.on_error,
        )

    @property
    def runs(self) -> bool:
        """Whether it compares records with one another."""
        return self.definition.kind == "run"

    @property
    def asks(self) -> bool:
        """Whether it asks a model."""
        return self.definition.kind == "engine"

    @property
    def stored(self) -> bool:
        """Whether what it measures, or needs of a record to compare it, is stored with the contents."""
        return not self.runs or self.definition.store

    @cached_property
    def bounds(self) -> dict[str, float]:
        """`min` and `max`, as far as there are any."""
        given = {"min": self.min, "max": self.max}
        return {name: bound for name, bound in given.items() if bound is not None}

    @cached_property
    def key(self) -> str:
        """Digest of what a measurement depends on besides the record: code, parameters, files and `of`."""
        bounds = {} if self.runs else {"min": self.min, "max": self.max}
        return measuring_key(
            self.definition.code_sha256(),
            self.params,
            self.of,
            self.model,
            {
                parameter: [[file.name, file.sha256] for file in files]
                for parameter, files in self.files.items()
            },
            self.weights,
            {name: bounds[name] for name in self.definition.given if name in bounds},
        )

    @cached_property
    def weights(self) -> Mapping[str, str]:
        """SHA-256 of each model that it measures by: of its file, or of all files of its folder.

        Raises RunError where one is not there.
        """
        try:
            found = sorted(self.definition.weights(self._params()).items())
            return {name: _digest(said) if isinstance(said, Path) else said for name, said in found}
        except SynthgenError:
            raise
        except (Exception, SystemExit) as error:  # any error of a user's code is the user's to read
            raise RunError(f"the weights of filter {self.name}: {type(error).__name__}: {error}") from error

    def make(self) -> RecordMeasure | EngineMeasure | RunMeasure:
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
        return replace(made, name=self.name) if isinstance(made, RecordMeasure | EngineMeasure) else made

    def _params(self) -> dict[str, Any]:
        """The parameters, with paths in place of the files that they name."""
        params = dict(self.params)
        several = self.definition.file_parameters
        for parameter, files in self.files.items():
            paths = [file.path for file in files]
            params[parameter] = paths if several.get(parameter) else paths[0]
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


def without_secrets(params: Any) -> Any:
    """Parameters whose `base_url:` is an address and nothing else: no password, no query with a key."""
    if isinstance(params, list):
        return [without_secrets(each) for each in params]
    if not isinstance(params, dict):
        return params
    return {
        name: _address(value) if name == "base_url" and isinstance(value, str) else without_secrets(value)
        for name, value in params.items()
    }


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if not (parts.query or parts.fragment or "@" in parts.netloc):
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _digest(weights: Path) -> str:
    return folder_digest(weights) if weights.is_dir() else file_digest(weights)


def measuring_key(
    code: str,
    params: Mapping[str, Any],
    of: str,
    model: str,
    files: Mapping[str, Sequence[Sequence[str]]],
    weights: Mapping[str, str],
    bounds: Mapping[str, float | None],
) -> str:
    """Digest of what measurements depend on; `bounds` are those that the filter's code is given."""
    depends: dict[str, Any] = {"code": code, "params": dict(params), "of": of}
    if model:
        depends["model"] = model
    if files:
        depends["files"] = files
    if weights:
        depends["weights"] = dict(weights)
    return sha256(canonical({**depends, **bounds}))


def described_keys(said: Mapping[str, Any]) -> set[str]:
    """The keys that a filter may have which is described so: which bounds its code is given is not said.

    Where a parameter was an address with a password, which a description has not, none of them is right.
    """
    files = {
        parameter: [[file["path"], file["sha256"]] for file in named]
        for parameter, named in said.get("files", {}).items()
    }
    models = {
        str(said.get("model", "")),
        "" if said.get("model") == "default" else str(said.get("model", "")),
    }
    return {
        measuring_key(
            said["code_sha256"], said["params"], said["of"], model, files, said.get("weights", {}),
            {name: said[name] for name in given},
        )
        for model in models
        for given in ((), ("min",), ("max",), ("min", "max"))
    }  # fmt: skip


def describe(link: ChainFilter) -> dict[str, Any]:
    """What the journal and the lock say of a filter."""
    files = {
        parameter: [{"path": file.name, "sha256": file.sha256} for file in named]
        for parameter, named in link.files.items()
    }
    return {
        "name": link.name,
        **({} if link.name == link.definition.name else {"filter": link.definition.name}),
        "origin": link.origin,
        "of": link.of,
        "min": link.min,
        "max": link.max,
        "action": link.action,
        "params": without_secrets(orjson.loads(orjson.dumps(link.params))),
        **({"files": files} if files else {}),
        **({"weights": dict(link.weights)} if link.weights else {}),
        **({"model": link.model or "default"} if link.asks else {}),
        "code_sha256": link.definition.code_sha256(),
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """What one batch gave: for each record, results and features, each by the filter's name.

    `redacted` has the contents of records from which something was taken out, as JSON.
    """

    results: list[dict[str, Measurement | str]]
    features: list[dict[str, bytes]]
    redacted: dict[int, bytes] = field(default_factory=dict)


class Measuring:
    """The chain at work in one process: loads each filter once and measures batches of record bodies."""

    def __init__(self, chain: Sequence[ChainFilter]) -> None:
        self._redact: list[tuple[ChainFilter, RecordMeasure]] = []
        self._record: list[tuple[ChainFilter, RecordMeasure]] = []
        self._run: list[tuple[ChainFilter, RunMeasure]] = []
        for link in chain:
            if link.asks:
                continue
            made = link.make()
            if isinstance(made, RecordMeasure):
                (self._redact if link.action == "redact" else self._record).append((link, made))
            else:
                self._run.append((link, cast(RunMeasure, made)))

    def measure(
        self, ids: Sequence[str], contents: Sequence[Any], known: Sequence[Sequence[str]]
    ) -> Measured:
        """Measure records, given by id and parsed contents; what is known already is passed over.

        A result that is a string is the error of a filter that failed on that record. Filters that redact
        come first, and the others measure what they leave.
        """
        records = [
            Record(id, content["fields"], content["row"]) for id, content in zip(ids, contents, strict=True)
        ]
        measured = Measured([{} for _ in records], [{} for _ in records])
        results, features = measured.results, measured.features
        whole = list(records)
        for link, filter in self._redact:
            _measure(link, filter, records, known, results)
            for place, record in enumerate(records):
                redacted = filter.redacted(record)
                if isinstance(redacted, FilterFailed):
                    results[place][link.name] = str(redacted)
                    continue
                records[place] = redacted
                if (left := _left(link, filter, redacted, results[place].get(link.name))) is not None:
                    results[place][link.name] = left
        for place, (record, before) in enumerate(zip(records, whole, strict=True)):
            if record is not before:
                measured.redacted[place] = orjson.dumps({"fields": record.fields, "row": record.row})
        if measured.redacted:
            known = [() if place in measured.redacted else names for place, names in enumerate(known)]
        for link, filter in self._record:
            _measure(link, filter, records, known, results)
        for link, compare in self._run:
            places = [place for place in range(len(records)) if link.name not in known[place]]
            picked, places = _picked(link, records, places, results)
            for place, feature in zip(places, _features(link, compare, picked), strict=True):
                if isinstance(feature, FilterFailed):
                    results[place][link.name] = str(feature)
                else:
                    features[place][link.name] = feature
        return measured


def _left(
    link: ChainFilter, filter: RecordMeasure, redacted: Record, before: Measurement | str | None
) -> str | None:
    """What is wrong where a filter still finds something after it took out what it found."""
    if not isinstance(before, Measurement) or link.judge(before.value) != "redact":
        return None
    try:
        [after] = filter.measure([redacted.pick(link.of)])
    except KeyError as error:
        return f"filter {link.name}: {error.args[0]}"
    if isinstance(after, FilterFailed):
        return str(after)
    if link.judge(after.value) == "redact":
        return f"filter {link.name} still finds {after.value:g} on record {redacted.id} after it took out all"
    return None


def _measure(
    link: ChainFilter,
    filter: RecordMeasure,
    records: Sequence[Record],
    known: Sequence[Sequence[str]],
    results: list[dict[str, Measurement | str]],
) -> None:
    places = [place for place in range(len(records)) if link.name not in known[place]]
    picked, places = _picked(link, records, places, results)
    for place, value in zip(places, filter.measure(picked), strict=True):
        results[place][link.name] = str(value) if isinstance(value, FilterFailed) else value


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
    except SynthgenError:
        raise  # a server that is gone, say, is no fault of the record
    except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
        if len(records) == 1:
            return [FilterFailed(link.name, records[0].id, error)]
        return [feature for record in records for feature in _features(link, compare, [record])]
