"""What a recipe may say of seeds: what tasks go through, and what is drawn for each."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Discriminator, Field, Tag, field_validator, model_validator

from synthgen.recipe_parts import Json, Part

MAX_WHOLE = 2**53 - 1
Whole = Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE, strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]


class Chunking(Part):
    """How long a chunk of a document is, in one unit, and how much of it the next one repeats."""

    tokens: int | None = Field(None, ge=1, le=1_000_000)
    words: int | None = Field(None, ge=1, le=1_000_000)
    characters: int | None = Field(None, ge=1, le=10_000_000)
    overlap: int = Field(0, ge=0, description="In the same unit; at most half a chunk.")
    tokenizer: str | None = Field(None, description="Of tokens: the project's `tokenizer.json` or GGUF.")
    model: str | None = Field(None, description="Of tokens, in place of a file: an alias or a hub's id.")

    @property
    def size(self) -> int:
        """How long a chunk is at most."""
        return self.tokens or self.words or self.characters or 0

    @model_validator(mode="after")
    def _one_unit(self) -> Chunking:
        if sum(unit is not None for unit in (self.tokens, self.words, self.characters)) != 1:
            raise ValueError("a chunk has a length in `tokens:`, `words:` or `characters:`, in one of them")
        if 2 * self.overlap > self.size:
            raise ValueError(f"overlap ({self.overlap}) is more than half a chunk ({self.size})")
        named = (self.tokenizer is not None) + (self.model is not None)
        if self.tokens is not None and named != 1:
            raise ValueError("to count tokens name a `tokenizer:` file or a `model:`")
        if self.tokens is None and named:
            raise ValueError("a tokenizer is for chunks of so many `tokens:`")
        return self


class FileSeed(Part):
    """Rows of files: of JSONL, JSON, CSV, TSV, Parquet and Arrow by row, of documents by file or chunk."""

    path: str = Field(min_length=1, description="A path or glob beneath the project's root.")
    field: str | None = Field(None, description="The one field to take; without it, the whole row.")
    format: (
        Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "text", "markdown", "html", "pdf"] | None
    ) = None
    split: str | None = Field(None, description="Of a folder that holds a dataset: one of its splits.")
    chunk: Chunking | None = Field(None, description="Cut each text into chunks, each a row.")
    limit: int | None = Field(None, ge=1, description="Only the first so many rows.")
    sample: bool = Field(False, description="Draw a row for each task instead of going through all.")
    n: int | None = Field(
        None, ge=1, le=1000, description="Draw so many different rows for each task, as a list."
    )
    on_bad_row: Literal["stop", "skip"] = "stop"
    licence: str | None = Field(None, description="Of the file, for the provenance of each row.")
    origin: str | None = Field(
        None,
        description="The field in which a row says where it is from: provenance, and no part of its value.",
    )


class ChoiceSeed(Part):
    """One of several values, drawn anew for each task, by weight where weights are given."""

    choice: list[Json] | dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=1)


class ValuesSeed(Part):
    """A list in the recipe, gone through in order; several such seeds make a cross product."""

    values: list[Json] = Field(min_length=1)


class IntRange(Part):
    """Whole numbers from `min` to `max`, both among them, each as likely."""

    min: Whole
    max: Whole

    @model_validator(mode="after")
    def _in_order(self) -> IntRange:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        if self.max - self.min > MAX_WHOLE:
            raise ValueError("the range is wider than 2^53 - 1")
        return self


class IntSeed(Part):
    """A whole number, drawn for each task."""

    int_: IntRange = Field(alias="int")


class FloatRange(Part):
    """Numbers between `min` and `max`; with `mean` and `sd` normal, cut off at `min` and `max` if given."""

    min: Finite | None = None
    max: Finite | None = None
    mean: Finite | None = None
    sd: Annotated[float, Field(gt=0, allow_inf_nan=False, le=1e300)] | None = None
    digits: int = Field(6, ge=0, le=12, description="After the point.")

    @model_validator(mode="after")
    def _whole(self) -> FloatRange:
        if (self.mean is None) != (self.sd is None):
            raise ValueError("a normal distribution has `mean:` and `sd:`")
        if self.mean is None and (self.min is None or self.max is None):
            raise ValueError("give `min:` and `max:`, or `mean:` and `sd:`")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min ({self.min:g}) is not below max ({self.max:g})")
        if self.mean is not None and self.sd is not None:
            above = self.min is not None and self.min - self.mean > 6 * self.sd
            below = self.max is not None and self.mean - self.max > 6 * self.sd
            if above or below:
                raise ValueError("the bounds leave out all but the last billionth of that distribution")
        return self


class FloatSeed(Part):
    """A number, drawn for each task: uniform, or normal."""

    float_: FloatRange = Field(alias="float")


class DateRange(Part):
    """Days from `from` to `to`, both among them, each as likely."""

    from_: datetime.date = Field(alias="from")
    to: datetime.date

    @model_validator(mode="after")
    def _in_order(self) -> DateRange:
        if self.from_ > self.to:
            raise ValueError(f"from ({self.from_}) is after to ({self.to})")
        return self


class DateSeed(Part):
    """A day, as 2024-05-31, drawn for each task."""

    date: DateRange


class FakerSeed(Part):
    """What the library Faker makes up: a name, an address ...; several give a mapping."""

    faker: str | Annotated[list[str], Field(min_length=1, max_length=40)]
    locale: str = "en_US"


class TextSeed(Part):
    """A text made of other seeds, by a template."""

    text: str


class TaxonomySeed(Part):
    """A leaf of a tree, drawn for each task: `path` from the top, `leaf`, and `levels` as a list.

    A tree is a mapping of names to trees, weights, lists or nothing; `_weight` is that of a branch.
    """

    taxonomy: str | dict[str, Json] | list[Json] = Field(description="A tree, or a YAML file that holds one.")
    licence: str | None = Field(None, description="Of the file, for the provenance of each row.")


def _case_key(key: Any) -> Any:
    return key if isinstance(key, str) else case_of(key)


def case_of(value: Any) -> str:
    """The name of the case for a value: a text is its own, anything else goes by its JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class CasesSeed(Part):
    """What is drawn depends on the value of another seed."""

    by: str = Field(
        description="A seed gone through, or one that stands before; `doc.level` is a field of it."
    )
    cases: dict[str, DrawnSeed] = Field(min_length=1)
    otherwise: DrawnSeed | None = Field(None, description="For any other value.")

    @field_validator("cases", mode="before")
    @classmethod
    def _named_by_text(cls, value: Any) -> Any:
        return {_case_key(key): case for key, case in value.items()} if isinstance(value, dict) else value


