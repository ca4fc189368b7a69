"""Where what an audit reads is: a run's journal, a version's files, a dataset alone."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.audit.findings import CannotJudge
from synthgen.audit.lines import Broken, lines, parsed
from synthgen.errors import RecipeError, UsageError
from synthgen.journal import VERSIONS
from synthgen.journal_reading import open_for_reading
from synthgen.provenance.manifest import LEDGER, MANIFEST

LOCK = "recipe.lock.yaml"
NUMBER = re.compile(r"[1-9][0-9]{0,8}")  # of a version, as the name of its folder


@dataclass(frozen=True, slots=True)
class Place:
    """One version of a dataset: its journal and number, and the dataset's folder, as far as they are there.

    `finished` says whether it is judged to its end.
    """

    directory: Path
    run: Path | None
    version: int | None
    dataset: Path | None
    finished: bool

    def lock(self) -> Mapping[str, Any]:
        """What took effect; empty where that is not there. Raises CannotJudge where it is something else."""
        if self.dataset is None:
            return {}
        path = self.dataset / "provenance" / LOCK
        return read_lock(path) if path.is_file() else {}


def read_lock(path: Path) -> Mapping[str, Any]:
    """What took effect, as a file has it, to be read and not changed. Raises CannotJudge."""
    from synthgen.yamlfile import LOCK_BYTES, read_plain

    try:
        said = read_plain(path, LOCK_BYTES)
    except RecipeError as error:
        raise CannotJudge(str(error)) from None
    if not isinstance(said, dict):
        raise CannotJudge(f"{path} is no recipe's lock")
    return said


def journal_of(directory: Path) -> tuple[Path | None, int | None]:
    """The folder whose journal made this, and the version, None for the one that `run` made last."""
    above, name = directory.resolve().parent, directory.resolve().name
    if above.name == VERSIONS and NUMBER.fullmatch(name) and (above.parent / "run.sqlite").is_file():
        return above.parent, int(name)  # whatever lies in it: a version has no journal of its own
    if (directory / "run.sqlite").is_file():
        return directory, None
    return None, None


def place_of(directory: Path, version: int | None = None) -> Place:
    """What a directory holds: a run, a version that `curate` made, or a dataset alone.

    Of a run it is what it finished last, or else what it is making. Raises CannotJudge where there is
    neither, UsageError where there is no such version.
    """
    with reading(directory):
        run, own = journal_of(directory)
        if run is None:
            if version is not None:
                raise UsageError(f"{directory} has no versions: it holds no journal")
            for folder in (directory / "dataset", directory):
                if (folder / MANIFEST).is_file() and (folder / "provenance").is_dir():
                    return Place(directory, None, None, folder, True)
            raise CannotJudge(f"{directory} holds no run and no dataset of synthgen")
        with closing(open_for_reading(run)) as journal:
            made = journal.execute(
                "SELECT version, command, finished IS NOT NULL FROM versions ORDER BY version"
            ).fetchall()
        of_run = {number: done for number, command, done in made if command == "run"}
        last = max((number for number, done in of_run.items() if done), default=max(of_run, default=None))
        wanted = version if version is not None else own if own is not None else last
        if wanted is None:
            raise CannotJudge(f"{run} has judged nothing yet")
        if wanted not in [number for number, _, _ in made]:
            listed = ", ".join(str(number) for number, _, _ in made)
            raise UsageError(f"{run} has no version {wanted}", hint=f"there are: {listed}")
        folder = (run if wanted == last else run / VERSIONS / str(wanted)) / "dataset"
        there = folder if (folder / MANIFEST).is_file() else None
        finished = any(done for number, _, done in made if number == wanted)
        return Place(directory, run, wanted, there, finished)


@contextmanager
def reading(what: Path) -> Iterator[None]:
    """Files of a hostile person are read in here: whatever they hold, CannotJudge says what is wrong."""
    try:
        yield
    except BrokenPipeError:  # whoever reads the results has seen enough
        raise
    except sqlite3.Error as error:
        raise CannotJudge(f"{what}: the journal is damaged: {error}") from None
    except Broken as broken:
        raise CannotJudge(f"{what}: line {broken.number} {broken}") from None
    except OSError as error:
        raise CannotJudge(f"{error.filename or what} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError) as error:
        raise CannotJudge(f"{what} holds what synthgen did not write: {error}") from None


def entries(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """The lines of a file of mappings, numbered from 1. Raises CannotJudge, naming the file and the line."""
    with reading(path):
        for number, line in enumerate(lines(path), 1):
            yield number, line, parsed(line, number)


def splits(dataset: Path) -> list[Path]:
    """The files that state what each row of a dataset is, a split each."""
    return [
        path for path in sorted((dataset / "provenance").glob("*.jsonl")) if path.name != Path(LEDGER).name
    ]
