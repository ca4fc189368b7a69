"""The seeds of a recipe: their files found and read, what is drawn from checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen.errors import RecipeError
from synthgen.loading_checks import Checks
from synthgen.project import OutsideProject
from synthgen.prompt import TextTemplate
from synthgen.samplers import CannotDraw, Sampler, Samplers, Several
from synthgen.seed_kinds import (
    CasesSeed,
    ChoiceSeed,
    FileSeed,
    Seed,
    TextSeed,
    ValuesSeed,
    case_of,
    goes_through,
)
from synthgen.seeds import Drawn, FileRows, ListRows, Rows, SeedRow, list_rows
from synthgen.tokenizing import tokenizer_file
from synthgen.wording import short
from synthgen.yamlfile import did_you_mean


@dataclass(frozen=True)
class LoadedSeeds:
    """Seeds that are gone through and those that are drawn, and the files behind them, by their names.

    `drawn_from` has the files of samplers, `files` all others.
    """

    rows: dict[str, Rows] = field(default_factory=dict)
    drawn: dict[str, Sampler] = field(default_factory=dict)
    files: dict[str, FileRows] = field(default_factory=dict)
    drawn_from: dict[str, list[Path]] = field(default_factory=dict)

    @property
    def listed(self) -> dict[str, Sequence[SeedRow]]:
        """The values of each seed whose values are known before any task."""
        return {
            name: found.rows
            for name, found in {**self.rows, **self.drawn}.items()
            if isinstance(found, ListRows | Drawn) and name not in self.files
        }


def load_seeds(checks: Checks) -> LoadedSeeds:
    """The seeds of a recipe. Those that are wrong are left out, and told to `checks`."""
    return _Seeds(checks).load()


class _Seeds:
    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._recipe = checks.recipe
        self._project = checks.project
        self._found = LoadedSeeds()

    def load(self) -> LoadedSeeds:
        found = self._found
        known = {name for name, spec in self._recipe.seeds.items() if goes_through(spec)}
        for name, spec in self._recipe.seeds.items():
            if isinstance(spec, ValuesSeed):
                found.rows[name] = list_rows(spec)
            elif isinstance(spec, FileSeed):
                self._file(name, spec)
            elif (made := self._sampler(name, spec, known)) is not None:
                found.drawn[name] = made
            known.add(name)
        for name, rows in found.files.items():
            if rows.spec.n is not None:
                self._check_pool(name, rows, rows.spec.n)
        problems = self._checks.problems
        if not self._recipe.seeds and not self._recipe.steps:
            self._checks.wrong((), "there is nothing to do: the recipe has neither `seeds:` nor `steps:`")
        elif not found.rows and self._recipe.tasks is None and self._recipe.target is None and not problems:
            self._checks.wrong((), "nothing says how many: give `tasks:`, `target:` or a seed to go through")
        return found

    def _file(self, name: str, spec: FileSeed) -> None:
        rows = self._file_rows(name, spec)
        if rows is None:
            return
        self._found.files[name] = rows
        if goes_through(spec):
            self._found.rows[name] = rows
        else:
            self._found.drawn[name] = Drawn(list(rows)) if spec.n is None else Several(list(rows), spec.n)

    def _sampler(self, name: str, spec: Seed, known: set[str]) -> Sampler | None:
        """What draws; `known` are the seeds that it may depend on."""
        loc = ("seeds", name)
        if isinstance(spec, CasesSeed):
            self._check_cases(name, spec, known)
        for at, text in seed_texts(spec):
            self._checks.template(
                self._checks.file, (*self._checks.within, *loc, *at), TextTemplate(text), known
            )
        samplers = Samplers(self._project)
        try:
            made = samplers.make(spec)
        except CannotDraw as error:
            self._checks.wrong(loc, str(error), error.hint)
            return None
        except RecipeError as error:
            self._checks.problems.extend(error.problems)
            return None
        except OutsideProject as error:
            self._checks.wrong(
                loc, f"{error} leads out of the project", "allow its folder with `--allow-path FOLDER`"
            )
            return None
        except (OSError, ValueError, RuntimeError) as error:
            self._checks.wrong(loc, f"cannot be read: {error}")
            return None
        if samplers.files:
            self._found.drawn_from[name] = list(samplers.files)
        return made

    def _check_cases(self, name: str, spec: CasesSeed, known: set[str]) -> None:
        loc = ("seeds", name, "by")
        on = spec.by if spec.by in known else spec.by.split(".")[0]
        if on not in known:
            hint = did_you_mean(on, known)
            if on in self._recipe.seeds:
                hint = "what is drawn stands after what it depends on"
            self._checks.wrong(loc, f"there is no seed {on!r} before this one", hint)
            return
        self._checks.used.add(on)
        other = self._recipe.seeds[on]
        values: Iterable[Any] | None = None
        if on == spec.by and isinstance(other, ValuesSeed | ChoiceSeed):
            values = other.values if isinstance(other, ValuesSeed) else other.choice
        if spec.otherwise is None and values is None:
            self._checks.wrong(
                loc, f"which values {spec.by} has is not known, so there has to be an `otherwise:`"
            )
        elif values is not None:
            there = {case_of(value) for value in values}
            missing = sorted(there - spec.cases.keys())
            if missing and spec.otherwise is None:
                self._checks.wrong(
                    ("seeds", name, "cases"),
                    f"there is no case for {missing[0]!r:.80}",
                    "add it, or `otherwise:`",
                )
            for key in sorted(spec.cases.keys() - there):
                self._checks.wrong(
                    ("seeds", name, "cases", key),
                    f"{spec.by} is never {key!r:.80}",
                    did_you_mean(key, there),
                )

    def _check_pool(self, name: str, pool: FileRows, wanted: int) -> None:
        """There are enough different rows, also without those that a task goes through."""
        different = len(pool) - sum(times - 1 for times in pool.repeats.values())
        own = sum(
            1
            for other in self._found.rows.values()
            if isinstance(other, FileRows) and set(other.files) & set(pool.files)
        )
        if different < wanted + own:
            besides = " besides the task's own" if own else ""
            self._checks.wrong(
                ("seeds", name, "n"),
                f"{pool.spec.path} has {different:,} different rows, too few for {wanted:,}{besides}",
            )

    def _file_rows(self, name: str, spec: FileSeed) -> FileRows | None:  # noqa: PLR0911
        loc = ("seeds", name, "path")
        try:
            files = self._project.files(spec.path, spec.split)
            near = (
                [] if files else [self._project.relative(path) for path in self._project.siblings(spec.path)]
            )
        except OutsideProject:
            self._checks.wrong(
                loc, f"{spec.path} leads out of the project", "allow its folder with `--allow-path FOLDER`"
            )
            return None
        except (OSError, ValueError, RuntimeError) as error:  # too long, not a pattern, a loop of links
            self._checks.wrong(loc, f"{short(spec.path)} cannot be read as a path: {error}")
            return None
        if not files:
            of = f" of the split {spec.split}" if spec.split else ""
            self._checks.wrong(loc, f"there is no file {spec.path}{of}", did_you_mean(spec.path, near))
            return None
        try:
            tokenizer = self._tokenizer(spec)
            found = FileRows(spec, files, self._project, tokenizer)
            len(found)
            skipped = found.skipped
        except RecipeError as error:
            self._checks.problems.extend(error.problems)
            return None
        except OutsideProject as error:
            hint = "allow its folder with `--allow-path FOLDER`"
            self._checks.wrong(
                ("seeds", name, "chunk", "tokenizer"), f"{error} leads out of the project", hint
            )
            return None
        except ValueError as error:
            self._checks.wrong(("seeds", name, "chunk"), str(error))
            return None
        if skipped:
            self._checks.notices.append(
                f"seed {name}: {skipped:,} bad rows are skipped, as `on_bad_row: skip` says"
            )
        return found

    def _tokenizer(self, spec: FileSeed) -> Path | None:
        """The file that counts the tokens of chunks. Raises OutsideProject or ValueError."""
        if spec.chunk is None or spec.chunk.tokens is None:
            return None
        if spec.chunk.tokenizer is not None:
            path = self._project.inside(spec.chunk.tokenizer)
            if not path.is_file():
                raise ValueError(f"there is no file {spec.chunk.tokenizer[:200]}")
            return path
        return tokenizer_file(str(spec.chunk.model))


def seed_texts(spec: Seed) -> list[tuple[tuple[str, ...], str]]:
    """The templates of a drawn seed, each with where it stands in it."""
    if isinstance(spec, TextSeed):
        return [(("text",), spec.text)]
    if not isinstance(spec, CasesSeed):
        return []
    found: list[tuple[tuple[str, ...], str]] = [
        (("cases", key, "text"), case.text) for key, case in spec.cases.items() if isinstance(case, TextSeed)
    ]
    if isinstance(spec.otherwise, TextSeed):
        found.append((("otherwise", "text"), spec.otherwise.text))
    return found
