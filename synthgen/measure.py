"""What a filter is: a measurement of a record, and a bound on it that the recipe can change.

A filter is a function of a record, or a class whose keyword arguments are its parameters. Its docstring
is its help, its name is its name in a recipe:

    from synthgen import filter

    @filter(max=0)
    def links(record):
        \"\"\"How many links the answer carries.\"\"\"
        return record.text.count("http")

A class of kind `record` has `measure(record)`, or `measure_batch(records)` where batches pay off; with
`redact(text)` it can also take out what it finds (`action: redact`). A class of kind `engine` asks a model:
`ask(record)` gives Questions, `measure(record, answers)` says what the answers come to. A class of kind
`run` compares records with one another: `features(records)` gives bytes for each (in any order, in any
process), then, one record at a time and in task order, `resolve(id, feature)` measures it against those kept
before, changing nothing, and `keep(id, feature)` is told of each that was kept. If it has `ahead(features)`,
that is called before with what will probably be resolved next, for a class that is faster with many at once.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NewType, cast, get_args, overload

from synthgen.record import Record
from synthgen.redaction import redacted

InputFile = NewType("InputFile", Path)
"""The type of a parameter that names a file of the project, or, as `list[InputFile]`, files and patterns.

The filter is given absolute paths. What is in the files is part of what its measurements depend on.
"""

PromptFile = NewType("PromptFile", Path)
"""The type of a parameter that names a prompt, as a step does. The filter is given the file's path."""

FieldName = NewType("FieldName", str)
"""The type of a parameter that names a field of the record, or, as `list[FieldName]`, several.

A recipe may name a part of a field too: `row.context`. A field that does not exist is an error of the recipe.
"""

GIVEN = ("min", "max", "of")  # what a filter is given of its use if its code asks for it by name
Kind = Literal["record", "engine", "run"]
Action = Literal["drop", "flag", "redact"]
Null = Literal["keep", "drop", "fail"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number and what explains it. A value of None abstains; `detail["reason"]` says why."""

    value: float | None
    detail: Mapping[str, Any] | None = None


def abstain(reason: str) -> Measurement:
    """The measurement of a filter that cannot know."""
    return Measurement(None, {"reason": reason})


@dataclass(frozen=True, slots=True)
class Question:
    """What a filter asks a model: messages, how the answer is sampled, and the JSON schema of the answer."""

    messages: Sequence[Mapping[str, str]]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FilterDefinition:
    """A filter as its author wrote it, with its defaults."""

    name: str
    help: str
    target: Callable[..., Any]
    kind: Kind
    of: str
    min: float | None
    max: float | None
    action: Action
    null: Null
    batch: bool
    store: bool = False
    file: Path | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function or make the class as it was written: tests and other filters do."""
        return self.target(*args, **kwargs)

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The keyword arguments a recipe may set. `is_` in Python is `is` in a recipe."""
        signature = inspect.signature(self.target, eval_str=True)
        skip = 0 if inspect.isclass(self.target) else 1
        found = list(signature.parameters.values())[skip:]
        return {
            parameter.name.rstrip("_"): parameter
            for parameter in found
            if parameter.name not in GIVEN
            and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        }

    @property
    def given(self) -> list[str]:
        """Which of `min`, `max` and `of` the code asks for: its measurements may depend on them."""
        accepted = inspect.signature(self.target).parameters
        return [name for name in GIVEN if name in accepted]

    @property
    def file_parameters(self) -> dict[str, bool]:
        """The parameters that name input files, and whether they may name several."""
        found = {}
        for name, parameter in self.parameters.items():
            annotation = parameter.annotation
            options = (annotation, *get_args(annotation))
            many = any(InputFile in get_args(option) for option in options if option is not annotation)
            many = many or get_args(annotation) == (InputFile,)
            if many or InputFile in options:
                found[name] = many
        return found

    @property
    def prompt_parameters(self) -> list[str]:
        """The parameters that name prompts."""
        return [
            name
            for name, parameter in self.parameters.items()
            if PromptFile in (parameter.annotation, *get_args(parameter.annotation))
        ]

    @property
    def field_parameters(self) -> list[str]:
        """The parameters that name fields."""
        return [
            name
            for name, parameter in self.parameters.items()
            if re.search(r"\bFieldName\b", str(parameter.annotation))
        ]

    @property
    def redacts(self) -> bool:
        """Whether it can take out what it finds."""
        return hasattr(self.target, "redact")

    def code_sha256(self) -> str:
        """Digest of the file that the filter is in: a change to it means measuring again.

        The same goes for a change to shipped filter files that it imports.
        """
        if self.file is not None:
            return code_sha256(self.file)
        return hashlib.sha256(inspect.getsource(self.target).encode()).hexdigest()

    def weights(self, params: Mapping[str, Any]) -> dict[str, Path | str]:
        """The models that it measures by, by their names in the provenance: files, folders, or known digests.

        A filter that is a class says so with a static method `weights`, which is given the parameters.
        """
        told = getattr(self.target, "weights", None)
        if not inspect.isclass(self.target) or told is None:
            return {}
        named = self.parameters
        return dict(told(**{named[key].name: value for key, value in params.items()}))

    def make(
        self,
        params: Mapping[str, Any] | None = None,
        *,
        min: float | None = None,
        max: float | None = None,
        of: str | None = None,
    ) -> RecordMeasure | EngineMeasure | RunMeasure:
        """The filter at work, with these parameters. One that asks for `min`, `max` or `of` is given it."""
        named = self.parameters
        kwargs = {named[key].name: value for key, value in (params or {}).items()}
        use = {"min": min, "max": max, "of": of or self.of}
        kwargs |= {name: use[name] for name in self.given}
        if self.kind == "run":
            return cast(RunMeasure, self.target(**kwargs))
        if self.kind == "engine":
            return EngineMeasure(self.name, self.target(**kwargs))
        if not inspect.isclass(self.target):
            return RecordMeasure(self.name, self.target, kwargs, self.batch)
        instance: Any = self.target(**kwargs)
        redact = getattr(instance, "redact", None)
        if hasattr(instance, "measure_batch"):
            return RecordMeasure(self.name, instance.measure_batch, {}, batch=True, redactor=redact)
        return RecordMeasure(self.name, instance.measure, {}, batch=False, redactor=redact)


_IMPORT = re.compile(rb"^ *(?:from|import) synthgen\.filters\.(\w+)", re.MULTILINE)


def code_sha256(file: Path, seen: frozenset[Path] = frozenset()) -> str:
    """Digest of a filter's file and of the shipped filter files that it imports, without importing any."""
    source = file.read_bytes()
    digest = hashlib.sha256(source)
    for name in sorted(set(_IMPORT.findall(source))):
        path = Path(__file__).parent / "filters" / f"{name.decode()}.py"
        if path not in seen and path.is_file():
            digest.update(code_sha256(path, seen | {path}).encode())
    return digest.hexdigest()


class FilterFailed(Exception):
    """A filter's code raised on a record. Names the filter and the record; the cause is chained."""

    def __init__(self, name: str, record_id: str, cause: BaseException) -> None:
        place = _place(cause)
        super().__init__(
            f"filter {name} failed on record {record_id}: {type(cause).__name__}: {cause}{place}"
        )


def _place(cause: BaseException) -> str:
    """The last line of the filter's own file that led to it; nothing where none of its lines did.

    Its file is the first that is entered from here: what that calls in turn may be a library's.
    """
    ours = Path(__file__).resolve().parent
    own, line = None, 0
    trace = cause.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename).resolve()
        if own is None and (ours not in file.parents or file.parent == ours / "filters"):
            own = file
        if file == own:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line} of {own.name})" if own is not None and own.is_file() else ""


