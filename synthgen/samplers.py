"""Samplers: what is drawn for each task, by a keyed function that nothing else moves."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

from synthgen.digests import value_digest
from synthgen.project import Project
from synthgen.prompt import PromptFailed, TextTemplate
from synthgen.seed_kinds import (
    CasesSeed,
    ChoiceSeed,
    DateRange,
    DateSeed,
    FakerSeed,
    FloatRange,
    FloatSeed,
    IntRange,
    IntSeed,
    TaxonomySeed,
    TextSeed,
    case_of,
)
from synthgen.seeds import Draw, Drawn, SeedRow, drawn, seed_row
from synthgen.yamlfile import did_you_mean, read_yaml

MAX_LEAVES = 100_000
MAX_DEPTH = 32
# Of what Faker makes up: plain texts that follow from its seed alone, as dates do not.
FAKED = frozenset(
    "name name_female name_male name_nonbinary first_name first_name_female first_name_male last_name prefix "
    "suffix job company company_suffix catch_phrase bs email safe_email user_name domain_name phone_number "
    "address street_address street_name city state country country_code postcode language_name color_name "
    "currency_name word sentence text paragraph".split()
)
NO_FAKER = "`faker:` takes the library Faker: pip install 'synthgen-data[faker]'"


class SeedFailed(Exception):
    """A value cannot be drawn for a task, because of the values that it depends on."""


class CannotDraw(Exception):
    """A seed says what cannot be drawn from. `hint` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Sampler(Protocol):
    """Gives each task a value."""

    @property
    def size(self) -> int | None:
        """How many values there are; None where they are not counted."""
        return None

    def pick(self, at: Draw) -> SeedRow:
        """The value for a task. Raises SeedFailed."""


@dataclass(frozen=True)
class Whole(Sampler):
    """Whole numbers, each as likely."""

    spec: IntRange

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.spec.max - self.spec.min + 1

    def pick(self, at: Draw) -> SeedRow:
        """One of them."""
        return seed_row(self.spec.min + at.below(self.size))


@dataclass(frozen=True)
class Number(Sampler):
    """Numbers, uniform, or normal by the inverse of the distribution's function."""

    spec: FloatRange

    def pick(self, at: Draw) -> SeedRow:
        """One of them, rounded."""
        spec = self.spec
        value = round(self._value(at.share), spec.digits)
        if spec.min is not None:
            value = max(value, spec.min)
        if spec.max is not None:
            value = min(value, spec.max)
        return seed_row(int(value) if spec.digits == 0 and value == int(value) else value)

    def _value(self, share: float) -> float:
        spec = self.spec
        if spec.mean is None or spec.sd is None:
            assert spec.min is not None
            assert spec.max is not None
            return spec.min * (1 - share) + spec.max * share
        normal = NormalDist(spec.mean, spec.sd)
        low = 0.0 if spec.min is None else normal.cdf(spec.min)
        high = 1.0 if spec.max is None else normal.cdf(spec.max)
        return normal.inv_cdf(min(max(low + share * (high - low), 1e-16), 1 - 1e-16))


@dataclass(frozen=True)
class Day(Sampler):
    """Days, each as likely."""

    spec: DateRange

    @property
    def size(self) -> int:
        """How many values there are."""
        return (self.spec.to - self.spec.from_).days + 1

    def pick(self, at: Draw) -> SeedRow:
        """One of them, as 2024-05-31."""
        return seed_row((self.spec.from_ + datetime.timedelta(at.below(self.size))).isoformat())


@dataclass(frozen=True)
class Faked(Sampler):
    """What Faker makes up for a locale."""

    spec: FakerSeed

    @cached_property
    def _faker(self) -> Any:
        try:
            from faker import Faker
            from faker.config import AVAILABLE_LOCALES
        except ImportError:
            raise CannotDraw(NO_FAKER) from None
        if self.spec.locale not in AVAILABLE_LOCALES:
            raise CannotDraw(
                f"Faker has no locale {self.spec.locale!r}", did_you_mean(self.spec.locale, AVAILABLE_LOCALES)
            )
        return Faker(self.spec.locale)

    def check(self) -> None:
        """Raises CannotDraw where Faker is not there, or has no such thing."""
        names = [self.spec.faker] if isinstance(self.spec.faker, str) else self.spec.faker
        for name in names:
            if name not in FAKED:
                raise CannotDraw(f"{name!r} is nothing that is made up here", did_you_mean(name, FAKED))
            if not hasattr(self._faker, name):
                raise CannotDraw(f"Faker has no {name} for the locale {self.spec.locale}")

    def pick(self, at: Draw) -> SeedRow:
        """What follows from the key."""
        self._faker.seed_instance(at.below(2**53))
        if isinstance(self.spec.faker, str):
            return seed_row(str(getattr(self._faker, self.spec.faker)()))
        return seed_row({name: str(getattr(self._faker, name)()) for name in self.spec.faker})


