"""`audit erase`: contents of records go from the journal and every version; what was proved stays proved.

The ledger keeps each record's line, which commits to a salted statement: without the salt, which goes with
the contents, nothing about them can be guessed from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synthgen.audit.findings import CannotJudge
from synthgen.audit.place import LOCK, place_of, reading
from synthgen.audit.republish import own_lock, published
from synthgen.environment import environment
from synthgen.errors import UsageError
from synthgen.export.dataset import checked_leaf, write_version
from synthgen.export.durable import recover
from synthgen.journal import VERSIONS, Journal, open_journal
from synthgen.journal_reading import open_for_reading
from synthgen.provenance.manifest import MANIFEST
from synthgen.provenance.statement import ledger_entry, statement
from synthgen.why import why

SHORTEST = 8  # characters of an id: erasing is for good


@dataclass(frozen=True)
class Erased:
    """Which records were erased, what went with them, and the folders whose files were written anew.

    `unsigned` are folders whose manifest was signed before, and is not now, since there is no key here.
    """

    ids: Sequence[str]
    contents: int
    answers: int
    rewritten: Sequence[Path]
    unsigned: Sequence[Path]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ids": list(self.ids),
            "contents": self.contents,
            "answers": self.answers,
            "rewritten": [str(path) for path in self.rewritten],
            "unsigned": [str(path) for path in self.unsigned],
        }


def erase(
    directory: Path, ids: Sequence[str], confirm: Callable[[Sequence[str]], bool] | None = None
) -> Erased:
    """Erase records, named by their ids or beginnings of 8 characters and more, from a finished run.

    Where it was ended before its files were written, the same call goes on. `confirm` is asked before
    anything changes. Raises UsageError for a record that is not there, or a run that is not finished, and
    RunError where the journal is not what was judged.
    """
    with reading(directory):
        return _erase(directory, ids, confirm)


def _erase(directory: Path, ids: Sequence[str], confirm: Callable[[Sequence[str]], bool] | None) -> Erased:
    place = place_of(directory)
    if place.run != directory or place.dataset is None or not place.finished:
        raise CannotJudge(f"{directory} holds no finished run")
    lock = place.lock()
    whole = _whole(directory, ids)
    journal = open_journal(directory, str(lock["recipe"]["name"]))
    outcome, reason = "failed", None
    try:
        if journal.has_unfinished("run"):
            raise UsageError("a later run is not finished", hint="finish it with `synthgen run`, then erase")
        folders = [*_folders(journal, directory)]
        about = [(folder, version, *_made(journal, folder, version)) for folder, version in folders]
        if confirm is not None and not confirm(whole):
            raise UsageError("nothing was erased")
        for _, version in folders:
            for entry, body in journal.records(version):
                checked_leaf(entry, ledger_entry(entry, statement(entry, body)), journal.path)
        recover(directory)
        journal.begin_session("erase", environment())
        try:
            gone = journal.erase(_digests(journal, whole))
            unsigned = []
            for folder, version, written, locked, summary in about:
                signed = _signed(folder)
                write_version(folder, written, journal, version, locked, summary)
                if signed and written.signer is None:
                    unsigned.append(folder)
            outcome = "done"
        except BaseException as error:
            reason = why(error, directory)
            raise
        finally:
            journal.end_session(outcome, reason=reason)
    finally:
        journal.close()
    return Erased(whole, gone["contents"], gone["answers"], [folder for folder, _ in folders], unsigned)


def _whole(directory: Path, ids: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    with reading(directory), closing(open_for_reading(directory)) as journal:
        for id in ids:
            query = "SELECT DISTINCT id FROM records WHERE id >= ? AND id < ? LIMIT 2"
            rows = journal.execute(query, (id, id + "g")).fetchall() if len(id) >= SHORTEST else []
            if len(rows) != 1:
                what = "more than one record begins" if rows else "no record begins"
                raise UsageError(f"{what} with {id!r} in {directory}", hint="nothing was erased")
            found[rows[0][0]] = None
    return list(found)


def _digests(journal: Journal, ids: Sequence[str]) -> dict[tuple[int, int, str], bytes]:
    """What the ledger has of each, in every version. Those that are erased already have it in the journal."""
    found = {}
    for id in ids:
        for place in journal.places_of(id):
            entry, body = journal.stored(*place)
            found[place] = entry.erased or hashlib.sha256(statement(entry, body)).digest()
    return found


def _folders(journal: Journal, directory: Path) -> list[tuple[Path, int]]:
    """Every folder that holds a version's files."""
    made = journal.finished_versions()
    last = max(version for version, command in made if command == "run")
    curated = [
        (directory / VERSIONS / str(version), version) for version, command in made if command != "run"
    ]
    return [(directory, last), *(each for each in curated if (each[0] / MANIFEST).is_file())]


def _made(journal: Journal, folder: Path, version: int) -> tuple[Any, bytes, dict[str, Any]]:
    place = place_of(folder)
    assert place.dataset is not None
    summary, chain = journal.version_said(version)
    about = published(own_lock(journal, place, version), chain)
    return about, (place.dataset / "provenance" / LOCK).read_bytes(), summary


def _signed(folder: Path) -> bool:
    try:
        return bool(orjson.loads((folder / "dataset" / MANIFEST).read_bytes())["signatures"])
    except (OSError, ValueError, LookupError, TypeError):
        return False
