"""Growth: what a run keeps becomes rows of its own seeds, for later rounds.

After Self-Instruct (Wang et al. 2023, arXiv:2212.10560), whose pool of examples grows by what was kept, and
Evol-Instruct (Xu et al. 2023, arXiv:2304.12244), whose every round goes through what the one before it made.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import orjson

from synthgen.digests import value_digest
from synthgen.plan import Place, Plan, Task
from synthgen.prompt import Expression, PromptFailed
from synthgen.recipe import Recipe
from synthgen.rounds import Fate, Rounds
from synthgen.samplers import Sampler, Several
from synthgen.seed_kinds import FileSeed
from synthgen.seeds import Drawn, SeedRow

USUAL_ROUND = 256  # tasks
REASONS = 3  # why records added nothing, as many as are told


@dataclass(frozen=True)
class Added:
    """What a kept record adds to one seed."""

    row: Expression
    depth: int | None
    most: int | None


@dataclass(frozen=True)
class Grown:
    """The seeds that grow, the tasks of a round, and how often seeds are gone through again; None: no end."""

    seeds: Mapping[str, Added]
    round: int
    passes: int | None


Wrong = tuple[tuple[str, ...], str, str | None]  # where, message, hint


def grown_of(recipe: Recipe, plan: Plan) -> tuple[Grown | None, list[Wrong]]:
    """How a recipe's seeds grow, if they do, and what is wrong with it."""
    wrong: list[Wrong] = []
    for name, said in recipe.grow.items():
        at = ("grow", name)
        pool = plan.choices.get(name)
        if name in plan.rows:
            if len(plan.rows) > 1:
                message = f"`{name}` is gone through together with other seeds"
                hint = "draw the others for each task: `sample: true`, `n:` or `choice:`"
                wrong.append((at, message, hint))
            elif said.depth is None and recipe.target is None and recipe.tasks is None:
                hint = "give `depth:`, `tasks:` or `target:`"
                wrong.append((at, "nothing says when growth ends", hint))
        elif name not in recipe.seeds:
            wrong.append((at, f"`{name}` is no seed", None))
        elif pool is not None and not isinstance(recipe.seeds[name], FileSeed):
            message = f"`{name}` has no rows to add to: it is no file and no list"
            wrong.append((at, message, None))
        if said.most is not None and not isinstance(pool, Several):
            wrong.append((("grow", name, "most"), "`most:` is for a seed with `n:`", None))
        elif said.most is not None and isinstance(pool, Several) and said.most > pool.count:
            message = f"a task draws {pool.count} rows, and `most:` allows more of them to be added ones"
            wrong.append((("grow", name, "most"), message, None))
    if not recipe.grow or wrong:
        return None, wrong
    usual = USUAL_ROUND if recipe.target is None else max(16, min(USUAL_ROUND, recipe.target // 8))
    endless = recipe.target is not None or recipe.tasks is not None
    seeds = {name: Added(Expression(said.add), said.depth, said.most) for name, said in recipe.grow.items()}
    return Grown(seeds, recipe.round or usual, recipe.passes if endless else 1), []


class Growth(Rounds):
    """Tasks that go through, or draw from, what was kept in the rounds before theirs.

    Rows that a seed has from the beginning come first; then what was added is gone through in the order in
    which it was kept, each once. Takes memory for each row that is added and for each task that goes through
    such a seed.
    """

    def __init__(self, plan: Plan, grown: Grown) -> None:
        super().__init__()
        self._grown = grown
        self._plan = replace(plan, choices={name: self._pool(name, of) for name, of in plan.choices.items()})
        self._places = self._plan.places()
        self._through = next((name for name in grown.seeds if name in plan.rows), None)
        self._unspent: deque[SeedRow] = deque()
        self._rows: Iterator[SeedRow] = iter(())
        self._passed = 0
        self._seen: Counter[bytes] = Counter()
        self._first_row = {name: _first_row(plan, name) for name in grown.seeds}
        self._new: dict[str, list[SeedRow]] = {name: [] for name in grown.seeds}
        self._added: Counter[str] = Counter()
        self._kept: Counter[int] = Counter()
        self._refused: dict[str, Counter[str]] = {name: Counter() for name in grown.seeds}
        self.go_on()

    def tell(self, fate: Fate) -> None:
        """What became of a branch of a task of this round."""
        if not fate.kept or fate.body is None:
            return
        generation = 1 + _generation(self._task(fate.task))
        self._kept[generation] += 1
        fields: Mapping[str, Any] | None = None
        for name, added in self._grown.seeds.items():
            if added.depth is not None and generation >= added.depth:
                continue
            fields = fields or orjson.loads(fate.body)["fields"]
            try:
                row = grown_row(added.row, fields, fate.id, generation)
                if row is not None:
                    _check_form(row.value, self._first_row[name])
            except PromptFailed as failure:
                reasons = self._refused[name]
                reasons[str(failure) if len(reasons) < REASONS else "other reasons"] += 1
                continue
            if row is not None:
                self._new[name].append(row)
                self._added[name] += 1

    def summary(self) -> dict[str, Any]:
        """Under `growth`: how many records each generation kept, and of each seed how many rows it gained."""
        seeds = {
            name: {"added": self._added[name], "refused": dict(self._refused[name])}
            for name in self._grown.seeds
        }
        generations = {str(generation): self._kept[generation] for generation in sorted(self._kept)}
        return {"growth": {"kept_by_generation": generations, "seeds": seeds}}

    def _fill(self, first: int) -> list[Task]:
        self._join()
        limit = self._plan.limit
        size = self._grown.round if limit is None else min(self._grown.round, limit - first)
        places: Iterator[Place] = islice(self._places, size)
        if self._through is not None:
            places = self._numbered(first, islice(self._next_rows(), size))
        return [self._plan.task(*place) for place in places]

    def _join(self) -> None:
        """What was kept becomes rows."""
        choices = dict(self._plan.choices)
        for name, rows in self._new.items():
            if name == self._through:
                self._unspent.extend(rows)
            elif rows:
                choices[name] = _larger(choices[name], rows)
        self._plan = replace(self._plan, choices=choices)
        self._new = {name: [] for name in self._grown.seeds}

    def _pool(self, name: str, sampler: Sampler) -> Sampler:
        if name in self._grown.seeds and isinstance(sampler, Several):
            return replace(sampler, most=self._grown.seeds[name].most)
        return sampler

    def _next_rows(self) -> Iterator[SeedRow]:
        """The rows of one round; those from the beginning come again only where there is no other."""
        some = False
        while True:
            if (row := next(self._rows, None)) is None and self._unspent:
                row = self._unspent.popleft()
            if row is not None:
                some = True
                yield row
                continue
            if some or self._passed == self._grown.passes:
                return
            assert self._through is not None
            self._rows = iter(self._plan.rows[self._through])
            self._passed += 1

    def _numbered(self, first: int, rows: Iterator[SeedRow]) -> Iterator[Place]:
        for number, row in enumerate(rows, first):
            yield number, [row], self._seen[row.digest]
            self._seen[row.digest] += 1


def grown_row(row: Expression, fields: Mapping[str, Any], id: str, generation: int) -> SeedRow | None:
    """What a record with these fields adds, if it does. Raises PromptFailed."""
    value = row.value(fields)
    if value is None:
        return None
    try:
        digest = value_digest(value)
    except ValueError as error:
        raise PromptFailed(f"cannot be written as canonical JSON: {error}") from None
    return SeedRow(value, digest, {"record": id, "generation": generation, "sha256": digest.hex()})


def _first_row(plan: Plan, name: str) -> Any:
    if name in plan.rows:
        return next(iter(plan.rows[name])).value
    pool = plan.choices[name]
    rows = pool.pool if isinstance(pool, Several) else pool.rows if isinstance(pool, Drawn) else ()
    return rows[0].value


def _check_form(value: Any, row: Any) -> None:
    """Raises PromptFailed where a value cannot stand for the seed's rows, of which this is one."""
    if not isinstance(row, dict):
        return
    names = ", ".join(f"`{name}`" for name in list(row)[:5])
    if not isinstance(value, dict):
        raise PromptFailed(f"it is no mapping, as the seed's rows are ({names})")
    if row and value.keys().isdisjoint(row):
        raise PromptFailed(f"it has none of the fields of the seed's rows ({names})")


def _generation(task: Task) -> int:
    """How many records stand between a task and the rows that were there from the beginning."""
    return max((source.get("generation", 0) for source in task.sources), default=0)


def _larger(sampler: Sampler | Drawn, rows: Sequence[SeedRow]) -> Sampler | Drawn:
    if isinstance(sampler, Several):
        return Several([*sampler.pool, *rows], sampler.count, sampler.most)
    assert isinstance(sampler, Drawn)
    return Drawn([*sampler.rows, *rows])
