"""Balance: tasks in an order that keeps the kept rows near wished shares of their seeds' values.

Tasks come in rounds of one size. What a round takes follows from the verdicts on the rounds before it and
from nothing else, so that it is the same however the run went. A task that is not wanted yet waits for a
later round.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from math import ceil, prod
from typing import Any

from synthgen.errors import RunError
from synthgen.plan import Plan, Task
from synthgen.recipe import Recipe
from synthgen.record import as_text
from synthgen.rounds import Fate, Rounds
from synthgen.seeds import SeedRow
from synthgen.yamlfile import did_you_mean

WAITING = 10_000  # tasks of one group that wait for their turn, at most; more are passed over
LOOKED_THROUGH = 50_000  # tasks that are looked at to fill one round, at most
MOST_GROUPS = 1000
TRIED = 20  # tasks that show what a seed gives
FIRST_FEW = 4  # as if so many had been tried and kept: what few verdicts say is no reason to ask for many

Group = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """The wished share of each value of each field, the tasks of a round, and how many rows are wanted."""

    shares: Mapping[str, Mapping[str, float]]
    round: int
    target: int


def value_of(values: Mapping[str, Any], field: str) -> str:
    """The value of a field such as `level` or `row.topic` of a task's seeds, as text; empty without one."""
    value: Any = values
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "" if value is None else as_text(value)


