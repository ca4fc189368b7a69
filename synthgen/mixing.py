"""Several finished datasets made one: a project whose recipe takes their rows by weight, each but once.

What stands is an ordinary project: its data, each row with the provenance that it had, and its recipe. So the
mix is run, audited, curated and changed like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from synthgen.errors import RecipeError, UsageError
from synthgen.export.durable import create, remove
from synthgen.project import Project
from synthgen.provenance.manifest import MANIFEST, statement_in
from synthgen.recipe_parts import NAME
from synthgen.recipe_record import TOOLS, RecordShape
from synthgen.seed_kinds import FileSeed
from synthgen.seeds import FileRows
from synthgen.yamlfile import LOCK_BYTES, read_yaml

DATA = "data/rows.jsonl"
CALLING = "tool messages"
TYPES = {CALLING: "messages"}  # of columns, in a recipe


@dataclass(frozen=True)
class Given:
    """A finished dataset: its folder, what its rows hold, its licences, and its ledger's root.

    `licensed` is whether a licence is stated of each file that it was made from, and of one at least.
    """

    name: str
    folder: Path
    kinds: Mapping[str, str]
    splits: Sequence[str]
    licences: Sequence[str]
    licensed: bool
    root: str

    @property
    def _files(self) -> Iterator[tuple[str, list[Path]]]:
        """Each split with its files: of JSON where there are any, as Parquet keeps some of it as text."""
        for split in self.splits:
            lines = self.folder / f"{split}.jsonl"
            shards = sorted((self.folder / "data").glob(f"{split}-*.parquet"))
            yield split, [lines] if lines.is_file() else shards

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each row with what was stated of it. Raises UsageError where they do not belong together."""
        for split, files in self._files:
            stated = self.folder / "provenance" / f"{split}.jsonl"
            with stated.open("rb") as lines:
                for row in FileRows(FileSeed(path="."), files, Project(self.folder)):
                    value, said = row.value, orjson.loads(next(lines, b"{}"))
                    if said.get("id") != value.get("id"):
                        hint = f"synthgen audit verify {self.folder}"
                        raise UsageError(f"{stated} and the rows of {split} differ", hint=hint)
                    if files[0].suffix == ".parquet":
                        value |= {
                            name: orjson.loads(value[name])
                            for name, kind in self.kinds.items()
                            if kind == "json" and value[name] is not None
                        }
                    yield value, said


def named(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """A name for each: its folder's, with a number where two have the same."""
    found: list[tuple[Path, str]] = []
    for path in paths:
        full = path.resolve()
        full = full.parent if full.name == "dataset" else full
        name = full.name
        if full.parent.name == "versions":
            name = f"{full.parent.parent.name}-v{full.name}"
        taken = {other for _, other in found}
        while name in taken:
            base, _, number = name.rpartition("-")
            name = f"{base}-{int(number) + 1}" if base and number.isdecimal() else f"{name}-2"
        found.append((path, name))
    return found


def given(path: Path, name: str) -> Given:
    """A run directory, a version's or a dataset's own. Raises UsageError for anything else."""
    folder = next((place for place in (path / "dataset", path) if (place / MANIFEST).is_file()), None)
    lock = None if folder is None else folder / "provenance" / "recipe.lock.yaml"
    if folder is None or lock is None or not lock.is_file():
        runs = sorted(each.parent.parent for each in path.glob(f"runs/*/dataset/{MANIFEST}"))
        hint = "give a run's directory, or its dataset/"
        if runs:
            hint = f"it is a project; did you mean {' or '.join(map(str, runs[:3]))}?"
        raise UsageError(f"{path} holds no finished dataset", hint=hint)
    try:
        said = read_yaml(lock, LOCK_BYTES).data
        record = RecordShape.model_validate(said["recipe"]["record"])
        split = said["recipe"].get("output", {}).get("split", {"train": 1.0})
        root = statement_in((folder / MANIFEST).read_bytes())["predicate"]["ledger"]["root"]
        licences = list(said.get("licences", []))
        files = [seed for seed in said["recipe"].get("seeds", {}).values() if "path" in seed]
        licensed = bool(licences) and all("licence" in seed for seed in files)
        return Given(name, folder, record.kinds, list(split), licences, licensed, root)
    except (RecipeError, ValidationError, LookupError, TypeError, ValueError, OSError) as error:
        raise UsageError(f"{lock} is not what synthgen wrote: {error}") from None


def notices(datasets: Sequence[Given]) -> list[str]:
    """What is told of a mix: what of the datasets is not in it as it was."""
    said = []
    shared = _shared_kinds(datasets)
    for each in datasets:
        if left := [f"`{column}`" for column in each.kinds if column not in (*shared, "dataset")]:
            are = "is" if len(left) == 1 else "are"
            said.append(f"{', '.join(left)} of {each.name} {are} left behind: not all have it")
    if any(len(each.splits) > 1 for each in datasets):
        said.append("their splits are one in the mix: `output: {split: ...}` in its recipe makes new ones")
    if unknown := [each.name for each in datasets if not each.licensed]:
        said.append(f"the licence of the mix is unknown, as that of {', '.join(unknown)} is")
    return said


def make_project(
    directory: Path,
    datasets: Sequence[Given],
    weights: Mapping[str, float],
    rows: int | None,
    duplicate: float | None,
) -> Path:
    """Write the project of a mix into a new or empty folder; gives its recipe's path.

    Raises UsageError where the datasets do not go together, or the folder is in use.
    """
    kinds = _shared_kinds(datasets)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory} is there already and not empty", hint="give the name of a new folder")
    sizes = _write_rows(directory / DATA, datasets, kinds)
    name = directory.resolve().name
    recipe: dict[str, Any] = {
        "version": 1,
        "name": name if NAME.match(name) and name not in (".", "..") else "mix",
        "description": f"The rows of {', '.join(each.name for each in datasets)}, each once.",
        "seeds": {"row": {"path": DATA, "origin": "origin", **_licence(datasets)}},
        "record": _record(kinds),
        "filters": [{"duplicate": {"max": duplicate}}] if duplicate is not None else [],
        **_aim(sizes, weights, rows),
    }
    path = directory / "recipes" / "mix.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(_yaml(recipe))
    return path