@dataclass(frozen=True)
class Text(Sampler):
    """A template over the seeds before it."""

    template: TextTemplate

    def pick(self, at: Draw) -> SeedRow:
        """The text."""
        try:
            return seed_row(self.template.render(at.values))
        except PromptFailed as error:
            raise SeedFailed(f"seed {at.name}: the template {error}") from None


@dataclass(frozen=True)
class Cases(Sampler):
    """Another sampler for each value of a field."""

    by: str
    cases: Mapping[str, Sampler]
    otherwise: Sampler | None

    def pick(self, at: Draw) -> SeedRow:
        """What the case of this task draws."""
        value: Any = at.values
        for part in [self.by] if self.by in at.values else self.by.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found = self.cases.get(case_of(value), self.otherwise)
        if found is None:
            raise SeedFailed(f"seed {at.name}: there is no case for {self.by} = {case_of(value)[:80]!r}")
        return found.pick(at)


@dataclass(frozen=True)
class Several(Sampler):
    """Different rows of a pool, drawn for each task: few-shot examples."""

    pool: Sequence[SeedRow]
    count: int
    most: int | None = None

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.pool)

    def pick(self, at: Draw) -> SeedRow:
        """So many rows as a list, each different, none that the task itself goes through.

        At most `most` of them were made by the run itself.

        Each row has a rank for this task that follows from the row alone, and the first ones are taken
        (rendezvous hashing), so that a row put into the pool changes only the draws that it comes into.
        """
        own = {_place(row) for row in at.rows if row.source}
        same = {row.digest for row in at.rows}
        chosen: list[SeedRow] = []
        taken: set[bytes] = set()
        grown = 0
        for place in self._ranked(at.below(2**53), self.count + 4 * len(at.rows) + 8):
            row = self.pool[place]
            if row.digest in taken or row.digest in same or _place(row) in own:
                continue
            if self.most is not None and _is_grown(row):
                if grown == self.most:
                    continue
                grown += 1
            taken.add(row.digest)
            chosen.append(row)
            if len(chosen) == self.count:
                break
        if len(chosen) < self.count:
            raise SeedFailed(f"seed {at.name}: the pool has only {len(chosen)} other rows, not {self.count}")
        value = [row.value for row in chosen]
        return SeedRow(value, value_digest(value), None, chosen)

    @cached_property
    def _marks(self) -> Any:
        import numpy as np

        return np.frombuffer(b"".join(row.digest[:8] for row in self.pool), dtype=">u8").astype(np.uint64)

    def _ranked(self, key: int, enough: int) -> Iterator[int]:
        """Places in the pool by their rank for a key; the first ones twice where more are wanted."""
        import numpy as np

        ranks = self._marks ^ np.uint64(key << 11)
        with np.errstate(over="ignore"):  # splitmix64
            ranks = ranks + np.uint64(0x9E3779B97F4A7C15)
            ranks = (ranks ^ (ranks >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            ranks = (ranks ^ (ranks >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            ranks = ranks ^ (ranks >> np.uint64(31))
        if enough < len(ranks):
            few = np.argpartition(ranks, enough)[:enough]
            yield from few[np.argsort(ranks[few], kind="stable")].tolist()
        yield from np.argsort(ranks, kind="stable").tolist()


def _is_grown(row: SeedRow) -> bool:
    return row.source is not None and "record" in row.source


def _place(row: SeedRow) -> tuple[Any, ...]:
    source = row.source or {}
    return source.get("path"), source.get("row"), source.get("record")


def taxonomy(spec: TaxonomySeed, file: Path | None, project: Project) -> Drawn:
    """The leaves of a tree, each by its share. Raises CannotDraw, or RecipeError for a file."""
    tree: Any = spec.taxonomy
    if file is not None:
        tree = read_yaml(file).data
    leaves = list(_leaves(tree, (), 1.0))
    rows = []
    for number, (levels, _) in enumerate(leaves, 1):
        value = {"path": " / ".join(levels), "leaf": levels[-1], "levels": list(levels)}
        digest = value_digest(value)
        source = None
        if file is not None:
            source = {"path": project.relative(file), "row": number, "sha256": digest.hex()}
            if spec.licence:
                source["licence"] = spec.licence
        rows.append(SeedRow(value, digest, source))
    return Drawn(rows, [share for _, share in leaves])


def _leaves(tree: Any, above: tuple[str, ...], share: float) -> Iterator[tuple[tuple[str, ...], float]]:
    """Each leaf's levels with its share of all draws."""
    where = " / ".join(above) or "the taxonomy"
    if len(above) > MAX_DEPTH:
        raise CannotDraw(f"{' / '.join(above[:3])} ... is deeper than {MAX_DEPTH} levels")
    children: list[tuple[str, Any]] = []
    for item in tree if isinstance(tree, list) else [tree]:
        if isinstance(item, Mapping):
            children += [(str(name), below) for name, below in item.items() if name != "_weight"]
        elif isinstance(item, str | int | float):
            children.append((str(item), None))
        else:
            raise CannotDraw(f"{where}: {item!r:.60} is neither a name nor a tree")
    if not children:
        raise CannotDraw(f"{where} has nothing beneath it")
    names = [name for name, _ in children]
    again = [name for name, times in Counter(names).items() if times > 1]
    if again:
        raise CannotDraw(f"{where} has {again[0]!r} twice")
    if len(children) > MAX_LEAVES:
        raise CannotDraw(f"{where} has more than {MAX_LEAVES:,} parts")
    weights = [_weight(below, (*above, name)) for name, below in children]
    whole = sum(weights)
    for (name, below), weight in zip(children, weights, strict=True):
        part = share * weight / whole if len(children) > 1 else share
        if isinstance(below, Mapping | list):
            yield from _leaves(below, (*above, name), part)
        else:
            yield (*above, name), part


def _weight(below: Any, levels: Sequence[str]) -> float:
    said = below.get("_weight", 1) if isinstance(below, Mapping) else 1 if isinstance(below, list) else below
    if said is None:
        return 1.0
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said <= 1e12:
        raise CannotDraw(f"{' / '.join(levels)}: {said!r:.60} is no weight: a number above 0")
    return float(said)


def needs_file(spec: Any) -> bool:
    """Whether what is drawn depends on a file."""
    if isinstance(spec, CasesSeed):
        return any(needs_file(case) for case in (*spec.cases.values(), spec.otherwise))
    return isinstance(spec, TaxonomySeed) and isinstance(spec.taxonomy, str)


@dataclass(frozen=True)
class Samplers:
    """Makes samplers of a recipe's seeds, and keeps which files they were made from."""

    project: Project
    files: dict[Path, None] = field(default_factory=dict)

    def make(self, spec: Any) -> Sampler:  # noqa: PLR0911 - one for each kind
        """What draws as a seed says. Raises CannotDraw, RecipeError, OutsideProject, OSError, ValueError."""
        match spec:
            case ChoiceSeed():
                return drawn(spec)
            case IntSeed():
                return Whole(spec.int_)
            case FloatSeed():
                return Number(spec.float_)
            case DateSeed():
                return Day(spec.date)
            case FakerSeed():
                made = Faked(spec)
                made.check()
                return made
            case TextSeed():
                return Text(TextTemplate(spec.text))
            case TaxonomySeed():
                return taxonomy(spec, self._file(spec), self.project)
            case CasesSeed():
                otherwise = self.make(spec.otherwise) if spec.otherwise is not None else None
                return Cases(spec.by, {key: self.make(case) for key, case in spec.cases.items()}, otherwise)
        raise AssertionError(spec)

    def _file(self, spec: TaxonomySeed) -> Path | None:
        if not isinstance(spec.taxonomy, str):
            return None
        found = self.project.files(spec.taxonomy)
        if len(found) != 1:
            near = [self.project.relative(path) for path in self.project.siblings(spec.taxonomy)]
            raise CannotDraw(f"there is no file {spec.taxonomy[:200]}", did_you_mean(spec.taxonomy, near))
        self.files[found[0]] = None
        return found[0]