_BY_TYPE: Mapping[type[BaseModel], str] = {
    ChoiceSeed: "a choice",
    ValuesSeed: "a list",
    IntSeed: "a whole number",
    FloatSeed: "a number",
    DateSeed: "a date",
    FakerSeed: "what is made up",
    TextSeed: "a text",
    TaxonomySeed: "a taxonomy",
    CasesSeed: "cases",
}
_BY_KEY = {
    key.alias or name: tag
    for kind, tag in _BY_TYPE.items()
    for name, key in kind.model_fields.items()
    if key.is_required()
}
KINDS: Mapping[str, type[BaseModel]] = {
    "a file": FileSeed,
    **{tag: kind for kind, tag in _BY_TYPE.items()},
    "chunk": Chunking,
    "int": IntRange,
    "float": FloatRange,
    "date": DateRange,
}
KEYS = tuple(_BY_KEY)


def _seed_kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return next((tag for key, tag in _BY_KEY.items() if key in value), "a file")
    return _BY_TYPE.get(type(value), "a file")


def _drawn_kind(value: Any) -> str:
    kind = _seed_kind(value)
    return "a choice" if kind in ("a file", "a list", "cases") else kind


_Drawn = (
    Annotated[ChoiceSeed, Tag("a choice")]
    | Annotated[IntSeed, Tag("a whole number")]
    | Annotated[FloatSeed, Tag("a number")]
    | Annotated[DateSeed, Tag("a date")]
    | Annotated[FakerSeed, Tag("what is made up")]
    | Annotated[TextSeed, Tag("a text")]
    | Annotated[TaxonomySeed, Tag("a taxonomy")]
)
DrawnSeed = Annotated[_Drawn, Discriminator(_drawn_kind)]
Seed = Annotated[
    Annotated[FileSeed, Tag("a file")]
    | Annotated[ValuesSeed, Tag("a list")]
    | Annotated[CasesSeed, Tag("cases")]
    | _Drawn,
    Discriminator(_seed_kind),
]


def expand_seed(value: Any) -> Any:
    """A list stands for `{values: [...]}`."""
    return {"values": value} if isinstance(value, list) else value


def goes_through(spec: Any) -> bool:
    """Whether tasks go through this seed's rows; any other is drawn for each task."""
    return isinstance(spec, ValuesSeed) or (isinstance(spec, FileSeed) and not spec.sample and spec.n is None)


def uses_faker(spec: Any) -> bool:
    """Whether Faker makes up what this seed, or one of its cases, gives."""
    if isinstance(spec, CasesSeed):
        return any(uses_faker(case) for case in (*spec.cases.values(), spec.otherwise))
    return isinstance(spec, FakerSeed)


CasesSeed.model_rebuild()
