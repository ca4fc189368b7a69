"""A recipe with everything it names found, read and checked: what `validate` proves and `run` runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import BaseModel, ValidationError

from synthgen import recipe as language
from synthgen.answers import Form, form_of, pattern_of
from synthgen.balance import Balance, balance_of
from synthgen.chain import ChainFilter
from synthgen.digests import canonical
from synthgen.errors import Problem, RecipeError, RunError, UsageError
from synthgen.filter_files import check_params, filter_names, find_filter
from synthgen.input_files import input_files
from synthgen.plan import Plan
from synthgen.project import OutsideProject, Project, find_recipe, project_of, runs_folder, shipped
from synthgen.prompt import Expression, Prompt, PromptFailed, TextTemplate, make_prompt
from synthgen.recipe import Engine, FilterUse, ModelRef, PromptBody, Recipe, Sampling
from synthgen.record import PARTS
from synthgen.row import Messages, RowShape, Text, row_shape
from synthgen.samplers import CannotDraw, Sampler, Samplers, Several
from synthgen.seed_kinds import (
    KEYS,
    KINDS,
    CasesSeed,
    ChoiceSeed,
    FileSeed,
    Seed,
    TextSeed,
    ValuesSeed,
    case_of,
    goes_through,
)
from synthgen.seeds import Drawn, FileRows, ListRows, Rows, list_rows
from synthgen.steps import Fan, fan_of
from synthgen.tokenizing import tokenizer_file
from synthgen.yamlfile import YamlFile, did_you_mean, read_yaml

ATTEMPTS_PER_ROW = 10
MOST_TASKS = 2**53 - 1  # what provenance can count, as JSON has it

Names = set[str] | None  # those that a template may use; None where nobody knows yet


@dataclass(frozen=True)
class LoadedStep:
    """A step with its prompt, its whole sampling, the name of its model, and how it is asked."""

    name: str
    prompt: Prompt
    sampling: Mapping[str, Any]
    model: str
    form: Form
    fan: Fan


@dataclass(frozen=True)
class Loaded:
    """A recipe ready to run."""

    recipe: Recipe
    file: YamlFile
    project: Project
    plan: Plan
    steps: Sequence[LoadedStep]
    models: Mapping[str, ModelRef]
    shape: RowShape
    chain: Sequence[ChainFilter]
    files: Mapping[str, FileRows]
    notices: Sequence[str]
    base_url: str | None = None
    balance: Balance | None = None
    drawn_from: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        """The folder that holds this recipe's runs, each under its recipe's name."""
        return runs_folder(self.file.path)

    @property
    def asked(self) -> list[str]:
        """Names of the models that steps and filters ask."""
        filters = (link.model for link in self.chain if link.asks)
        return sorted({*(step.model for step in self.steps), *filters})

    @property
    def planned(self) -> int | None:
        """How many tasks there are; None where a target decides."""
        return self.plan.limit if self.recipe.target is None else None

    @property
    def attempts(self) -> int | None:
        """How many branches may be tried for the target; None where there is none."""
        target = self.recipe.target
        return None if target is None else self.recipe.budget.attempts or ATTEMPTS_PER_ROW * target

    @property
    def fan(self) -> int:
        """How many branches of a task are foreseen: those that `n:` makes."""
        return prod(step.fan.n or 1 for step in self.steps if step.fan.branches)

    @property
    def questions(self) -> dict[str, int]:
        """How often each step is asked for one task, as far as it can be told: `foreach:` counts as one."""
        branches, found = 1, {}
        for step in self.steps:
            found[step.name] = branches * (step.fan.n or 1)
            branches = found[step.name] if step.fan.branches else branches
        return found


@dataclass(frozen=True)
class LoadedCuration:
    """What a finished run's recipe says of curation, with the filters that it names."""

    recipe: Recipe
    project: Project
    chain: Sequence[ChainFilter]
    models: Mapping[str, ModelRef]
    columns: Sequence[str]
    notices: Sequence[str]

    @property
    def asked(self) -> list[str]:
        """Names of the models that filters ask."""
        return sorted({link.model for link in self.chain if link.asks})


