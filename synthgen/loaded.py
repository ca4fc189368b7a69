"""A recipe with everything that it names: what loading gives, and a run goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from synthgen.answers import Form
from synthgen.balance import Balance
from synthgen.chain import ChainFilter
from synthgen.growth import Grown
from synthgen.plan import Plan
from synthgen.project import Project, runs_folder
from synthgen.prompt import Prompt
from synthgen.recipe import Recipe
from synthgen.recipe_models import ModelRef
from synthgen.row import RowShape
from synthgen.seeds import FileRows
from synthgen.steps import Fan
from synthgen.talk import Talk
from synthgen.yamlfile import YamlFile

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