@dataclass(frozen=True, slots=True)
class RecordMeasure:
    """A filter of kind `record`, ready to measure."""

    name: str
    function: Callable[..., Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batch: bool = False
    redactor: Callable[[str], str] | None = None

    def redacted(self, record: Record) -> Record | FilterFailed:
        """The record without what the filter finds, in every text of it; itself where there is nothing."""
        assert self.redactor is not None
        try:
            row, fields = redacted(record.row, self.redactor), redacted(record.fields, self.redactor)
        except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
            return FilterFailed(self.name, record.id, error)
        unchanged = row == record.row and fields == record.fields
        return record if unchanged else Record(record.id, fields, row)

    def measure(self, records: Sequence[Record]) -> list[Measurement | FilterFailed]:
        """One result for each record, in order; a record on which the code raised gets its error.

        A batch that raises is measured again one record at a time, so that one bad record fails alone.
        """
        if not self.batch:
            return [self._one(record) for record in records]
        try:
            values = list(self.function(records, **self.kwargs))
        except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
            if len(records) == 1:
                return [FilterFailed(self.name, records[0].id, error)]
            return [result for record in records for result in self.measure([record])]
        if len(values) != len(records):
            mismatch = ValueError(f"gave {len(values)} values for {len(records)} records")
            return [FilterFailed(self.name, record.id, mismatch) for record in records]
        return [self._checked(record, value) for record, value in zip(records, values, strict=True)]

    def _one(self, record: Record) -> Measurement | FilterFailed:
        try:
            return as_measurement(self.function(record, **self.kwargs))
        except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
            return FilterFailed(self.name, record.id, error)

    def _checked(self, record: Record, value: Any) -> Measurement | FilterFailed:
        try:
            return as_measurement(value)
        except (TypeError, ValueError) as error:
            return FilterFailed(self.name, record.id, error)


@dataclass(frozen=True, slots=True)
class EngineMeasure:
    """A filter of kind `engine`, ready to ask and to measure."""

    name: str
    instance: Any

    def questions(self, record: Record) -> list[Question] | FilterFailed:
        """What to ask about a record; nothing where the filter can tell without a model."""
        try:
            asked = self.instance.ask(record)
            questions = [asked] if isinstance(asked, Question) else list(asked)
            for question in questions:
                if not isinstance(question, Question):
                    raise TypeError(f"ask gives Questions, not {type(question).__name__}")  # noqa: TRY301
        except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
            return FilterFailed(self.name, record.id, error)
        return questions

    def value(self, record: Record, answers: Sequence[Any]) -> Measurement | FilterFailed:
        """What the answers say: texts, parsed JSON where a question has a schema, None where unusable."""
        try:
            return as_measurement(self.instance.measure(record, answers))
        except (Exception, SystemExit) as error:  # any error of a user's code belongs to its record
            return FilterFailed(self.name, record.id, error)


class RunMeasure:
    """What a class of kind `run` provides. It need not inherit from this."""

    def features(self, records: Sequence[Record]) -> Sequence[bytes]:
        """What of each record the comparison needs. Depends on the record and parameters alone."""
        raise NotImplementedError

    def resolve(self, id: str, feature: bytes) -> Measurement:
        """Measure one record against those kept so far. Called in task order."""
        raise NotImplementedError

    def keep(self, id: str, feature: bytes) -> None:
        """Told of each record that was kept, in task order."""
        raise NotImplementedError


def as_measurement(value: Any) -> Measurement:
    """What a filter returned, as a measurement. Raises TypeError or ValueError on anything else."""
    if isinstance(value, Measurement):
        number = None if value.value is None else _finite(value.value)
        return Measurement(number, None if value.detail is None else _plain_detail(value.detail))
    if value is None:
        return abstain("the filter returned None")
    return Measurement(_finite(value))


def _finite(value: Any) -> float:
    if not isinstance(value, bool | int | float) and not hasattr(value, "__float__"):
        raise TypeError(
            f"a filter returns a number, a bool, None or a Measurement, not {type(value).__name__}"
        )
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a measurement must be finite, not {number}")
    return number


def _plain_detail(detail: Mapping[str, Any]) -> Mapping[str, Any]:
    """The detail as JSON gives it back, so that it is the same wherever it was measured."""
    import orjson

    try:
        said = orjson.dumps(detail, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:
        raise TypeError(f"the detail of a measurement must fit into JSON: {error}") from None
    return cast(Mapping[str, Any], orjson.loads(said))


def _plain(value: Any) -> Any:
    """A detail may hold numpy's numbers and arrays, sets and other things that JSON lacks."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, Path | bytes):
        return str(value)
    raise TypeError(f"a {type(value).__name__} does not")


_NEEDED: Mapping[str, Sequence[str]] = {
    "record": (),
    "engine": ("ask", "measure"),
    "run": ("features", "resolve", "keep"),
}


def _check_shape(target: Callable[..., Any], kind: Kind) -> None:
    """Raises TypeError where a class lacks a method that its kind needs, or is none and should be."""
    name = target.__name__
    if not inspect.isclass(target):
        if kind != "record":
            raise TypeError(f"a filter of kind {kind} is a class, and {name} is none")
        return
    missing = [method for method in _NEEDED[kind] if not callable(getattr(target, method, None))]
    if kind == "record" and not (hasattr(target, "measure") or hasattr(target, "measure_batch")):
        missing = ["measure"]
    if missing:
        raise TypeError(f"the class {name} needs a method `{missing[0]}`")


@overload
def filter(target: Callable[..., Any], /) -> FilterDefinition: ...
@overload
def filter(
    *,
    min: float | None = None,
    max: float | None = None,
    of: str = "answer",
    kind: Kind = "record",
    action: Action = "drop",
    null: Null = "keep",
    batch: bool = False,
    store: bool = False,
    name: str | None = None,
) -> Callable[[Callable[..., Any]], FilterDefinition]: ...
def filter(
    target: Callable[..., Any] | None = None,
    /,
    *,
    min: float | None = None,
    max: float | None = None,
    of: str = "answer",
    kind: Kind = "record",
    action: Action = "drop",
    null: Null = "keep",
    batch: bool = False,
    store: bool = False,
    name: str | None = None,
) -> FilterDefinition | Callable[[Callable[..., Any]], FilterDefinition]:
    """Make a function or class a filter. The arguments are defaults that a recipe can override.

    `min` and `max` bound the measurement (inclusive), `of` picks what `record.text` is, `null` says what
    an abstention means, `batch` that the function takes a sequence of records and returns one value each,
    `store` that the features of a filter of the run are worth storing, since they take long.
    """

    for value, allowed, what in (
        (kind, get_args(Kind), "kind"),
        (action, get_args(Action), "action"),
        (null, get_args(Null), "null"),
    ):
        if value not in allowed:
            raise ValueError(f"{what} is one of {', '.join(allowed)}, not {value!r}")
    for number in (min, max):
        if number is not None and (isinstance(number, str | bool) or not math.isfinite(number)):
            raise ValueError(f"a bound is a number, not {number!r}")
    if not isinstance(of, str):
        raise TypeError(f"`of` names what is measured, and {of!r} is no name")

    def define(target: Callable[..., Any]) -> FilterDefinition:
        _check_shape(target, kind)
        source = inspect.getsourcefile(target)
        return FilterDefinition(
            name=name or target.__name__,
            help=inspect.getdoc(target) or "",
            target=target,
            kind=kind,
            of=of,
            min=min,
            max=max,
            action=action,
            null=null,
            batch=batch,
            store=store,
            file=Path(source) if source else None,
        )

    return define if target is None else define(target)