def _licence(datasets: Sequence[Given]) -> dict[str, str]:
    """One that is unknown makes the whole unknown; a mix's own licence is of several."""
    stated = {part for each in datasets for licence in each.licences for part in licence.split(" AND ")}
    known = all(each.licensed for each in datasets)
    return {"licence": " AND ".join(sorted(stated))} if known else {}


def _record(kinds: Mapping[str, str]) -> dict[str, Any]:
    """The shared columns as they are, and the name of the dataset.

    That comes first where there are no messages, lest it be taken for the answer: the last text of a row.
    """
    dataset = {"dataset": "{{ row.dataset }}"}
    values = {
        column: {"value": f"row[{column!r}]", "type": TYPES.get(kind, kind)}
        for column, kind in kinds.items()
        if column != "messages"
    }
    return {"from": "row", **values, **dataset} if "messages" in kinds else {**dataset, **values}


def _aim(sizes: Mapping[str, int], weights: Mapping[str, float], rows: int | None) -> dict[str, Any]:
    """How many rows, and by which shares: as many as weights allow, else by size; nothing for all of them."""
    if rows is None and not weights:
        return {}
    shares = {name: weights.get(name, 1.0) if weights else size for name, size in sizes.items()}
    if rows is None:
        whole = sum(shares.values())
        rows = int(min(sizes[name] * whole / share for name, share in shares.items()))
    return {
        "target": rows,
        "passes": 1,
        "budget": {"attempts": sum(sizes.values())},
        "balance": {"row.dataset": {name: share for name, share in shares.items() if share}},
    }


def _shared_kinds(datasets: Sequence[Given]) -> dict[str, str]:
    """The columns that all have, and `tools`, where messages of one may call them.

    Raises UsageError where one has another kind of it.
    """
    shared = {}
    for column in datasets[0].kinds:
        kind = _one_kind(column, [each for each in datasets if column in each.kinds])
        if column != "dataset" and all(column in other.kinds for other in datasets):
            shared[column] = kind
    if not shared:
        raise UsageError("the datasets have no column in common")
    if CALLING in shared.values():
        shared[TOOLS] = "tools"
    return shared


def _one_kind(column: str, having: Sequence[Given]) -> str:
    """The kind of a column; messages that may call tools hold those that do not. Raises UsageError."""
    kinds = {each.kinds[column] for each in having}
    if kinds == {CALLING, "messages"}:
        return CALLING
    if column == TOOLS and len(kinds) > 1:
        return "tools"
    first = having[0]
    other = next((each for each in having if each.kinds[column] != first.kinds[column]), None)
    if other is not None:
        raise UsageError(
            f"`{column}` is {first.kinds[column]} in {first.name} and {other.kinds[column]} in {other.name}",
            hint="curate one of them with a `record:` that names it otherwise",
        )
    return first.kinds[column]


def _write_rows(path: Path, datasets: Sequence[Given], kinds: Mapping[str, str]) -> dict[str, int]:
    """How many of each. Raises UsageError, leaving nothing, where there are none or they do not fit."""
    try:
        return _written(path, datasets, kinds)
    except UsageError:
        remove(path.parent)
        raise


def _written(path: Path, datasets: Sequence[Given], kinds: Mapping[str, str]) -> dict[str, int]:
    sizes = {}
    none = {TOOLS: None} if kinds.get(TOOLS) == "tools" else {}  # which not all datasets have
    with create(path) as file:
        for each in datasets:
            sizes[each.name] = 0
            for row, said in each.rows():
                sizes[each.name] += 1
                origin = {
                    "dataset": each.name,
                    "root": each.root,
                    "licences": list(each.licences),
                    "statement": said,
                }
                file.write(orjson.dumps({**none, **row, "dataset": each.name, "origin": origin}) + b"\n")
    if not any(sizes.values()):
        raise UsageError("the datasets have no rows")
    return sizes


def _yaml(recipe: Mapping[str, Any]) -> str:
    """JSON is YAML; a part a line, for people to change."""
    parts = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in recipe.items())
    return "# Made by `synthgen mix`.\n" + "\n".join(parts) + "\n"
