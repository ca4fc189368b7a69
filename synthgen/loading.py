"""A recipe with everything it names found, read and checked: what `validate` proves and `run` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic import ValidationError

from synthgen import recipe as language
from synthgen.answers import Form, form_of
from synthgen.balance import Balance, balance_of
from synthgen.chain import ChainFilter
from synthgen.engines.keys import at_openai
from synthgen.errors import Problem, RecipeError, UsageError
from synthgen.growth import Grown, grown_of
from synthgen.loading_checks import Checks
from synthgen.loading_filters import load_chain
from synthgen.loading_seeds import load_seeds
from synthgen.loading_talk import Loc, check_talk, voice_prompts
from synthgen.plan import Plan
from synthgen.project import Project, find_recipe, project_of, runs_folder
from synthgen.prompt import Expression, Prompt
from synthgen.recipe import Engine, FilterUse, ModelRef, Recipe, Sampling
from synthgen.recipe_problems import recipe_problems
from synthgen.row import Messages, RowShape, Text, row_shape
from synthgen.schema_checks import pattern_of
from synthgen.seeds import FileRows, Rows
from synthgen.steps import Fan, fan_of
from synthgen.talk import Talk, talk_of
from synthgen.yamlfile import YamlFile, did_you_mean, read_yaml

ATTEMPTS_PER_ROW = 10
MOST_TASKS = 2**53 - 1  # what provenance can count, as JSON has it


@dataclass(frozen=True)
class LoadedVoice:
    """Who else speaks in a step's conversations, and how it is asked."""

    prompt: Prompt
    sampling: Mapping[str, Any]
    model: str


@dataclass(frozen=True)
class LoadedStep:
    """A step with its prompt, its whole sampling, the name of its model, and how it is asked.

    `others` are who else speaks in its conversations, by their keys.
    """

    name: str
    prompt: Prompt
    sampling: Mapping[str, Any]
    model: str
    form: Form
    fan: Fan
    talk: Talk | None = None
    others: Mapping[str, LoadedVoice] = field(default_factory=dict)

    @property
    def voices(self) -> dict[str, LoadedVoice]:
        """Everyone that it asks, by the names that `steps_asked` gives."""
        own = LoadedVoice(self.prompt, self.sampling, self.model)
        return {self.called(key): voice for key, voice in {"": own, **self.others}.items()}

    def called(self, key: str) -> str:
        """The name of a voice, given by its key."""
        return f"{self.name}/{key}" if key else self.name

    @property
    def reads(self) -> set[str]:
        """The names that it looks at."""
        names = {name for _, template in self.prompt.turns for name in template.names()}
        for expression in (self.fan.when, self.fan.foreach):
            names |= expression.template.names() if expression is not None else set()
        return names | (self.talk.names() if self.talk is not None else set())


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
    grown: Grown | None = None

    @property
    def runs(self) -> Path:
        """The folder that holds this recipe's runs, each under its recipe's name."""
        return runs_folder(self.file.path)

    @property
    def asked(self) -> list[str]:
        """Names of the models that steps and filters ask."""
        filters = (link.model for link in self.chain if link.asks)
        return sorted({*(voice.model for voice in self.voices.values()), *filters})

    @property
    def planned(self) -> int | None:
        """How many tasks there are; None where a target decides."""
        return self.plan.limit if self.recipe.target is None else None

    @property
    def most(self) -> int:
        """How many tasks there are at most: where seeds grow, if all were kept, `foreach:` as one item."""
        if self.plan.limit is not None:
            return self.plan.limit
        depths = [each.depth for each in self.grown.seeds.values() if each.depth] if self.grown else []
        total, generation = 0, self.plan.once
        for _ in range(min(depths, default=1)):
            total, generation = total + generation, generation * self.fan
            if total > MOST_TASKS:
                return MOST_TASKS
        return total

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
        """How often everyone is asked for one task, as far as it can be told.

        `foreach:` counts as one, but over what a step gathered of its `n:`.
        """
        branches, found = 1, dict[str, int]()
        gathered: dict[str, int] = {}
        for step in self.steps:
            many = step.fan.n or gathered.get(step.fan.foreach.source.strip() if step.fan.foreach else "", 1)
            if step.fan.gathers:
                gathered[step.name] = many
            times = branches * many
            asked = step.talk.questions if step.talk is not None else {"": 1}
            found |= {step.called(key): times * each for key, each in asked.items()}
            branches = times if step.fan.branches else branches
        return found

    @property
    def voices(self) -> dict[str, LoadedVoice]:
        """Everyone that steps ask, by the names that `steps_asked` gives."""
        return {name: voice for step in self.steps for name, voice in step.voices.items()}


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
    loader.give_up()
    before = {each["name"]: each["code_sha256"] for each in said["filters"]}
    key = "balance" if recipe.balance else "grow"
    frozen = f"the bounds of the run chose its seeds, for `{key}:`; curating takes the records that there are"
    notices = [frozen] if (recipe.balance or recipe.grow) and changes else []
    notices += [
        f"filter {link.name} is not what it was when the run was made: it measures again"
        for link in chain
        if link.definition.code_sha256() != before.get(link.name)
    ]
    return LoadedCuration(recipe, project, chain, models, shape.columns, [*loader.checks.notices, *notices])


