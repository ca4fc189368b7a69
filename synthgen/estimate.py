"""How long a recipe would take, by what earlier runs of the project measured on this machine."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synthgen.errors import RecipeError, UsageError
from synthgen.journal_reading import open_for_reading
from synthgen.recipe_models import ModelRef
from synthgen.yamlfile import read_yaml

RUNS = 50  # the latest that are looked at
ANSWERS = 2000  # the latest of a session that are looked at
FEWEST = 8  # answers that measure something


@dataclass(frozen=True)
class Rate:
    """What one session of a run measured of a model, with everything that it asked at the same time."""

    run: str
    answers: int
    output_tokens: int
    seconds: float

    @property
    def tokens_a_second(self) -> float:
        """Generated, reading prompts included."""
        return self.output_tokens / self.seconds

    @property
    def tokens_an_answer(self) -> float:
        """On average."""
        return self.output_tokens / self.answers


@dataclass(frozen=True)
class Asked:
    """What a recipe would ask of one model: so many requests, and the tokens of their answers at most."""

    model: ModelRef
    requests: int
    output_tokens: int


@dataclass(frozen=True)
class Time:
    """From `low` seconds, if answers are as long as they were, to `high`, if each is as long as it may be."""

    low: float
    high: float
    rates: Sequence[Rate]

    def as_json(self) -> dict[str, Any]:
        """For `--json`: `seconds`, and what was measured."""
        return {
            "seconds": [round(self.low, 1), round(self.high, 1)],
            "measured": [
                {
                    "run": rate.run,
                    "answers": rate.answers,
                    "output_tokens_per_second": round(rate.tokens_a_second, 1),
                    "output_tokens_per_answer": round(rate.tokens_an_answer, 1),
                }
                for rate in self.rates
            ],
        }


def time_of(asked: Sequence[Asked], runs: Path, recipe: str) -> Time | list[str]:
    """How long these requests would take; the models that no run in the folder `runs` measured.

    Runs of a recipe of this name count alone where there are any. The low end takes the fastest session and
    models that work at the same time, the high end the slowest and one model after the other.
    """
    low, high = 0.0, 0.0
    found: list[Rate] = []
    unknown = []
    for each in asked:
        rates = list(_rates(each.model, runs))
        rates = [rate for rate in rates if rate.run == recipe] or rates
        if not rates:
            unknown.append(each.model.id)
            continue
        low = max(low, min(_least(each, rate) for rate in rates))
        high += max(each.output_tokens / rate.tokens_a_second for rate in rates)
        found += rates
    return unknown or Time(low, max(low, high), found)


def _least(asked: Asked, rate: Rate) -> float:
    tokens = min(asked.requests * rate.tokens_an_answer, asked.output_tokens)
    return tokens / rate.tokens_a_second


def _rates(model: ModelRef, runs: Path) -> Iterator[Rate]:
    """What each session of each run measured of a model, the latest run first."""
    places = sorted(runs.glob("*/run.sqlite"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for place in places[:RUNS]:
        names = _identities(model, place.with_name("recipe.lock.yaml"))
        if not names:
            continue
        try:
            with closing(open_for_reading(place.parent)) as journal:
                for session, environment in journal.execute("SELECT session, environment FROM sessions"):
                    if _elsewhere(model, orjson.loads(environment)):
                        continue
                    if rate := _measured(journal, session, place.parent.name, names):
                        yield rate
        except (UsageError, sqlite3.DatabaseError, orjson.JSONDecodeError):
            continue  # what cannot be read measures nothing


def _identities(model: ModelRef, locked: Path) -> list[tuple[str, Any]]:
    """How a run's requests name this model: engine and model, as their bodies have them."""
    if not locked.is_file():
        return []
    own = (model.id, Path(model.id).name, Path(model.id).stem)
    found: list[tuple[str, Any]] = []
    try:
        for said in read_yaml(locked).data["models"].values():
            if said["id"] in own and model.engine in (None, said["engine"]):
                names = ("weights",) if said["weights"] else ("id", "revision")
                found.append((said["engine"], {name: said[name] for name in names}))
    except (RecipeError, LookupError, TypeError, AttributeError):
        return []
    return found


def _elsewhere(model: ModelRef, environment: Mapping[str, Any]) -> bool:
    """Whether a session's machine was another one, where the model runs on it and not on a server."""
    here = (platform.platform(), os.cpu_count())
    return model.engine != "openai" and (environment.get("platform"), environment.get("cpus")) != here


def _measured(
    journal: sqlite3.Connection, session: int, run: str, names: Sequence[tuple[str, Any]]
) -> Rate | None:
    rows = journal.execute(
        "SELECT r.body, r.issued, c.arrived, c.output_tokens FROM completions AS c "
        "JOIN requests AS r ON r.key = c.key WHERE c.session = ? AND r.session = ? AND c.source IS NULL "
        "ORDER BY c.rowid DESC LIMIT ?",
        (session, session, ANSWERS),
    )
    spans, tokens = [], 0
    for body, issued, arrived, output in rows:
        said = orjson.loads(body)
        if (said.get("engine"), said.get("model")) in names:
            spans.append((issued, arrived))
            tokens += output
    seconds = _together(spans)
    return Rate(run, len(spans), tokens, seconds) if len(spans) >= FEWEST and tokens and seconds > 0 else None


def _together(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in which at least one request was waited for."""
    seconds, until = 0.0, 0.0
    for start, end in sorted(spans):
        seconds += max(0.0, end - max(start, until))
        until = max(until, end)
    return seconds
