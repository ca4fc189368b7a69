"""Writing a version's files from the journal alone: no filter of the recipe is loaded for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import LOCK, Place
from synthgen.export.card import Published
from synthgen.journal import Journal
from synthgen.provenance.keys import signing_key
from synthgen.provenance.lock import locked_as
from synthgen.recipe import Recipe


def own_lock(journal: Journal, place: Place, version: int) -> Mapping[str, Any]:
    """The lock of a version, which the journal has the digest of. Raises CannotJudge where it is another."""
    lock = place.lock()
    bases = (each for each, _ in journal.finished_versions() if each < version)
    if not locked_as(journal.fingerprint(version), lock, bases):
        raise CannotJudge(
            f"{place.dataset}/provenance/{LOCK} is not the one that the journal has the digest of; "
            "`synthgen audit verify` says more"
        )
    return lock


@dataclass(frozen=True, slots=True)
class Link:
    """A filter as the journal describes it."""

    name: str
    of: str
    min: float | None
    max: float | None
    action: str
    asks: bool
    model: str


def published(lock: Mapping[str, Any], chain: Sequence[Mapping[str, Any]]) -> Published:
    """What a dataset's files are made from, as a lock and a version's chain have it. Raises CannotJudge."""
    try:
        recipe = Recipe.model_validate(lock["recipe"])
        links = [_link(each) for each in chain]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CannotJudge(f"recipe.lock.yaml is not what synthgen wrote: {error}"[:300]) from None
    return Published(recipe, links, recipe.record.columns, lock, signing_key(os.environ))


def _link(said: Mapping[str, Any]) -> Link:
    model = said.get("model")
    name = "" if model in (None, "default") else str(model)
    return Link(said["name"], said["of"], said["min"], said["max"], said["action"], model is not None, name)
