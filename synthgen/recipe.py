"""What a recipe may say, as pydantic models: the edge where a person's YAML becomes checked values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from synthgen.recipe_filters import STRADDLE, FilterEntry, FilterUse, empty_use, with_shares
from synthgen.recipe_models import ModelRef, Sampling
from synthgen.recipe_parts import Misplaced, Name, Part, one_key_each
from synthgen.recipe_record import RecordShape
from synthgen.recipe_rounds import Grow, Wished, expand_grow
from synthgen.recipe_steps import Step
from synthgen.seed_kinds import Seed, expand_seed

MOST_OF_A_TASK = 10_000  # branches that `n:` makes of one task


class Budget(Part):
    """How much a run may spend. It ends in task order at the first record that spends one of them.

    `seconds` alone depends on the machine: where it cut is recorded.
    """

    attempts: int | None = Field(None, ge=1, description="Branches tried at most, for a target.")
    output_tokens: int | None = Field(None, ge=1, description="Tokens generated.")
    money: float | None = Field(None, gt=0, description="What the tokens cost at the models' `prices:`.")
    seconds: float | None = Field(None, gt=0, description="Of wall-clock time.")


class Output(Part):
    """Which files a dataset has."""

    formats: list[Literal["parquet", "jsonl"]] = Field(["parquet", "jsonl"], min_length=1)
    split: dict[Name, Annotated[float, Field(gt=0)]] = {"train": 1.0}
    provenance: Literal["column"] | None = Field(
        None, description="Also as a column of each row; it is beside the rows in any case."
    )

    @field_validator("split")
    @classmethod
    def _adds_up(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or abs(sum(value.values()) - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, not to {sum(value.values()):g}")
        return value


class Recipe(Part):
    """A recipe, checked in itself. What it names outside itself is checked when it is loaded."""

    version: Literal[1]
    name: Name
    description: str | None = None
    seed: int = Field(0, ge=0, lt=2**63)
    model: ModelRef | None = None
    models: dict[Name, ModelRef] = {}
    sampling: Sampling = Sampling()
    seeds: dict[Name, Annotated[Seed, Field()]] = {}
    steps: list[dict[Name, Step]] = []
    record: RecordShape
    filters: list[FilterEntry] = []
    target: int | None = Field(None, ge=1)
    tasks: int | None = Field(None, ge=1)
    passes: int | None = Field(None, ge=1)
    budget: Budget = Budget()
    balance: dict[str, Wished] = Field(
        {},
        description="Of a seed, or a field of its rows (`row.topic`): the share of each value in kept rows.",
    )
    grow: dict[Name, Annotated[Grow, BeforeValidator(expand_grow)]] = Field(
        {}, description="Seeds whose rows kept records add to, from round to round."
    )
    round: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Tasks of a round: what the next takes, the verdicts before it say.",
    )
    output: Output = Output()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if value in (".", ".."):
            raise ValueError(f"{value!r} cannot name a run's folder")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _lists_are_values(cls, value: Any) -> Any:
        return {key: expand_seed(seed) for key, seed in value.items()} if isinstance(value, dict) else value

    @field_validator("filters", mode="before")
    @classmethod
    def _bare_filters(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [
            {name: empty_use(use) for name, use in entry.items()} if isinstance(entry, dict) else entry
            for entry in value
        ]

    @field_validator("steps", "filters")
    @classmethod
    def _one_name_each(cls, value: Any) -> Any:
        one_key_each(value, "entry of the list")
        return value

    @model_validator(mode="after")
    def _has_room_for_provenance(self) -> Recipe:
        if self.output.provenance and "provenance" in self.record.columns:
            raise Misplaced(
                "`provenance: column` gives a field of that name; call your own something else",
                "record",
                "provenance",
            )
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> Recipe:
        if self.target is not None and self.tasks is not None:
            raise Misplaced("`target:` counts kept rows and `tasks:` counts tasks: give one of them", "tasks")
        if self.passes is not None and self.target is None:
            raise Misplaced(
                "`passes:` limits how often seeds are used again for a `target:`, and there is none", "passes"
            )
        if self.budget.attempts is not None and self.target is None:
            raise Misplaced(
                "`attempts:` limits what a `target:` may try, and there is none; use `tasks:`", "budget"
            )
        if self.balance and self.target is None:
            raise Misplaced(
                "`balance:` chooses tasks for a `target:` of kept rows, and there is none", "balance"
            )
        return self

    @model_validator(mode="after")
    def _has_rounds(self) -> Recipe:
        if self.grow and self.balance:
            raise Misplaced("a recipe has either `balance:` or `grow:`, not both", "grow")
        if self.round is not None and not self.balance and not self.grow:
            raise Misplaced(
                "`round:` is the size of the rounds of `balance:` and `grow:`, and there is neither", "round"
            )
        return self

    @model_validator(mode="after")
    def _has_its_names_once(self) -> Recipe:
        taken = set(self.seeds)
        branches = 1
        for place, (name, step) in enumerate(self.named_steps()):
            if name in taken:
                raise Misplaced(
                    f"the name {name!r} is given twice among seeds and steps", "steps", place, name
                )
            taken.add(name)
            if step.reasoning in taken:
                raise Misplaced(
                    f"the name {step.reasoning!r} is taken; call the reasoning's field something else",
                    *("steps", place, name, "reasoning"),
                )
            taken |= {step.reasoning} if step.reasoning else set()
            if step.foreach is not None and step.item in taken:
                raise Misplaced(
                    f"the name {step.item!r} of an item is taken; give another with `as:`",
                    *("steps", place, name, "as" if step.as_ else "foreach"),
                )
            if step.foreach is not None and not step.gather:
                taken.add(step.item)
            branches *= 1 if step.gather else step.n or 1
            if branches > MOST_OF_A_TASK:
                raise Misplaced(
                    f"a task would have {branches:,} branches, more than {MOST_OF_A_TASK:,}",
                    *("steps", place, name, "n"),
                )
        named: set[str] = set()
        for place, (name, _) in enumerate(self.filter_uses()):
            if name in named:
                raise Misplaced(
                    f"two filters are called {name}; give one another name, such as "
                    f"`{name}_again: {{filter: {name}}}`",
                    "filters",
                    place,
                    name,
                )
            named.add(name)
        return self

    def named_steps(self) -> list[tuple[str, Step]]:
        """Name and step, in order."""
        return [next(iter(entry.items())) for entry in self.steps if entry]

    @property
    def fields(self) -> list[str]:
        """What a finished branch has values for: seeds, then steps with their items and their reasoning."""
        names = list(self.seeds)
        for name, step in self.named_steps():
            names += [*([step.item] if step.foreach is not None and not step.gather else []), name]
            names += [step.reasoning] if step.reasoning else []
        return names

    def filter_uses(self) -> list[tuple[str, FilterUse]]:
        """Name and use of each filter, in order; with several splits `straddle` is one of them."""
        uses = [
            (entry, FilterUse()) if isinstance(entry, str) else next(iter(entry.items()))
            for entry in self.filters
            if entry
        ]
        if len(self.output.split) == 1:
            return uses
        if STRADDLE not in [use.filter or name for name, use in uses]:
            uses.append((STRADDLE, FilterUse()))
        return [
            (name, with_shares(use, self.output.split) if (use.filter or name) == STRADDLE else use)
            for name, use in uses
        ]