@dataclass(frozen=True)
class Recorded:
    """What a finished run's recipe says of generation: for audits, which load no filter.

    Of each step's name, `prompts` has its prompt as it is now, or why it cannot be read; `fans` how it is
    asked. Those of a conversation's others are under the names that `steps_asked` gives.
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
        checks = Checks(recipe, locked, project, ("recipe",))
        loc = ("recipe", "steps", place, name)
        item = {step.item} if step.foreach is not None else set()
        found = voice_prompts(checks, loc, name, step, known | item)
        wrong = checks.problems[0].message if checks.problems else None
        for key, prompt in found.items():
            prompts[key] = prompt if prompt is not None and wrong is None else wrong or "cannot be read"
        known |= {*fan_of(name, step).names}
    loader = _Loader(recipe, locked, project, ("recipe",))
    fans, shape = loader.fans(), loader.shape()
    loader.give_up()
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
    loader = _Loader(recipe, file, project_of(path, allow))
    if tasks is not None:
        instead: dict[str, Any] = {
            "tasks": tasks,
            "target": None,
            "passes": None,
            "balance": {},
            "round": recipe.round if recipe.grow else None,
        }
        loader.recipe = loader.checks.recipe = recipe.model_copy(update=instead)
        if recipe.balance:
            loader.checks.notices.append(
                "so many tasks are taken as they come: `balance:` is for a `target:`"
            )
    return loader.load(engine, model, base_url)


def _parse(file: YamlFile) -> Recipe:
    if not isinstance(file.data, dict):
        raise RecipeError([Problem("a recipe is a mapping that begins with `version: 1`", file.path, 1)])
    try:
        return Recipe.model_validate(file.data)
    except ValidationError as error:
        raise RecipeError(recipe_problems(file, error, Recipe)) from None


class _Loader:
    """Collects every problem of one recipe before it gives up."""

    def __init__(
        self, recipe: Recipe, file: YamlFile, project: Project, within: tuple[str, ...] = ()
    ) -> None:
        """`within` is where in the file the recipe is."""
        self.checks = Checks(recipe, file, project, within)
        self.recipe = recipe
        self.overridden = False

    def load(self, engine: str | None, model: str | None, base_url: str | None) -> Loaded:
        self.overridden = bool(engine or model or base_url)
        seeds = load_seeds(self.checks)
        models = self.models(engine, model, base_url)
        steps = self._steps(models)
        shape = self.shape()
        chain = self.chain()
        for name, said in self.recipe.grow.items():
            where = (*self.checks.within, "grow", name, "add")
            self.checks.expression(self.checks.file, where, Expression(said.add), {*self.recipe.fields})
        self.give_up()
        self._note_unused()
        balance, wrong = balance_of(self.recipe, {name: seeds.listed.get(name) for name in self.recipe.seeds})
        for place, message, hint in wrong:
            self.checks.wrong(place, message, hint)
        self.give_up()
        limit = self._limit(seeds.rows)
        if limit is not None and limit > MOST_TASKS:
            key = "target" if self.recipe.target is not None else "tasks" if self.recipe.tasks else "seeds"
            self.checks.wrong((key,), f"that makes {limit:,} tasks, and {MOST_TASKS:,} is the most")
        plan = Plan(self.recipe.seed, seeds.rows, seeds.drawn, limit)
        grown, wrong = grown_of(self.recipe, plan)
        for place, message, hint in wrong:
            self.checks.wrong(place, message, hint)
        self.give_up()
        return Loaded(
            self.recipe,
            self.checks.file,
            self.checks.project,
            plan,
            steps,
            models,
            shape,
            chain,
            seeds.files,
            tuple(self.checks.notices),
            base_url,
            balance,
            seeds.drawn_from,
            grown,
        )

    def give_up(self) -> None:
        """Raises RecipeError if anything was wrong until now."""
        if self.checks.problems:
            raise RecipeError(self.checks.problems)

    def chain(self) -> list[ChainFilter]:
        """The filters, in order."""
        own = [""] if self.recipe.model or self.overridden else []
        return load_chain(self.checks, sorted({*self.recipe.models, *own}))

    def _note_unused(self) -> None:
        """What nothing looks at is worth a word."""
        self.checks.used |= {name.partition(".")[0] for name in self.recipe.balance}
        steps = [name for name, _ in self.recipe.named_steps()]
        thoughts = {step.reasoning for _, step in self.recipe.named_steps()}
        for name in self.recipe.fields if steps else ():
            if name not in self.checks.used:
                what = "step" if name in steps else "seed" if name in self.recipe.seeds else "item"
                what = "reasoning" if name in thoughts else what
                self.checks.notices.append(f"{what} {name}: no prompt and no part of the record uses it")

    def _limit(self, rows: Mapping[str, Rows]) -> int | None:
        recipe = self.recipe
        once = prod(map(len, rows.values()))
        grows = any(name in rows for name in recipe.grow)
        if recipe.target is None:
            if grows:
                return recipe.tasks
            return recipe.tasks if recipe.tasks is not None else once
        limit = recipe.budget.attempts or ATTEMPTS_PER_ROW * recipe.target
        if recipe.passes is not None and not grows:
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
            self.checks.canonical(self.checks.file, (*loc, "template_args"), ref.template_args)
            if self.recipe.budget.money is not None and ref.prices is None:
                self.checks.wrong(
                    ("budget", "money"),
                    f"what {ref.id} costs is not known",
                    "give its `prices: {input: ..., output: ...}` for a million tokens under `model:`",
                )
        if self.recipe.steps and not models:
            self.checks.wrong((), "the recipe has steps but no `model:`", "for example `model: smollm2-135m`")
        return models

    def _steps(self, models: Mapping[str, ModelRef]) -> list[LoadedStep]:
        steps = []
        known = set(self.recipe.seeds)
        fans = self.fans()
        for place, (name, step) in enumerate(self.recipe.named_steps()):
            loc = ("steps", place, name)
            self._check_model(loc, step.model, models)
            item = {step.item} if step.foreach is not None else set()
            prompts = voice_prompts(self.checks, loc, name, step, known | item)
            check_talk(self.checks, loc, step, known | item)
            prompt = prompts[name]
            self._check_form(loc, step, prompt)
            if prompt is not None:
                self._check_turn(loc, step, prompt, models.get(step.model or ""))
                sampling = self._sampling(loc, step.sampling)
                form = form_of(step, prompt.schema)
                model = step.model or ""
                others = self._others(loc, name, step, models, prompts)
                talk = None
                if step.conversation is not None:
                    talk = talk_of(step, prompt, {key: voice.prompt for key, voice in others.items()})
                steps.append(LoadedStep(name, prompt, sampling, model, form, fans[place], talk, others))
                if (step.n or 1) > 1 and sampling.get("temperature") == 0:
                    self.checks.notices.append(
                        f"step {name}: at temperature 0 its {step.n} answers will be alike"
                    )
            known |= {*fans[place].names}
        if self.overridden and steps and all(step.model for step in steps):
            self.checks.wrong(
                ("steps",),
                "every step names one of `models:`, so --engine, --model and --base-url do nothing",
            )
        return steps

    def _check_model(self, loc: Loc, model: str | None, models: Mapping[str, ModelRef]) -> None:
        if model is not None and model not in models:
            hint = did_you_mean(model, filter(None, models))
            self.checks.wrong((*loc, "model"), f"there is no model {model!r}", hint)
        elif model is None and "" not in models and models:
            self.checks.wrong(loc, "the recipe has no `model:`, so this step must name one of `models:`")

    def _sampling(self, loc: Loc, said: Sampling) -> dict[str, Any]:
        """The whole sampling of whoever is asked at this place."""
        sampling = said.over(self.recipe.sampling).settings()
        own = (*loc, "sampling") if said.model_fields_set else ("sampling",)
        self.checks.canonical(self.checks.file, own, sampling)
        return sampling

    def _others(
        self,
        loc: Loc,
        name: str,
        step: language.Step,
        models: Mapping[str, ModelRef],
        prompts: Mapping[str, Prompt | None],
    ) -> dict[str, LoadedVoice]:
        """Who else speaks in a step's conversations, by their keys."""
        found = {}
        for key, voice in step.conversation.voices.items() if step.conversation is not None else ():
            at = (*loc, "conversation", key)
            if voice.model is not None:
                self._check_model(at, voice.model, models)
            prompt = prompts[f"{name}/{key}"]
            if prompt is not None:
                model = voice.model or step.model or ""
                found[key] = LoadedVoice(prompt, self._sampling(at, voice.sampling), model)
        return found

    def fans(self) -> list[Fan]:
        """How each step fans out."""
        known, fans = set(self.recipe.seeds), []
        for place, (name, step) in enumerate(self.recipe.named_steps()):
            fan = fan_of(name, step)
            for key, expression in (("when", fan.when), ("foreach", fan.foreach)):
                if expression is not None:
                    where: tuple[str | int, ...] = (*self.checks.within, "steps", place, name, key)
                    self.checks.expression(self.checks.file, where, expression, known)
            known |= {*fan.names}
            fans.append(fan)
        return fans

    def _check_form(self, loc: tuple[str | int, ...], step: language.Step, prompt: Prompt | None) -> None:
        self.checks.schema(self.checks.file, (*loc, "output"), step.output)
        if step.extract is None:
            return
        if prompt is not None and prompt.schema is not None:
            self.checks.wrong(
                (*loc, "extract"), "the prompt has an `output:` schema, so there is nothing to take out"
            )
        try:
            if step.extract.regex is not None:
                pattern_of(step.extract.regex)
        except ValueError as error:
            self.checks.wrong((*loc, "extract", "regex"), f"not a regular expression of RE2: {error}")

    def _check_turn(
        self, loc: tuple[str | int, ...], step: language.Step, prompt: Prompt, model: ModelRef | None
    ) -> None:
        """A model can write the user's turn only where its chat template can be had."""
        if prompt.writes == "assistant":
            return
        if step.output is not None:
            self.checks.wrong(
                (*loc, "output"), "a user's turn is free text: with `writes: user` there is no `output:`"
            )
        served = model is not None and (model.engine == "openai" or model.base_url is not None)
        if model is not None and served and (model.base_url is None or at_openai(model.base_url)):
            self.checks.wrong(
                (*loc, "prompt"),
                "OpenAI's service writes answers alone, and this prompt says `writes: user`",
                "use the engine vllm or llamacpp, or a server of vLLM or llama.cpp as `base_url:`",
            )

    def shape(self) -> RowShape:
        """How a record becomes a row."""
        record = self.recipe.record
        known = {*self.recipe.fields}
        if record.from_ is not None:
            self.checks.used.add(record.from_)
            if record.from_ not in known:
                hint = did_you_mean(record.from_, known)
                self.checks.wrong(("record", "from"), f"there is no field {record.from_!r}", hint)
        shape = row_shape(record)
        for name, column in shape.made.items():
            loc = (*self.checks.within, "record", name)
            if isinstance(column, Messages):
                for place, (role, template) in enumerate(column.turns):
                    self.checks.template(self.checks.file, (*loc, place, role), template, known)
            elif isinstance(column, Text):
                self.checks.template(self.checks.file, loc, column.template, known)
            else:
                self.checks.expression(self.checks.file, (*loc, "value"), column.expression, known)
        return shape


def _overridden(said: Mapping[str, Any]) -> ModelRef:
    """A model with what flags or the environment say of it. Raises UsageError where that is wrong."""
    try:
        return ModelRef.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        reason = str(first.get("ctx", {}).get("error", first["msg"]))
        raise UsageError(f"the model {said['id']!r} cannot be asked so: {reason}") from None