def load_curation(
    locked: YamlFile,
    changes: Sequence[str],
    project: Project,
    *,
    engine: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
) -> LoadedCuration:
    """The curation of a recipe.lock.yaml, with changes such as `toxicity.max=0.3`.

    The keyword arguments say how its model is asked. Raises RecipeError or UsageError.
    """
    said = locked.data
    try:
        recipe = _changed(Recipe.model_validate(said["recipe"]), changes)
    except (ValidationError, TypeError, KeyError) as error:
        raise RecipeError([Problem(f"is not what synthgen wrote: {error}", locked.path)]) from None
    loader = _Loader(recipe, locked, project, ("recipe",))
    chain, shape = loader.chain(), loader.shape()
    models = loader.models(engine, model, base_url)
    if loader.problems:
        raise RecipeError(loader.problems)
    before = {each["name"]: each["code_sha256"] for each in said["filters"]}
    frozen = (
        "the bounds of the run chose its seeds, for `balance:`; curating takes the records that there are"
    )
    notices = [frozen] if recipe.balance and changes else []
    notices += [
        f"filter {link.name} is not what it was when the run was made: it measures again"
        for link in chain
        if link.definition.code_sha256() != before.get(link.name)
    ]
    return LoadedCuration(recipe, project, chain, models, shape.columns, [*loader.notices, *notices])


@dataclass(frozen=True)
class Recorded:
    """What a finished run's recipe says of generation: for audits, which load no filter.

    Of each step's name, `prompts` has its prompt as it is now, or why it cannot be read; `fans` how it is
    asked.
    """

    recipe: Recipe
    shape: RowShape
    prompts: Mapping[str, Prompt | str]
    fans: Sequence[Fan]


def load_recorded(locked: YamlFile, project: Project) -> Recorded:
    """The generation of a recipe.lock.yaml. Executes nothing. Raises RecipeError."""
    try:
        recipe = Recipe.model_validate(locked.data["recipe"])
    except (ValidationError, TypeError, KeyError) as error:
        raise RecipeError([Problem(f"is not what synthgen wrote: {error}", locked.path)]) from None
    prompts: dict[str, Prompt | str] = {}
    known = set(recipe.seeds)
    for place, (name, step) in enumerate(recipe.named_steps()):
        loader = _Loader(recipe, locked, project, ("recipe",))
        loc = ("recipe", "steps", place, name, "prompt")
        item = {step.item} if step.foreach is not None else set()
        prompt = loader._prompt(loc, step.prompt, known | item)
        wrong = loader.problems[0].message if loader.problems else None
        prompts[name] = prompt if prompt is not None and wrong is None else wrong or "cannot be read"
        known |= {*fan_of(name, step).names}
    loader = _Loader(recipe, locked, project, ("recipe",))
    fans, shape = loader.fans(), loader.shape()
    if loader.problems:
        raise RecipeError(loader.problems)
    return Recorded(recipe, shape, prompts, fans)


def _changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    uses = {name: use.model_dump(exclude_unset=True) for name, use in recipe.filter_uses()}
    for change in changes:
        path, equals, text = change.partition("=")
        name, dot, key = path.strip().rpartition(".")
        if not (equals and dot and name and key):
            raise UsageError(f"{change!r} is no change of a filter", hint="for example toxicity.max=0.3")
        if name not in uses:
            raise UsageError(f"the run has no filter {name!r}", hint=did_you_mean(name, list(uses)))
        uses[name][key] = value_of(text.strip())
    filters = []
    for name, use in uses.items():
        filters.append({name: filter_use(name, use)})
    return recipe.model_copy(update={"filters": filters})


def filter_use(name: str, said: Mapping[str, Any]) -> FilterUse:
    """A filter's bounds and parameters, as a command has them. Raises UsageError."""
    try:
        return FilterUse.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}"
        raise UsageError(f"{'.'.join([name, *map(str, first['loc'])])}: {message}") from None