def balance_of(
    recipe: Recipe, values: Mapping[str, Sequence[SeedRow] | None]
) -> tuple[Balance | None, list[tuple[tuple[str, ...], str, str | None]]]:
    """What a recipe wishes, if it does, and what is wrong with it: (where, message, hint) each.

    `values` are the seeds, with what each chooses from where that is in the recipe.
    """
    wrong: list[tuple[tuple[str, ...], str, str | None]] = []
    shares: dict[str, dict[str, float]] = {}
    for field, wished in recipe.balance.items():
        name = field.partition(".")[0]
        if name not in values:
            message = f"`{field}` is no seed: what is balanced is which seeds are spent, before any step"
            wrong.append((("balance", field), message, did_you_mean(name, values)))
            continue
        rows = None if "." in field else values[name]
        there = None if rows is None else {as_text(row.value): 1.0 for row in rows}
        if wished == "even":
            if there is None:
                hint = "for example: {easy: 0.5, hard: 0.5}"
                message = f"`even` is for a list or a choice in the recipe; name the values of `{field}`"
                wrong.append((("balance", field), message, hint))
                continue
            weights = there
        else:
            weights = dict(wished)
            for value in () if there is None else sorted(weights.keys() - there.keys()):
                message = f"the seed `{name}` never has the value {value!r}"
                wrong.append((("balance", field, value), message, did_you_mean(value, there or ())))
        whole = sum(weights.values())
        shares[field] = {value: weight / whole for value, weight in weights.items()}
    groups = prod(map(len, shares.values()))
    if groups > MOST_GROUPS:
        message = (
            f"there are {groups:,} combinations of values, more than {MOST_GROUPS:,}: balance fewer fields"
        )
        wrong.append((("balance",), message, None))
    if not shares or wrong:
        return None, wrong
    target = recipe.target or 0
    return Balance(shares, recipe.round or max(16, min(256, target // 8)), target), []


def never_there(field: str, plan: Plan, rows: Iterable[SeedRow] | None) -> tuple[str, str | None] | None:
    """Why no task can have a value of a field such as `row.topic`, with a hint; None where one has it.

    `rows` are all that the seed can give, where they are known; else the first tasks speak for the others.
    """
    name, dot, inner = field.partition(".")
    first = [task.values for task in islice(plan.tasks(), TRIED) if name in task.values]
    if not dot or not first or any(value_of(values, field) for values in first):
        return None
    example = first[0][name]
    listed = isinstance(example, list)  # rows drawn together, with `n:`
    if not listed and rows is not None and any(value_of({name: row.value}, field) for row in rows):
        return None
    if not isinstance(example, Mapping):
        what = "list" if listed else "single value"
        return f"`{name}` gives a {what}, which has no field {inner!r}", None
    return f"no row of `{name}` has a field {inner!r}", did_you_mean(inner, map(str, example))


class Schedule(Rounds):
    """A plan's tasks in an order that balances what is kept, numbered anew from 0.

    The values of several fields are balanced together: a combination is wished as often as the product of its
    shares says.
    """

    def __init__(self, plan: Plan, balance: Balance) -> None:
        """Raises RunError where no task has a wished value."""
        super().__init__()
        self._balance = balance
        self._fields = list(balance.shares)
        self._wished: dict[Group, float] = {
            group: prod(balance.shares[name][value] for name, value in zip(self._fields, group, strict=True))
            for group in product(*balance.shares.values())
        }
        self._base = plan.tasks()
        self._dry = False
        self._waiting: dict[Group, deque[Task]] = {group: deque() for group in self._wished}
        self._tried: Counter[Group] = Counter()
        self._kept: Counter[Group] = Counter()
        self.go_on()

    def tell(self, fate: Fate) -> None:
        """What became of a branch of a task of this round."""
        self._kept[self._group(self._task(fate.task))] += fate.kept

    def summary(self) -> dict[str, Any]:
        """Under `balance`, what `reached` gives."""
        return {"balance": self.reached()}

    def reached(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Of each value of each field: the share wished, how many rows were kept, and what share that is."""
        kept = sum(self._kept.values())
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for place, (name, shares) in enumerate(self._balance.shares.items()):
            rows = Counter[str]()
            for group, count in self._kept.items():
                rows[group[place]] += count
            found[name] = {
                value: {
                    "wished": round(share, 4),
                    "kept": rows[value],
                    "share": round(rows[value] / kept, 4) if kept else None,
                }
                for value, share in shares.items()
            }
        return found

    def _group(self, task: Task) -> Group:
        return tuple(value_of(task.values, name) for name in self._fields)

    def _fill(self, first: int) -> list[Task]:
        quotas = self._quotas()
        looked = 0
        while any(len(self._waiting[group]) < quota for group, quota in quotas.items()):
            task = None if self._dry or looked == LOOKED_THROUGH else next(self._base, None)
            if task is None:
                self._dry = self._dry or looked < LOOKED_THROUGH
                break
            looked += 1
            waiting = self._waiting.get(self._group(task))
            if waiting is not None and len(waiting) < WAITING:
                waiting.append(task)
        chosen = {group: min(quota, len(self._waiting[group])) for group, quota in quotas.items()}
        missing = sum(quotas.values()) - sum(chosen.values())
        for group in sorted(
            self._wished, key=lambda group: -quotas[group]
        ):  # others in place of what is not there
            more = min(missing, len(self._waiting[group]) - chosen[group])
            chosen[group] += more
            missing -= more
        # Each group spread evenly over the round, so that a target reached amid it cuts off no group's part.
        places = sorted(
            ((number + 0.5) / count, order, group)
            for order, (group, count) in enumerate(chosen.items())
            for number in range(count)
        )
        tasks = [
            replace(self._waiting[group].popleft(), index=first + number)
            for number, (_, _, group) in enumerate(places)
        ]
        self._tried.update(chosen)
        if not tasks and not first:
            fields = " and ".join(f"`{name}`" for name in self._fields)
            raise RunError(
                f"none of the first {looked:,} tasks has a value of {fields} that `balance:` names",
                hint="compare the values there with those in the seeds: they are compared as text",
            )
        return tasks

    def _quotas(self) -> dict[Group, int]:
        """How many tasks of each group would bring the kept rows to the wished shares by the round's end."""
        kept, tried = sum(self._kept.values()), sum(self._tried.values())
        usual = (kept + FIRST_FEW) / (tried + FIRST_FEW)
        size = min(self._balance.round, max(1, ceil((self._balance.target - kept) / usual)))
        goal = kept + size * usual
        needs = {
            group: max(0.0, share * goal - self._kept[group])
            / ((self._kept[group] + FIRST_FEW * usual) / (self._tried[group] + FIRST_FEW))
            for group, share in self._wished.items()
        }
        whole = sum(needs.values())
        exact = {group: need / whole * size for group, need in needs.items()}
        quotas = {group: int(number) for group, number in exact.items()}
        left = size - sum(quotas.values())
        for group in sorted(exact, key=lambda group: quotas[group] - exact[group])[
            :left
        ]:  # largest remainder
            quotas[group] += 1
        return quotas
