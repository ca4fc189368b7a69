"""Measurements taken again, from the contents that the journal has.

No code of a project or of another package is run: of the filters that ship, those whose code today is the
recorded one, and which need nothing but the record.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from synthgen.chain import ChainFilter, Measuring
from synthgen.errors import RunError
from synthgen.filter_files import check_params
from synthgen.measure import FilterDefinition, Measurement, RunMeasure, as_measurement, code_sha256
from synthgen.project import shipped
from synthgen.record import Record

NAME = re.compile(r"[a-z][a-z0-9_]*")
LOADS_A_MODEL = ("model", "names", "tokenizer")


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A value taken again, and whether it is the recorded one; or why it was not taken."""

    value: float | None = None
    agrees: bool | None = None
    why: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"value": self.value, "agrees": self.agrees, "why": self.why}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a record held, as JSON: before and after anything was redacted, the same where nothing was."""

    id: str
    before: bytes
    after: bytes


def recompute(
    chain: Mapping[str, Mapping[str, Any]],
    measurements: Mapping[str, Mapping[str, Any]],
    contents: Contents,
    other: Callable[[str], bytes | None],
) -> dict[str, Recomputed]:
    """Each measurement of a record again, by the filter's name; `other` gives another record's contents."""
    found: dict[str, Recomputed] = {}
    begun: bytes | None = contents.before
    for name, link in chain.items():
        if link.get("action") == "redact":  # these come first, one after the other
            said = measurements.get(name)
            made = _made(name, link) if begun is not None else "what was redacted before it is not known"
            if isinstance(made, str):
                found[name], begun = Recomputed(why=made), None
                continue
            measured, begun = _measured(made, contents.id, cast(bytes, begun))
            if said is not None:
                found[name] = _compared(measured, said)
    if begun is not None and begun != contents.after:
        found = {name: Recomputed(each.value, False, "it redacts otherwise") for name, each in found.items()}
    for name, said in measurements.items():
        link = chain.get(name, {})
        if link.get("action") == "redact" and name in found:
            continue
        made = _made(name, link)
        if isinstance(made, str):
            found[name] = Recomputed(why=made)
        elif made.runs:
            found[name] = _of_pair(made, said, contents, other)
        else:
            found[name] = _compared(_measured(made, contents.id, contents.after)[0], said)
    return found


def _made(name: str, link: Mapping[str, Any]) -> ChainFilter | str:
    """The filter as it was used, or why it cannot be used here."""
    filter, params = str(link.get("filter") or name), link.get("params") or {}
    if (why := _not_ours(filter, link) or _needs_more(filter, link)) is not None:
        return why
    definition = vars(importlib.import_module(f"synthgen.filters.{filter}"))[filter]
    assert isinstance(definition, FilterDefinition)
    if problems := check_params(definition, params):
        return f"its parameters are not ones that it takes: {problems[0][1]}"
    used = {key: link.get(key) for key in ("of", "min", "max", "action")}
    return ChainFilter(name, "shipped", definition, params, **cast(Any, used))


def _not_ours(filter: str, link: Mapping[str, Any]) -> str | None:
    origin, file = link.get("origin"), shipped("filters") / f"{filter}.py"
    if origin is None:
        return "nothing is recorded of the filter"
    if origin != "shipped":
        return "your own filter" if origin == "project" else f"a filter of the package {str(origin)[:80]}"
    if not NAME.fullmatch(filter) or not file.is_file():
        return "no filter of that name ships today"
    return None if code_sha256(file) == link.get("code_sha256") else "the code of the filter is another today"


def _needs_more(filter: str, link: Mapping[str, Any]) -> str | None:
    params = link.get("params") or {}
    if link.get("files"):
        return "it reads other files"
    if "model" in link:
        return "it asks a model"
    loads = filter == "ifd" or any(params.get(each) for each in LOADS_A_MODEL)
    return "it loads a model" if loads else None


def _measured(link: ChainFilter, id: str, body: bytes) -> tuple[Measurement | str, bytes]:
    """What it measures, or its error; and the contents that it leaves."""
    try:
        measured = Measuring([link]).measure([id], [orjson.loads(body)], [()])
    except RunError as error:
        return error.message, body
    return measured.results[0][link.name], measured.redacted.get(0, body)


def _compared(measured: Measurement | str, said: Mapping[str, Any]) -> Recomputed:
    if isinstance(measured, str):
        return Recomputed(why=measured)
    return Recomputed(measured.value, measured.value == said.get("value"))


def _of_pair(
    link: ChainFilter, said: Mapping[str, Any], contents: Contents, other: Callable[[str], bytes | None]
) -> Recomputed:
    """The similarity to the record that it was found to be like."""
    detail = said.get("detail") or {}
    if link.definition.name == "semantic_duplicate":
        return Recomputed(why="it loads a model")
    of = detail.get("of")
    if link.definition.name != "duplicate" or not isinstance(of, str) or "in" in detail:
        return Recomputed(why="it was compared with all that were kept before it")
    body = other(of)
    if body is None:
        return Recomputed(why=f"the record {of[:80]} is not here")
    try:
        compare = cast(RunMeasure, link.make())
        mine, its = (
            Record(id, each["fields"], each["row"]).pick(link.of)
            for id, each in ((contents.id, orjson.loads(contents.after)), (of, orjson.loads(body)))
        )
    except (RunError, KeyError) as error:
        return Recomputed(why=str(error))
    feature, kept = compare.features([mine, its])
    compare.keep(of, kept)
    return _compared(as_measurement(compare.resolve(contents.id, feature)), said)