def value_of(text: str) -> Any:
    """A value of a change, as a recipe has it: a number, a list or a mapping where it is one, else text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    if text[:1] not in ("[", "{"):
        return text
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text


def load(
    given: str | Path,
    *,
    engine: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    tasks: int | None = None,
    allow: Sequence[Path] = (),
) -> Loaded:
    """Read and check a recipe. The keyword arguments override what it says.

    Raises RecipeError with every problem found, each with its file, line and column, and UsageError where
    there is no such recipe.
    """
    path = find_recipe(str(given))
    file = read_yaml(path)
    recipe = _parse(file)
    if tasks is not None:
        recipe = recipe.model_copy(update={"tasks": tasks, "target": None, "passes": None})
    return _Loader(recipe, file, project_of(path, allow)).load(engine, model, base_url)


def _parse(file: YamlFile) -> Recipe:
    if not isinstance(file.data, dict):
        raise RecipeError([Problem("a recipe is a mapping that begins with `version: 1`", file.path, 1)])
    try:
        return Recipe.model_validate(file.data)
    except ValidationError as error:
        raise RecipeError(_problems(file, error, Recipe)) from None


_PARTS_BY_KEY: Mapping[str, type[BaseModel]] = {
    "sampling": Sampling,
    "model": ModelRef,
    "budget": language.Budget,
    "prices": language.Prices,
    "output": language.Output,
    **KINDS,
    "inline": PromptBody,
    "extract": language.Extract,
    "a value": language.ValueField,
}


def _known_keys(loc: Sequence[str | int], whole: type[BaseModel]) -> list[str]:
    """The keys that are allowed where an unknown one stood; `loc` is pydantic's."""
    parent = loc[:-1]
    if not parent:
        model = whole
    elif parent[0] == "models":
        model = ModelRef
    elif parent[0] == "steps" and len(parent) == 3:
        model = language.Step
    else:
        model = _PARTS_BY_KEY.get(str(parent[-1]), whole)
    kinds = list(KEYS) if model is FileSeed else []
    return [field.alias or name for name, field in model.model_fields.items()] + kinds


def _problems(file: YamlFile, error: ValidationError, whole: type[BaseModel]) -> list[Problem]:
    found = []
    for item in error.errors():
        loc, message, hint = item["loc"], item["msg"], None
        if item["type"] == "extra_forbidden":
            message = f"unknown key {loc[-1]!r}"
            hint = did_you_mean(str(loc[-1]), _known_keys(loc, whole))
            if loc[-1] == "seed" and "sampling" in loc:
                hint = "each request's seed derives from the recipe's `seed:`"
        elif item["type"] == "missing":
            message = f"{_shown(loc[:-1])} needs `{loc[-1]}:`"
        elif item["type"] == "string_pattern_mismatch":
            message = f"{item['input']!r} is not a name: 1 to 80 of A-Z a-z 0-9 . _ -"
        elif item["type"] == "value_error":
            message = str(item["ctx"]["error"])
            loc = (*loc, *getattr(item["ctx"]["error"], "at", ()))
        else:
            message = f"{_shown(loc)}: {message[0].lower()}{message[1:]}, not {_short(item['input'])}"
            if item["type"] == "literal_error":
                hint = _nearest(str(item["input"]), re.findall(r"'(.*?)'", item["ctx"]["expected"]))
        if hint is None and loc[:1] == ("record",) and len(loc) > 1:
            hint = _nearest(str(loc[1]), [*(name for name in language.MESSAGES if name != loc[1]), "from"])
        found.append(file.problem(loc, message, hint))
    return found


def _nearest(name: str, known: Sequence[str]) -> str | None:
    hint = did_you_mean(name, known)
    return hint if hint is not None and hint.startswith("did") else None


def _shown(loc: Sequence[str | int]) -> str:
    tags = {
        *(kind for kind in KINDS if " " in kind),
        "cases",
        "mapping",
        "name",
        "inline",
        "[key]",
        "a value",
    }
    parts = [str(part) for place, part in enumerate(loc) if not (place and part in tags)]
    return "`" + ".".join(parts) + "`" if parts else "the file"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class _Loader:
    """Collects every problem of one recipe before it gives up."""

    def __init__(
        self, recipe: Recipe, file: YamlFile, project: Project, within: tuple[str, ...] = ()
    ) -> None:
        """`within` is where in the file the recipe is."""
        self.within = within
        self.recipe = recipe
        self.file = file
        self.project = project
        self.problems: list[Problem] = []
        self.notices: list[str] = []
        self.files: dict[str, FileRows] = {}
        self.drawn_from: dict[str, list[Path]] = {}
        self.overridden = False
        self.used: set[str] = set()  # names of fields that something looks at

    def load(self, engine: str | None, model: str | None, base_url: str | None) -> Loaded:
        self.overridden = bool(engine or model or base_url)
        rows, choices = self._seeds()
        models = self.models(engine, model, base_url)
        steps = self._steps(models)
        shape = self.shape()
        chain = self.chain()
        if self.problems:
            raise RecipeError(self.problems)
        self._note_unused()
        listed = {
            name: found.rows
            for name, found in {**rows, **choices}.items()
            if isinstance(found, ListRows | Drawn) and name not in self.files
        }
        balance, wrong = balance_of(self.recipe, {name: listed.get(name) for name in self.recipe.seeds})
        if wrong:
            for place, message, hint in wrong:
                self._wrong(place, message, hint)
            raise RecipeError(self.problems)
        limit = self._limit(rows)
        if limit is not None and limit > MOST_TASKS:
            key = "target" if self.recipe.target is not None else "tasks" if self.recipe.tasks else "seeds"
            self._wrong((key,), f"that makes {limit:,} tasks, and {MOST_TASKS:,} is the most")
            raise RecipeError(self.problems)
        plan = Plan(self.recipe.seed, rows, choices, limit)
        return Loaded(
            self.recipe,
            self.file,
            self.project,
            plan,
            steps,
            models,
            shape,
            chain,
            self.files,
            tuple(self.notices),
            base_url,
            balance,
            self.drawn_from,
        )

    def _note_unused(self) -> None:
        """What nothing looks at is worth a word."""
        self.used |= {name.partition(".")[0] for name in self.recipe.balance}
        steps = [name for name, _ in self.recipe.named_steps()]
        for name in self.recipe.fields if steps else ():
            if name not in self.used:
                what = "step" if name in steps else "seed" if name in self.recipe.seeds else "item"
                self.notices.append(f"{what} {name}: no prompt and no part of the record uses it")

    def _wrong(self, loc: Sequence[str | int], message: str, hint: str | None = None) -> None:
        self.problems.append(self.file.problem((*self.within, *loc), message, hint))

    def _seeds(self) -> tuple[dict[str, Rows], dict[str, Sampler]]:
        rows: dict[str, Rows] = {}
        choices: dict[str, Sampler] = {}
        pools: dict[str, FileRows] = {}
        through = {name for name, spec in self.recipe.seeds.items() if goes_through(spec)}
        known = set(through)
        for name, spec in self.recipe.seeds.items():
            if isinstance(spec, ValuesSeed):
                rows[name] = list_rows(spec)
            elif isinstance(spec, FileSeed):
                found = self._file_rows(name, spec)
                if found is None:
                    continue
                self.files[name] = found
                if name in through:
                    rows[name] = found
                elif spec.n is None:
                    choices[name] = Drawn(list(found))
                else:
                    choices[name] = Several(list(found), spec.n)
                    pools[name] = found
            elif (made := self._sampler(name, spec, known)) is not None:
                choices[name] = made
            known.add(name)
        for name, pool in pools.items():
            self._check_pool(name, pool, rows)
        if not self.recipe.seeds and not self.recipe.steps:
            self._wrong((), "there is nothing to do: the recipe has neither `seeds:` nor `steps:`")
        elif not rows and self.recipe.tasks is None and self.recipe.target is None and not self.problems:
            self._wrong((), "nothing says how many: give `tasks:`, `target:` or a seed to go through")
        return rows, choices

    def _sampler(self, name: str, spec: Seed, known: set[str]) -> Sampler | None:
        """What draws; `known` are the seeds that it may depend on."""
        loc = ("seeds", name)
        if isinstance(spec, CasesSeed):
            self._check_cases(name, spec, known)
        for at, text in _texts(spec):
            self._check_template(self.file, (*self.within, *loc, *at), TextTemplate(text), known)
        samplers = Samplers(self.project)
        try:
            made = samplers.make(spec)
        except CannotDraw as error:
            self._wrong(loc, str(error), error.hint)
            return None
        except RecipeError as error:
            self.problems.extend(error.problems)
            return None
        except OutsideProject as error:
            self._wrong(
                loc, f"{error} leads out of the project", "allow its folder with `--allow-path FOLDER`"
            )
            return None
        except (OSError, ValueError, RuntimeError) as error:
            self._wrong(loc, f"cannot be read: {error}")
            return None
        if samplers.files:
            self.drawn_from[name] = list(samplers.files)
        return made

    def _check_cases(self, name: str, spec: CasesSeed, known: set[str]) -> None:
        loc = ("seeds", name, "by")
        on = spec.by if spec.by in known else spec.by.split(".")[0]
        if on not in known:
            hint = did_you_mean(on, known)
            if on in self.recipe.seeds:
                hint = "what is drawn stands after what it depends on"
            self._wrong(loc, f"there is no seed {on!r} before this one", hint)
            return
        self.used.add(on)
        other = self.recipe.seeds[on]
        values: Iterable[Any] | None = None
        if on == spec.by and isinstance(other, ValuesSeed | ChoiceSeed):
            values = other.values if isinstance(other, ValuesSeed) else other.choice
        if spec.otherwise is None and values is None:
            self._wrong(loc, f"which values {spec.by} has is not known, so there has to be an `otherwise:`")
        elif values is not None:
            there = {case_of(value) for value in values}
            missing = sorted(there - spec.cases.keys())
            if missing and spec.otherwise is None:
                self._wrong(
                    ("seeds", name, "cases"),
                    f"there is no case for {missing[0]!r:.80}",
                    "add it, or `otherwise:`",
                )
            for key in sorted(spec.cases.keys() - there):
                self._wrong(
                    ("seeds", name, "cases", key),
                    f"{spec.by} is never {key!r:.80}",
                    did_you_mean(key, there),
                )

    def _check_pool(self, name: str, pool: FileRows, rows: Mapping[str, Rows]) -> None:
        """There are enough different rows, also without those that a task goes through."""
        wanted = pool.spec.n or 0
        different = len(pool) - sum(times - 1 for times in pool.repeats.values())
        own = sum(
            1 for other in rows.values() if isinstance(other, FileRows) and set(other.files) & set(pool.files)
        )
        if different < wanted + own:
            besides = " besides the task's own" if own else ""
            self._wrong(
                ("seeds", name, "n"),
                f"{pool.spec.path} has {different:,} different rows, too few for {wanted:,}{besides}",
            )

    def _file_rows(self, name: str, spec: FileSeed) -> FileRows | None:  # noqa: PLR0911
        loc = ("seeds", name, "path")
        try:
            files = self.project.files(spec.path, spec.split)
            near = [] if files else [self.project.relative(path) for path in self.project.siblings(spec.path)]
        except OutsideProject:
            self._wrong(
                loc, f"{spec.path} leads out of the project", "allow its folder with `--allow-path FOLDER`"
            )
            return None
        except (OSError, ValueError, RuntimeError) as error:  # too long, not a pattern, a loop of links
            self._wrong(loc, f"{_short(spec.path)} cannot be read as a path: {error}")
            return None
        if not files:
            of = f" of the split {spec.split}" if spec.split else ""
            self._wrong(loc, f"there is no file {spec.path}{of}", did_you_mean(spec.path, near))
            return None
        try:
            tokenizer = self._tokenizer(spec)
            found = FileRows(spec, files, self.project, tokenizer)
            len(found)
            skipped = found.skipped
        except RecipeError as error:
            self.problems.extend(error.problems)
            return None
        except OutsideProject as error:
            hint = "allow its folder with `--allow-path FOLDER`"
            self._wrong(("seeds", name, "chunk", "tokenizer"), f"{error} leads out of the project", hint)
            return None
        except ValueError as error:
            self._wrong(("seeds", name, "chunk"), str(error))
            return None
        if skipped:
            self.notices.append(f"seed {name}: {skipped:,} bad rows are skipped, as `on_bad_row: skip` says")
        return found

    def _tokenizer(self, spec: FileSeed) -> Path | None:
        """The file that counts the tokens of chunks. Raises OutsideProject or ValueError."""
        if spec.chunk is None or spec.chunk.tokens is None:
            return None
        if spec.chunk.tokenizer is not None:
            path = self.project.inside(spec.chunk.tokenizer)
            if not path.is_file():
                raise ValueError(f"there is no file {spec.chunk.tokenizer[:200]}")
            return path
        return tokenizer_file(str(spec.chunk.model))

    def _limit(self, rows: Mapping[str, Rows]) -> int | None:
        recipe = self.recipe
        once = 1
        for found in rows.values():
            once *= len(found)
        if recipe.target is None:
            return recipe.tasks if recipe.tasks is not None else once
        limit = recipe.budget.attempts or ATTEMPTS_PER_ROW * recipe.target
        if recipe.passes is not None:
            limit = min(limit, recipe.passes * once)
        return limit

    def models(self, engine: str | None, model: str | None, base_url: str | None) -> dict[str, ModelRef]:
        """The models by the names that steps and filters have for them."""
        models = dict(self.recipe.models)
        if self.recipe.model is not None:
            models[""] = self.recipe.model
        if model is not None:
            models[""] = _overridden({"id": model})
        if "" in models and (engine or base_url):
            wanted = engine or "openai"
            if wanted not in get_args(Engine):
                raise UsageError(
                    f"there is no engine {wanted!r}", hint=did_you_mean(wanted, get_args(Engine))
                )
            update: dict[str, Any] = {"engine": wanted}
            if wanted != models[""].engine:
                update["options"] = {}  # they are the other engine's
            if base_url:
                update["base_url"] = base_url
            models[""] = _overridden({**models[""].model_dump(), **update})
        for name, ref in models.items():
            loc = ("models", name) if name else ("model",)
            self._check_canonical(self.file, (*loc, "template_args"), ref.template_args)
            if self.recipe.budget.money is not None and ref.prices is None:
                self._wrong(
                    ("budget", "money"),
                    f"what {ref.id} costs is not known",
                    "give its `prices: {input: ..., output: ...}` for a million tokens under `model:`",
                )
        if self.recipe.steps and not models:
            self._wrong((), "the recipe has steps but no `model:`", "for example `model: smollm2-135m`")
        return models

    def _steps(self, models: Mapping[str, ModelRef]) -> list[LoadedStep]:
        steps = []
        known = set(self.recipe.seeds)
        fans = self.fans()
        for place, (name, step) in enumerate(self.recipe.named_steps()):
            loc = ("steps", place, name)
            if step.model is not None and step.model not in models:
                self._wrong(
                    (*loc, "model"),
                    f"there is no model {step.model!r}",
                    did_you_mean(step.model, filter_out(models)),
                )
            elif step.model is None and "" not in models and models:
                self._wrong(loc, "the recipe has no `model:`, so this step must name one of `models:`")
            item = {step.item} if step.foreach is not None else set()
            prompt = self._prompt((*loc, "prompt"), step.prompt, known | item)
            self._check_form(loc, step, prompt)
            if prompt is not None:
                sampling = step.sampling.over(self.recipe.sampling).settings()
                own = (*loc, "sampling") if step.sampling.model_fields_set else ("sampling",)
                self._check_canonical(self.file, own, sampling)
                form = form_of(step, prompt.schema)
                steps.append(LoadedStep(name, prompt, sampling, step.model or "", form, fans[place]))
                if (step.n or 1) > 1 and sampling.get("temperature") == 0:
                    self.notices.append(f"step {name}: at temperature 0 its {step.n} answers will be alike")
            known |= {*fans[place].names}
        if self.overridden and steps and all(step.model for step in steps):
            self._wrong(
                ("steps",),
                "every step names one of `models:`, so --engine, --model and --base-url do nothing",
            )
        return steps

    def fans(self) -> list[Fan]:
        """How each step fans out."""
        known, fans = set(self.recipe.seeds), []
        for place, (name, step) in enumerate(self.recipe.named_steps()):
            fan = fan_of(name, step)
            for key, expression in (("when", fan.when), ("foreach", fan.foreach)):
                if expression is not None:
                    where: tuple[str | int, ...] = (*self.within, "steps", place, name, key)
                    self._check_expression(self.file, where, expression, known)
            known |= {*fan.names}
            fans.append(fan)
        return fans

    def _check_form(self, loc: tuple[str | int, ...], step: language.Step, prompt: Prompt | None) -> None:
        self._check_output(self.file, (*loc, "output"), step.output)
        if step.extract is None:
            return
        if prompt is not None and prompt.schema is not None:
            self._wrong(
                (*loc, "extract"), "the prompt has an `output:` schema, so there is nothing to take out"
            )
        try:
            if step.extract.regex is not None:
                pattern_of(step.extract.regex)
        except ValueError as error:
            self._wrong((*loc, "extract", "regex"), f"not a regular expression of RE2: {error}")

    def _prompt(self, loc: tuple[str | int, ...], given: str | PromptBody, known: Names) -> Prompt | None:
        if isinstance(given, PromptBody):
            raw = given.model_dump_json(exclude_none=True).encode()
            prompt = make_prompt("inline", given.turns(), given.output, raw)
            self._check_turns(self.file, loc, prompt, given, known)
            self._check_output(self.file, (*loc, "output"), given.output)
            return prompt
        path = self.project.find("prompts", f"{given}.yaml")
        if path is None or "/" in given:
            self._wrong(
                loc,
                f"there is no prompt {given!r}",
                did_you_mean(given, self.project.names("prompts", ".yaml")),
            )
            return None
        try:
            file = read_yaml(path)
            body = PromptBody.model_validate(file.data)
        except RecipeError as error:
            self.problems.extend(error.problems)
            return None
        except ValidationError as error:
            self.problems.extend(_problems(file, error, PromptBody))
            return None
        prompt = make_prompt(given, body.turns(), body.output, file.text.encode(), path)
        self._check_turns(file, (), prompt, body, known)
        self._check_output(file, ("output",), body.output)
        return prompt

    def _check_turns(
        self,
        file: YamlFile,
        loc: tuple[str | int, ...],
        prompt: Prompt,
        body: PromptBody,
        known: Names,
    ) -> None:
        for place, (role, template) in enumerate(prompt.turns):
            where = (*loc, role) if body.messages is None else (*loc, "messages", place, role)
            self._check_template(file, where, template, known)

    def _check_expression(
        self, file: YamlFile, loc: Sequence[str | int], expression: Expression, known: Names
    ) -> None:
        try:
            template = expression.template
        except PromptFailed as error:
            self.problems.append(file.problem(loc, f"{_shown(loc)}: {error}"))
            return
        self._check_template(file, loc, template, known, expression.source)

    def _check_template(
        self,
        file: YamlFile,
        loc: Sequence[str | int],
        template: TextTemplate,
        known: Names,
        source: str | None = None,
    ) -> None:
        """`source` is what the file has of it."""
        line, column = file.position(loc)
        lines = file.text.splitlines()
        first = next(iter((template.source if source is None else source).splitlines()), "")
        offset = 0 if line <= len(lines) and first and first in lines[line - 1] else 1
        try:
            names = template.names()
        except PromptFailed as error:
            at = line + offset + error.line - 1 if error.line else line
            self.problems.append(Problem(str(error), file.path, at, column))
            return
        self.used |= names
        forbidden = template.forbidden()
        if forbidden is not None:
            at = line + offset + forbidden[1] - 1
            message = f"the template may not use {forbidden[0]!r}: it leads out of the sandbox"
            self.problems.append(Problem(message, file.path, at, column))
        if known is None:
            return
        for name in sorted(names - known):
            at = line + offset + template.line_of(name) - 1
            hint = did_you_mean(name, known)
            why = "which is not defined here"
            if name in self.recipe.fields:
                why = "which is not defined yet"
                hint = f"a step sees what comes before it: {', '.join(sorted(known)) or 'nothing'}"
            self.problems.append(Problem(f"the template uses {name!r}, {why}", file.path, at, column, hint))

    def _check_output(
        self, file: YamlFile, loc: Sequence[str | int], schema: Mapping[str, Any] | None
    ) -> None:
        if schema is None:
            return
        self._check_canonical(file, loc, dict(schema))
        from jsonschema import Draft202012Validator, SchemaError

        try:
            Draft202012Validator.check_schema(dict(schema))
        except SchemaError as error:
            where = (*loc, *error.absolute_path)
            self.problems.append(file.problem(where, f"not a JSON schema: {error.message}"))
        for reference in _references(schema):
            if not reference.startswith("#"):
                message = f"{_short(reference)} leads out of the schema, and nothing is fetched"
                self.problems.append(
                    file.problem(loc, message, "put it under `$defs:` and refer to it there")
                )

    def _check_canonical(self, file: YamlFile, loc: Sequence[str | int], value: Any) -> None:
        """Refuse what RFC 8785 cannot write: a whole number of more than 53 bits, above all."""
        try:
            canonical(value)
        except ValueError as error:
            self.problems.append(
                file.problem(loc, f"{_shown(loc)} cannot be written as canonical JSON: {error}")
            )

    def shape(self) -> RowShape:
        """How a record becomes a row."""
        record = self.recipe.record
        known = {*self.recipe.fields}
        if record.from_ is not None:
            self.used.add(record.from_)
            if record.from_ not in known:
                hint = did_you_mean(record.from_, known)
                self._wrong(("record", "from"), f"there is no field {record.from_!r}", hint)
        shape = row_shape(record)
        for name, column in shape.made.items():
            loc = (*self.within, "record", name)
            if isinstance(column, Messages):
                for place, (role, template) in enumerate(column.turns):
                    self._check_template(self.file, (*loc, place, role), template, known)
            elif isinstance(column, Text):
                self._check_template(self.file, loc, column.template, known)
            else:
                self._check_expression(self.file, (*loc, "value"), column.expression, known)
        return shape

    def chain(self) -> list[ChainFilter]:
        """The filters, in order."""
        chain = []
        fields = {*self.recipe.fields, *self.recipe.record.fields}
        for place, (name, use) in enumerate(self.recipe.filter_uses()):
            loc = ("filters", place, name)
            wanted = use.filter or name
            try:
                found = find_filter(wanted, self.project)
            except RecipeError as error:
                self.problems.extend(error.problems)
                continue
            if found is None:
                names = filter_names(self.project)
                self._wrong(
                    (*loc, "filter") if use.filter else loc,
                    f"there is no filter {wanted!r}",
                    did_you_mean(wanted, names) or f"the recipe can use: {', '.join(names)}",
                )
                continue
            if found.origin == "project" and (shipped("filters") / f"{wanted}.py").is_file():
                self.notices.append(f"filter {wanted}: the project's own takes the place of the shipped one")
            wrong = check_params(found.definition, use.params)
            self._check_canonical(self.file, (*self.within, *loc), dict(use.params))
            files, unread = input_files(found.definition, use.params, self.project)
            for key, message, hint in [*wrong, *unread]:
                self._wrong((*loc, key), message, hint)
            link = ChainFilter.of_recipe(found, use, name, files)
            if not wrong and not unread and (link.params or link.files):
                self._check_parameters(loc, link)
            if link.action == "redact" and not found.definition.redacts:
                self._wrong((*loc, "action"), f"filter {name} can take nothing out, so it cannot redact")
            if link.asks:
                self._check_asking(loc, link)
            self._check_fields(loc, link, fields)
            if link.min is None and link.max is None:
                self._wrong(loc, f"filter {name} has no bound; give it `min:` or `max:`")
            elif link.min is not None and link.max is not None and link.min > link.max:
                self._wrong(
                    (*loc, "min"), f"min ({link.min:g}) is above max ({link.max:g}), so nothing could pass"
                )
            chain.append(link)
        return chain

    def _check_fields(self, loc: Sequence[str | int], link: ChainFilter, fields: set[str]) -> None:
        """What a filter looks at is there."""
        self.used.add(link.of)
        if link.of not in PARTS and link.of not in fields:
            hint = did_you_mean(link.of, {*fields, *PARTS})
            self._wrong((*loc, "of"), f"there is no field {link.of!r} to measure", hint)
        for key in link.definition.field_parameters:
            value = link.params.get(key)
            for name in value if isinstance(value, list) else [value]:
                self.used |= {str(name), str(name).split(".")[0]}
                known = name in PARTS or name in fields or str(name).split(".")[0] in fields
                if isinstance(name, str) and not known:
                    hint = did_you_mean(name, {*fields, *PARTS})
                    self._wrong((*loc, key), f"there is no field {name!r}", hint)

    def _check_parameters(self, loc: Sequence[str | int], link: ChainFilter) -> None:
        """What a filter itself says of its parameters."""
        try:
            link.make()
        except RunError as error:
            cause = error.__cause__ or error
            self._wrong(loc, f"filter {link.name}: {cause}")
        except RecipeError as error:
            self.problems.extend(error.problems)

    def _check_asking(self, loc: Sequence[str | int], link: ChainFilter) -> None:
        """A filter that asks a model names one of the recipe's, and prompts that can be read."""
        names = {*self.recipe.models, *([""] if self.recipe.model or self.overridden else [])}
        if link.model not in names:
            said = f"there is no model {link.model!r}" if link.model else "it asks a model, and there is none"
            hint = did_you_mean(link.model, filter_out(sorted(names))) if link.model else None
            self._wrong((*loc, "model") if link.model else loc, said, hint or "give the recipe a `model:`")
        for parameter in link.definition.prompt_parameters:
            if parameter in link.files:
                self._prompt((*loc, parameter), link.files[parameter][0].path.stem, None)


def _references(schema: Any) -> Iterator[str]:
    """What `$ref` and its like name, anywhere in a schema."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _texts(spec: Seed) -> list[tuple[tuple[str, ...], str]]:
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


def _overridden(said: Mapping[str, Any]) -> ModelRef:
    """A model with what flags or the environment say of it. Raises UsageError where that is wrong."""
    try:
        return ModelRef.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        reason = str(first.get("ctx", {}).get("error", first["msg"]))
        raise UsageError(f"the model {said['id']!r} cannot be asked so: {reason}") from None


def filter_out(models: Iterable[str]) -> list[str]:
    """Names of models that a step or a filter can name."""
    return [name for name in models if name]
